//! Takes the place of the storage if each request has its own, and no request is given.
//!
//! An error of the storage says which call is wrong and what to use instead. An `Option` of a storage would move that error
//! into every method that reads a token.

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};

const UNSUPPORTED: StorageError = StorageError::Unsupported(
    "calls without a request, because each request has its own token storage; use `Connected` or `Connections` in a \
     handler",
);

/// The storage outside a request if each request has its own: every call is an error.
pub(crate) struct NoStorage;

#[async_trait]
impl TokenStorage for NoStorage {
    async fn get(&self, _key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        Err(UNSUPPORTED)
    }

    async fn put(&self, _key: &TokenKey, _record: &Record, _when: Precondition) -> Result<Version, StorageError> {
        Err(UNSUPPORTED)
    }

    async fn delete(&self, _key: &TokenKey, _only: Option<Version>) -> Result<bool, StorageError> {
        Err(UNSUPPORTED)
    }

    async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
        Err(UNSUPPORTED)
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Err(UNSUPPORTED)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("each request's own")
    }
}
