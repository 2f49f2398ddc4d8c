//! Runs several writes in one transaction, for [`GroupCommit`](crate::group_commit::GroupCommit).
//!
//! If the transaction fails after its start, its connection is closed. SQLite ends a transaction by itself after some
//! errors, such as a full disk, and sqlx would consider it open.

use oauth_dance_core::StorageError;
use sqlx::Connection as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::InUse;
use crate::dialect::Dialect;
use crate::error::{ErrorClass, TimedOut, classify, source, unchanged};
use crate::group_commit::{Failure, Waiting, Writer};
use crate::runner::{Effect, FIRST_PAUSE, MAX_PAUSE, Runner};
use crate::write::Write;

impl<DB: Dialect> Writer for Runner<DB> {
    async fn write_one(&self, write: &Write<'_>, deadline: Instant) -> Result<u64, StorageError> {
        let sql = write.statement(&self.statements);
        Ok(self.run(Effect::Write, sql, &write.binds()?, deadline).await?.affected)
    }

    async fn write_several(&self, writes: &[Waiting], deadline: Instant) -> Result<Vec<Option<u64>>, Failure> {
        let middle = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_several(writes, deadline).await {
                Err(TryError::Busy(_)) if Instant::now() < middle => {}
                Err(TryError::Busy(error)) => return Err(Failure::NotBegun(unchanged::<DB>(error))),
                Err(TryError::Failed(failure)) => return Err(failure),
                Ok(changed) => return Ok(changed),
            }
            sleep(pause).await;
            pause = MAX_PAUSE.min(pause * 2);
        }
    }
}

impl<DB: Dialect> Runner<DB> {
    /// Tries a transaction once.
    async fn try_several(&self, writes: &[Waiting], deadline: Instant) -> Result<Vec<Option<u64>>, TryError> {
        let not_begun = |error| TryError::Failed(Failure::NotBegun(error));
        let mut connection = match timeout_at(deadline, self.writers.acquire()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(not_begun(unchanged::<DB>(error))),
            Err(_) => return Err(not_begun(StorageError::unavailable(TimedOut))),
        };
        let mut step = Step::Begin;
        let error = match timeout_at(deadline, self.transaction(&mut connection, writes, &mut step)).await {
            Ok(Ok(changed)) => {
                connection.mark_clean();
                return Ok(changed);
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let class = error.as_ref().map(classify::<DB>);
        if step == Step::Begin && class == Some(ErrorClass::Busy) {
            connection.mark_clean();
        } else {
            connection.close_on_drop();
        }
        let is_lost = step == Step::Commit && matches!(class, None | Some(ErrorClass::Broken));
        Err(match error {
            Some(error) if is_lost => TryError::Failed(Failure::Unknown(source(error).into())),
            None if is_lost => TryError::Failed(Failure::Unknown(TimedOut.into())),
            Some(error) if class == Some(ErrorClass::Busy) => TryError::Busy(error),
            Some(error) if step == Step::Begin => not_begun(unchanged::<DB>(error)),
            Some(error) => TryError::Failed(Failure::RolledBack(unchanged::<DB>(error))),
            None => not_begun(StorageError::unavailable(TimedOut)),
        })
    }

    /// If this is dropped or fails before the commit, the transaction is rolled back.
    async fn transaction(
        &self,
        connection: &mut InUse<DB>,
        writes: &[Waiting],
        step: &mut Step,
    ) -> Result<Vec<Option<u64>>, sqlx::Error> {
        let mut transaction = connection.get().begin_with(DB::BEGIN.unwrap_or("BEGIN")).await?;
        *step = Step::Statements;
        let mut changed = Vec::with_capacity(writes.len());
        for waiting in writes {
            if !waiting.claim() {
                changed.push(None);
                continue;
            }
            let sql = waiting.write.statement(&self.statements);
            let binds = waiting.write.binds().map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
            changed.push(Some(DB::run(&mut transaction, sql, &binds).await?.affected));
        }
        *step = Step::Commit;
        transaction.commit().await?;
        Ok(changed)
    }
}

/// Why one try of a transaction failed.
enum TryError {
    /// The database was locked. Nothing has changed.
    Busy(sqlx::Error),
    Failed(Failure),
}

/// What a transaction was doing when it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Statements,
    Commit,
}
