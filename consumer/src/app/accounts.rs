use oauth_dance_core::{Filter, PageRequest, Timestamp};

use super::OAuth;
use crate::browser::user::User;
use crate::error::ConnectError;

/// One account that a user has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The provider's name.
    pub provider: String,
    /// The user, with the [account](User::account) if one was named, as an argument of [`OAuth::client`].
    pub user: User,
    /// When its access token expires, if it does.
    pub expires_at: Option<Timestamp>,
}

impl OAuth {
    /// All accounts that a user has connected at any provider, without reading the tokens. Accounts at providers that are no
    /// longer configured are included, so that their tokens can be deleted.
    ///
    /// # Errors
    /// [`ConnectError::Storage`], caused by [`Unsupported`](oauth_dance_core::StorageError::Unsupported) if the storage
    /// cannot list.
    pub async fn accounts(&self, user: &User) -> Result<Vec<Account>, ConnectError> {
        let filter = Filter::everything().tenant(user.tenant()).user(user.id());
        let mut accounts = Vec::new();
        let mut request = PageRequest::default();
        loop {
            let page = self.tokens.list(&filter, request.clone()).await?;
            accounts.extend(page.entries.into_iter().map(|entry| Account {
                provider: entry.key.provider().to_owned(),
                user: User::of(&entry.key),
                expires_at: entry.expires_at,
            }));
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(accounts),
            }
        }
    }
}
