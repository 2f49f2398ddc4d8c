use std::fmt;
use std::sync::Arc;

use crate::storage::TokenStorage;

/// The token storage of one request, which stores tokens in the session or the cookies of that request.
///
/// A middleware creates one for each request and inserts it into the extensions of the request. The handlers of the
/// request use it from there. Do not use it after the response was sent.
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
    /// The storage of one request.
    pub fn new(storage: impl TokenStorage) -> Self {
        Self(Arc::new(storage))
    }

    /// The storage.
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.0
    }
}

impl fmt::Debug for RequestStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestStorage").field(&self.0.capabilities().name).finish()
    }
}
