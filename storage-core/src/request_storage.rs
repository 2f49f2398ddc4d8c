use std::fmt;
use std::sync::Arc;

use crate::storage::TokenStorage;

/// The token storage that one request brings with it, because it lives in that request's session or cookies.
///
/// A middleware makes one for each request and puts it into the request's extensions, where whatever needs the tokens
/// of this request finds it. It is of no use after the response was sent: keep none of it.
///
/// ```
/// use oauth_dance_core::{MemoryStorage, RequestStorage, TokenStorage};
///
/// // What a middleware does:
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
