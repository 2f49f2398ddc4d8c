//! A correct storage that is slow, or accepts only small payloads.

use std::time::Duration;

use oauth_dance_conformance::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};

use super::Server;

/// A storage whose calls take at least this time, and whose payloads have this limit.
pub(crate) struct Tuned {
    pub(crate) server: Server,
    pub(crate) call: Duration,
    pub(crate) limit: Option<usize>,
}

impl Tuned {
    async fn wait(&self) {
        if !self.call.is_zero() {
            tokio::time::sleep(self.call).await;
        }
    }
}

#[async_trait]
impl TokenStorage for Tuned {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.wait().await;
        self.server.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.wait().await;
        match self.limit {
            Some(limit) if record.payload.len() > limit => {
                Err(StorageError::TooLarge { size: record.payload.len(), limit })
            }
            _ => self.server.put(key, record, when).await,
        }
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.wait().await;
        self.server.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.wait().await;
        self.server.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.wait().await;
        self.server.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = self.server.capabilities();
        self.limit.map_or(capabilities, |limit| capabilities.with_max_payload(limit))
    }
}
