//! Which hosts a URL may name. A URL in the configuration may name any. A URL in a document from outside must not lead
//! nearer to this machine than the document's source.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::endpoint::{PlainHttp, parse_endpoint};
use super::provider::Provider;

/// Top-level names that lead into a private network (RFC 6762, RFC 8375, ICANN's `.internal`), whatever they resolve to.
const PRIVATE_NAMES: [&str; 3] = ["internal", "local", "home.arpa"];

/// How near an address is to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Zone {
    /// Anywhere on the Internet.
    Internet,
    /// In a private network.
    Network,
    /// On this machine or its link. Clouds have their metadata services on the link.
    Machine,
}

impl Zone {
    /// The zone of a URL according to its text; `None` for a name that has to be resolved.
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
            // Global addresses are in 2000::/3, except those for documentation.
            [0x2001, 0xdb8, ..] => Self::Network,
            [0x2000..=0x3fff, ..] => Self::Internet,
            _ => Self::Network,
        }
    }
}

/// The IPv4 address that an IPv6 address contains: mapped, compatible, by NAT64 (RFC 6052) or by 6to4 (RFC 3056).
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

/// The hosts in the configuration of one provider. URLs from outside, in an issuer's metadata and in token responses, are
/// checked against them.
#[derive(Clone, Debug)]
pub(crate) struct KnownHosts {
    plain_http: PlainHttp,
    configured: BTreeSet<String>,
}

impl KnownHosts {
    /// Every host that the configuration names.
    pub(crate) fn of(provider: &Provider, plain_http: &PlainHttp) -> Self {
        let endpoints = [&provider.authorization_endpoint, &provider.token_endpoint];
        let optional = [
            &provider.pushed_authorization_request_endpoint,
            &provider.device_authorization_endpoint,
            &provider.revocation_endpoint,
            &provider.userinfo_endpoint,
            &provider.api_base,
            &provider.end_session_endpoint,
            &provider.issuer,
            &provider.metadata_url,
            &provider.quirks.refresh_endpoint,
        ];
        let named = endpoints.into_iter().chain(optional.into_iter().flatten());
        let urls: Vec<Url> = named.filter_map(|url| Url::parse(url).ok()).collect();
        Self::new(plain_http, &urls)
    }

    pub(crate) fn new<'a>(plain_http: &PlainHttp, configured: impl IntoIterator<Item = &'a Url>) -> Self {
        let hosts = configured.into_iter().filter_map(Url::host_str).map(str::to_owned);
        Self { plain_http: plain_http.clone(), configured: hosts.collect() }
    }

    /// Parses a URL in a document from `source`. It must lead to a host of the configuration, or no nearer than its source.
    pub(crate) fn parse(&self, text: &str, source: Zone) -> Result<Url, &'static str> {
        let url = parse_endpoint(text, &self.plain_http)?;
        match Zone::of(&url) {
            Some(zone) if zone > self.nearest(&url, source) => {
                Err("leads to this machine or a private network, but its source is farther away")
            }
            _ => Ok(url),
        }
    }

    /// The nearest zone that this URL may resolve to.
    pub(crate) fn nearest(&self, url: &Url, source: Zone) -> Zone {
        let is_known = url.host_str().is_some_and(|host| self.configured.contains(host));
        if is_known || self.plain_http.allows(url) { Zone::Machine } else { source }
    }
}

#[cfg(test)]
mod tests;
