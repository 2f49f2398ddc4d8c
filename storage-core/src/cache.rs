//! A cache in front of a storage.
//!
//! The contract of [`TokenStorage`] lets a cache miss a write of *another* process, but not a write through its own
//! handle. The difficulty is a read that overlaps with a write of this process: it may return the old record after the
//! write has removed the entry from the cache. Therefore writes are counted, in groups of keys. A read is cached only
//! if no write of its group was in flight during the read. If the outcome of a write is unknown, its group is not
//! cached for as long as an entry lives, because the write may still take effect.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache as Records;
use tokio::time::Instant;

use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};
use crate::token::Token;

/// The memory that the records of a cache take by default.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The memory that an entry takes besides its key and payload. An estimate.
const ENTRY_BYTES: usize = 256;
/// The number of groups of keys whose writes are counted together.
const STRIPES: usize = 256;

/// The limits of a cache in front of a storage.
///
/// [`Tokens::with_cache`](crate::Tokens::with_cache) describes what a cache changes. It is worthwhile if a user's token
/// is used many times within a few seconds, for example by a page that makes ten API calls.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::{Cache, KeyRing, MemoryStorage, Tokens};
///
/// let cache = Cache::new(Duration::from_secs(5)).with_max_bytes(16 * 1024 * 1024);
/// let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate()).with_cache(cache);
/// assert_eq!(tokens.storage().capabilities().max_age, Some(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    max_age: Duration,
    max_bytes: u64,
}

impl Cache {
    /// A cache that returns a record for at most `max_age` after it was read from the storage. It takes at most 64 MiB.
    ///
    /// After a logout in another process, this process may use the token for this long. Choose seconds.
    pub const fn new(max_age: Duration) -> Self {
        Self { max_age, max_bytes: MAX_BYTES }
    }

    /// Sets how many bytes of memory the records may take, with their opened tokens.
    /// If they would take more, rarely used records are dropped.
    #[must_use]
    pub const fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }
}

/// A storage behind a cache. Records are cached as the storage returned them, and their opened tokens with them. An
/// absence or an error is not cached.
pub(crate) struct CachedStorage {
    storage: Arc<dyn TokenStorage>,
    records: Records<TokenKey, Arc<CachedRecord>>,
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
    max_age: Duration,
}

/// A record and when it was read.
struct CachedRecord {
    found: Versioned<Record>,
    /// The token, after its first use. `None` if the record cannot be opened, or if the user must authorize again.
    token: OnceLock<Option<Arc<Token>>>,
    /// When the read began. The record was current at this time, or later.
    read_at: Instant,
    /// When the read ended.
    cached_at: Instant,
}

/// The writes of this process to a group of keys. A read that overlaps with one is not cached, because it may have
/// returned the old record.
#[derive(Default)]
struct Stripe {
    /// The number of writes that have begun.
    begun: u64,
    /// The number of writes that have begun and not ended.
    in_flight: usize,
    /// When caching starts again after a write of unknown outcome, which may still take effect.
    closed_until: Option<Instant>,
}

