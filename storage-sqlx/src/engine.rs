//! The operations of every SQL storage.
//!
//! Each operation is one statement. A conditional write contains its condition, and the number of changed rows shows
//! whether the condition was true. Retention is compared with the database's own clock. `purge` and `invalid_keys` repeat one statement, and each run of it
//! is complete in itself. Concurrent reads share statements ([`Combined`]), and concurrent writes of SQLite share commits
//! ([`GroupCommit`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::TableName;
use tokio::time::Instant;

use crate::combined::Combined;
use crate::connection::Connections;
use crate::dialect::{Bind, Dialect, StatementResult};
use crate::error::unchanged;
use crate::group_commit::{GroupCommit, Writer as _};
use crate::page::{PageQuery, RawKey};
use crate::record::{key_binds, read_entry};
use crate::runner::{Effect, Runner};
use crate::sql::{Sql, Statements};
use crate::write::Write;
use crate::{DEFAULT_TIMEOUT, MAX_PAYLOAD};

/// The maximum number of entries of one page.
const MAX_PAGE: usize = 1000;
/// The maximum number of records that one statement purges.
const PURGE_BATCH: usize = 1000;

/// A storage on any of the databases.
pub(crate) struct Engine<DB: Dialect> {
    runner: Runner<DB>,
    /// Combines concurrent calls of [`get`](Self::get).
    reads: Combined<Runner<DB>>,
    /// Combines concurrent calls of [`put`](Self::put) and [`delete`](Self::delete), if each commit waits for the disk.
    writes: Option<GroupCommit<Runner<DB>>>,
    table: TableName,
    /// The prefix of every statement.
    prefix: &'static str,
    timeout: Duration,
    capabilities: Capabilities,
}

impl<DB: Dialect> Engine<DB> {
    /// A storage that reads and writes through these connections, which may be the same.
    pub(crate) fn new(readers: Connections<DB>, writers: Connections<DB>, durable: bool, shared: bool) -> Self {
        let table = TableName::default();
        let statements = Arc::new(Statements::new(&DB::TEXTS, &table, ""));
        let runner = Runner { readers, writers, statements, lookups: Arc::default() };
        let capabilities = Capabilities::new(DB::STORAGE_NAME)
            .with_durable(durable)
            .with_shared(shared)
            .with_atomic(true)
            .with_listable(true)
            .with_ordered(true)
            .with_max_payload(MAX_PAYLOAD);
        let reads = Combined::new(runner.clone(), DB::PARALLEL_READS, DEFAULT_TIMEOUT);
        let writes = (durable && DB::BEGIN.is_some()).then(|| GroupCommit::new(runner.clone()));
        Self { runner, reads, writes, table, prefix: "", timeout: DEFAULT_TIMEOUT, capabilities }
    }

    /// Uses another table.
    pub(crate) fn with_table(self, table: TableName) -> Self {
        Self { table, ..self }.with_new_statements()
    }

