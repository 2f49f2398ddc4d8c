//! One process's way to the storage, which fails as told.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::error::StorageError;
use crate::key::TokenKey;
use crate::memory::MemoryStorage;
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};

/// One way to or from the storage.
const WAY: Duration = Duration::from_millis(1);

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Nothing,
    Unavailable,
    /// Refused for good.
    TooLarge,
    /// Not done, and broken off.
    RequestLost,
    /// Done, and broken off.
    AnswerLost,
    /// Broken off, and done this much later.
    DoneLater(Duration),
    /// It arrives this much later.
    SlowRequest(Duration),
    /// It is done at once and acknowledged this much later.
    SlowAnswer(Duration),
    /// The process dies before the operation is done.
    DieBefore,
    /// The process dies once it is done.
    DieAfter,
}

#[derive(Debug, Default)]
pub(crate) struct FaultyStorage {
    shared: MemoryStorage,
    reads: Mutex<VecDeque<Fault>>,
    writes: Mutex<VecDeque<Fault>>,
    pub(crate) reads_down: AtomicBool,
    pub(crate) writes_down: AtomicBool,
    dead: AtomicBool,
    is_of_a_request: bool,
    pub(crate) read: AtomicU32,
}

impl FaultyStorage {
    pub(crate) fn new(shared: MemoryStorage) -> Self {
        Self { shared, ..Self::default() }
    }

    /// The storage of one request: it sees no other's.
    pub(crate) fn of_a_request() -> Self {
        Self { is_of_a_request: true, ..Self::default() }
    }

    pub(crate) fn next_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.reads.lock().unwrap().extend(faults);
    }

    pub(crate) fn next_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        self.writes.lock().unwrap().extend(faults);
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.reads_down.store(down, Ordering::SeqCst);
        self.writes_down.store(down, Ordering::SeqCst);
    }

    /// Nothing this process does has an effect any more, and nothing ends.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    async fn live(&self) {
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        fault: Fault,
        operation: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.live().await;
        sleep(WAY).await;
        self.live().await;
        match fault {
            Fault::Nothing | Fault::AnswerLost | Fault::SlowAnswer(_) | Fault::DieAfter => {}
            Fault::Unavailable => return Err(StorageError::unavailable("down")),
            Fault::TooLarge => return Err(StorageError::TooLarge { size: 1, limit: 0 }),
            Fault::RequestLost => return Err(StorageError::ambiguous("cut off")),
            Fault::DoneLater(time) => {
                tokio::spawn(async move {
                    sleep(time).await;
                    operation.await
                });
                return Err(StorageError::ambiguous("cut off"));
            }
            Fault::SlowRequest(time) => sleep(time).await,
            Fault::DieBefore => self.die(),
        }
        self.live().await;
        let result = operation.await;
        match fault {
            Fault::AnswerLost => return Err(StorageError::ambiguous("cut off")),
            Fault::SlowAnswer(time) => sleep(time).await,
            Fault::DieAfter => self.die(),
            _ => {}
        }
        sleep(WAY).await;
        self.live().await;
        result
    }
}

#[async_trait]
impl TokenStorage for FaultyStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let scripted = self.reads.lock().unwrap().pop_front().unwrap_or(Fault::Nothing);
        let fault = if self.reads_down.load(Ordering::SeqCst) { Fault::Unavailable } else { scripted };
        let (shared, key) = (self.shared.clone(), key.clone());
        self.read.fetch_add(1, Ordering::SeqCst);
        self.run(fault, async move { shared.get(&key).await }).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let scripted = self.writes.lock().unwrap().pop_front().unwrap_or(Fault::Nothing);
        let fault = if self.writes_down.load(Ordering::SeqCst) { Fault::Unavailable } else { scripted };
        let (shared, key, record) = (self.shared.clone(), key.clone(), record.clone());
        self.run(fault, async move { shared.put(&key, &record, when).await }).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.shared.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        if self.reads_down.load(Ordering::SeqCst) {
            return Err(StorageError::unavailable("down"));
        }
        self.shared.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.shared.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities().with_request_bound(self.is_of_a_request)
    }
}