impl CachedStorage {
    pub(crate) fn new(storage: Arc<dyn TokenStorage>, cache: Cache) -> Self {
        let records = Records::builder()
            .max_capacity(cache.max_bytes)
            .weigher(|key: &TokenKey, cached: &Arc<CachedRecord>| {
                // The payload, and the opened token.
                let bytes = ENTRY_BYTES + key.len() + 2 * cached.found.value.payload.len();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .time_to_live(cache.max_age)
            .build();
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { storage, records, stripes, hasher: RandomState::new(), max_age: cache.max_age }
    }

    /// The cached record, unless it is too old.
    fn cached(&self, key: &TokenKey) -> Option<Versioned<Record>> {
        let (cached, left) = self.live(key)?;
        let mut found = cached.found.clone();
        found.value.retain_for = left;
        Some(found)
    }

    /// The token of the cached record, unless that is too old. Each cached record is opened once.
    pub(crate) fn token(&self, key: &TokenKey, open: impl FnOnce(&Record) -> Option<Token>) -> Option<Arc<Token>> {
        let (cached, _) = self.live(key)?;
        cached.token.get_or_init(|| open(&cached.found.value).map(Arc::new)).clone()
    }

    /// The cached record and the rest of its retention.
    fn live(&self, key: &TokenKey) -> Option<(Arc<CachedRecord>, Option<Duration>)> {
        let cached = self.records.get(key)?;
        let age = cached.read_at.elapsed();
        if age >= self.max_age {
            return None;
        }
        let Some(left) = cached.found.value.retain_for else { return Some((cached, None)) };
        // Near its end, the record is read again, because only the storage knows exactly when a retention ends.
        let left = left.checked_sub(age).filter(|left| !left.is_zero())?;
        Some((cached, Some(left)))
    }

    /// Reads the storage, and caches the result.
    pub(crate) async fn fresh(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let read_at = Instant::now();
        let begun = self.stripe(key).completed_writes(read_at);
        let found = self.storage.get(key).await?;
        self.update(key, found.as_ref(), read_at, begun);
        Ok(found)
    }

    /// Caches the result of a read, unless it may be older than a write of this process or than another read.
    fn update(&self, key: &TokenKey, found: Option<&Versioned<Record>>, read_at: Instant, begun: Option<u64>) {
        let stripe = self.stripe(key);
        let cached_at = Instant::now();
        if begun.is_none() || stripe.completed_writes(cached_at) != begun {
            // An older entry is outdated nevertheless.
            let found = found.map(|found| found.version);
            if self.records.get(key).is_some_and(|cached| Some(cached.found.version) != found) {
                self.records.invalidate(key);
            }
            return;
        }
        if self.records.get(key).is_some_and(|other| other.cached_at > read_at) {
            return;
        }
        match found {
            Some(found) => {
                let cached = CachedRecord { found: found.clone(), token: OnceLock::new(), read_at, cached_at };
                self.records.insert(key.clone(), Arc::new(cached));
            }
            None => self.records.invalidate(key),
        }
    }

    /// Drops the cached record. The group of the key is not cached until the returned guard is dropped.
    fn begin_write<'a>(&'a self, key: &'a TokenKey) -> WriteInFlight<'a> {
        let mut stripe = self.stripe(key);
        stripe.begun += 1;
        stripe.in_flight += 1;
        self.records.invalidate(key);
        drop(stripe);
        WriteInFlight { cache: self, key, is_known: false }
    }

    /// The group of a key, locked.
    fn stripe(&self, key: &TokenKey) -> MutexGuard<'_, Stripe> {
        let hash = self.hasher.hash_one(key);
        // The index is below `STRIPES`, so the conversion loses nothing.
        let stripe = &self.stripes[(hash % STRIPES as u64) as usize];
        // No code with this lock can panic in the middle of a change, so a poisoned lock is safe to use.
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stripe {
    /// The number of writes so far. `None` if one of them is in flight, or if the outcome of one is unknown.
    fn completed_writes(&self, now: Instant) -> Option<u64> {
        let is_closed = self.in_flight > 0 || self.closed_until.is_some_and(|until| now < until);
        (!is_closed).then_some(self.begun)
    }
}

/// A write that has begun. It ends when this guard is dropped, even if the caller was dropped before the outcome is
/// known.
struct WriteInFlight<'a> {
    cache: &'a CachedStorage,
    key: &'a TokenKey,
    is_known: bool,
}

impl WriteInFlight<'_> {
    /// Ends the write with its outcome.
    fn end<T>(mut self, outcome: &Result<T, StorageError>) {
        self.is_known = !matches!(outcome, Err(StorageError::Ambiguous { .. }));
    }
}

impl Drop for WriteInFlight<'_> {
    fn drop(&mut self) {
        let mut stripe = self.cache.stripe(self.key);
        stripe.in_flight -= 1;
        if !self.is_known {
            stripe.closed_until = Some(Instant::now() + self.cache.max_age);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TokenStorage for CachedStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        match self.cached(key) {
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
