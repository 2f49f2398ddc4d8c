use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::TableName;
use sqlx::Pool;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{Doubts, InUse};
use crate::dialect::{Bind, Dialect, Outcome};
use crate::error::{Failure, TimedOut, failure, source, unchanged};
use crate::page::{PageQuery, RawKey};
use crate::record::{key_binds, read_entry, read_record, record_binds};
use crate::sql::Statements;
use crate::{DEFAULT_TIMEOUT, MAX_PAYLOAD};

/// The most entries of one page, whatever was asked for.
const MAX_PAGE: usize = 1000;
/// The most records that one statement purges.
const PURGE_BATCH: usize = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The storage of every database: what differs between them is in [`Dialect`].
pub(crate) struct Engine<DB: Dialect> {
    readers: Pool<DB>,
    writers: Pool<DB>,
    table: TableName,
    /// What every statement begins with.
    opening: &'static str,
    statements: Arc<Statements>,
    timeout: Duration,
    doubts: Doubts,
    look_ups: Arc<DB::LookUps>,
    capabilities: Capabilities,
}

impl<DB: Dialect> Engine<DB> {
    pub(crate) fn new(readers: Pool<DB>, writers: Pool<DB>, durable: bool, shared: bool) -> Self {
        let table = TableName::default();
        Self {
            readers,
            writers,
            opening: "",
            statements: Arc::new(Statements::new(&DB::TEXTS, &table, "")),
            table,
            timeout: DEFAULT_TIMEOUT,
            doubts: Doubts::default(),
            look_ups: Arc::default(),
            capabilities: Capabilities::new(DB::STORAGE_NAME)
                .with_durable(durable)
                .with_shared(shared)
                .with_atomic(true)
                .with_listable(true)
                .with_max_payload(MAX_PAYLOAD),
        }
    }

    pub(crate) fn with_table(self, table: TableName) -> Self {
        let statements = Arc::new(Statements::new(&DB::TEXTS, &table, self.opening));
        Self { statements, table, look_ups: Arc::default(), ..self }
    }

    /// Begins every statement with something.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn with_opening(self, opening: &'static str) -> Self {
        let statements = Arc::new(Statements::new(&DB::TEXTS, &self.table, opening));
        Self { statements, opening, look_ups: Arc::default(), ..self }
    }

    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Tells a pool's own check when to look.
    pub(crate) fn with_doubts(self, doubts: Doubts) -> Self {
        Self { doubts, ..self }
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
        let found = self.run(Effect::LookUp, &self.statements.get, &key_binds(key)?).await?;
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

        // One row more than asked for tells whether another page follows.
        let Some(query) = PageQuery::new::<DB>(&self.statements.list, filter, after.as_ref(), limit as i64 + 1) else {
            return Ok(found);
        };
        let rows = self.run(Effect::Read, &query.sql.into(), &query.binds).await?.rows;
        for row in rows.iter().take(limit) {
            let raw = RawKey::read::<DB>(row).map_err(unchanged::<DB>)?;
            found.next = (rows.len() > limit).then(|| raw.to_cursor());
            match raw.to_key() {
                Some(key) => found.entries.push(read_entry::<DB>(key, row)),
                None => tracing::warn!(table = %self.table, ?raw, "left a row out of a list: its key is no token key"),
            }
        }
        Ok(found)
    }

    pub(crate) async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let mut purged = 0;
        let mut left = limit;
        while left > 0 {
            let batch = left.min(PURGE_BATCH);
            let freed = self.run(Effect::Write, &self.statements.purge, &[Bind::Number(batch as i64)]).await?.affected;
            purged += freed;
            if freed < batch as u64 {
                break;
            }
            left -= batch;
        }
        Ok(purged)
    }

    /// Runs one statement. Tries again what changed nothing and may succeed in a moment, for half of the time-out, so
    /// that the last try has the other half.
    async fn run(&self, effect: Effect, sql: &Arc<str>, binds: &[Bind<'_>]) -> Result<Outcome<DB>, StorageError> {
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
                (Attempt::Busy(_), _) if in_time => {}
                (Attempt::Broken(_), Effect::LookUp | Effect::Read) if in_time && !reconnected => reconnected = true,
                (Attempt::Busy(error) | Attempt::Unchanged(error), _) => return Err(unchanged::<DB>(error)),
                (Attempt::Unsent, _) | (Attempt::Unanswered, Effect::LookUp | Effect::Read) => {
                    return Err(StorageError::unavailable(TimedOut));
                }
                (Attempt::Broken(error), Effect::LookUp | Effect::Read) => {
                    return Err(StorageError::unavailable(source(error)));
                }
                (Attempt::Broken(error), Effect::Write) => return Err(StorageError::ambiguous(source(error))),
                (Attempt::Unanswered, Effect::Write) => return Err(StorageError::ambiguous(TimedOut)),
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn attempt(
        &self,
        effect: Effect,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
        deadline: Instant,
    ) -> Result<Outcome<DB>, Attempt> {
        let pool = match effect {
            Effect::LookUp | Effect::Read => &self.readers,
            Effect::Write => &self.writers,
        };
        let mut connection = match timeout_at(deadline, pool.acquire()).await {
            Ok(Ok(connection)) => InUse::new(connection),
            Ok(Err(error)) => return Err(Attempt::Unchanged(error)),
            Err(_) => return Err(Attempt::Unsent),
        };
        let answer = async {
            match effect {
                Effect::LookUp => DB::look_up(connection.get(), sql, binds, &self.look_ups).await,
                Effect::Read | Effect::Write => DB::run(connection.get(), sql, binds).await,
            }
        };
        let error = match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => {
                connection.is_fine();
                return Ok(outcome);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.doubts.arise();
                return Err(Attempt::Unanswered);
            }
        };
        Err(match failure::<DB>(&error) {
            Failure::Busy => {
                connection.is_fine();
                Attempt::Busy(error)
            }
            Failure::Misconfigured(_) => {
                connection.is_fine();
                Attempt::Unchanged(error)
            }
            // Not used again: it may lead to a server that has become a replica.
            Failure::Unavailable | Failure::ReadOnly(_) => Attempt::Unchanged(error),
            Failure::Broken => {
                self.doubts.arise();
                Attempt::Broken(error)
            }
        })
    }
}

// Not derived: `DB` itself need not be `Clone`.
impl<DB: Dialect> Clone for Engine<DB> {
    fn clone(&self) -> Self {
        Self {
            readers: self.readers.clone(),
            writers: self.writers.clone(),
            table: self.table.clone(),
            opening: self.opening,
            statements: Arc::clone(&self.statements),
            timeout: self.timeout,
            doubts: self.doubts.clone(),
            look_ups: Arc::clone(&self.look_ups),
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
    LookUp,
    Read,
    Write,
}

/// How one try of a statement failed.
enum Attempt {
    /// No connection came free in time.
    Unsent,
    /// The database refused for the moment.
    Busy(sqlx::Error),
    /// The database refused, or there was no connection to send on.
    Unchanged(sqlx::Error),
    /// The connection broke after sending.
    Broken(sqlx::Error),
    /// No answer came in time.
    Unanswered,
}

/// Implements [`TokenStorage`](oauth_dance_core::TokenStorage) for a type with an [`Engine`] inside.
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
