//! The storage in memory.
//!
//! An ordered map under one lock: each operation is a critical section that never waits, so it is atomic and
//! linearizable in the simplest way. Other storages have to behave like this one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Entry, Filter, Page, PageRequest, Precondition, TokenStorage};
use crate::time::{Clock, Timestamp};

/// Stores records in memory. It is the reference for all other storages, and suitable for tests.
///
/// Clones share the records. The records are lost when the process ends, and no other process sees them. An application
/// with more than one process, or one that is ever restarted, needs another storage.
///
/// ```
/// use oauth_dance_core::{MemoryStorage, Precondition, Record, StorageError, TokenKey, TokenStorage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = MemoryStorage::new();
/// let key = TokenKey::new("github", "alice")?;
/// let first = storage.put(&key, &Record::new("one"), Precondition::Absent).await?;
/// storage.clone().put(&key, &Record::new("two"), Precondition::Version(first)).await?;
///
/// let late = storage.put(&key, &Record::new("three"), Precondition::Version(first)).await;
/// assert!(matches!(late, Err(StorageError::Conflict)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    records: Arc<Mutex<BTreeMap<TokenKey, Stored>>>,
    clock: Clock,
}

impl MemoryStorage {
    /// An empty storage on the system clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Measures retention on another clock. The records are shared with the original.
    ///
    /// A test advances the clock instead of waiting:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::time::Duration;
    ///
    /// use oauth_dance_core::{Clock, MemoryStorage, Precondition, Record, Timestamp, TokenKey, TokenStorage};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let now = Arc::new(AtomicU64::new(1_000));
    /// let reading = Arc::clone(&now);
    /// let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
    /// let storage = MemoryStorage::new().with_clock(clock);
    ///
    /// let key = TokenKey::new("github", "alice")?;
    /// let record = Record::new("brief").with_retain_for(Some(Duration::from_secs(60)));
    /// storage.put(&key, &record, Precondition::Always).await?;
    /// now.fetch_add(60, Ordering::SeqCst);
    /// assert_eq!(storage.get(&key).await?, None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<TokenKey, Stored>> {
        // No code with this lock can panic in the middle of a change, so a poisoned lock is safe to use.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record with what the storage adds to it.
#[derive(Clone, Debug)]
struct Stored {
    record: Record,
    version: Version,
    retain_until: Option<Timestamp>,
}

impl Stored {
    /// Whether the record is within its retention.
    fn is_live(&self, now: Timestamp) -> bool {
        self.retain_until.is_none_or(|until| until > now)
    }
}

#[async_trait]
impl TokenStorage for MemoryStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let now = self.clock.now();
        let Some(stored) = self.records().get(key).filter(|stored| stored.is_live(now)).cloned() else {
            return Ok(None);
        };
        let left = stored.retain_until.map(|until| until.saturating_since(now));
        Ok(Some(Versioned::new(stored.record.with_retain_for(left), stored.version)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let now = self.clock.now();
        let retain_until = record.retain_seconds().map(|seconds| now.saturating_add(Duration::from_secs(seconds)));
        let stored = Stored { record: record.clone(), version: Version::random(), retain_until };
        let version = stored.version;

        let mut records = self.records();
        let current = records.get(key).filter(|stored| stored.is_live(now)).map(|stored| stored.version);
        if !when.holds_for(current) {
            return Err(StorageError::Conflict);
        }
        records.insert(key.clone(), stored);
        Ok(version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let now = self.clock.now();
        let mut records = self.records();
        let Slot::Occupied(slot) = records.entry(key.clone()) else { return Ok(false) };
        if !slot.get().is_live(now) || only.is_some_and(|version| version != slot.get().version) {
            return Ok(false);
        }
        slot.remove();
        Ok(true)
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let now = self.clock.now();
        let start = match &page.after {
            Some(cursor) => Bound::Excluded(cursor.key()?),
            None => Bound::Unbounded,
        };
        let records = self.records();
        let matching = records
            .range((start, Bound::Unbounded))
            .filter(|(_, stored)| stored.is_live(now))
            .map(|(key, stored)| Entry::new(key.clone(), stored.version, &stored.record))
            .filter(|entry| filter.matches(entry));
        Ok(Page::collect(matching, page.limit))
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let now = self.clock.now();
        let mut records = self.records();
        let expired: Vec<_> =
            records.iter().filter(|(_, stored)| !stored.is_live(now)).map(|(key, _)| key.clone()).take(limit).collect();
        let mut purged = 0;
        for key in expired {
            purged += u64::from(records.remove(&key).is_some());
        }
        Ok(purged)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("memory").with_atomic(true).with_listable(true).with_ordered(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn with_time() -> (MemoryStorage, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(1_000));
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        (MemoryStorage::new().with_clock(clock), seconds)
    }

    #[tokio::test]
    async fn preconditions_apply_to_every_write() {
        let storage = MemoryStorage::new();
        let key = TokenKey::new("github", "alice").unwrap();
        let record = Record::new("one");

        let missing = storage.put(&key, &record, Precondition::Version(Version::random())).await;
        assert!(matches!(missing, Err(StorageError::Conflict)));
        let first = storage.put(&key, &record, Precondition::Absent).await.unwrap();
        assert!(matches!(storage.put(&key, &record, Precondition::Absent).await, Err(StorageError::Conflict)));
        let second = storage.put(&key, &Record::new("two"), Precondition::Version(first)).await.unwrap();
        assert!(matches!(storage.put(&key, &record, Precondition::Version(first)).await, Err(StorageError::Conflict)));
        assert_eq!(storage.get(&key).await.unwrap(), Some(Versioned::new(Record::new("two"), second)));

        assert!(!storage.delete(&key, Some(first)).await.unwrap());
        assert!(storage.delete(&key, Some(second)).await.unwrap());
        assert!(!storage.delete(&key, None).await.unwrap());
    }

    #[tokio::test]
    async fn records_past_retention_are_hidden_before_purge() {
        let (storage, seconds) = with_time();
        let key = TokenKey::new("github", "alice").unwrap();
        let record = Record::new("short").with_retain_for(Some(Duration::from_millis(59_001)));
        storage.put(&key, &record, Precondition::Always).await.unwrap();

        seconds.fetch_add(59, Ordering::SeqCst);
        let left = storage.get(&key).await.unwrap().unwrap().value.retain_for;
        assert_eq!(left, Some(Duration::from_secs(1)));
        assert_eq!(storage.purge(10).await.unwrap(), 0);

        seconds.fetch_add(1, Ordering::SeqCst);
        assert_eq!(storage.get(&key).await.unwrap(), None);
        assert!(storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries.is_empty());
        assert!(!storage.delete(&key, None).await.unwrap());
        assert_eq!(storage.purge(10).await.unwrap(), 1);
        assert_eq!(storage.purge(10).await.unwrap(), 0);

        storage.put(&key, &record, Precondition::Always).await.unwrap();
        storage.put(&key, &Record::new("without retention"), Precondition::Always).await.unwrap();
        seconds.fetch_add(1_000_000, Ordering::SeqCst);
        assert!(storage.get(&key).await.unwrap().is_some(), "a write replaces the retention as well");
    }

    #[tokio::test]
    async fn pages_list_every_record_once() {
        let storage = MemoryStorage::new();
        for user in 0..25 {
            let key = TokenKey::new("github", format!("user{user}")).unwrap();
            storage.put(&key, &Record::new("x"), Precondition::Always).await.unwrap();
        }
        let (mut users, mut page) = (Vec::new(), PageRequest { after: None, limit: 10 });
        loop {
            let found = storage.list(&Filter::everything(), page).await.unwrap();
            users.extend(found.entries.into_iter().map(|entry| entry.key.user().to_owned()));
            let Some(next) = found.next else { break };
            page = PageRequest { after: Some(next), limit: 10 };
        }
        users.sort();
        users.dedup();
        assert_eq!(users.len(), 25);
    }
}
