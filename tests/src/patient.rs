//! Repeats calls that a busy storage has rejected.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned, random_bytes,
};
use tokio::time::sleep;

/// How long a call is repeated.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same storage for many calls at once. An application repeats a call that is `Unavailable`, because it has changed
/// nothing. A storage may return that if too many calls contend for one record.
pub(crate) struct Patient(pub(crate) Arc<dyn TokenStorage>);

async fn repeated<T, F>(call: impl Fn() -> F) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let begun = Instant::now();
    loop {
        match call().await {
            Err(StorageError::Unavailable { .. }) if begun.elapsed() < PATIENCE => {
                let [random] = random_bytes();
                sleep(Duration::from_millis(1 + u64::from(random) / 8)).await;
            }
            result => return result,
        }
    }
}

#[async_trait]
impl TokenStorage for Patient {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        repeated(|| self.0.get(key)).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        repeated(|| self.0.put(key, record, when)).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        repeated(|| self.0.delete(key, only)).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.0.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.0.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}
