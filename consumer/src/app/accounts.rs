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
    /// The user, with the [account](User::account) where one was named: what [`OAuth::client`] takes.
    pub user: User,
    /// When its access token expires, if ever.
    pub expires_at: Option<Timestamp>,
}

impl OAuth {
    /// Every account that a user has connected at any provider, without reading its tokens. A provider that is not
    /// configured any more is among them, so that its token can be forgotten.
    ///
    /// # Errors
    /// [`ConnectError::Storage`], with [`Unsupported`](oauth_dance_core::StorageError::Unsupported) underneath where the
    /// storage cannot list.
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
