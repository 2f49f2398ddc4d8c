//! The login: discovery and registration by the Rust SDK, and one exchange of the code by any replica.

use std::fmt;
use std::time::Duration;

use oauth_dance_core::{OAuth2Token, RedeemError, StorageError, TokensError};
use rmcp::transport::auth::{AuthorizationManager, InMemoryStateStore, OAuthClientConfig, StateStore as _};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::connection::McpConnection;
use crate::error::McpError;
use crate::grant::Grant;
use crate::pending::{self, Pending};
use crate::registration;
use crate::server::Client;

/// How long discovery and registration may take together.
const PREPARATION: Duration = Duration::from_secs(60);
/// How often the token of a login is written, if the storage is unavailable.
const MAX_WRITES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How much of an error text from a redirect is reported.
const MAX_TEXT: usize = 200;

/// What to request in a login. The default requests what the server's metadata names.
///
/// ```
/// use oauth_dance_mcp::LoginRequest;
///
/// let challenge = r#"Bearer error="insufficient_scope", scope="notes:write""#;
/// let request = LoginRequest::default().with_challenge(challenge).with_scopes(["notes:read"]);
/// # let _ = request;
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoginRequest {
    scopes: Vec<String>,
    challenge: Option<String>,
}

impl LoginRequest {
    /// Adds scopes to those that the server requires, and to those that the user has already granted.
    #[must_use]
    pub fn with_scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Starts from the `WWW-Authenticate` header of a response with status 401 or 403, which names the server's metadata and
    /// the scopes that a request needs. It is the result of
    /// [`auth_challenge`](rmcp::transport::streamable_http_client::StreamableHttpError::auth_challenge).
    #[must_use]
    pub fn with_challenge(self, www_authenticate: impl Into<String>) -> Self {
        Self { challenge: Some(www_authenticate.into()), ..self }
    }
}

/// The parameters with which the browser returns (RFC 6749 section 4.1.2, RFC 9207). Deserialize it from the query of the
/// callback route. Duplicate parameters are an error, as they should be.
///
/// `Debug` does not show the code or the state.
#[derive(Clone, Default, Deserialize)]
#[non_exhaustive]
pub struct LoginCallback {
    /// The authorization code.
    pub code: Option<String>,
    /// The state of the login.
    pub state: Option<String>,
    /// The issuer.
    pub iss: Option<String>,
    /// The error code of a failed login.
    pub error: Option<String>,
    /// The description of a failed login.
    pub error_description: Option<String>,
}

impl fmt::Debug for LoginCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCallback").field("iss", &self.iss).field("error", &self.error).finish_non_exhaustive()
    }
}

impl McpConnection {
    /// Starts a login, and returns the URL to redirect the browser to.
    ///
    /// The Rust SDK discovers the server's authorization server (RFC 9728, RFC 8414). The application's client is
    /// registered there, unless a replica has already done so. The login is stored for ten minutes, so that any replica
    /// can finish it.
    ///
    /// Connecting an account changes the user's connections. Start it only for a POST request from the application's own
    /// pages.
    ///
    /// # Errors
    /// [`McpError::Sdk`] or [`McpError::Metadata`] if the authorization server cannot be used, and [`McpError::Storage`].
    ///
    /// # Cancel safety
    /// Dropping this future stores nothing, or a login that is not finished, or a registered client.
    pub async fn start_login(&self, request: LoginRequest) -> Result<String, McpError> {
        let started = timeout(PREPARATION, self.start(request)).await;
        started.unwrap_or(Err(McpError::Metadata("it did not arrive in time")))
    }

    /// Finishes a login that any replica has started for the same user at the same server, and stores the token.
    ///
    /// The user is the signed-in user of the request with the callback. The login of another user is not found, so that
    /// no one can connect their own account to another user.
    ///
    /// The code is sent once, to the token endpoint of the authorization server at which the login was started.
    ///
    /// # Errors
    /// * [`McpError::UnknownLogin`] if no such login is in progress. If a callback is repeated, only one succeeds.
    /// * [`McpError::WrongIssuer`] if the callback is from another authorization server. The login remains in progress.
    /// * [`McpError::Denied`] if the user or the authorization server has rejected the login.
    /// * [`McpError::TokenRequest`] if the code was not exchanged, and [`McpError::Storage`] if the token was not stored. It
    ///   is then revoked.
    ///
    /// # Cancel safety
    /// The login is finished in its own task, so that no token is lost if the browser disconnects.
    pub async fn finish_login(&self, callback: LoginCallback) -> Result<(), McpError> {
        let connection = self.clone();
        let finished = tokio::spawn(async move { connection.finish(callback).await }).await;
        finished.unwrap_or(Err(McpError::Interrupted))
    }

    async fn start(&self, request: LoginRequest) -> Result<String, McpError> {
        let mut manager = self.manager().await?;
        let states = InMemoryStateStore::new();
        manager.set_state_store(states.clone());
        let metadata = manager.resolve_metadata_from_challenge(request.challenge.as_deref()).await?.metadata;
        manager.set_metadata(metadata.clone());

        let requested: Vec<&str> = request.scopes.iter().map(String::as_str).collect();
        let mut scopes = manager.select_initial_scopes(&requested).await;
        let granted = self.stored().await.ok().flatten().and_then(|token| token.scope).unwrap_or_default();
        for scope in request.scopes.into_iter().chain(granted) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let client = registration::client(self, &mut manager, &metadata).await?;
        let url = self.authorization_url(&mut manager, &client, &scopes).await?;
        let grant = Grant::new(&self.server, &metadata, &client, parameter(&url, "resource")?)?;
        let csrf = parameter(&url, "state")?;
        let state = states.load(&csrf).await?.ok_or(McpError::UnknownLogin)?;
        pending::put(self, &csrf, &Pending { state, grant: Some(grant) }).await?;
        Ok(url)
    }

