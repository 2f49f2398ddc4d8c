//! The credential store and the state store of the Rust SDK.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use oauth_dance_core::{OAuth2Token, Rejection, Secret, StorageError, Timestamp, TokensError, async_trait};
use rmcp::transport::auth::{
    AuthError, CredentialRefreshGuard, CredentialStore, OAuthTokenResponse, StateStore, StoredAuthorizationState,
    StoredCredentials,
};
use serde_json::{Map, Value, json};

use crate::connection::McpConnection;
use crate::error::{McpError, to_sdk, with_causes};
use crate::grant::{self, Grant};
use crate::login::parameter;
use crate::pending::{self, Pending};
use crate::{registration, response};

/// The [`CredentialStore`] of one user at one server, for an [`AuthorizationManager`] of the Rust SDK.
/// [`McpConnection::credentials`] creates it.
///
/// | call | what it does |
/// | --- | --- |
/// | `load` | returns a usable access token, which is refreshed first if necessary, **without the refresh token** |
/// | `save` | stores the token of a login |
/// | `clear` | deletes the token |
/// | `acquire_refresh_guard` | replaces an access token that the server has rejected |
///
/// The manager never receives a refresh token, so it cannot redeem one. All refreshes go through the core's
/// [`Refresher`](oauth_dance_core::Refresher), which redeems each refresh token once, across all tasks and processes. The
/// credentials have no `token_received_at`, so that the manager does not decide by itself that the token is about to expire.
///
/// # Limits
///
/// * If a server rejects the token (status 401), the token is replaced, and the SDK's `AuthClient` returns an error
///   that asks the caller to retry ([`AuthError::TokenRefreshFailed`]), because the SDK cannot continue with the new
///   token. [`McpClient`](crate::McpClient) retries automatically. `AuthorizationManager::refresh_token` returns the
///   same error.
/// * The SDK's `AuthClient` sends the token to the URL of its transport, whatever it is. [`McpClient`](crate::McpClient)
///   verifies the URL.
/// * `AuthorizationManager::initialize_from_store` deletes the token if the server's metadata names another authorization
///   server than before.
/// * At its log level `debug`, the SDK logs the authorization code that it exchanges.
///   [`McpConnection::finish_login`] does not exchange it through the SDK.
/// * If the manager's client has a secret, set it with [`McpServer::with_client`](crate::McpServer::with_client) too. The SDK
///   does not pass it to its store.
///
/// [`AuthorizationManager`]: rmcp::transport::auth::AuthorizationManager
pub struct McpCredentials {
    connection: McpConnection,
    /// The access token that was returned last.
    last: Mutex<Option<Secret>>,
}

impl McpCredentials {
    pub(crate) fn new(connection: McpConnection) -> Self {
        Self { connection, last: Mutex::default() }
    }

    fn last(&self) -> Option<Secret> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last(&self, token: &Secret) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
    }

    /// Stores the token of a login by the SDK.
    async fn store(&self, response: OAuthTokenResponse, saved: &Saved) -> Result<(), McpError> {
        let malformed = || McpError::TokenRequest("the token response has no usable token".to_owned());
        let Ok(Value::Object(members)) = serde_json::to_value(response) else { return Err(malformed()) };
        let mut token = response::token(members, saved.received_at).ok_or_else(malformed)?;
        let stored = self.connection.stored().await?;
        // These are credentials that `load` has returned. Their refresh token is in the record.
        let is_known = |known: &Secret| *known == token.access_token;
        let is_stored = stored.as_ref().is_some_and(|stored| is_known(&stored.access_token));
        if token.refresh_token.is_none() && (is_stored || self.last().as_ref().is_some_and(is_known)) {
            return Ok(());
        }
        token.scope = token.scope.or_else(|| Some(saved.scopes.clone())).filter(|scopes| !scopes.is_empty());
        let known = stored.as_ref().and_then(Grant::of);
        let known = known.filter(|grant| grant.client_id == saved.client_id && grant.issuer == saved.issuer);
        let grant = match known {
            Some(grant) => grant,
            None => self.discover(saved).await?,
        };
        grant.add_to(&mut token);
        self.connection.store_login(token).await
    }

    /// Discovers where the token of a login by the SDK is refreshed.
    async fn discover(&self, saved: &Saved) -> Result<Grant, McpError> {
        let mut manager = self.connection.manager().await?;
        let metadata = manager.resolve_metadata().await?.metadata;
        if metadata.issuer != saved.issuer {
            return Err(McpError::WrongIssuer);
        }
        manager.set_metadata(metadata.clone());
        let client = registration::known(&self.connection, &saved.client_id).await?;
        // The SDK shows the resource only in this URL.
        let url = self.connection.authorization_url(&mut manager, &client, &[]).await?;
        Grant::new(&self.connection.server, &metadata, &client, parameter(&url, "resource")?)
    }

    /// Deletes the token of another authorization server than this one.
    async fn discard(&self, issuer: Option<&str>) -> Result<(), McpError> {
        let (tokens, key) = (&self.connection.connector.tokens, &self.connection.key);
        let Some(found) = tokens.get(key).await? else { return Ok(()) };
        let grant = found.value.as_oauth2().and_then(Grant::of);
        if grant.is_some_and(|grant| grant.issuer.as_deref() == issuer) {
            return Ok(());
        }
        match tokens.delete(key, Some(found.version)).await {
            // A login in the meantime is at the current authorization server.
            Err(TokensError::Storage(StorageError::Conflict)) => Ok(()),
            deleted => deleted.map(drop).map_err(McpError::from),
        }
    }
}

