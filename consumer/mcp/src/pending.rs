//! Logins in progress, stored where every replica reads them.
//!
//! The browser may return to another replica than the one at which the login was started. The record is sealed, belongs to
//! the server and the user that started the login, works once, and expires.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{OAuth2Token, Precondition, TokenKey, Tokens, Version};
use rmcp::transport::auth::StoredAuthorizationState;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use sha2::{Digest as _, Sha256};

use crate::connection::McpConnection;
use crate::error::McpError;
use crate::grant::{self, Grant};

/// How long a login may take.
pub(crate) const RETENTION: Duration = Duration::from_secs(600);
/// How many expired records each login removes.
const PURGED: usize = 100;

/// A login in progress.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    /// The verifier and the state, as the Rust SDK stores them.
    pub(crate) state: StoredAuthorizationState,
    /// Where the code is exchanged. `None` if the login was started by the Rust SDK alone.
    pub(crate) grant: Option<Grant>,
}

/// Stores a login.
pub(crate) async fn put(connection: &McpConnection, state: &str, pending: &Pending) -> Result<(), McpError> {
    let mut record = OAuth2Token::bearer("a login in progress");
    record.extra = grant::with_member(Map::new(), pending);
    let tokens = tokens(connection);
    tokens.put(&key_of(connection, state)?, &record.into(), Precondition::Absent).await?;
    purge(&tokens);
    Ok(())
}

/// Reads a login of this user at this server.
pub(crate) async fn get(connection: &McpConnection, state: &str) -> Result<Option<(Pending, Version)>, McpError> {
    let Some(found) = tokens(connection).get(&key_of(connection, state)?).await? else { return Ok(None) };
    Ok(grant::read(found.value.extra()).map(|pending| (pending, found.version)))
}

/// Ends a login. Of all callers in all processes, exactly one gets `true`.
pub(crate) async fn spend(connection: &McpConnection, state: &str, only: Option<Version>) -> Result<bool, McpError> {
    Ok(tokens(connection).delete(&key_of(connection, state)?, only).await?)
}

fn tokens(connection: &McpConnection) -> Tokens {
    connection.connector.tokens.clone().with_retention(RETENTION)
}

/// The key contains the state only as a hash, because keys are not sealed.
fn key_of(connection: &McpConnection, state: &str) -> Result<TokenKey, McpError> {
    let mut hash = Sha256::new().chain_update(connection.key.to_bytes());
    hash.update(state);
    let attempt = URL_SAFE_NO_PAD.encode(hash.finalize());
    Ok(TokenKey::for_attempt(connection.server.url.as_str(), attempt)?)
}

/// Removes expired records, so that an application that never purges does not fill its storage.
fn purge(tokens: &Tokens) {
    let storage = Arc::clone(tokens.storage());
    tokio::spawn(async move {
        if let Err(error) = storage.purge(PURGED).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "expired records were not purged");
        }
    });
}
