//! Shows a storage without the secrets in its URL, and explains why it cannot be used.

use std::io;
use std::time::Duration;

use oauth_dance::BoxError;
use oauth_dance_core::StorageError;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::advice;

/// How long to wait for a server that does not respond to a connection request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a storage cannot be used. The error shows no user name, password or option of the URL.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the storage {shown}{}", after_semicolon(.advice))]
pub struct UnusableStorage {
    shown: String,
    /// What to do, unless the source says it.
    advice: Option<&'static str>,
    #[source]
    source: BoxError,
}

impl UnusableStorage {
    /// Explains why a storage cannot be reached. A connection pool reports only a timeout, so the server is contacted
    /// again.
    pub(crate) async fn new(url: &str, error: StorageError) -> Self {
        Self::with_options(url, error, "").await
    }

    /// The same, for a command whose options of the table start with this, such as `from-`.
    pub(crate) async fn with_options(url: &str, error: StorageError, start: &str) -> Self {
        let refused = match &error {
            StorageError::Unavailable { .. } => why_unreachable(url).await,
            _ => None,
        };
        let (advice, source) = match refused {
            Some(refused) => (Some(advice::UNREACHABLE), refused.into()),
            None => (advice::of(&error), advice::for_operators(error, start).into()),
        };
        Self { shown: without_secrets(url), advice, source }
    }

    /// The URL of a storage for messages, without user name, password and options.
    pub(crate) fn shown(url: &str) -> String {
        without_secrets(url)
    }
}

fn after_semicolon(advice: &Option<&'static str>) -> String {
    advice.map(|advice| format!("; {advice}")).unwrap_or_default()
}

/// The scheme of a URL, which is the longest beginning of the text that can be a scheme.
pub(crate) fn scheme(url: &str) -> &str {
    let end = url.find(|found: char| !found.is_ascii_alphanumeric() && !"+-.".contains(found)).unwrap_or(url.len());
    &url[..end]
}

/// The URL of a storage without login and options. If a password may be in an unexpected place, only the scheme is
/// left.
fn without_secrets(url: &str) -> String {
    let scheme = scheme(url);
    let rest = url.get(scheme.len() + 1..).unwrap_or_default();
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let Some(server) = rest.strip_prefix("//").filter(|_| scheme != "sqlite") else {
        return format!("{scheme}:{}", &rest[..end]);
    };
    let (authority, more) = server.split_at(server.find(['/', '?', '#']).unwrap_or(server.len()));
    if more.contains('@') {
        return format!("{scheme}://…");
    }
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let path = &more[..more.find(['?', '#']).unwrap_or(more.len())];
    format!("{scheme}://{hosts}{path}")
}

/// Why no server can be reached at the host and port of a URL. `None` if a server can be reached, or if the URL does
/// not name exactly one.
async fn why_unreachable(url: &str) -> Option<io::Error> {
    let url = Url::parse(url).ok()?;
    let default = match url.scheme() {
        "postgres" | "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        "redis" | "rediss" | "valkey" | "valkeys" => 6379,
        _ => return None,
    };
    let host = url.host_str().filter(|host| !host.is_empty())?.trim_matches(['[', ']']);
    match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, url.port().unwrap_or(default)))).await {
        Ok(connected) => connected.err(),
        Err(_) => Some(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_secrets() {
        for (url, shown) in [
            ("postgres://user:SECRET@db.example:5433/app?sslmode=require", "postgres://db.example:5433/app"),
            ("postgres://db.example/app?user=u&password=SECRET", "postgres://db.example/app"),
            ("mysql://user:SECR@ET@db/app", "mysql://db/app"),
            ("redis://:SECRET@[::1]:6380/2", "redis://[::1]:6380/2"),
            ("redis+cluster://u:SECRET@a:1,b:2", "redis+cluster://a:1,b:2"),
            ("sqlite:tokens@home.db?mode=rwc", "sqlite:tokens@home.db"),
            ("sqlite:///var/lib/tokens.db", "sqlite:///var/lib/tokens.db"),
            // Passwords with characters that would have to be written as `%2F`, `%3F` or `%23`.
            ("postgres://user:SEC/RET@db/app", "postgres://…"),
            ("postgres://user:SECRET?x@db/app", "postgres://…"),
            ("redis://:SECRET#x@db/", "redis://…"),
            ("postgres://db/app?password=SEC@RET", "postgres://…"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn scheme_ends_at_the_first_other_character() {
        assert_eq!(scheme("redis+cluster://a"), "redis+cluster");
        assert_eq!(scheme("tokens.db"), "tokens.db");
        assert_eq!(scheme("user@host:SECRET"), "user");
    }

    #[test]
    fn no_password_is_shown_whatever_it_contains() {
        oauth_dance_fuzz::check("storage_url", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            without_secrets(&text);
            for url in [
                format!("postgres://alice:CANARY{text}@db.example/app"),
                format!("redis://:CANARY{text}@db.example"),
                format!("mysql://db.example/app?password=CANARY{text}"),
            ] {
                assert!(!without_secrets(&url).contains("CANARY"), "{url} is shown as {}", without_secrets(&url));
            }
        });
    }
}
