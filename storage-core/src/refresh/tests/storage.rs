//! One process's connection to the storage, with scripted faults.

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

/// The latency of one direction to the storage.
const LATENCY: Duration = Duration::from_millis(1);

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    Unavailable,
    /// Permanently rejected.
    TooLarge,
    /// The operation is not executed, and the connection breaks.
    RequestLost,
    /// The operation is executed, and the connection breaks.
    ResponseLost,
    /// The connection breaks, and the operation is executed after this delay.
    DelayedWrite(Duration),
    /// The request arrives after this delay.
    SlowRequest(Duration),
    /// The operation is executed immediately, and acknowledged after this delay.
    SlowResponse(Duration),
    /// The process dies before the operation is executed.
    DieBefore,
    /// The process dies after the operation was executed.
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
    is_request_bound: bool,
    /// The number of reads.
    pub(crate) read: AtomicU32,
}

impl FaultyStorage {
    pub(crate) fn new(shared: MemoryStorage) -> Self {
        Self { shared, ..Self::default() }
    }

    /// The storage of one request, which shares nothing with other requests.
    pub(crate) fn request_bound() -> Self {
        Self { is_request_bound: true, ..Self::default() }
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

    /// Kills the process: its calls have no effect afterwards, and never return.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Never returns if the process is dead.
    async fn wait_if_dead(&self) {
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        fault: Fault,
        operation: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.wait_if_dead().await;
        sleep(LATENCY).await;
        self.wait_if_dead().await;
        match fault {
            Fault::None | Fault::ResponseLost | Fault::SlowResponse(_) | Fault::DieAfter => {}
            Fault::Unavailable => return Err(StorageError::unavailable("down")),
            Fault::TooLarge => return Err(StorageError::TooLarge { size: 1, limit: 0 }),
            Fault::RequestLost => return Err(StorageError::ambiguous("cut off")),
            Fault::DelayedWrite(time) => {
                tokio::spawn(async move {
                    sleep(time).await;
                    operation.await
                });
                return Err(StorageError::ambiguous("cut off"));
            }
            Fault::SlowRequest(time) => sleep(time).await,
            Fault::DieBefore => self.die(),
        }
        self.wait_if_dead().await;
        let result = operation.await;
        match fault {
            Fault::ResponseLost => return Err(StorageError::ambiguous("cut off")),
            Fault::SlowResponse(time) => sleep(time).await,
            Fault::DieAfter => self.die(),
            _ => {}
        }
        sleep(LATENCY).await;
        self.wait_if_dead().await;
        result
    }
}

#[async_trait]
impl TokenStorage for FaultyStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let scripted = self.reads.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let fault = if self.reads_down.load(Ordering::SeqCst) { Fault::Unavailable } else { scripted };
        let (shared, key) = (self.shared.clone(), key.clone());
        self.read.fetch_add(1, Ordering::SeqCst);
        self.run(fault, async move { shared.get(&key).await }).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let scripted = self.writes.lock().unwrap().pop_front().unwrap_or(Fault::None);
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
        self.shared.capabilities().with_request_bound(self.is_request_bound)
    }
}
