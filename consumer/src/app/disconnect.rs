//! The end of a connection: its token is deleted, and revoked at the provider.

use oauth_dance_core::{Token, TokenKey, Versioned};

use super::OAuth;
use crate::browser::user::User;
use crate::error::ConnectError;
use crate::protocol::oauth2::Revocation;
use crate::protocol::oauth2::revoke::revoke_grant;

/// How often a token may be replaced while it is being removed. Each refresh writes twice.
const MAX_REMOVE_RETRIES: usize = 8;

impl OAuth {
    /// Deletes this user's token, then revokes it at the provider if that has a revocation endpoint (RFC 7009).
    ///
    /// The token is deleted here even if the provider cannot be reached; [`Disconnected::revocation`] reports that. The
    /// token of a provider that is no longer configured is deleted too. A refresh that is in flight stores nothing after
    /// this, and revokes the token that it receives.
    ///
    /// To disconnect everything of a user who deletes their account, call it for each of their
    /// [`accounts`](Self::accounts):
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{ConnectError, OAuth, Revocation, User};
    ///
    /// async fn forget(oauth: &OAuth, user: &User) -> Result<(), ConnectError> {
    ///     for account in oauth.accounts(user).await? {
    ///         let disconnected = oauth.disconnect(&account.provider, &account.user).await?;
    ///         if disconnected.revocation == Revocation::Failed {
    ///             eprintln!("{}: the provider did not confirm the revocation", account.provider);
    ///         }
    ///     }
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// let alice = User::new("alice");
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// forget(&oauth, &alice).await?;
    /// assert!(oauth.connection("acme", &alice).await?.is_none());
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
    /// [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn disconnect(&self, provider: &str, user: &User) -> Result<Disconnected, ConnectError> {
        let (removed, token) = self.remove(&user.key(provider)?).await?;
        let revocation = match (self.registered(provider), token) {
            (Ok(registered), Some(Token::OAuth2(token))) => {
                revoke_grant(&self.inner.http, &registered.best_effort(&self.inner.http).await, &token).await
            }
            (Err(error), _) if !removed => return Err(error),
            _ => Revocation::NotPossible,
        };
        tracing::info!(provider, removed, ?revocation, "disconnected");
        Ok(Disconnected { removed, revocation })
    }

    /// Revokes this user's token at the provider (RFC 7009), and leaves it in the storage. To forget it as well, use
    /// [`disconnect`](Self::disconnect). This is for programs that may be killed at any time and run again: they revoke
    /// first, and then remove the version that they revoked.
    ///
    /// # Cancel safety
    /// Nothing is stored or deleted. The provider may or may not have received the request; revoking a token twice is
    /// harmless.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn revoke(&self, provider: &str, user: &User) -> Result<Revocation, ConnectError> {
        let registered = self.registered(provider)?;
        match self.tokens.get(&user.key(provider)?).await? {
            Some(Versioned { value: Token::OAuth2(token), .. }) => {
                Ok(revoke_grant(&self.inner.http, &registered.best_effort(&self.inner.http).await, &token).await)
            }
            _ => Ok(Revocation::NotPossible),
        }
    }

    /// Removes a token and returns exactly the one that was removed, which a refresh may have stored a moment ago.
    async fn remove(&self, key: &TokenKey) -> Result<(bool, Option<Token>), ConnectError> {
        for _ in 0..MAX_REMOVE_RETRIES {
            match self.tokens.get(key).await {
                Ok(Some(Versioned { value: token, version })) => {
                    if self.tokens.delete(key, Some(version)).await? {
                        return Ok((true, Some(token)));
                    }
                }
                // An unreadable token can still be deleted, but not revoked.
                Ok(None) | Err(_) => break,
            }
        }
        Ok((self.tokens.delete(key, None).await?, None))
    }
}

/// What [`OAuth::disconnect`] did. Whatever the revocation, no token is stored afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected {
    /// Whether a token was stored. If not, the user had not connected an account, or has disconnected it before.
    pub removed: bool,
    /// The result of the revocation at the provider. After [`Revocation::Failed`] the token may still be valid there until
    /// it expires, or until the user removes the application in the provider's settings.
    pub revocation: Revocation,
}
