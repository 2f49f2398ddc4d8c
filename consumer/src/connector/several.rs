//! Clients of several connections at once.

use std::future::Future;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use oauth_dance_core::TokenKey;

use super::Connector;
use crate::client::ApiClient;
use crate::error::ConnectError;

/// How many tokens are read at the same time.
const AT_ONCE: usize = 64;

impl Connector {
    /// Clients for several connections, of one user or of many, in the order of `keys`. Each is what
    /// [`client`](Self::client) returns, and one that fails does not affect the others.
    ///
    /// Up to 64 tokens are read from the storage at the same time, so that they take hardly longer than one: Redis returns
    /// them in one round trip. Tokens that have expired are refreshed at the same time too.
    ///
    /// ```
    /// use oauth_dance::{Connector, TokenKey};
    ///
    /// async fn nightly(connector: &Connector, keys: &[TokenKey]) {
    ///     for (key, client) in keys.iter().zip(connector.clients(keys).await) {
    ///         match client {
    ///             Ok(github) => println!("{key}: {:?}", github.token().scope()),
    ///             Err(error) => eprintln!("{key}: {error}"),
    ///         }
    ///     }
    /// }
    /// # let _ = nightly;
    /// ```
    ///
    /// # Cancel safety
    /// As [`client`](Self::client).
    pub async fn clients(&self, keys: &[TokenKey]) -> Vec<Result<ApiClient, ConnectError>> {
        in_order(keys.iter().map(|key| self.client(key))).await
    }
}

/// The results of all futures, in order. At most [`AT_ONCE`] of them run at the same time.
pub(crate) async fn in_order<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let (mut results, mut waiting) = (Vec::new(), FuturesOrdered::new());
    for one in all {
        if waiting.len() == AT_ONCE {
            results.extend(waiting.next().await);
        }
        waiting.push_back(one);
    }
    results.extend(waiting.collect::<Vec<_>>().await);
    results
}
