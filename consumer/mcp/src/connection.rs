//! One user at one server.

use std::fmt;
use std::time::Duration;

use oauth_dance_core::{Connection, OAuth2Token, RefreshError, Rejection, Secret, TokenKey};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio::time::timeout;

use crate::client::McpClient;
use crate::connector::McpConnector;
use crate::error::McpError;
use crate::server::McpServer;
use crate::store::{McpCredentials, McpStates};

const REVOCATION_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection of one user to one MCP server: its login, its token, and a client that uses the token.
///
/// It holds no token. Each use reads the storage, so that a login or a logout in another process takes effect.
///
/// ```no_run
/// use oauth_dance_mcp::{McpConnection, McpError};
/// use rmcp::ServiceExt as _;
/// use rmcp::model::CallToolRequestParams;
///
/// async fn search(alice: &McpConnection) -> Result<(), Box<dyn std::error::Error>> {
///     let client = ().serve(alice.transport()).await?;
///     let found = client.call_tool(CallToolRequestParams::new("search")).await?;
///     println!("{:?}", found.content);
///     client.cancel().await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct McpConnection {
    pub(crate) connector: McpConnector,
    pub(crate) server: McpServer,
    pub(crate) key: TokenKey,
}

impl McpConnection {
    /// The connection of the same user in a tenant.
    ///
    /// # Errors
    /// [`McpError::Key`] if the tenant is empty.
    pub fn with_tenant(self, tenant: &str) -> Result<Self, McpError> {
        Ok(Self { key: self.key.with_tenant(tenant)?, ..self })
    }

    /// The server.
    pub fn server(&self) -> &McpServer {
        &self.server
    }

    /// The key of the token's record. Its provider is the URL of the server.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// A usable access token, refreshed if necessary. For requests that do not go through [`transport`](Self::transport).
    /// Send it to this server only.
    ///
    /// # Errors
    /// [`McpError::Token`].
    ///
    /// # Cancel safety
    /// The refresh runs in its own task. Dropping this future neither aborts it nor loses a token.
    pub async fn token(&self) -> Result<OAuth2Token, McpError> {
        let McpConnector { tokens, refresher, .. } = &self.connector;
        Ok(refresher.usable(tokens, &self.key, &self.connector.redeem()).await?)
    }

    /// Another access token than the one that the server has rejected. `None` if that one stays in use.
    pub(crate) async fn replace(&self, rejected: &Secret, why: Rejection) -> Result<Option<OAuth2Token>, McpError> {
        let McpConnector { tokens, refresher, .. } = &self.connector;
        Ok(refresher.replace_rejected(rejected, why, tokens, &self.key, &self.connector.redeem()).await?)
    }

    /// The stored token, expired or not, and its state, for a page that lists connections. `None` if the user is not
    /// connected. Refreshes nothing.
    ///
    /// # Errors
    /// [`McpError::Token`] if the storage failed or the token cannot be read.
    pub async fn status(&self) -> Result<Option<Connection>, McpError> {
        Ok(self.connector.refresher.connection(&self.connector.tokens, &self.key).await?)
    }

    /// The transport for a client of the Rust SDK. It sends this user's token with each request, and refreshes it.
    ///
    /// It follows redirects within the server's origin only. All transports of a connector share one HTTP client, which
    /// stores no cookies.
    pub fn transport(&self) -> StreamableHttpClientTransport<McpClient<reqwest::Client>> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.server.url.as_str());
        StreamableHttpClientTransport::with_client(self.client(self.connector.http.clone()), config)
    }

    /// Adds this user's token to the requests of an HTTP client, for a transport with its own settings. The transport's URL
    /// has to be the [server's](McpServer::url).
    pub fn client<C>(&self, http: C) -> McpClient<C> {
        McpClient::new(http, self.clone())
    }

    /// The credential store of an [`AuthorizationManager`](rmcp::transport::auth::AuthorizationManager) of the Rust SDK.
    /// [`McpCredentials`] describes what it does and what it cannot do.
    pub fn credentials(&self) -> McpCredentials {
        McpCredentials::new(self.clone())
    }

    /// The state store of an [`AuthorizationManager`](rmcp::transport::auth::AuthorizationManager) of the Rust SDK.
    pub fn states(&self) -> McpStates {
        McpStates::new(self.clone())
    }

    /// Deletes this user's token at this server, and revokes it if the authorization server supports that (RFC 7009). Returns
    /// whether there was a token.
    ///
    /// The deletion takes precedence over a refresh in flight. The revocation is best-effort and takes at most five seconds.
    ///
    /// # Errors
    /// [`McpError::Storage`]. The token is then still stored.
    ///
    /// # Cancel safety
    /// Dropping this future leaves the token either stored or deleted, and perhaps not revoked.
    pub async fn disconnect(&self) -> Result<bool, McpError> {
        let tokens = &self.connector.tokens;
        // A record that cannot be read is deleted too.
        let found = tokens.get(&self.key).await.ok().flatten();
        let was_connected = tokens.delete(&self.key, None).await?;
        if let Some(token) = found.as_ref().and_then(|found| found.value.as_oauth2()) {
            let _ = timeout(REVOCATION_TIMEOUT, self.connector.endpoints.revoke(token)).await;
        }
        Ok(was_connected)
    }

    /// The stored token, expired or not.
    pub(crate) async fn stored(&self) -> Result<Option<OAuth2Token>, McpError> {
        match self.connector.tokens.get(&self.key).await? {
            Some(found) => found.value.as_oauth2().cloned().map(Some).ok_or_else(|| RefreshError::WrongKind.into()),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for McpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpConnection").field("key", &self.key).finish_non_exhaustive()
    }
}
