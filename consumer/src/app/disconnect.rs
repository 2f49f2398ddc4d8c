//! The end of a connection: its token is deleted, and revoked at the provider.

use super::OAuth;
use crate::browser::user::User;
use crate::connector::Disconnected;
use crate::error::ConnectError;
use crate::protocol::oauth2::Revocation;

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
        self.connector.disconnect(&user.key(provider)?).await
    }

    /// Revokes this user's token at the provider (RFC 7009), and those that were exchanged for it, and leaves them in
    /// the storage. To delete them as well, use [`disconnect`](Self::disconnect). This is for programs that may be
    /// killed at any time and run again: they revoke first, and then remove the version that they revoked.
    ///
    /// # Cancel safety
    /// Nothing is stored or deleted. The provider may or may not have received the request; revoking a token twice is
    /// harmless.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn revoke(&self, provider: &str, user: &User) -> Result<Revocation, ConnectError> {
        self.connector.revoke(&self.key(provider, user)?).await
    }
}