/// The rest of the credentials that the SDK saves.
struct Saved {
    client_id: String,
    scopes: Vec<String>,
    issuer: Option<String>,
    received_at: Timestamp,
}

#[async_trait]
impl CredentialStore for McpCredentials {
    async fn load(&self) -> Result<Option<StoredCredentials>, AuthError> {
        let token = match self.connection.token().await {
            Ok(token) => token,
            Err(error) => return to_sdk(&error).map_or(Ok(None), Err),
        };
        self.set_last(&token.access_token);
        Ok(credentials(&token, self.connection.connector.endpoints.clock.now()))
    }

    async fn save(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        let received_at = credentials.token_received_at.map(Timestamp::from_unix_seconds);
        let saved = Saved {
            client_id: credentials.client_id,
            scopes: credentials.granted_scopes,
            issuer: credentials.issuer,
            received_at: received_at.unwrap_or_else(|| self.connection.connector.endpoints.clock.now()),
        };
        let done = match credentials.token_response {
            Some(response) => self.store(response, &saved).await,
            None => self.discard(saved.issuer.as_deref()).await,
        };
        done.map_err(|error| failed(&error))
    }

    async fn clear(&self) -> Result<(), AuthError> {
        let deleted = self.connection.connector.tokens.delete(&self.connection.key, None).await;
        deleted.map(drop).map_err(|error| failed(&error.into()))
    }

    /// The manager calls this only if the server has rejected the token, or if the application requests a refresh. It would
    /// load the credentials next, and send their refresh token.
    async fn acquire_refresh_guard(&self) -> Result<Option<CredentialRefreshGuard>, AuthError> {
        let Some(rejected) = self.last() else { return Ok(None) };
        match self.connection.replace(&rejected, Rejection::Unexplained).await {
            Ok(Some(_)) => {
                let problem = "the access token was replaced; send the request again";
                Err(AuthError::TokenRefreshFailed(problem.to_owned()))
            }
            Ok(None) => Ok(None),
            Err(error) => to_sdk(&error).map_or(Ok(None), Err),
        }
    }
}

impl fmt::Debug for McpCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpCredentials").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Credentials for the SDK, without the refresh token and without the time at which the token was received.
fn credentials(token: &OAuth2Token, now: Timestamp) -> Option<StoredCredentials> {
    let grant = Grant::of(token)?;
    let mut members: Map<String, Value> = grant::other_members(&token.extra);
    members.insert("access_token".to_owned(), token.access_token.expose().into());
    members.insert("token_type".to_owned(), token.token_type.as_str().into());
    if let Some(expires_at) = token.expires_at {
        members.insert("expires_in".to_owned(), expires_at.saturating_since(now).as_secs().into());
    }
    let scopes = token.scope.clone().unwrap_or_default();
    if !scopes.is_empty() {
        members.insert("scope".to_owned(), json!(scopes.join(" ")));
    }
    let response = serde_json::from_value(members.into()).ok()?;
    Some(StoredCredentials::new(grant.client_id, Some(response), scopes, None).with_issuer(grant.issuer))
}

/// The [`StateStore`] of one user at one server, for an [`AuthorizationManager`] of the Rust SDK.
/// [`McpConnection::states`] creates it.
///
/// A login that one replica has started can be finished by another one. A state works once, for the user and the server that
/// it was created for, and expires after ten minutes.
///
/// The replica that finishes the login has to configure the same client as the one that started it.
/// [`McpConnection::start_login`] and [`McpConnection::finish_login`] do all of this.
///
/// [`AuthorizationManager`]: rmcp::transport::auth::AuthorizationManager
#[derive(Debug)]
pub struct McpStates {
    connection: McpConnection,
}

impl McpStates {
    pub(crate) fn new(connection: McpConnection) -> Self {
        Self { connection }
    }
}

#[async_trait]
impl StateStore for McpStates {
    async fn save(&self, csrf_token: &str, state: StoredAuthorizationState) -> Result<(), AuthError> {
        let stored = pending::put(&self.connection, csrf_token, &Pending { state, grant: None }).await;
        stored.map_err(|error| failed(&error))
    }

    async fn load(&self, csrf_token: &str) -> Result<Option<StoredAuthorizationState>, AuthError> {
        let found = pending::get(&self.connection, csrf_token).await.map_err(|error| failed(&error))?;
        Ok(found.map(|(pending, _)| pending.state))
    }

    /// The SDK calls this before it exchanges the code. An error for all callers but one makes the state work once.
    async fn delete(&self, csrf_token: &str) -> Result<(), AuthError> {
        match pending::spend(&self.connection, csrf_token, None).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AuthError::AuthorizationFailed(McpError::UnknownLogin.to_string())),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// An error of a store for the SDK.
fn failed(error: &McpError) -> AuthError {
    to_sdk(error).unwrap_or_else(|| AuthError::CredentialStoreError(with_causes(error)))
}
