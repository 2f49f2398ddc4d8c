//! Lists what a user has connected.
//!
//! A list reads the keys and the hints that are stored unsealed with each token, but no token. It therefore works for
//! tokens of providers that are no longer configured, and for tokens sealed with a key that is lost.

use oauth_dance_core::{Filter, Timestamp};

use super::OAuth;
use crate::browser::user::User;
use crate::connector::own_key::is_own;
use crate::error::ConnectError;

/// One account that a user has connected, in the list of [`OAuth::accounts`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The provider's name.
    pub provider: String,
    /// The user, with the [account](User::account) if one was named, as an argument of [`OAuth::client`].
    pub user: User,
    /// When its access token expires, if that is known. An expired access token does not mean that the connection has ended:
    /// it is refreshed when it is next used.
    pub expires_at: Option<Timestamp>,
}

impl OAuth {
    /// All accounts that a user has connected at any provider, without reading the tokens. Accounts at providers that are no
    /// longer configured are included, so that their tokens can be deleted. The list is not limited: a user has few
    /// accounts.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, testing::TestProvider};
    /// use oauth_dance::User;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// let alice = User::new("alice");
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// provider.connect(&oauth, "acme", &alice.clone().with_account("work")).await?;
    ///
    /// let accounts = oauth.accounts(&alice).await?;
    /// assert_eq!(accounts.len(), 2);
    /// assert!(accounts.iter().any(|account| account.user.account() == Some("work")));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::Storage`], caused by [`Unsupported`](oauth_dance_core::StorageError::Unsupported) if the storage
    /// cannot list.
    pub async fn accounts(&self, user: &User) -> Result<Vec<Account>, ConnectError> {
        let filter = Filter::everything().tenant(user.tenant()).user(user.id());
        let logins = self.connector.entries(&filter).await?.into_iter().filter(|entry| !is_own(&entry.key));
        let accounts = logins.map(|entry| Account {
            provider: entry.key.provider().to_owned(),
            user: User::of(&entry.key),
            expires_at: entry.expires_at,
        });
        Ok(accounts.collect())
    }
}
