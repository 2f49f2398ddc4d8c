use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use oauth_dance::{MemoryStorage, TokenStorage};
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};

/// A memory storage that claims to be shared, and can be switched off.
#[derive(Default)]
pub struct FragileStorage {
    memory: MemoryStorage,
    pub down: AtomicBool,
    /// How many more writes succeed before it becomes unavailable; 0 for no limit.
    pub writes_left: AtomicUsize,
    pub writes: AtomicUsize,
    /// Whether the tokens of logins are rejected as too large.
    pub full: AtomicBool,
    /// Whether it has no lists.
    pub unlistable: AtomicBool,
    /// What another process writes directly after the next read.
    pub meanwhile: Mutex<Option<Record>>,
}

impl FragileStorage {
    /// A storage that uses this clock.
    pub fn with_clock(clock: oauth_dance::Clock) -> Self {
        Self { memory: MemoryStorage::new().with_clock(clock), ..Self::default() }
    }

    pub fn switch(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StorageError> {
        if self.down.load(Ordering::SeqCst) { Err(StorageError::unavailable("the plug is pulled")) } else { Ok(()) }
    }
}

#[async_trait]
impl TokenStorage for FragileStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.check()?;
        let found = self.memory.get(key).await;
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(record) = meanwhile {
            self.memory.put(key, &record, Precondition::Always).await?;
        }
        found
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.check()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        if when == Precondition::Always && self.full.load(Ordering::SeqCst) {
            return Err(StorageError::TooLarge { size: 1, limit: 0 });
        }
        let done = self.memory.put(key, record, when).await;
        if self.writes_left.load(Ordering::SeqCst) > 0 && self.writes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.switch(true);
        }
        done
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.check()?;
        self.memory.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.check()?;
        if self.unlistable.load(Ordering::SeqCst) {
            return Err(StorageError::Unsupported("list"));
        }
        self.memory.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.check()?;
        self.memory.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("fragile").with_atomic(true).with_listable(true).with_shared(true)
    }
}
