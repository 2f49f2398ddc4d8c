//! Clients of several connections at once.

use super::OAuth;
use crate::browser::user::User;
use crate::client::ApiClient;
use crate::connector::in_order;
use crate::error::ConnectError;

impl OAuth {
    /// Clients for several connections, of one user or of many, in the order of `wanted`. Each is what
    /// [`client`](Self::client) returns, and one that fails does not affect the others.
    ///
    /// Up to 64 tokens are read from the storage at the same time, so that they take hardly longer than one: Redis returns
    /// them in one round trip. Tokens that have expired are refreshed at the same time too.
    ///
    /// ```
    /// use oauth_dance::{OAuth, User};
    ///
    /// async fn nightly(oauth: &OAuth, users: &[User]) {
    ///     let wanted: Vec<_> = users.iter().map(|user| ("github", user)).collect();
    ///     for (user, client) in users.iter().zip(oauth.clients(&wanted).await) {
    ///         match client {
    ///             Ok(github) => println!("{}: {:?}", user.id(), github.token().scope()),
    ///             Err(error) => eprintln!("{}: {error}", user.id()),
    ///         }
    ///     }
    /// }
    /// # let _ = nightly;
    /// ```
    ///
    /// # Cancel safety
    /// As [`client`](Self::client).
    pub async fn clients(&self, wanted: &[(&str, &User)]) -> Vec<Result<ApiClient, ConnectError>> {
        in_order(wanted.iter().map(|(provider, user)| self.client(provider, user))).await
    }
}
