//! Runs statements within their time limits, and repeats those that had no effect.
//!
//! A read may always be repeated. A write may be repeated only if the database has reported that nothing has changed.
//! If the connection breaks or no response arrives in time, the write may have taken effect. It is then
//! [`StorageError::Ambiguous`], and the caller decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{StorageError, TokenKey};
use tokio::time::{Instant, sleep, timeout_at};

use crate::combined::{Found, Reader};
use crate::connection::Connections;
use crate::dialect::{Bind, Dialect, StatementResult};
use crate::error::{ErrorClass, TimedOut, classify, is_unknown_syntax, source, unchanged};
use crate::record::{key_binds, read_record};
use crate::several::NUMBER;
use crate::sql::{Sql, Statements};

/// The pause before the second try of a statement. Each further pause is twice as long.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause between two tries.
pub(crate) const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Runs the statements of one table.
pub(crate) struct Runner<DB: Dialect> {
    /// The connections for reads. Only SQLite has separate ones.
    pub(crate) readers: Connections<DB>,
    pub(crate) writers: Connections<DB>,
    pub(crate) statements: Arc<Statements>,
    pub(crate) lookups: Arc<Lookups<DB>>,
}

/// The state of the two lookup statements: for one record, and for several.
pub(crate) struct Lookups<DB: Dialect> {
    one: DB::LookupState,
    several: DB::LookupState,
    /// Whether the database cannot read several records by one statement, because it is old.
    is_single: AtomicBool,
}

impl<DB: Dialect> Lookups<DB> {
    /// The state of the lookup for this number of records.
    const fn of(&self, keys: Keys) -> &DB::LookupState {
        match keys {
            Keys::One => &self.one,
            Keys::Several => &self.several,
        }
    }
}

impl<DB: Dialect> Default for Lookups<DB> {
    fn default() -> Self {
        Self { one: DB::LookupState::default(), several: DB::LookupState::default(), is_single: AtomicBool::new(false) }
    }
}

