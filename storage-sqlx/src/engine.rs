use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::TableName;
use sqlx::Pool;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{InUse, Suspicion};
use crate::dialect::{Bind, Dialect, StatementResult};
use crate::error::{ErrorClass, TimedOut, classify, source, unchanged};
use crate::page::{PageQuery, RawKey};
use crate::record::{key_binds, read_entry, read_record, record_binds};
use crate::sql::Statements;
use crate::{DEFAULT_TIMEOUT, MAX_PAYLOAD};

/// The maximum number of entries of one page.
const MAX_PAGE: usize = 1000;
/// The maximum number of records that one statement purges.
const PURGE_BATCH: usize = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// The storage of every database. The differences are in [`Dialect`].
pub(crate) struct Engine<DB: Dialect> {
    readers: Pool<DB>,
    writers: Pool<DB>,
    table: TableName,
    /// The prefix of every statement.
    prefix: &'static str,
    statements: Arc<Statements>,
    timeout: Duration,
    suspicion: Suspicion,
    lookups: Arc<DB::LookupState>,
    capabilities: Capabilities,
}

impl<DB: Dialect> Engine<DB> {
    pub(crate) fn new(readers: Pool<DB>, writers: Pool<DB>, durable: bool, shared: bool) -> Self {
        let table = TableName::default();
        Self {
            readers,
            writers,
            prefix: "",
            statements: Arc::new(Statements::new(&DB::TEXTS, &table, "")),
            table,
            timeout: DEFAULT_TIMEOUT,
            suspicion: Suspicion::default(),
            lookups: Arc::default(),
            capabilities: Capabilities::new(DB::STORAGE_NAME)
                .with_durable(durable)
                .with_shared(shared)
                .with_atomic(true)
                .with_listable(true)
                .with_max_payload(MAX_PAYLOAD),
        }
    }

    pub(crate) fn with_table(self, table: TableName) -> Self {
        let statements = Arc::new(Statements::new(&DB::TEXTS, &table, self.prefix));
        Self { statements, table, lookups: Arc::default(), ..self }
    }

