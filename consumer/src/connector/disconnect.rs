//! The end of a connection: its token is deleted, and revoked at the provider.

use oauth_dance_core::{Filter, OAuth2Token, StorageError, Token, TokenKey, TokensError, Versioned};

use super::{Connector, own_key};
use crate::error::ConnectError;
use crate::protocol::oauth2::Revocation;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::registered::Registered;

/// How often a token may be replaced while it is being removed. Each refresh writes twice.
const MAX_REMOVE_RETRIES: usize = 8;
/// How many responses to deletions may be lost.
const MAX_LOST: usize = 3;

impl Connector {
    /// Deletes the token under this key, then revokes it at the provider if that has a revocation endpoint (RFC 7009).
    ///
    /// The token is deleted here even if the provider cannot be reached; [`Disconnected::revocation`] reports that. The
    /// token of a provider that is not configured is deleted too, and so are the tokens that were
    /// [exchanged](Self::exchange) for this one, if the storage can list them. A refresh that is in flight stores nothing after this, and
    /// revokes the token that it receives.
    ///
    /// ```
    /// use oauth_dance::{Connector, KeyRing, MemoryStorage, Revocation, TokenKey, testing::TestProvider};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let alice = TokenKey::new("acme", "alice")?;
    /// provider.connect_key(&connector, &alice).await?;
    /// let disconnected = connector.disconnect(&alice).await?;
    /// assert!(disconnected.removed);
    /// assert_eq!(disconnected.revocation, Revocation::Done);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// If this future is dropped, the token may be deleted and not yet revoked. Calling it again does not revoke it, because
    /// the token is then no longer known; use [`revoke`](Self::revoke) first if that matters.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`] if no such provider is configured and nothing was stored;
    /// [`ConnectError::Storage`].
    pub async fn disconnect(&self, key: &TokenKey) -> Result<Disconnected, ConnectError> {
        let (removed, token) = self.remove(key).await?;
        let revocation = match (self.registered(key.provider()), token) {
            (Ok(registered), Some(Token::OAuth2(token))) => self.revoke_token(registered, &token).await,
            (Err(error), _) if !removed => return Err(error),
            _ => Revocation::NotPossible,
        };
        self.forget_exchanged(key).await;
        tracing::info!(provider = key.provider(), removed, ?revocation, "disconnected");
        Ok(Disconnected { removed, revocation })
    }

    /// Revokes the token under this key at the provider (RFC 7009), and those that were [exchanged](Self::exchange) for
    /// it, and leaves them in the storage. To delete them as well, use [`disconnect`](Self::disconnect). This is for
    /// programs that may be killed at any time and run again: they revoke first, and then remove the version that they
    /// revoked.
    ///
    /// # Cancel safety
    /// Nothing is stored or deleted. The provider may or may not have received the request; revoking a token twice is
    /// harmless.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`].
    pub async fn revoke(&self, key: &TokenKey) -> Result<Revocation, ConnectError> {
        let registered = self.registered(key.provider())?;
        let mut has_failed = false;
        for exchanged in self.exchanged(key).await? {
            match self.tokens.get(&exchanged).await {
                Ok(Some(Versioned { value: Token::OAuth2(token), .. })) => {
                    has_failed |= self.revoke_token(registered, &token).await == Revocation::Failed;
                }
                Ok(_) => {}
                Err(error) => not_forgotten(key, &error.into()),
            }
        }
        let revocation = match self.tokens.get(key).await? {
            Some(Versioned { value: Token::OAuth2(token), .. }) => self.revoke_token(registered, &token).await,
            _ => Revocation::NotPossible,
        };
        Ok(if has_failed { Revocation::Failed } else { revocation })
    }

    async fn revoke_token(&self, registered: &Registered, token: &OAuth2Token) -> Revocation {
        let http = &self.shared.http;
        revoke_grant(http, &registered.best_effort(http).await, token).await
    }

    /// Removes and revokes what was exchanged for a token that is deleted. What remains is never used again, because it is
    /// bound to that token.
    async fn forget_exchanged(&self, key: &TokenKey) {
        let exchanged = match self.exchanged(key).await {
            Ok(exchanged) => exchanged,
            Err(error) => return not_forgotten(key, &error),
        };
        for exchanged in exchanged {
            match self.remove(&exchanged).await {
                Ok((_, Some(Token::OAuth2(token)))) => {
                    if let Ok(registered) = self.registered(key.provider()) {
                        self.revoke_token(registered, &token).await;
                    }
                }
                Ok(_) => {}
                Err(error) => not_forgotten(key, &error),
            }
        }
    }

    /// The keys of the tokens that were exchanged for the one under this key; none if the storage cannot list.
    async fn exchanged(&self, key: &TokenKey) -> Result<Vec<TokenKey>, ConnectError> {
        let filter = Filter::everything().tenant(key.tenant()).user(key.user()).provider(key.provider());
        let entries = match self.entries(&filter).await {
            Err(TokensError::Storage(StorageError::Unsupported(_))) => Vec::new(),
            entries => entries?,
        };
        let keys = entries.into_iter().map(|entry| entry.key);
        Ok(keys.filter(|found| own_key::is_exchanged_from(found, key)).collect())
    }

    /// Removes a token and returns exactly the one that was removed, which a refresh may have stored a moment ago.
    ///
    /// If the response of the storage is lost, the token is read again. Otherwise a token that is gone would never be
    /// revoked, because a retry no longer finds it.
    async fn remove(&self, key: &TokenKey) -> Result<(bool, Option<Token>), ConnectError> {
        // The last token whose deletion may have taken effect, and the error of that deletion.
        let (mut unanswered, mut lost) = (None, 0);
        for _ in 0..MAX_REMOVE_RETRIES {
            match (self.tokens.get(key).await, unanswered.take()) {
                (Ok(Some(Versioned { value: token, version })), earlier) => {
                    match self.tokens.delete(key, Some(version)).await {
                        Ok(true) => return Ok((true, Some(token))),
                        // A refresh has replaced the token, or the earlier deletion took effect late.
                        Ok(false) => unanswered = earlier,
                        Err(error @ TokensError::Storage(StorageError::Ambiguous { .. })) if lost < MAX_LOST => {
                            (unanswered, lost) = (Some((token, error)), lost + 1);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                (Ok(None), Some((token, _))) => return Ok((true, Some(token))),
                (Err(_), Some((_, error))) => return Err(error.into()),
                // An unreadable token can still be deleted, but not revoked.
                (Ok(None) | Err(_), None) => break,
            }
        }
        let removed = self.tokens.delete(key, None).await?;
        Ok((removed || unanswered.is_some(), unanswered.map(|(token, _)| token)))
    }
}

fn not_forgotten(key: &TokenKey, error: &ConnectError) {
    let (provider, error) = (key.provider(), error as &dyn std::error::Error);
    tracing::warn!(provider, error, "exchanged tokens of an ended connection remain stored, and are not used");
}

/// What [`Connector::disconnect`] and `OAuth::disconnect` did. Whatever the revocation, no token is stored afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected {
    /// Whether a token was stored. If not, the user had not connected an account, or has disconnected it before.
    pub removed: bool,
    /// The result of the revocation at the provider. After [`Revocation::Failed`] the token may still be valid there until
    /// it expires, or until the user removes the application in the provider's settings.
    pub revocation: Revocation,
}

#[cfg(test)]
mod tests;
