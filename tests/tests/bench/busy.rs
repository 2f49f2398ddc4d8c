//! A correct storage that rejects a write of a record while another write of it is in progress.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_conformance::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};
use tokio::time::sleep;

use super::Server;

pub(crate) struct Busy {
    server: Server,
    written: Mutex<HashSet<TokenKey>>,
}

impl Busy {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, written: Mutex::default() }
    }

    async fn begin<'a>(&'a self, key: &'a TokenKey) -> Result<Writing<'a>, StorageError> {
        if !self.written.lock().unwrap().insert(key.clone()) {
            return Err(StorageError::unavailable("the record is being written"));
        }
        let writing = Writing(self, key);
        sleep(Duration::from_millis(1)).await;
        Ok(writing)
    }
}

struct Writing<'a>(&'a Busy, &'a TokenKey);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.written.lock().unwrap().remove(self.1);
    }
}

#[async_trait]
impl TokenStorage for Busy {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.server.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let _writing = self.begin(key).await?;
        self.server.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let _writing = self.begin(key).await?;
        self.server.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.server.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.server.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.server.capabilities()
    }
}