    /// Sets the prefix of every statement.
    #[cfg(feature = "mysql")]
    pub(crate) fn with_prefix(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }.with_new_statements()
    }

    /// Sets the timeout of an operation, including that of reads that share a statement.
    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { reads: Combined::new(self.runner.clone(), DB::PARALLEL_READS, timeout), timeout, ..self }
    }

    /// Writes the statements again, for another table or prefix.
    fn with_new_statements(self) -> Self {
        let statements = Arc::new(Statements::new(&DB::TEXTS, &self.table, self.prefix));
        let runner = Runner { statements, lookups: Arc::default(), ..self.runner };
        let reads = Combined::new(runner.clone(), DB::PARALLEL_READS, self.timeout);
        let writes = self.writes.map(|_| GroupCommit::new(runner.clone()));
        Self { runner, reads, writes, ..self }
    }

    pub(crate) fn table(&self) -> &TableName {
        &self.table
    }

    /// The timeout of an operation.
    #[cfg(feature = "mysql")]
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The connections for migrations and checks.
    pub(crate) fn writers(&self) -> &Connections<DB> {
        &self.runner.writers
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Closes the pools after the running statements have ended.
    pub(crate) async fn close(&self) {
        self.runner.readers.close().await;
        self.runner.writers.close().await;
    }

    /// Reads a record, possibly together with others.
    pub(crate) async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        // A key that is too long is rejected here, so that it does not fail the reads that share its statement.
        key_binds(key)?;
        self.reads.get(key).await
    }

    /// Writes a record. No changed row means that the condition was false.
    pub(crate) async fn put(
        &self,
        key: &TokenKey,
        record: &Record,
        when: Precondition,
    ) -> Result<Version, StorageError> {
        let version = Version::random();
        match self.write(Write::put(key, record, version, when)).await? {
            0 => Err(StorageError::Conflict),
            _ => Ok(version),
        }
    }

    /// Deletes a record. No changed row means that there was none, or not with this version.
    pub(crate) async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        Ok(self.write(Write::delete(key, only)).await? > 0)
    }

    /// Runs a write, possibly together with others. Returns the number of changed rows.
    async fn write(&self, write: Write<'_>) -> Result<u64, StorageError> {
        let Some(writes) = &self.writes else {
            return self.runner.write_one(&write, Instant::now() + self.timeout).await;
        };
        // A key or a payload that is too long is rejected here, so that it does not fail the writes that share its
        // transaction.
        write.binds()?;
        writes.run(&write, self.timeout).await
    }

    /// Reads one page. A row with an invalid key is logged and left out.
    pub(crate) async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let after = page.after.as_ref().map(RawKey::from_cursor).transpose()?;
        let limit = page.limit.clamp(1, MAX_PAGE);
        let mut found = Page { entries: Vec::new(), next: None };

        // One row more than requested is read, to see whether another page follows.
        let Some(query) = PageQuery::new::<DB>(&self.runner.statements.list, filter, after.as_ref(), limit as i64 + 1)
        else {
            return Ok(found);
        };
        let rows = self.run(Effect::Read, &Sql::new(query.sql, &DB::TEXTS), &query.binds).await?.rows;
        for row in rows.iter().take(limit) {
            let raw = RawKey::read::<DB>(row).map_err(unchanged::<DB>)?;
            found.next = (rows.len() > limit).then(|| raw.to_cursor());
            match raw.to_key() {
                Some(key) => found.entries.push(read_entry::<DB>(key, row)),
                None => {
                    tracing::warn!(table = %self.table, ?raw, "a row with an invalid key was left out of a list");
                }
            }
        }
        Ok(found)
    }

    /// Returns the keys of at most `limit` rows whose key is not a valid [`TokenKey`].
    pub(crate) async fn invalid_keys(&self, limit: usize) -> Result<Vec<String>, StorageError> {
        let (filter, mut after, mut found) = (Filter::everything(), None, Vec::new());
        while found.len() < limit {
            let Some(query) =
                PageQuery::new::<DB>(&self.runner.statements.list, &filter, after.as_ref(), MAX_PAGE as i64)
            else {
                break;
            };
            let rows = self.run(Effect::Read, &Sql::new(query.sql, &DB::TEXTS), &query.binds).await?.rows;
            let keys = rows.iter().map(RawKey::read::<DB>).collect::<Result<Vec<_>, _>>().map_err(unchanged::<DB>)?;
            found.extend(keys.iter().filter(|raw| raw.to_key().is_none()).map(RawKey::to_string));
            if rows.len() < MAX_PAGE {
                break;
            }
            after = keys.into_iter().next_back();
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Deletes records past their retention in batches, so that no statement locks many rows for long.
    pub(crate) async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let mut purged = 0;
        let mut left = limit;
        while left > 0 {
            let batch = left.min(PURGE_BATCH);
            let removed =
                self.run(Effect::Write, &self.runner.statements.purge, &[Bind::Number(batch as i64)]).await?.affected;
            purged += removed;
            if removed < batch as u64 {
                break;
            }
            left -= batch;
        }
        Ok(purged)
    }

    /// Runs a statement within the timeout of an operation.
    async fn run(&self, effect: Effect, sql: &Sql, binds: &[Bind<'_>]) -> Result<StatementResult<DB>, StorageError> {
        self.runner.run(effect, sql, binds, Instant::now() + self.timeout).await
    }
}

// Not derived, because `DB` is not `Clone`.
impl<DB: Dialect> Clone for Engine<DB> {
    fn clone(&self) -> Self {
        Self {
            runner: self.runner.clone(),
            reads: self.reads.clone(),
            writes: self.writes.clone(),
            table: self.table.clone(),
            prefix: self.prefix,
            timeout: self.timeout,
            capabilities: self.capabilities,
        }
    }
}

impl<DB: Dialect> fmt::Debug for Engine<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(DB::STORAGE_NAME).field("table", &self.table).field("timeout", &self.timeout).finish()
    }
}

/// Implements [`TokenStorage`](oauth_dance_core::TokenStorage) for a type with a field `engine`.
macro_rules! token_storage {
    ($Storage:ty) => {
        #[async_trait::async_trait]
        impl oauth_dance_core::TokenStorage for $Storage {
            async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
                self.engine.get(key).await
            }

            async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
                self.engine.put(key, record, when).await
            }

            async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
                self.engine.delete(key, only).await
            }

            async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
                self.engine.list(filter, page).await
            }

            async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
                self.engine.purge(limit).await
            }

            fn capabilities(&self) -> Capabilities {
                self.engine.capabilities()
            }
        }
    };
}
pub(crate) use token_storage;
