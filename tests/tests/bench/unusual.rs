//! Correct storages that use what the contract leaves open.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_conformance::async_trait;
use oauth_dance_core::{
    Capabilities, Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage,
    Version, Versioned,
};
use tokio::time::sleep;

use super::Server;

/// What may be unusual. Everything else is passed to the server.
pub(crate) enum Unusual {
    /// Lists in the order of a hash, which is the cursor. The first page is always empty, and so may be others.
    Scans,
    /// Declares a limit of payloads that no memory has.
    HasAHugeLimit,
    /// Writes in tasks that a drop does not stop, and rejects a write of a record while another write of it is in progress.
    WritesInTasks,
}

/// A storage that is unusual in one way.
pub(crate) struct Storage(pub(crate) Unusual, pub(crate) Server);

/// The keys of the records that are being written.
#[derive(Default)]
struct InProgress(Mutex<HashSet<TokenKey>>);

impl Storage {
    async fn write<T: Send + 'static>(
        &self,
        key: &TokenKey,
        write: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        if !matches!(self.0, Unusual::WritesInTasks) {
            return write.await;
        }
        let (in_progress, key) = (self.1.shared::<InProgress>(), key.clone());
        if !in_progress.0.lock().unwrap().insert(key.clone()) {
            return Err(StorageError::unavailable("the record is being written"));
        }
        let task = tokio::spawn(async move {
            sleep(Duration::from_millis(1)).await;
            let written = write.await;
            in_progress.0.lock().unwrap().remove(&key);
            written
        });
        task.await.unwrap()
    }

    async fn scan(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let all = PageRequest { after: None, limit: usize::MAX };
        let entries = self.1.list(&Filter::everything(), all).await?.entries;
        let Some(after) = page.after else {
            return Ok(Page { entries: Vec::new(), next: Some(Cursor::from_bytes([0; 16])) });
        };
        let after = after.as_bytes().try_into().map_err(|_| StorageError::InvalidCursor)?;
        let mut left: BTreeMap<[u8; 16], Entry> = BTreeMap::new();
        left.extend(entries.into_iter().map(|entry| (place(&entry.key), entry)).filter(|(place, _)| *place > after));
        // Long lists have long pages, so that the suite does not take long.
        let limit = page.limit.clamp(1, if left.len() > 60 { 1_000 } else { 3 });
        let is_last = left.len() <= limit;
        let read: Vec<_> = left.into_iter().take(limit).collect();
        let next = read.last().filter(|_| !is_last).map(|(place, _)| Cursor::from_bytes(*place));
        let entries = read.into_iter().map(|(_, entry)| entry).filter(|entry| filter.matches(entry)).collect();
        Ok(Page { entries, next })
    }
}

/// The place of a key in the order of a scan.
fn place(key: &TokenKey) -> [u8; 16] {
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (hash(0) << 64 | hash(1)).to_be_bytes()
}

#[async_trait]
impl TokenStorage for Storage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.1.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let (server, target, record) = (self.1.clone(), key.clone(), record.clone());
        self.write(key, async move { server.put(&target, &record, when).await }).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let (server, target) = (self.1.clone(), key.clone());
        self.write(key, async move { server.delete(&target, only).await }).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        match self.0 {
            Unusual::Scans => self.scan(filter, page).await,
            _ => self.1.list(filter, page).await,
        }
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.1.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = self.1.capabilities();
        match self.0 {
            Unusual::Scans => capabilities.with_ordered(false),
            Unusual::HasAHugeLimit => capabilities.with_max_payload(usize::MAX),
            Unusual::WritesInTasks => capabilities,
        }
    }
}