impl<DB: Dialect> Runner<DB> {
    /// Runs one statement until the deadline. A statement that had no effect and may succeed soon is repeated during
    /// the first half of the time, so that the last try has at least the second half.
    ///
    /// # Errors
    /// [`StorageError::Ambiguous`] if a write may have taken effect. [`StorageError::Unavailable`] or
    /// [`StorageError::Misconfigured`] if it has not.
    pub(crate) async fn run(
        &self,
        effect: Effect,
        sql: &Sql,
        binds: &[Bind<'_>],
        deadline: Instant,
    ) -> Result<StatementResult<DB>, StorageError> {
        let middle = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let mut pause = FIRST_PAUSE;
        let mut reconnected = false;
        loop {
            let error = match self.attempt(effect, sql, binds, deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let in_time = Instant::now() < middle;
            match (error, effect) {
                (AttemptError::Busy(_), _) if in_time => {}
                (AttemptError::Broken(_), Effect::Lookup(_) | Effect::Read) | (AttemptError::ReadOnly(_), _)
                    if in_time && !reconnected =>
                {
                    reconnected = true;
                }
                (AttemptError::Busy(error) | AttemptError::Unchanged(error) | AttemptError::ReadOnly(error), _) => {
                    return Err(unchanged::<DB>(error));
                }
                (AttemptError::NotSent, _) | (AttemptError::TimedOut, Effect::Lookup(_) | Effect::Read) => {
                    return Err(StorageError::unavailable(TimedOut));
                }
                (AttemptError::Broken(error), Effect::Lookup(_) | Effect::Read) => {
                    return Err(StorageError::unavailable(source(error)));
                }
                (AttemptError::Broken(error), Effect::Write) => return Err(StorageError::ambiguous(source(error))),
                (AttemptError::TimedOut, Effect::Write) => return Err(StorageError::ambiguous(TimedOut)),
            }
            sleep(pause).await;
            pause = MAX_PAUSE.min(pause * 2);
        }
    }

    /// Tries a statement once.
    async fn attempt(
        &self,
        effect: Effect,
        sql: &Sql,
        binds: &[Bind<'_>],
        deadline: Instant,
    ) -> Result<StatementResult<DB>, AttemptError> {
        let connections = match effect {
            Effect::Lookup(_) | Effect::Read => &self.readers,
            Effect::Write => &self.writers,
        };
        let mut connection = match timeout_at(deadline, connections.acquire()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(AttemptError::Unchanged(error)),
            Err(_) => return Err(AttemptError::NotSent),
        };
        let statement = async {
            match effect {
                _ if connection.is_direct() => DB::run_prepared(connection.get(), sql, binds).await,
                Effect::Lookup(number) => DB::lookup(connection.get(), sql, binds, self.lookups.of(number)).await,
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
                connections.mark_suspect();
                return Err(AttemptError::TimedOut);
            }
        };
        Err(match classify::<DB>(&error) {
            ErrorClass::Busy => {
                connection.mark_clean();
                AttemptError::Busy(error)
            }
            ErrorClass::Unknown | ErrorClass::Misconfigured(_) => {
                connection.mark_clean();
                AttemptError::Unchanged(error)
            }
            // The connection is not marked clean, because its server may be about to stop.
            ErrorClass::Unavailable => AttemptError::Unchanged(error),
            ErrorClass::ReadOnly(_) => {
                connection.retire();
                AttemptError::ReadOnly(error)
            }
            ErrorClass::Broken => {
                connections.mark_suspect();
                AttemptError::Broken(error)
            }
        })
    }
}

impl<DB: Dialect> Reader for Runner<DB> {
    async fn read_one(&self, key: &TokenKey, deadline: Instant) -> Result<Found, StorageError> {
        let found = self.run(Effect::Lookup(Keys::One), &self.statements.get, &key_binds(key)?, deadline).await?;
        let Some(row) = found.rows.first() else { return Ok(Ok(None)) };
        Ok(read_record::<DB>(row).map(Some).map_err(Into::into))
    }

    async fn read_several(&self, keys: &[Arc<TokenKey>], deadline: Instant) -> Result<Vec<Found>, StorageError> {
        let is_single = &self.lookups.is_single;
        if !is_single.load(Ordering::Relaxed) {
            match self.try_read_several(keys, deadline).await {
                Err(error) if is_unknown_syntax(&error) => {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the database cannot read several records at once, so it reads one at a time"
                    );
                    is_single.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.read_one(key, deadline).await?);
        }
        Ok(found)
    }
}

impl<DB: Dialect> Runner<DB> {
    async fn try_read_several(&self, keys: &[Arc<TokenKey>], deadline: Instant) -> Result<Vec<Found>, StorageError> {
        let lookup = Effect::Lookup(Keys::Several);
        let wanted = self.statements.get_several.of(keys);
        let rows = self.run(lookup, wanted.sql, &wanted.binds(), deadline).await?.rows;
        let mut found: Vec<Found> = keys.iter().map(|_| Ok(None)).collect();
        for row in &rows {
            // The numbers start at 1. Those beyond the keys belong to the padding.
            let number = DB::optional_number(row, NUMBER).map_err(unchanged::<DB>)?.unwrap_or_default();
            let index = usize::try_from(number - 1).ok();
            if let Some(found) = index.and_then(|index| found.get_mut(index)) {
                *found = read_record::<DB>(row).map(Some).map_err(Into::into);
            }
        }
        Ok(found)
    }
}

// Not derived, because `DB` is not `Clone`.
impl<DB: Dialect> Clone for Runner<DB> {
    fn clone(&self) -> Self {
        Self {
            readers: self.readers.clone(),
            writers: self.writers.clone(),
            statements: Arc::clone(&self.statements),
            lookups: Arc::clone(&self.lookups),
        }
    }
}

/// What a statement does, which decides about its connection and its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Reads records by their keys.
    Lookup(Keys),
    /// Reads anything else.
    Read,
    /// Changes records, so that a lost response is ambiguous.
    Write,
}

/// How many records a statement reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    One,
    Several,
}

/// Why one try of a statement failed.
enum AttemptError {
    /// No connection became available in time, so the statement was not sent.
    NotSent,
    /// The database rejected the statement temporarily. Nothing has changed.
    Busy(sqlx::Error),
    /// The database rejected the statement, or no connection could be opened. Nothing has changed.
    Unchanged(sqlx::Error),
    /// The server does not accept writes. Nothing has changed, and a new connection may reach another server.
    ReadOnly(sqlx::Error),
    /// The connection broke after the statement was sent.
    Broken(sqlx::Error),
    /// No response arrived in time.
    TimedOut,
}
