//! URLs of servers.
//!
//! The redis crate parses the URL of one server. Lists of hosts, as Sentinels and Clusters have them, are split here,
//! and each server is parsed separately with the credentials of the URL. A URL may contain a password anywhere if it is
//! malformed, so no error quotes a part of it.

use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use crate::link::Target;

/// The port of a Sentinel if the URL names none.
const SENTINEL_PORT: u16 = 26379;

/// The servers that a URL names.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// One primary, by its address or through Sentinels.
    One(Target),
    /// One server of a Cluster, and possibly others.
    Cluster(ConnectionInfo, Vec<ConnectionInfo>),
}

/// The Sentinels that know the address of the primary.
#[derive(Clone, Debug)]
pub(crate) struct Sentinels {
    pub(crate) addresses: Vec<ConnectionInfo>,
    /// The name of the primary in the configuration of the Sentinels.
    pub(crate) name: String,
    /// The user, password and database of the primary, with the address of a Sentinel.
    pattern: ConnectionInfo,
}

/// Why a URL is rejected. The error quotes nothing, because a malformed URL may contain the password anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("the URL does not have a Redis scheme")]
    Scheme,
    #[error("the URL does not name one or more servers")]
    Malformed,
    #[error("the URL lacks the name of the primary after the Sentinels")]
    NoName,
    #[error("the URL of a Cluster names a database, but a Cluster has no numbered databases")]
    Database,
}

impl Address {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`AddressError`], which quotes nothing of the URL.
    pub(crate) fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once(':').ok_or(AddressError::Scheme)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(base, "redis" | "rediss" | "valkey" | "valkeys" | "unix") {
            return Err(AddressError::Scheme);
        }
        match kind {
            "" | "unix" => Ok(Self::One(Target::Primary(server(url)?))),
            "cluster" => cluster(base, rest),
            "sentinel" => sentinel(base, rest),
            _ => Err(AddressError::Scheme),
        }
    }
}

/// Shows hosts, ports and paths, without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(Target::Primary(server) | Target::Node(server)) => write!(f, "{}", server.addr()),
            Self::One(Target::Sentinels(sentinels)) => {
                write!(f, "{} at", sentinels.name)?;
                sentinels.addresses.iter().try_for_each(|sentinel| write!(f, " {}", sentinel.addr()))
            }
            Self::Cluster(first, others) => {
                write!(f, "{}", first.addr())?;
                others.iter().try_for_each(|server| write!(f, " {}", server.addr()))
            }
        }
    }
}

impl Sentinels {
    /// The primary at the address that a Sentinel reported.
    pub(crate) fn server(&self, (host, port): (String, u16)) -> ConnectionInfo {
        at(&self.pattern, host, port)
    }
}

/// The same credentials at another address.
pub(crate) fn at(pattern: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match pattern.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    pattern.clone().set_addr(address)
}

/// The host and port of a server. The host is empty if the address is the path of a socket.
pub(crate) fn host_and_port(server: &ConnectionInfo) -> (&str, u16) {
    match server.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, *port),
        _ => ("", 0),
    }
}

/// Parses the URL of a Cluster after its scheme.
fn cluster(base: &str, rest: &str) -> Result<Address, AddressError> {
    let parts = Parts::split(rest)?;
    let servers = parts.hosts().map(|host| server(&format!("{base}://{}{host}/{}", parts.login, parts.path)));
    let mut servers = servers.collect::<Result<Vec<_>, _>>()?;
    if servers.iter().any(|server| server.redis_settings().db() != 0) {
        return Err(AddressError::Database);
    }
    let first = servers.pop().ok_or(AddressError::Malformed)?;
    Ok(Address::Cluster(first, servers))
}

/// Parses the URL of Sentinels after its scheme.
fn sentinel(base: &str, rest: &str) -> Result<Address, AddressError> {
    let parts = Parts::split(rest)?;
    let end = parts.path.find(['/', '?', '#']).unwrap_or(parts.path.len());
    let (name, more) = parts.path.split_at(end);
    if name.is_empty() {
        return Err(AddressError::NoName);
    }
    let addresses = parts.hosts().map(|host| {
        let server = server(&format!("{base}://{host}/"))?;
        // The redis crate would use the default port of a server.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let name = host_and_port(&server).0.to_owned();
        Ok(if has_port { server } else { at(&server, name, SENTINEL_PORT) })
    });
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    let first = parts.hosts().next().unwrap_or_default();
    let pattern = server(&format!("{base}://{}{first}/{}", parts.login, more.trim_start_matches('/')))?;
    let sentinels = Sentinels { addresses, name: name.to_owned(), pattern };
    Ok(Address::One(Target::Sentinels(Arc::new(sentinels))))
}

