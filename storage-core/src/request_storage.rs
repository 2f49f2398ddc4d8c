//! Passes the storage of one request from a middleware to a handler.

use std::fmt;
use std::sync::Arc;

use crate::storage::TokenStorage;

/// The token storage of one request, such as the session or the cookies of that request.
///
/// A middleware creates one for each request and inserts it into the extensions of the request, where the handlers find
/// it. Do not use it after the response was sent, because a write would be lost.
///
/// Such a storage declares [`Capabilities::request_bound`](crate::Capabilities::request_bound). Concurrent requests do
/// not see each other's writes. A [`Refresher`](crate::Refresher) therefore needs a
/// [ledger](crate::Refresher::with_ledger) to redeem each refresh token once.
///
/// ```
/// use oauth_dance_core::{MemoryStorage, RequestStorage, TokenStorage};
///
/// // In a middleware:
/// # #[derive(Default)] struct Extensions(Option<RequestStorage>);
/// # impl Extensions { fn insert(&mut self, it: RequestStorage) { self.0 = Some(it) } }
/// # let mut extensions = Extensions::default();
/// extensions.insert(RequestStorage::new(MemoryStorage::new()));
/// # assert_eq!(extensions.0.unwrap().storage().capabilities().name, "memory");
/// ```
#[derive(Clone)]
pub struct RequestStorage(Arc<dyn TokenStorage>);

impl RequestStorage {
    /// Wraps a storage for the extensions of a request.
    pub fn new(storage: impl TokenStorage) -> Self {
        Self(Arc::new(storage))
    }

    /// The storage, to be used until the response is sent.
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.0
    }
}

impl fmt::Debug for RequestStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestStorage").field(&self.0.capabilities().name).finish()
    }
}