    async fn finish(&self, callback: LoginCallback) -> Result<(), McpError> {
        let csrf = callback.state.ok_or(McpError::UnknownLogin)?;
        let (pending, version) = pending::get(self, &csrf).await?.ok_or(McpError::UnknownLogin)?;
        let Pending { state, grant: Some(grant) } = pending else { return Err(McpError::UnknownLogin) };
        if !is_from_issuer(&grant, callback.iss.as_deref()) {
            return Err(McpError::WrongIssuer);
        }
        // This also proves that the storage accepts writes before the code is spent.
        if !pending::spend(self, &csrf, Some(version)).await? {
            return Err(McpError::UnknownLogin);
        }
        if let Some(error) = callback.error {
            return Err(McpError::Denied(plain_text(&error, callback.error_description.as_deref())));
        }
        let code = callback.code.ok_or_else(|| McpError::Denied("the callback has no code".to_owned()))?;
        let exchanged = self.connector.endpoints.exchange(&grant, &code, &state.pkce_verifier).await;
        let mut token = exchanged.map_err(|error: RedeemError| McpError::TokenRequest(error.to_string()))?;
        // A response without scopes grants the requested ones (RFC 6749 section 5.1).
        token.scope = token.scope.or(Some(state.requested_scopes)).filter(|scopes| !scopes.is_empty());
        self.store_login(token).await
    }

    /// Stores the token of a login, and revokes it if that fails.
    pub(crate) async fn store_login(&self, token: OAuth2Token) -> Result<(), McpError> {
        let mut writes = 1;
        loop {
            match self.connector.tokens.put_login(&self.key, &token.clone().into()).await {
                Ok(_) => return Ok(()),
                Err(TokensError::Storage(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }))
                    if writes < MAX_WRITES =>
                {
                    sleep(FIRST_PAUSE * 2_u32.pow(writes)).await;
                    writes += 1;
                }
                Err(error) => {
                    self.connector.endpoints.revoke(&token).await;
                    return Err(error.into());
                }
            }
        }
    }

    /// A manager of the Rust SDK for this server.
    pub(crate) async fn manager(&self) -> Result<AuthorizationManager, McpError> {
        let url = self.server.url.as_str();
        let mut manager = match self.server.allows_private {
            true => AuthorizationManager::new_allowing_private_addresses(url).await?,
            false => AuthorizationManager::new(url).await?,
        };
        if let Some(client) = &self.connector.client {
            manager.with_client(client.clone())?;
        }
        Ok(manager)
    }

    /// The authorization URL (RFC 6749 section 4.1.1). The manager has stored its state.
    pub(crate) async fn authorization_url(
        &self,
        manager: &mut AuthorizationManager,
        client: &Client,
        scopes: &[String],
    ) -> Result<String, McpError> {
        manager.configure_client(OAuthClientConfig::new(&client.id, &self.server.redirect_uri))?;
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        Ok(manager.get_authorization_url(&scopes).await?)
    }
}

/// A parameter of an authorization URL. If it is there twice, the last one is the SDK's, because the first one belongs to the
/// endpoint.
pub(crate) fn parameter(url: &str, name: &str) -> Result<String, McpError> {
    let url = Url::parse(url).map_err(|_| McpError::Metadata("the authorization endpoint is not a URL"))?;
    let found = url.query_pairs().filter(|(found, _)| found == name).last();
    let value = found.map(|(_, value)| value.into_owned());
    value.ok_or(McpError::Metadata("the authorization URL is incomplete"))
}

/// Whether a callback is from the authorization server of the login (RFC 9207 section 2.4).
fn is_from_issuer(grant: &Grant, received: Option<&str>) -> bool {
    match received {
        Some(received) => grant.issuer.as_deref() == Some(received),
        None => !grant.requires_issuer,
    }
}

/// Text from a redirect without control characters, and not too long.
fn plain_text(error: &str, description: Option<&str>) -> String {
    let text = description.map_or_else(|| error.to_owned(), |description| format!("{error}: {description}"));
    text.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::grant;

    #[test]
    fn callbacks_name_the_issuer_or_none() {
        let mut grant = grant("http://127.0.0.1:1/token");
        assert!(is_from_issuer(&grant, Some("https://id.example")));
        assert!(is_from_issuer(&grant, None));
        assert!(!is_from_issuer(&grant, Some("https://id.example/")));
        grant.requires_issuer = true;
        assert!(!is_from_issuer(&grant, None));
        grant.issuer = None;
        assert!(!is_from_issuer(&grant, Some("https://id.example")));
    }

    #[test]
    fn text_from_a_redirect_is_plain_and_short() {
        let text = plain_text("access_denied", Some(&"x\r\n\0".repeat(1_000)));
        assert!(text.starts_with("access_denied: xxx") && text.len() == MAX_TEXT, "{text}");
    }

    #[test]
    fn the_code_and_the_state_are_not_shown() {
        let secret = || Some("CANARY".to_owned());
        let shown = format!("{:?}", LoginCallback { code: secret(), state: secret(), ..LoginCallback::default() });
        assert!(!shown.contains("CANARY"), "{shown}");
    }
}
