//! A cache in front of a storage.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache as Records;
use tokio::time::Instant;

use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};

const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What an entry takes besides its key and payload.
const ENTRY_BYTES: usize = 256;
/// How many groups of keys there are, whose writes are counted together.
const LANES: usize = 256;

/// The limits of a cache in front of a storage; see [`Tokens::with_cache`](crate::Tokens::with_cache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    max_age: Duration,
    max_bytes: u64,
}

impl Cache {
    /// A cache that returns a record for at most this long after it was read from the storage. It takes at most 64 MiB.
    pub const fn new(max_age: Duration) -> Self {
        Self { max_age, max_bytes: MAX_BYTES }
    }

    /// Sets how much memory the records may take. If there are more, those that are rarely used are dropped.
    #[must_use]
    pub const fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }
}

/// A storage behind a cache. Only records that exist are cached, as the storage returned them: neither an absence nor an
/// error is.
pub(crate) struct CachedStorage {
    storage: Arc<dyn TokenStorage>,
    records: Records<TokenKey, Arc<Hot>>,
    lanes: Vec<Mutex<Lane>>,
    hasher: RandomState,
    max_age: Duration,
}

/// A cached record.
struct Hot {
    found: Versioned<Record>,
    /// When the read began: the record was current then, or later.
    read_at: Instant,
    /// When the read ended.
    cached_at: Instant,
}

/// The writes of this process to a group of keys. A read that overlaps with one is not cached, because it may have
/// returned the old record.
#[derive(Default)]
struct Lane {
    /// How many writes have begun.
    begun: u64,
    in_flight: usize,
    /// Until then nothing is cached, because a write of unknown outcome may still take effect.
    closed_until: Option<Instant>,
}

impl CachedStorage {
    pub(crate) fn new(storage: Arc<dyn TokenStorage>, cache: Cache) -> Self {
        let records = Records::builder()
            .max_capacity(cache.max_bytes)
            .weigher(|key: &TokenKey, hot: &Arc<Hot>| {
                let bytes = ENTRY_BYTES + key.len() + hot.found.value.payload.len();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .time_to_live(cache.max_age)
            .build();
        let lanes = (0..LANES).map(|_| Mutex::default()).collect();
        Self { storage, records, lanes, hasher: RandomState::new(), max_age: cache.max_age }
    }

    /// The record as it was read at most [`Cache::new`]'s age ago, from memory alone.
    pub(crate) fn hot(&self, key: &TokenKey) -> Option<Versioned<Record>> {
        let hot = self.records.get(key)?;
        let age = hot.read_at.elapsed();
        if age >= self.max_age {
            return None;
        }
        let mut found = hot.found.clone();
        if let Some(left) = found.value.retain_for {
            // Only the storage knows exactly when a retention ends.
            found.value.retain_for = Some(left.checked_sub(age).filter(|left| !left.is_zero())?);
        }
        Some(found)
    }

    /// The record as the storage has it now.
    pub(crate) async fn fresh(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let read_at = Instant::now();
        let begun = self.lane(key).writes_before_a_read(read_at);
        let found = self.storage.get(key).await?;
        self.update(key, found.as_ref(), read_at, begun);
        Ok(found)
    }

    /// Caches what a read has found, unless it may be older than a write of this process or than another read.
    fn update(&self, key: &TokenKey, found: Option<&Versioned<Record>>, read_at: Instant, begun: Option<u64>) {
        let lane = self.lane(key);
        let cached_at = Instant::now();
        if begun.is_none() || lane.writes_before_a_read(cached_at) != begun {
            return;
        }
        if self.records.get(key).is_some_and(|other| other.cached_at > read_at) {
            return;
        }
        match found {
            Some(found) => self.records.insert(key.clone(), Arc::new(Hot { found: found.clone(), read_at, cached_at })),
            None => self.records.invalidate(key),
        }
    }

    /// Drops the record, and caches none until the write has ended.
    fn begin_write<'a>(&'a self, key: &'a TokenKey) -> WriteInFlight<'a> {
        let mut lane = self.lane(key);
        lane.begun += 1;
        lane.in_flight += 1;
        self.records.invalidate(key);
        drop(lane);
        WriteInFlight { cache: self, key, is_known: false }
    }

    fn lane(&self, key: &TokenKey) -> MutexGuard<'_, Lane> {
        let hash = self.hasher.hash_one(key);
        // Fewer lanes than a `usize` can count.
        let lane = &self.lanes[(hash % LANES as u64) as usize];
        // No code that holds the lock can panic halfway through a change.
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// How many writes have begun, if all of them have ended with a known outcome.
    fn writes_before_a_read(&self, now: Instant) -> Option<u64> {
        let is_closed = self.in_flight > 0 || self.closed_until.is_some_and(|until| now < until);
        (!is_closed).then_some(self.begun)
    }
}

/// A write that has begun. It ends when this is dropped, also if the caller does not wait for its outcome.
struct WriteInFlight<'a> {
    cache: &'a CachedStorage,
    key: &'a TokenKey,
    is_known: bool,
}

impl WriteInFlight<'_> {
    fn end<T>(mut self, outcome: &Result<T, StorageError>) {
        self.is_known = !matches!(outcome, Err(StorageError::Ambiguous { .. }));
    }
}

impl Drop for WriteInFlight<'_> {
    fn drop(&mut self) {
        let mut lane = self.cache.lane(self.key);
        lane.in_flight -= 1;
        if !self.is_known {
            lane.closed_until = Some(Instant::now() + self.cache.max_age);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TokenStorage for CachedStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        match self.hot(key) {
            Some(found) => Ok(Some(found)),
            None => self.fresh(key).await,
        }
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let write = self.begin_write(key);
        let outcome = self.storage.put(key, record, when).await;
        write.end(&outcome);
        outcome
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let write = self.begin_write(key);
        let outcome = self.storage.delete(key, only).await;
        write.end(&outcome);
        outcome
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.storage.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.storage.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities().with_max_age(self.max_age)
    }
}

#[cfg(test)]
mod tests;
