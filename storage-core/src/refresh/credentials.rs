//! Token credentials of OAuth 1.0a.
//!
//! They have no expiry and are never refreshed. The only state they have is that the provider no longer accepts them,
//! which the application learns from an API call and reports with [`Refresher::mark_refused`].

use std::sync::Arc;

use super::event::observe;
use super::{RefreshError, RefreshEvent, Refresher};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::{DeadReason, Progress, Stored, have_same_credentials};
use crate::record::{Version, Versioned};
use crate::storage::Precondition;
use crate::token::{OAuth1Token, Token};
use crate::tokens::Tokens;

impl Refresher {
    /// Returns the token credentials of a user (RFC 5849 section 2.3), which have no expiry.
    ///
    /// ```
    /// use oauth_dance_core::{
    ///     KeyRing, MemoryStorage, OAuth1Token, Precondition, RefreshError, Refresher, TokenKey, Tokens,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (refresher, tokens) = (Refresher::new(), Tokens::sealed(MemoryStorage::new(), KeyRing::generate()));
    /// let key = TokenKey::new("flickr", "alice")?;
    /// tokens.put(&key, &OAuth1Token::new("72157626", "f8b3c4a1").into(), Precondition::Always).await?;
    ///
    /// let credentials = refresher.credentials(&tokens, &key).await?;
    /// assert_eq!(credentials.token, "72157626".into());
    ///
    /// // The API has rejected them.
    /// refresher.mark_refused(&credentials, &tokens, &key).await?;
    /// let refused = refresher.credentials(&tokens, &key).await;
    /// assert!(matches!(refused, Err(RefreshError::NeedsAuthorization { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// * [`RefreshError::NotConnected`] if no token is stored.
    /// * [`RefreshError::NeedsAuthorization`] after [`mark_refused`](Self::mark_refused).
    /// * [`RefreshError::WrongKind`] if a token of OAuth 2.0 is stored.
    /// * [`RefreshError::Storage`] if the storage failed.
    pub async fn credentials(&self, tokens: &Tokens, key: &TokenKey) -> Result<OAuth1Token, RefreshError> {
        if let Some(Token::OAuth1(token)) = self.cached(tokens, key).map(Arc::unwrap_or_clone) {
            return Ok(token);
        }
        match load(tokens, key).await? {
            (_, Progress::Dead { reason, since }, _) => Err(RefreshError::NeedsAuthorization { reason, since }),
            (token, _, _) => Ok(token),
        }
    }

    /// Marks token credentials that the provider no longer accepts, so that the user must authorize again. If other
    /// credentials have been stored since, they are unchanged.
    ///
    /// # Errors
    /// The errors of [`credentials`](Self::credentials).
    ///
    /// # Cancel safety
    /// Dropping this future leaves the mark either written or not.
    pub async fn mark_refused(
        &self,
        refused: &OAuth1Token,
        tokens: &Tokens,
        key: &TokenKey,
    ) -> Result<(), RefreshError> {
        let refused = Token::OAuth1(refused.clone());
        loop {
            let (token, progress, version) = load(tokens, key).await?;
            let token = Token::OAuth1(token);
            if !have_same_credentials(&token, &refused) || matches!(progress, Progress::Dead { .. }) {
                return Ok(());
            }
            let reason = DeadReason::Refused;
            let stored = Stored { token, progress: Progress::Dead { reason, since: self.policy.clock.now() } };
            match tokens.save(key, &stored, Precondition::Version(version)).await {
                Ok(_) => {
                    observe(&self.observer, key, &RefreshEvent::NeedsAuthorization { reason });
                    return Ok(());
                }
                // The user has logged in or out, or the application has changed the record.
                Err(TokensError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads token credentials and their state.
async fn load(tokens: &Tokens, key: &TokenKey) -> Result<(OAuth1Token, Progress, Version), RefreshError> {
    match tokens.load(key).await? {
        Some(Versioned { value: Stored { token: Token::OAuth1(token), progress }, version }) => {
            Ok((token, progress, version))
        }
        Some(_) => Err(RefreshError::WrongKind),
        None => Err(RefreshError::NotConnected),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::refresh::ConnectionState;
    use crate::{KeyRing, MemoryStorage, OAuth2Token};

    async fn connected(token: impl Into<Token>) -> (Refresher, Tokens, TokenKey, Arc<Mutex<Vec<RefreshEvent>>>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let refresher = Refresher::new().with_observer(move |_, event| seen.lock().unwrap().push(event.clone()));
        let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
        let key = TokenKey::new("example", "alice").unwrap();
        tokens.put(&key, &token.into(), Precondition::Always).await.unwrap();
        (refresher, tokens, key, events)
    }

    #[tokio::test]
    async fn refused_credentials_need_authorization() {
        let credentials = OAuth1Token::new("token", "secret");
        let (refresher, tokens, key, events) = connected(credentials.clone()).await;
        assert_eq!(refresher.credentials(&tokens, &key).await.unwrap(), credentials);
        assert_eq!(refresher.connection(&tokens, &key).await.unwrap().unwrap().state, ConnectionState::Valid);

        refresher.mark_refused(&credentials, &tokens, &key).await.unwrap();
        refresher.mark_refused(&credentials, &tokens, &key).await.unwrap();
        let found = refresher.credentials(&tokens, &key).await;
        assert!(
            matches!(found, Err(RefreshError::NeedsAuthorization { reason: DeadReason::Refused, .. })),
            "{found:?}"
        );
        let connection = refresher.connection(&tokens, &key).await.unwrap().unwrap();
        assert_eq!(connection.token, credentials.into(), "the token remains stored");
        assert!(matches!(connection.state, ConnectionState::NeedsAuthorization { .. }));
        assert_eq!(*events.lock().unwrap(), [RefreshEvent::NeedsAuthorization { reason: DeadReason::Refused }]);

        tokens.put(&key, &OAuth1Token::new("newer", "secret").into(), Precondition::Always).await.unwrap();
        assert!(refresher.credentials(&tokens, &key).await.is_ok(), "a new login replaces them");
    }

    #[tokio::test]
    async fn panic_of_the_observer_does_not_reach_the_request() {
        let credentials = OAuth1Token::new("token", "secret");
        let (refresher, tokens, key, _) = connected(credentials.clone()).await;
        let refresher = refresher.with_observer(|_, _| panic!("a bug in the application's observer"));
        refresher.mark_refused(&credentials, &tokens, &key).await.unwrap();
        assert!(refresher.credentials(&tokens, &key).await.is_err());
    }

    #[tokio::test]
    async fn newer_credentials_stay_when_older_are_refused() {
        let (refresher, tokens, key, events) = connected(OAuth1Token::new("newer", "secret")).await;
        refresher.mark_refused(&OAuth1Token::new("older", "secret"), &tokens, &key).await.unwrap();
        assert!(refresher.credentials(&tokens, &key).await.is_ok());
        assert!(events.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn missing_and_oauth2_tokens_are_distinct_errors() {
        let (refresher, tokens, key, _) = connected(OAuth2Token::bearer("token")).await;
        assert!(matches!(refresher.credentials(&tokens, &key).await, Err(RefreshError::WrongKind)));
        let missing = TokenKey::new("example", "missing").unwrap();
        assert!(matches!(refresher.credentials(&tokens, &missing).await, Err(RefreshError::NotConnected)));
    }
}