/// The parts of `//[user[:password]@]host[:port][,host[:port]]…[/path]`.
struct Parts<'a> {
    login: &'a str,
    hosts: &'a str,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Result<Self, AddressError> {
        let rest = rest.strip_prefix("//").ok_or(AddressError::Malformed)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        if hosts.split(',').any(str::is_empty) {
            return Err(AddressError::Malformed);
        }
        Ok(Self { login, hosts, path: path.strip_prefix('/').unwrap_or(path) })
    }

    fn hosts(&self) -> impl Iterator<Item = &'a str> {
        self.hosts.split(',')
    }
}

/// Parses the URL of one server.
fn server(url: &str) -> Result<ConnectionInfo, AddressError> {
    let server = url.into_connection_info().map_err(|_| AddressError::Malformed)?;
    // With RESP3, a closed connection is reported before the next request.
    let settings = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(server.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap()
    }

    fn login(server: &ConnectionInfo) -> (Option<&str>, Option<&str>, i64) {
        let settings = server.redis_settings();
        (settings.username(), settings.password(), settings.db())
    }

    #[test]
    fn url_of_one_server_is_parsed() {
        for url in ["redis://u:p%40@h:7000/3", "valkey://u:p%40@h:7000/3"] {
            let Address::One(Target::Primary(server)) = parse(url) else { panic!("{url}") };
            assert_eq!(host_and_port(&server), ("h", 7000));
            assert_eq!(login(&server), (Some("u"), Some("p@"), 3));
        }
    }

    #[test]
    fn cluster_servers_share_the_credentials() {
        let Address::Cluster(one, mut servers) = parse("redis+cluster://u:p@a:7000,[::1]:7001,c") else { panic!() };
        servers.push(one);
        let addresses: Vec<_> = servers.iter().map(host_and_port).collect();
        assert_eq!(addresses, [("a", 7000), ("::1", 7001), ("c", 6379)]);
        assert!(servers.iter().all(|server| login(server) == (Some("u"), Some("p"), 0)));
    }

    #[test]
    fn sentinels_do_not_receive_credentials_of_the_primary() {
        let Address::One(Target::Sentinels(sentinels)) = parse("redis+sentinel://u:p@a,b:5000,[::1]/main/2") else {
            panic!()
        };
        let addresses: Vec<_> = sentinels.addresses.iter().map(host_and_port).collect();
        assert_eq!(addresses, [("a", 26379), ("b", 5000), ("::1", 26379)]);
        assert!(sentinels.addresses.iter().all(|server| login(server) == (None, None, 0)));
        let primary = sentinels.server(("10.0.0.9".to_owned(), 6380));
        assert_eq!((host_and_port(&primary), login(&primary)), (("10.0.0.9", 6380), (Some("u"), Some("p"), 2)));
        assert_eq!(sentinels.name, "main");
    }

    #[test]
    fn invalid_urls_are_rejected_without_quoting_them() {
        for (url, error) in [
            ("localhost", AddressError::Scheme),
            ("http://localhost", AddressError::Scheme),
            ("redis+other://localhost", AddressError::Scheme),
            ("redis://", AddressError::Malformed),
            ("redis+cluster://a,,b", AddressError::Malformed),
            ("redis+cluster:a", AddressError::Malformed),
            ("redis+cluster://a/1", AddressError::Database),
            ("redis+sentinel://a,b", AddressError::NoName),
            ("redis+sentinel://a,b/", AddressError::NoName),
            ("redis://:secret@localhost:port", AddressError::Malformed),
        ] {
            let found = Address::parse(url).unwrap_err();
            assert_eq!(found, error, "{url}");
            assert!(!format!("{found} {found:?}").contains("secret"));
        }
    }
}
