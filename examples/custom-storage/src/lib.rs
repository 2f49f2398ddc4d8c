//! A custom token storage on [redb], an embedded key-value database in a single file.
//!
//! [`TokenStorage`] documents everything that a storage must do, and `tests/conformance.rs` tests this one.
//!
//! [redb]: https://docs.rs/redb

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Clock, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage, Version, Versioned,
};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

/// Version, expiry, end of retention, key id, payload.
type Row<'a> = (u128, Option<u64>, Option<u64>, Option<&'a str>, &'a [u8]);

const TOKENS: TableDefinition<'static, &[u8], Row<'static>> = TableDefinition::new("tokens");

/// Stores tokens in a redb file, which only one process at a time can open.
#[derive(Clone, Debug)]
pub struct RedbStorage {
    database: Arc<Database>,
    clock: Clock,
}

impl RedbStorage {
    /// Opens a file, or creates it.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the file cannot be opened or is not a redb file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let advice = "give the path of a redb file that no other process has open, or of none yet".to_owned();
        let database =
            Database::create(path).map_err(|error| StorageError::Misconfigured { advice, source: error.into() })?;
        Ok(Self { database: Arc::new(database), clock: Clock::system() })
    }

    /// Runs one write transaction on a thread that may wait for the disk. When this returns, the data is on the disk.
    /// If `change` fails or the process dies before, nothing is written.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Table<'_, &'static [u8], Row<'static>>, Timestamp) -> Result<T, StorageError>
        + Send
        + 'static,
    ) -> Result<T, StorageError> {
        let (database, now) = (Arc::clone(&self.database), self.clock.now());
        let task = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_write().map_err(StorageError::unavailable)?;
            let result = change(&mut transaction.open_table(TOKENS).map_err(StorageError::unavailable)?, now)?;
            transaction.commit().map_err(StorageError::ambiguous)?;
            Ok(result)
        });
        task.await.map_err(StorageError::ambiguous)?
    }

    /// Runs one read transaction in the same way. A file without writes has no table yet, and the result is the
    /// default.
    async fn read<T: Default + Send + 'static>(
        &self,
        look: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], Row<'static>>, Timestamp) -> Result<T, StorageError>
        + Send
        + 'static,
    ) -> Result<T, StorageError> {
        let (database, now) = (Arc::clone(&self.database), self.clock.now());
        let task = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_read().map_err(StorageError::unavailable)?;
            match transaction.open_table(TOKENS) {
                Ok(table) => look(&table, now),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(T::default()),
                Err(error) => Err(StorageError::unavailable(error)),
            }
        });
        task.await.map_err(StorageError::unavailable)?
    }
}

#[async_trait::async_trait]
impl TokenStorage for RedbStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let key = key.to_bytes();
        self.read(move |table, now| {
            let row = table.get(key.as_slice()).map_err(StorageError::unavailable)?;
            Ok(row.and_then(|row| live(row.value(), now)))
        })
        .await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let (key, record, version) = (key.to_bytes(), record.clone(), Version::random());
        self.write(move |table, now| {
            if !when.holds_for(current(table, &key, now)?) {
                return Err(StorageError::Conflict);
            }
            let retain_until = record.retain_seconds().map(|seconds| now.saturating_add(Duration::from_secs(seconds)));
            let row = (
                u128::from_be_bytes(*version.as_bytes()),
                record.expires_at.map(Timestamp::as_unix_seconds),
                retain_until.map(Timestamp::as_unix_seconds),
                record.key_id.as_deref(),
                record.payload.as_slice(),
            );
            table.insert(key.as_slice(), row).map_err(StorageError::unavailable)?;
            Ok(version)
        })
        .await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let key = key.to_bytes();
        self.write(move |table, now| {
            let found = current(table, &key, now)?.filter(|found| only.is_none_or(|version| version == *found));
            if found.is_some() {
                table.remove(key.as_slice()).map_err(StorageError::unavailable)?;
            }
            Ok(found.is_some())
        })
        .await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let (filter, limit) = (filter.clone(), page.limit);
        let start = match page.after {
            Some(cursor) => Bound::Excluded(cursor.key()?.to_bytes()),
            None => Bound::Unbounded,
        };
        let found = self.read(move |table, now| {
            let start = start.as_ref().map(Vec::as_slice);
            let mut entries = Vec::new();
            for row in table.range::<&[u8]>((start, Bound::Unbounded)).map_err(StorageError::unavailable)? {
                let (key, row) = row.map_err(StorageError::unavailable)?;
                // Only this storage writes the table, and it writes only valid keys.
                let Ok(key) = TokenKey::from_bytes(key.value()) else { continue };
                let Some(found) = live(row.value(), now) else { continue };
                let entry = Entry::new(key, found.version, &found.value);
                if filter.matches(&entry) {
                    entries.push(entry);
                }
                // One more entry than requested means that another page follows.
                if entries.len() > limit.max(1) {
                    break;
                }
            }
            Ok(entries)
        });
        Ok(Page::collect(found.await?, page.limit))
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.write(move |table, now| {
            let mut left = limit;
            let dead = table.extract_if(|_, row| {
                let take = left > 0 && live(row, now).is_none();
                left -= usize::from(take);
                take
            });
            let purged = dead.map_err(StorageError::unavailable)?.count();
            Ok(u64::try_from(purged).unwrap_or(u64::MAX))
        })
        .await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("redb").with_durable(true).with_atomic(true).with_listable(true)
    }
}

/// The record of a row, unless its retention has ended.
fn live((version, expires_at, retain_until, key_id, payload): Row<'_>, now: Timestamp) -> Option<Versioned<Record>> {
    let left = retain_until.map(|until| Timestamp::from_unix_seconds(until).saturating_since(now));
    let record = Record::new(payload)
        .with_expires_at(expires_at.map(Timestamp::from_unix_seconds))
        .with_retain_for(left)
        .with_key_id(key_id.map(str::to_owned));
    let is_live = left.is_none_or(|left| left > Duration::ZERO);
    is_live.then(|| Versioned::new(record, Version::from_bytes(version.to_be_bytes())))
}

/// The stored version, if there is a record.
fn current(
    table: &Table<'_, &'static [u8], Row<'static>>,
    key: &[u8],
    now: Timestamp,
) -> Result<Option<Version>, StorageError> {
    let row = table.get(key).map_err(StorageError::unavailable)?;
    Ok(row.and_then(|row| live(row.value(), now)).map(|found| found.version))
}
