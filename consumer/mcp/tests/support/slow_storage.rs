use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, MemoryStorage, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage,
    Version, Versioned, async_trait,
};
use tokio::time::sleep;

/// How long an operation takes. Without it, every operation ends before another task runs.
const LATENCY: Duration = Duration::from_millis(3);

/// A storage in memory that takes as long as a database.
#[derive(Clone)]
pub struct SlowStorage(pub MemoryStorage);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TokenStorage for SlowStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let found = self.0.get(key).await;
        sleep(LATENCY).await;
        found
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        sleep(LATENCY).await;
        self.0.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        sleep(LATENCY).await;
        self.0.delete(key, only).await
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
