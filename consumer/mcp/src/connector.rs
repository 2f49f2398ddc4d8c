//! The entry point: what all users and servers share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Clock, Redeem, Refresher, TokenKey, Tokens};
use reqwest::redirect::{Action, Attempt, Policy};

use crate::connection::McpConnection;
use crate::endpoint::TokenEndpoints;
use crate::error::McpError;
use crate::registration;
use crate::server::McpServer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 5;

/// The tokens of all users at all MCP servers. Create one for the application. A clone is cheap and shares everything.
///
/// ```
/// use oauth_dance_core::{KeyRing, MemoryStorage, Tokens};
/// use oauth_dance_mcp::{McpConnector, McpServer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production, a storage that all replicas share, and a key ring from the secrets of the application.
/// let mcp = McpConnector::new(Tokens::sealed(MemoryStorage::new(), KeyRing::generate()))?;
/// let notes = McpServer::new("https://mcp.example.com/mcp", "https://app.example/mcp/notes/callback")?;
///
/// let alice = mcp.connection(&notes, "alice")?;
/// assert!(alice.token().await.unwrap_err().needs_login());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct McpConnector {
    pub(crate) tokens: Tokens,
    pub(crate) refresher: Refresher,
    pub(crate) endpoints: TokenEndpoints,
    /// For requests to MCP servers.
    pub(crate) http: reqwest::Client,
    /// The application's own HTTP client for authorization servers, which the Rust SDK uses too.
    pub(crate) client: Option<reqwest::Client>,
}

impl McpConnector {
    /// A connector on these tokens. [`Tokens::sealed`] seals them. The storage must not [belong to a
    /// request](oauth_dance_core::Capabilities::request_bound).
    ///
    /// # Errors
    /// [`McpError::Http`] if the HTTP client cannot be created.
    pub fn new(tokens: Tokens) -> Result<Self, McpError> {
        let endpoints = TokenEndpoints::new(Clock::system())?;
        let http = reqwest::Client::builder()
            .redirect(Policy::custom(stay_on_origin))
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| McpError::Http(error.into()))?;
        Ok(Self { tokens, refresher: Refresher::new(), endpoints, http, client: None })
    }

    /// Uses this refresher, for example one with an [observer](Refresher::with_observer), or the one that the application
    /// uses for other providers too. Its clock should be the connector's.
    #[must_use]
    pub fn with_refresher(self, refresher: Refresher) -> Self {
        Self { refresher, ..self }
    }

    /// Reads the time from another clock, in the refresher too.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        let refresher = self.refresher.with_clock(clock.clone());
        Self { refresher, endpoints: self.endpoints.with_clock(clock), ..self }
    }

    /// Uses this HTTP client for every request to an authorization server, for example one with a proxy. For requests to MCP
    /// servers, use [`McpConnection::client`].
    ///
    /// It replaces the protection that the default clients have: they follow no redirect with a token request, and reach
    /// private addresses only for a server that is in a private network itself. The client needs a timeout of less than 20
    /// seconds, and should follow no redirects.
    #[must_use]
    pub fn with_http_client(self, client: reqwest::Client) -> Self {
        Self { endpoints: self.endpoints.with_client(client.clone()), client: Some(client), ..self }
    }

    /// The connection of a user to a server, connected or not. Sends no request, and reads nothing.
    ///
    /// `user` is the application's identifier of the user, as in [`TokenKey::new`].
    ///
    /// # Errors
    /// [`McpError::Key`] if the user is empty.
    pub fn connection(&self, server: &McpServer, user: &str) -> Result<McpConnection, McpError> {
        let key = TokenKey::new(server.url.as_str(), user)?;
        Ok(McpConnection { connector: self.clone(), server: server.clone(), key })
    }

    /// The tokens, to list, reseal or inspect them. Their records are ordinary token records.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The refresher.
    pub fn refresher(&self) -> &Refresher {
        &self.refresher
    }

    /// What redeems the refresh tokens of all MCP servers, for [`Refresher::refresh_due`]. Each record contains where
    /// its token is refreshed.
    pub fn redeem(&self) -> Arc<dyn Redeem> {
        Arc::new(self.endpoints.clone())
    }

    /// Forgets the client that was registered dynamically at a server's authorization server. The next login registers a new
    /// one. Use it if the authorization server no longer knows the client. Returns whether there was one.
    ///
    /// # Errors
    /// [`McpError::Storage`].
    ///
    /// # Cancel safety
    /// Dropping this future leaves the client either registered or forgotten.
    pub async fn forget_client(&self, server: &McpServer) -> Result<bool, McpError> {
        Ok(self.tokens.delete(&registration::key_of(server)?, None).await?)
    }

    /// Waits until no refresh is in flight in this process. Call this before the process exits.
    ///
    /// # Cancel safety
    /// Dropping this future has no effect on the refreshes.
    pub async fn finish(&self) {
        self.refresher.finish().await;
    }
}

impl fmt::Debug for McpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpConnector")
            .field("tokens", &self.tokens)
            .field("refresher", &self.refresher)
            .finish_non_exhaustive()
    }
}

/// A redirect to another origin is returned instead of followed.
fn stay_on_origin(attempt: Attempt<'_>) -> Action {
    let same_origin = attempt.previous().iter().all(|url| url.origin() == attempt.url().origin());
    if same_origin && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}
