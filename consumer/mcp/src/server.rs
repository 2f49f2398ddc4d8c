//! An MCP server, and how this application identifies itself there.

use std::fmt;

use oauth_dance_core::Secret;
use url::{Host, Url};

use crate::error::McpError;
use crate::reach;

/// An MCP server that users can connect: its URL, and how this application identifies itself at the server's authorization
/// server.
///
/// The URL is part of every key. A token that was issued for one server is therefore never found for another.
///
/// ```
/// use oauth_dance_mcp::McpServer;
///
/// let notes = McpServer::new("https://mcp.example.com/mcp", "https://app.example/mcp/notes/callback")?
///     .with_client_name("Example App");
/// assert_eq!(notes.url(), "https://mcp.example.com/mcp");
/// assert!(McpServer::new("http://mcp.example.com/mcp", "https://app.example/callback").is_err(), "without TLS");
/// # Ok::<(), oauth_dance_mcp::McpError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpServer {
    pub(crate) url: Url,
    pub(crate) redirect_uri: String,
    pub(crate) client_name: String,
    pub(crate) registered: Option<Client>,
    pub(crate) client_metadata_url: Option<String>,
    pub(crate) allows_private: bool,
}

/// A client at an authorization server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: Option<Secret>,
}

/// Does not show the secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

impl McpServer {
    /// The server with this URL. The browser returns from a login to `redirect_uri`, which is a route of this application.
    ///
    /// Use one redirect URI for each server (RFC 9700 section 4.4.2). By default, the application registers itself at the
    /// authorization server (RFC 7591), once for all users and processes.
    ///
    /// # Errors
    /// [`McpError::InvalidUrl`] if the URL has no TLS and is not on this machine, or contains credentials or a fragment (RFC
    /// 8707 section 2), or if the redirect URI is not a URL.
    pub fn new(url: &str, redirect_uri: &str) -> Result<Self, McpError> {
        let url = checked(url)?;
        Url::parse(redirect_uri).map_err(|_| McpError::InvalidUrl("the redirect URI is not a URL".to_owned()))?;
        Ok(Self {
            url,
            redirect_uri: redirect_uri.to_owned(),
            client_name: "MCP client".to_owned(),
            registered: None,
            client_metadata_url: None,
            allows_private: false,
        })
    }

    /// Sets the name with which the application registers itself. Users see it when they authorize.
    #[must_use]
    pub fn with_client_name(self, name: impl Into<String>) -> Self {
        Self { client_name: name.into(), ..self }
    }

    /// Uses a client that was registered in advance, instead of dynamic registration. A public client has no secret.
    #[must_use]
    pub fn with_client(self, client_id: impl Into<String>, client_secret: Option<Secret>) -> Self {
        Self { registered: Some(Client { id: client_id.into(), secret: client_secret }), ..self }
    }

    /// Sets the URL of the application's client ID metadata document. It is the client id at authorization servers that
    /// support such documents. At all others, the client is registered dynamically.
    #[must_use]
    pub fn with_client_metadata_url(self, url: impl Into<String>) -> Self {
        Self { client_metadata_url: Some(url.into()), ..self }
    }

    /// Allows the server's metadata to name an authorization server in a private network, although the server itself is not
    /// in one. Do not use it if users can choose the URL of the server.
    #[must_use]
    pub fn allowing_private_addresses(self) -> Self {
        Self { allows_private: true, ..self }
    }

    /// The URL of the server, which is also the `provider` of its keys.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Where the browser returns to after a login.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Whether requests for this server's tokens may go to private addresses.
    pub(crate) fn reaches_private(&self) -> bool {
        self.allows_private || reach::is_private_host(&self.url)
    }
}

/// Parses the URL of a server.
fn checked(url: &str) -> Result<Url, McpError> {
    let invalid = |problem: &str| McpError::InvalidUrl(format!("the URL of the MCP server {problem}"));
    let url = Url::parse(url).map_err(|_| invalid("is not a URL"))?;
    if url.host().is_none() || !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(invalid("must have a host, and neither credentials nor a fragment"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(invalid("must start with https, unless the server is on this machine")),
    }
}

/// Whether a URL names this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_need_tls_and_no_extras() {
        let server = |url| McpServer::new(url, "https://app.example/callback");
        for valid in ["https://a.example/mcp", "https://a.example?x=1", "http://127.0.0.1:1/mcp", "http://[::1]/"] {
            assert!(server(valid).is_ok(), "{valid}");
        }
        for invalid in [
            "http://a.example/mcp",
            "http://10.0.0.1/",
            "https://user:secret@a.example/",
            "https://a.example/#fragment",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "a.example",
            "",
        ] {
            let error = server(invalid).unwrap_err();
            assert!(matches!(error, McpError::InvalidUrl(_)), "{invalid}");
            assert!(!error.to_string().contains("secret"));
        }
        assert!(McpServer::new("https://a.example", "/callback").is_err());
    }

    #[test]
    fn the_secret_is_not_shown() {
        let server = McpServer::new("https://a.example", "https://app.example/callback").unwrap();
        let shown = format!("{:?}", server.with_client("id", Some("CANARY".into())));
        assert!(shown.contains("id") && !shown.contains("CANARY"), "{shown}");
    }
}
