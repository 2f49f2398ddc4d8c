//! Which hosts a URL may name, by who named it: the application itself any, a document from outside none that is nearer to
//! this machine than where the document came from.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use oauth_dance_core::BoxError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::error::ConfigError;

/// Top-level names that lead into a private network, wherever they are resolved (RFC 6762, RFC 8375, ICANN's `.internal`).
const PRIVATE_NAMES: [&str; 3] = ["internal", "local", "home.arpa"];

/// How near to this machine an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Zone {
    /// Anywhere on the Internet.
    Internet,
    /// In a private network.
    Network,
    /// On this machine, or on its link, where clouds have their metadata services.
    Machine,
}

impl Zone {
    /// Where a URL leads, as far as its text says; `None` for a name that has to be resolved.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        match url.host()? {
            Host::Ipv4(address) => Some(Self::of_ipv4(address)),
            Host::Ipv6(address) => Some(Self::of_ipv6(address)),
            Host::Domain(name) => Self::of_name(name.trim_end_matches('.')),
        }
    }

    pub(crate) fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_ipv4(address),
            IpAddr::V6(address) => Self::of_ipv6(address),
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        let is_below = |top: &str| name == top || name.strip_suffix(top).is_some_and(|rest| rest.ends_with('.'));
        if is_below("localhost") {
            return Some(Self::Machine);
        }
        PRIVATE_NAMES.into_iter().any(is_below).then_some(Self::Network)
    }

    /// By the registry of special-purpose addresses (RFC 6890).
    fn of_ipv4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0 | 127, ..] | [169, 254, ..] => Self::Machine,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Network,
            [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..] => {
                Self::Network
            }
            _ => Self::Internet,
        }
    }

    fn of_ipv6(address: Ipv6Addr) -> Self {
        if let Some(inner) = embedded(address) {
            return Self::of_ipv4(inner);
        }
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] | [0xfe80..=0xfebf, ..] => Self::Machine,
            // What is global is in 2000::/3, but for the addresses of documentation.
            [0x2001, 0xdb8, ..] => Self::Network,
            [0x2000..=0x3fff, ..] => Self::Internet,
            _ => Self::Network,
        }
    }

    #[cfg(any(feature = "oidc", test))]
    /// The zone of the host that a URL names, resolved if need be. A name that leads to several is in the farthest of them,
    /// and so is one that cannot be resolved here.
    pub(crate) async fn resolve(url: &Url) -> Self {
        if let Some(zone) = Self::of(url) {
            return zone;
        }
        let Some(host) = url.host_str() else { return Self::Internet };
        let addresses = tokio::net::lookup_host((host, 0)).await.ok();
        addresses.into_iter().flatten().map(|address| Self::of_address(address.ip())).min().unwrap_or(Self::Internet)
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, by NAT64 (RFC 6052) or by 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// The hosts that an application lets be reached without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlainHttp(BTreeSet<String>);

impl PlainHttp {
    /// Checks that each is the name or the address of one host.
    pub(crate) fn new(hosts: impl IntoIterator<Item = String>) -> Result<Self, ConfigError> {
        let check = |host: String| host_of(&host).ok_or(ConfigError::PlainHttpHost { host });
        hosts.into_iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    fn allows(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| self.0.contains(host))
    }
}

/// A host as URLs have it, or `None` if it is none, or more than one.
fn host_of(text: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{text}/")).ok()?;
    let host = url.host_str()?;
    let is_name = |character: char| character.is_ascii_alphanumeric() || ".-_:[]".contains(character);
    let is_all = url.as_str() == format!("http://{host}/") && !host.is_empty();
    (is_all && host.chars().all(is_name)).then(|| host.to_owned())
}

/// An absolute URL that secrets may travel to: https, or http on this machine or where the application allows it.
pub(crate) fn parse_endpoint(text: &str, plain_http: &PlainHttp) -> Result<Url, &'static str> {
    if text.contains(['{', '}']) {
        return Err("has a place in braces that is not filled in, or was given what cannot stand there");
    }
    let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) || plain_http.allows(&url) => {}
        "http" => return Err("must be https, unless it is on this machine or in `dangerously_allow_http`"),
        _ => return Err("must be an https URL"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or password");
    }
    if url.fragment().is_some() {
        return Err("must not contain a fragment");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost" || domain.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What the configuration of one provider names, against which URLs from outside are checked: those of an issuer's metadata
/// and of token responses.
#[derive(Clone, Debug)]
pub(crate) struct KnownHosts {
    plain_http: PlainHttp,
    configured: BTreeSet<String>,
}

impl KnownHosts {
    pub(crate) fn new<'a>(plain_http: &PlainHttp, configured: impl IntoIterator<Item = &'a Url>) -> Self {
        let hosts = configured.into_iter().filter_map(Url::host_str).map(str::to_owned);
        Self { plain_http: plain_http.clone(), configured: hosts.collect() }
    }

    /// A URL that somebody in `source` names. It leads to a host of the configuration, or no nearer than its source.
    pub(crate) fn parse(&self, text: &str, source: Zone) -> Result<Url, &'static str> {
        let url = parse_endpoint(text, &self.plain_http)?;
        match Zone::of(&url) {
            Some(zone) if zone > self.nearest(&url, source) => {
                Err("leads to this machine or a private network, and who names it is not there")
            }
            _ => Ok(url),
        }
    }

    /// The nearest zone that this URL may lead to when its name is resolved.
    pub(crate) fn nearest(&self, url: &Url, source: Zone) -> Zone {
        let is_known = url.host_str().is_some_and(|host| self.configured.contains(host));
        if is_known || self.plain_http.allows(url) { Zone::Machine } else { source }
    }
}

/// Resolves names, but to no address that is nearer than a zone. So a name in a URL from outside leads nowhere that an
/// address in its place could not.
#[derive(Clone)]
pub(crate) struct ZoneResolver {
    names: Arc<dyn Resolve>,
    nearest: Zone,
}

impl ZoneResolver {
    pub(crate) fn system(nearest: Zone) -> Self {
        Self { names: Arc::new(SystemResolver), nearest }
    }
}

impl Resolve for ZoneResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (nearest, found) = (self.nearest, self.names.resolve(name));
        Box::pin(async move {
            let allowed: Vec<SocketAddr> =
                found.await?.filter(|address| Zone::of_address(address.ip()) <= nearest).collect();
            if allowed.is_empty() {
                let problem = "the name leads to this machine or a private network, and who names it is not there";
                return Err(BoxError::from(problem));
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
