//! URLs in the configuration: absolute, and safe for secrets.

use std::collections::BTreeSet;

use url::{Host, Url};

use crate::error::ConfigError;

/// The hosts that an application allows to be reached without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlainHttp(BTreeSet<String>);

impl PlainHttp {
    /// Checks that each is the name or the address of one host.
    pub(crate) fn new(hosts: impl IntoIterator<Item = String>) -> Result<Self, ConfigError> {
        let check = |host: String| host_of(&host).ok_or(ConfigError::PlainHttpHost { host });
        hosts.into_iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn allows(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| self.0.contains(host))
    }
}

/// A host in the form that URLs have, or `None` if the text is not exactly one host.
fn host_of(text: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{text}/")).ok()?;
    let host = url.host_str()?;
    let is_name = |character: char| character.is_ascii_alphanumeric() || ".-_:[]".contains(character);
    let is_all = url.as_str() == format!("http://{host}/") && !host.is_empty();
    (is_all && host.chars().all(is_name)).then(|| host.to_owned())
}

/// Parses an absolute URL that secrets may be sent to: https, or http on this machine or on a host that the application
/// allows.
pub(crate) fn parse_endpoint(text: &str, plain_http: &PlainHttp) -> Result<Url, &'static str> {
    if text.contains(['{', '}']) {
        return Err("contains a placeholder in braces that was not replaced, or was replaced by an invalid value");
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

/// Retains the query of an authorization endpoint (RFC 6749 section 3.1), except the parameters that the request sets
/// itself.
pub(crate) fn without_parameters(endpoint: &Url, is_set: impl Fn(&str) -> bool) -> Url {
    let pairs = endpoint.query_pairs().filter(|(name, _)| !is_set(name));
    let retained: Vec<(String, String)> = pairs.map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    let mut url = endpoint.clone();
    url.set_query(None);
    if !retained.is_empty() {
        url.query_pairs_mut().extend_pairs(retained);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &[&str]) -> PlainHttp {
        PlainHttp::new(hosts.iter().map(|host| (*host).to_owned())).unwrap()
    }

    #[test]
    fn endpoints_must_be_https_unless_local_or_allowed() {
        let plain_http = allowed(&["keycloak", "192.168.1.5", "[fd00::5]"]);
        for good in [
            "https://a.example/x?tenant=1",
            "http://127.0.0.1:9/x",
            "http://[::1]:9",
            "http://localhost:9",
            "http://keycloak:8080/realms/dev",
            "http://192.168.1.5",
            "http://[fd00::5]:8080",
        ] {
            assert!(parse_endpoint(good, &plain_http).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/x",
            "http://a.example",
            "http://10.0.0.1",
            "http://keycloak.evil.example",
            "http://192.168.1.50",
            "http://user:pw@keycloak",
            "javascript:alert(1)",
            "ftp://keycloak",
            "file:///etc/passwd",
            "https://user:pw@a.example",
            "https://a.example/#x",
            "http://localhost.evil.example",
            "//a.example",
            "https://{host}/x",
            "https://a.example/{tenant}/x",
        ] {
            assert!(parse_endpoint(bad, &plain_http).is_err(), "{bad}");
        }
        assert!(parse_endpoint("http://keycloak:8080", &PlainHttp::default()).is_err());
    }

    #[test]
    fn an_allowed_host_is_exactly_one_host() {
        for bad in [
            "",
            "*",
            "*.example",
            "a b",
            "http://keycloak",
            "keycloak:8080",
            "keycloak/x",
            "u@keycloak",
            "a,b",
            "10.0.0.0/8",
        ] {
            let error = PlainHttp::new([bad.to_owned()]).unwrap_err();
            assert!(matches!(&error, ConfigError::PlainHttpHost { host } if host == bad), "{bad}: {error}");
        }
        assert!(parse_endpoint("http://keycloak", &allowed(&["KeyCloak"])).is_ok(), "names have no case");
    }
}