    /// Sets the prefix of every statement.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn with_prefix(self, prefix: &'static str) -> Self {
        let statements = Arc::new(Statements::new(&DB::TEXTS, &self.table, prefix));
        Self { statements, prefix, lookups: Arc::default(), ..self }
    }

    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Shares the suspicion with the check of a pool.
    pub(crate) fn with_suspicion(self, suspicion: Suspicion) -> Self {
        Self { suspicion, ..self }
    }

    pub(crate) fn table(&self) -> &TableName {
        &self.table
    }

    pub(crate) fn writers(&self) -> &Pool<DB> {
        &self.writers
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }

    pub(crate) async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let found = self.run(Effect::Lookup, &self.statements.get, &key_binds(key)?).await?;
        let Some(row) = found.rows.first() else { return Ok(None) };
        read_record::<DB>(row).map(Some).map_err(|error| StorageError::corrupt(key, error))
    }

    pub(crate) async fn put(
        &self,
        key: &TokenKey,
        record: &Record,
        when: Precondition,
    ) -> Result<Version, StorageError> {
        let version = Version::random();
        let mut binds = Vec::from(record_binds(record, &version)?);
        binds.extend(key_binds(key)?);
        let statement = match &when {
            Precondition::Always => &self.statements.put_always,
            Precondition::Absent => &self.statements.put_absent,
            Precondition::Version(current) => {
                binds.push(Bind::Bytes(current.as_bytes()));
                &self.statements.put_version
            }
        };
        let written = self.run(Effect::Write, statement, &binds).await?;
        if written.affected == 0 {
            return Err(StorageError::Conflict);
        }
        Ok(version)
    }

    pub(crate) async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let mut binds = Vec::from(key_binds(key)?);
        let statement = match &only {
            None => &self.statements.delete,
            Some(version) => {
                binds.push(Bind::Bytes(version.as_bytes()));
                &self.statements.delete_version
            }
        };
        Ok(self.run(Effect::Write, statement, &binds).await?.affected > 0)
    }

    pub(crate) async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let after = page.after.as_ref().map(RawKey::from_cursor).transpose()?;
        let limit = page.limit.clamp(1, MAX_PAGE);
        let mut found = Page { entries: Vec::new(), next: None };

        // One row more than requested shows whether another page follows.
        let Some(query) = PageQuery::new::<DB>(&self.statements.list, filter, after.as_ref(), limit as i64 + 1) else {
            return Ok(found);
        };
        let rows = self.run(Effect::Read, &query.sql.into(), &query.binds).await?.rows;
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

    pub(crate) async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let mut purged = 0;
        let mut left = limit;
        while left > 0 {
            let batch = left.min(PURGE_BATCH);
            let removed =
                self.run(Effect::Write, &self.statements.purge, &[Bind::Number(batch as i64)]).await?.affected;
            purged += removed;
            if removed < batch as u64 {
                break;
            }
            left -= batch;
        }
        Ok(purged)
    }

    /// Runs one statement. A statement that had no effect and may succeed soon is retried for half of the timeout, so
    /// that the last try has the other half.
    async fn run(
        &self,
        effect: Effect,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
    ) -> Result<StatementResult<DB>, StorageError> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut reconnected = false;
        loop {
            let error = match self.attempt(effect, sql, binds, start + self.timeout).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let in_time = start.elapsed() < self.timeout / 2;
            match (error, effect) {
                (AttemptError::Busy(_), _) if in_time => {}
                (AttemptError::Broken(_), Effect::Lookup | Effect::Read) if in_time && !reconnected => {
                    reconnected = true;
                }
                (AttemptError::Busy(error) | AttemptError::Unchanged(error), _) => return Err(unchanged::<DB>(error)),
                (AttemptError::NotSent, _) | (AttemptError::TimedOut, Effect::Lookup | Effect::Read) => {
                    return Err(StorageError::unavailable(TimedOut));
                }
                (AttemptError::Broken(error), Effect::Lookup | Effect::Read) => {
                    return Err(StorageError::unavailable(source(error)));
                }
                (AttemptError::Broken(error), Effect::Write) => return Err(StorageError::ambiguous(source(error))),
                (AttemptError::TimedOut, Effect::Write) => return Err(StorageError::ambiguous(TimedOut)),
            }
            sleep(pause).await;
            pause = MAX_PAUSE.min(pause * 2);
        }
    }

    async fn attempt(
        &self,
        effect: Effect,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
        deadline: Instant,
    ) -> Result<StatementResult<DB>, AttemptError> {
        let pool = match effect {
            Effect::Lookup | Effect::Read => &self.readers,
            Effect::Write => &self.writers,
        };
        let mut connection = match timeout_at(deadline, pool.acquire()).await {
            Ok(Ok(connection)) => InUse::new(connection),
            Ok(Err(error)) => return Err(AttemptError::Unchanged(error)),
            Err(_) => return Err(AttemptError::NotSent),
        };
        let statement = async {
            match effect {
                Effect::Lookup => DB::lookup(connection.get(), sql, binds, &self.lookups).await,
                Effect::Read | Effect::Write => DB::run(connection.get(), sql, binds).await,
            }
        };
        let error = match timeout_at(deadline, statement).await {
            Ok(Ok(outcome)) => {
                connection.mark_clean();
                return Ok(outcome);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.suspicion.mark_suspect();
                return Err(AttemptError::TimedOut);
            }
        };
        Err(match classify::<DB>(&error) {
            ErrorClass::Busy => {
                connection.mark_clean();
                AttemptError::Busy(error)
            }
            ErrorClass::Misconfigured(_) => {
                connection.mark_clean();
                AttemptError::Unchanged(error)
            }
            // The connection is not used again, because its server may have become a replica.
            ErrorClass::Unavailable | ErrorClass::ReadOnly(_) => AttemptError::Unchanged(error),
            ErrorClass::Broken => {
                self.suspicion.mark_suspect();
                AttemptError::Broken(error)
            }
        })
    }
}

// Not derived, because `DB` is not `Clone`.
impl<DB: Dialect> Clone for Engine<DB> {
    fn clone(&self) -> Self {
        Self {
            readers: self.readers.clone(),
            writers: self.writers.clone(),
            table: self.table.clone(),
            prefix: self.prefix,
            statements: Arc::clone(&self.statements),
            timeout: self.timeout,
            suspicion: self.suspicion.clone(),
            lookups: Arc::clone(&self.lookups),
            capabilities: self.capabilities,
        }
    }
}

impl<DB: Dialect> fmt::Debug for Engine<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(DB::STORAGE_NAME).field("table", &self.table).field("timeout", &self.timeout).finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The read of one record.
    Lookup,
    Read,
    Write,
}

/// Why one try of a statement failed.
enum AttemptError {
    /// No connection became available in time.
    NotSent,
    /// The database rejected the statement temporarily.
    Busy(sqlx::Error),
    /// The database rejected the statement, or no connection could be opened.
    Unchanged(sqlx::Error),
    /// The connection broke after the statement was sent.
    Broken(sqlx::Error),
    /// No response arrived in time.
    TimedOut,
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
