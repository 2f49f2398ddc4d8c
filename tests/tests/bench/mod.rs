//! A storage in memory whose harness can do everything: move the clock, cause faults, open handles, dump the data.

#[allow(dead_code, reason = "not every test needs it")]
pub(crate) mod busy;
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) mod tuned;
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) mod unusual;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oauth_dance_conformance::{Fault, Harness, HarnessError, HarnessResult, async_trait};
use oauth_dance_core::{
    Capabilities, Clock, Filter, MemoryStorage, Page, PageRequest, Precondition, Record, StorageError, TokenKey,
    TokenStorage, Version, Versioned,
};

/// How many calls fail before another server takes over.
const MISSED: u64 = 3;

/// Creates the storage under test in front of a server.
pub(crate) type Front = fn(Server) -> Arc<dyn TokenStorage>;

/// A harness for a storage whose data is on a [`Server`].
pub(crate) struct Bench {
    front: Front,
    server: Server,
    storage: Arc<dyn TokenStorage>,
    siblings: Mutex<HashMap<String, Server>>,
    time_limit: Duration,
}

impl Bench {
    pub(crate) fn new(front: Front) -> Self {
        let server = Server::default();
        // Short, because some flaws use all of the time.
        let time_limit = Duration::from_secs(10);
        Self { front, storage: front(server.clone()), server, siblings: Mutex::default(), time_limit }
    }

    /// Sets a time limit for storages that have to pass even on a busy machine.
    #[allow(dead_code, reason = "broken storages do not have to pass")]
    pub(crate) fn with_long_time_limit(self) -> Self {
        Self { time_limit: Duration::from_secs(60), ..self }
    }
}

#[async_trait]
impl Harness for Bench {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::clone(&self.storage)
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok((self.front)(self.server.clone()))
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        let server = self.siblings.lock().unwrap().entry(namespace.to_owned()).or_default().clone();
        Ok((self.front)(server))
    }

    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        self.server.passed.fetch_add(by.as_secs(), Ordering::SeqCst);
        Ok(())
    }

    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        let mut dump = Vec::new();
        for memory in [self.server.memory(), self.server.other_database().memory()] {
            let page = memory.list(&Filter::everything(), PageRequest { after: None, limit: 1_000 }).await?;
            for entry in page.entries {
                if let Some(found) = memory.get(&entry.key).await? {
                    dump.extend(found.value.payload);
                }
            }
        }
        Ok(dump)
    }

    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        let found = match self.server.memory().get(key).await? {
            None => self.server.other_database().memory().get(key).await?,
            found => found,
        };
        let found = found.ok_or(HarnessError::Cannot("damage a record that does not exist"))?;
        self.server.damaged.lock().unwrap().insert(key.clone(), found.version);
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        self.server.missed.store(0, Ordering::SeqCst);
        *self.server.fault.lock().unwrap() = Some(fault);
        Ok(())
    }

    async fn heal(&self) -> HarnessResult<()> {
        *self.server.fault.lock().unwrap() = None;
        Ok(())
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?} {}", self.server.memory, self.server.log.lock().unwrap()))
    }

    fn time_limit(&self) -> Duration {
        self.time_limit
    }
}

/// A database server in memory. All clones are connections to the same server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    memory: MemoryStorage,
    other: MemoryStorage,
    passed: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<Fault>>>,
    damaged: Arc<Mutex<HashMap<TokenKey, Version>>>,
    /// How many calls a failover has cost so far.
    missed: Arc<AtomicU64>,
    log: Arc<Mutex<String>>,
    shared: Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>,
}

impl Server {
    /// The records, regardless of faults.
    pub(crate) fn memory(&self) -> MemoryStorage {
        self.memory.clone().with_clock(self.clock())
    }

    /// Other data on the same server, with the same clock and faults.
    #[allow(dead_code, reason = "most storages have one server")]
    pub(crate) fn other_database(&self) -> Self {
        Self { memory: self.other.clone(), other: self.memory.clone(), ..self.clone() }
    }

    /// Other state on the server, which all handles share. There is one value of each type.
    #[allow(dead_code, reason = "correct storages have no other state")]
    pub(crate) fn shared<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut shared = self.shared.lock().unwrap();
        let value = Arc::clone(shared.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())));
        value.downcast().unwrap()
    }

    /// The server's clock.
    pub(crate) fn clock(&self) -> Clock {
        let passed = Arc::clone(&self.passed);
        Clock::new(move || Clock::system().now().saturating_add(Duration::from_secs(passed.load(Ordering::SeqCst))))
    }

    /// Adds a line to the log that the harness returns.
    #[allow(dead_code, reason = "correct storages log nothing")]
    pub(crate) fn log(&self, line: &str) {
        self.log.lock().unwrap().push_str(line);
    }

    /// Whether another server has taken over.
    #[allow(dead_code, reason = "correct storages do not ask")]
    pub(crate) fn has_failed_over(&self) -> bool {
        matches!(*self.fault.lock().unwrap(), Some(Fault::Failover | Fault::Isolated))
    }

    async fn reach(&self, writes: bool) -> Result<(), StorageError> {
        // As on a network, other tasks may run in between.
        tokio::task::yield_now().await;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Some(Fault::Down) => Err(StorageError::unavailable("connection refused")),
            Some(Fault::Crash) => Err(StorageError::unavailable("the server has crashed")),
            Some(Fault::Silent) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(StorageError::unavailable("no reply in time"))
            }
            Some(Fault::ReadOnly) if writes => Err(StorageError::Misconfigured {
                advice: "connect to the primary".to_owned(),
                source: "the server is read-only".into(),
            }),
            Some(Fault::Full) if writes => Err(StorageError::unavailable("no space left")),
            Some(Fault::Failover | Fault::Isolated) if self.missed.fetch_add(1, Ordering::SeqCst) < MISSED => {
                Err(StorageError::unavailable("the primary is gone"))
            }
            _ => Ok(()),
        }
    }

    /// The result as it arrives, unless a fault cuts off the reply.
    fn reply<T>(&self, writes: bool, result: Result<T, StorageError>) -> Result<T, StorageError> {
        let mut fault = self.fault.lock().unwrap();
        match *fault {
            Some(Fault::CutReply) => {}
            Some(Fault::CutNextReply | Fault::CutReplyAfter(0)) => *fault = None,
            Some(Fault::CutReplyAfter(replies)) => {
                *fault = Some(Fault::CutReplyAfter(replies - 1));
                return result;
            }
            _ => return result,
        }
        let reset = "connection reset";
        Err(if writes { StorageError::ambiguous(reset) } else { StorageError::unavailable(reset) })
    }
}

#[async_trait]
impl TokenStorage for Server {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.reach(false).await?;
        let found = self.memory().get(key).await?;
        let damaged = self.damaged.lock().unwrap().get(key).copied();
        match found {
            Some(found) if Some(found.version) == damaged => {
                self.reply(false, Err(StorageError::corrupt(key, "damaged")))
            }
            found => self.reply(false, Ok(found)),
        }
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.reach(true).await?;
        let version = self.memory().put(key, record, when).await;
        self.reply(true, version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.reach(true).await?;
        let removed = self.memory().delete(key, only).await;
        self.reply(true, removed)
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.reach(false).await?;
        let page = self.memory().list(filter, page).await;
        self.reply(false, page)
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.reach(true).await?;
        let purged = self.memory().purge(limit).await;
        self.reply(true, purged)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("server in memory")
            .with_atomic(true)
            .with_listable(true)
            .with_ordered(true)
            .with_durable(true)
    }
}
