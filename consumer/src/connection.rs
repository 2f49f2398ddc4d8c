//! From a stored token to one that can be used: reading it, and refreshing it where it has expired.

use std::sync::Arc;

use oauth_dance_core::{
    OAuth2Token, Precondition, Secret, StorageError, Token, TokenKey, Tokens, TokensError, Versioned,
};

use crate::error::ConnectError;
use crate::oauth::OAuth;
use crate::registered::Registered;
use crate::token_endpoint;

/// A token that has not expired, refreshed if need be.
pub(crate) async fn usable_token(
    oauth: &OAuth,
    registered: &Arc<Registered>,
    key: &TokenKey,
) -> Result<OAuth2Token, ConnectError> {
    let found = load(&oauth.tokens, key).await?.ok_or(ConnectError::NotConnected)?;
    if !found.value.is_expired_at(oauth.inner.clock.now()) {
        return Ok(found.value);
    }
    let Some(refresh_token) = found.value.refresh_token.clone() else {
        let reason = "the access token has expired, and the provider gave no refresh token";
        return Err(ConnectError::NeedsAuthorization { reason });
    };
    // In a task of its own: a caller that goes away must not lose a refresh token that was already exchanged.
    let (oauth, registered, key) = (oauth.clone(), Arc::clone(registered), key.clone());
    let refreshing = tokio::spawn(async move { refresh(&oauth, &registered, &key, found, &refresh_token).await });
    refreshing.await.map_err(|_| ConnectError::Interrupted)?
}

/// The stored token with its version, or `None` if there is none.
pub(crate) async fn load(tokens: &Tokens, key: &TokenKey) -> Result<Option<Versioned<OAuth2Token>>, ConnectError> {
    match tokens.get(key).await? {
        None => Ok(None),
        Some(Versioned { value: Token::OAuth2(token), version }) => Ok(Some(Versioned::new(token, version))),
        Some(_) => Err(ConnectError::WrongKind),
    }
}

async fn refresh(
    oauth: &OAuth,
    registered: &Registered,
    key: &TokenKey,
    old: Versioned<OAuth2Token>,
    refresh_token: &Secret,
) -> Result<OAuth2Token, ConnectError> {
    let now = oauth.inner.clock.now();
    let answer = token_endpoint::refresh(&oauth.inner.http, registered, &old.value, refresh_token, now).await;
    let new = match answer {
        Ok(new) => new,
        Err(error) => {
            tracing::warn!(provider = registered.name, error = &error as &dyn std::error::Error, "refresh failed");
            // Somebody else may have been faster; then theirs is the token.
            if let Some(winner) = newer(oauth, key, &old).await? {
                return Ok(winner);
            }
            if error.needs_authorization() {
                let reason = "the provider no longer accepts the refresh token";
                return Err(ConnectError::NeedsAuthorization { reason });
            }
            return Err(error.into());
        }
    };
    let stored = oauth.tokens.put(key, &Token::from(new.clone()), Precondition::Version(old.version)).await;
    match stored {
        Ok(_) => {
            tracing::info!(provider = registered.name, "token refreshed");
            Ok(new)
        }
        // A logout or a new login meanwhile stays as it is.
        Err(TokensError::Storage(StorageError::Conflict)) => {
            newer(oauth, key, &old).await?.ok_or(ConnectError::NotConnected)
        }
        Err(error) => Err(error.into()),
    }
}

/// What is stored now, if it is usable and not what the refresh started from.
async fn newer(
    oauth: &OAuth,
    key: &TokenKey,
    old: &Versioned<OAuth2Token>,
) -> Result<Option<OAuth2Token>, ConnectError> {
    let current = load(&oauth.tokens, key).await?;
    Ok(current.filter(|current| current.version != old.version).map(|current| current.value))
}
