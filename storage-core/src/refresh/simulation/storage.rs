//! The storage of the simulation, and the network to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::process::Process;
use super::world::{Bug, World, ready};
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::progress::{Progress, Stored};
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};
use crate::token::{Extra, Token};
use crate::wire;

type Read = Option<Versioned<Record>>;

/// One process's connection to the storage.
pub(super) struct RemoteStorage {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    pub(super) cache: Mutex<Option<Read>>,
}

impl RemoteStorage {
    async fn call<T: Send + 'static>(
        &self,
        is_write: bool,
        effect: impl FnOnce(Arc<World>) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let world = &self.world;
        self.process.step().await;
        world.network_delay().await;
        self.process.step().await;
        if self.process.is_cut_off(world.start.elapsed()) || world.has_fault(30) {
            return Err(StorageError::unavailable("down"));
        }
        let connection_lost = || Err(StorageError::ambiguous("connection lost"));
        if is_write && world.has_fault(15) {
            return connection_lost();
        }
        if is_write && world.has_fault(15) {
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(world.up_to(Duration::from_secs(20))).await;
                drop(effect(world));
            });
            return connection_lost();
        }
        let result = effect(Arc::clone(world));
        world.network_delay().await;
        self.process.step().await;
        if is_write && world.has_fault(15) {
            return connection_lost();
        }
        result
    }

    fn with_bug(&self, key: &TokenKey, found: Read) -> Read {
        if self.world.bug != Bug::NoWait {
            return found;
        }
        found.map(|found| Versioned::new(with_lease(key, &found.value, Duration::ZERO), found.version))
    }
}

#[async_trait]
impl TokenStorage for RemoteStorage {
    async fn get(&self, key: &TokenKey) -> Result<Read, StorageError> {
        if self.world.bug == Bug::StaleReads {
            let cached = self.cache.lock().unwrap().clone();
            if let Some(cached) = cached {
                return Ok(cached);
            }
        }
        let owned = key.clone();
        let found = self.call(false, move |world| ready(world.shared.get(&owned))).await?;
        *self.cache.lock().unwrap() = Some(found.clone());
        Ok(self.with_bug(key, found))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let stored = wire::decode(key, &record.payload).unwrap();
        let (mut record, mut when) = (record.clone(), when);
        match self.world.bug {
            Bug::ShortLease => record = with_lease(key, &record, Duration::from_secs(1)),
            Bug::UnconditionalCommit if matches!(stored.progress, Progress::Idle | Progress::Replaced) => {
                when = Precondition::Always;
            }
            Bug::LosesEdits if matches!(stored.progress, Progress::Idle | Progress::Replaced) => {
                record = without_edits(key, &record);
            }
            Bug::CompareThenSwap => {
                let current = ready(self.world.shared.get(key))?.map(|found| found.version);
                if !when.holds_for(current) {
                    return Err(StorageError::Conflict);
                }
                when = Precondition::Always;
            }
            _ => {}
        }
        let (owned, written, process) = (key.clone(), record.clone(), Arc::clone(&self.process));
        let version = self.call(true, move |world| apply(&world, &process, &owned, &written, when)).await?;
        *self.cache.lock().unwrap() = Some(Some(Versioned::new(record, version)));
        Ok(version)
    }

    async fn delete(&self, _: &TokenKey, _: Option<Version>) -> Result<bool, StorageError> {
        panic!("a refresh deletes nothing")
    }

    async fn list(&self, _: &Filter, _: PageRequest) -> Result<Page, StorageError> {
        Err(StorageError::Unsupported("list"))
    }

    async fn purge(&self, _: usize) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn capabilities(&self) -> Capabilities {
        self.world.shared.capabilities()
    }
}

/// Executes a write atomically, and reports it to the oracle.
fn apply(
    world: &Arc<World>,
    process: &Process,
    key: &TokenKey,
    record: &Record,
    when: Precondition,
) -> Result<Version, StorageError> {
    let before = world.stored();
    let version = ready(world.shared.put(key, record, when))?;
    let after = world.stored().unwrap();
    world.oracle().written(world.start.elapsed(), before.as_ref(), &after);
    let is_new_claim =
        matches!(after.progress, Progress::Claimed(_)) && before.is_none_or(|before| before.progress != after.progress);
    if is_new_claim {
        if world.below(4) == 0 {
            world.edit_soon();
        }
        if world.has_fault(150) {
            world.log_in_or_out_soon();
        }
        if world.has_fault(150) {
            process.die_soon(world.below(6));
        }
    }
    Ok(version)
}

/// The storage without faults, which reports writes to the oracle.
pub(super) struct ObservedStorage(pub(super) Arc<World>);

#[async_trait]
impl TokenStorage for ObservedStorage {
    async fn get(&self, key: &TokenKey) -> Result<Read, StorageError> {
        self.0.shared.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let (world, before) = (&self.0, self.0.stored());
        let version = world.shared.put(key, record, when).await?;
        world.oracle().written(world.start.elapsed(), before.as_ref(), &world.stored().unwrap());
        Ok(version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.0.shared.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.0.shared.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.0.shared.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.shared.capabilities()
    }
}

fn without_edits(key: &TokenKey, record: &Record) -> Record {
    let mut stored: Stored = wire::decode(key, &record.payload).unwrap();
    if let Token::OAuth2(token) = &mut stored.token {
        token.extra = Extra::default();
    }
    let mut changed = record.clone();
    changed.payload = wire::encode(key, &stored).to_vec();
    changed
}

fn with_lease(key: &TokenKey, record: &Record, lease: Duration) -> Record {
    let mut stored: Stored = wire::decode(key, &record.payload).unwrap();
    if let Progress::Claimed(claim) = &mut stored.progress {
        claim.lease = lease;
    }
    let mut changed = record.clone();
    changed.payload = wire::encode(key, &stored).to_vec();
    changed
}
