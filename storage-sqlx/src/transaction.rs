//! Runs several writes in one transaction, for [`GroupCommit`](crate::group_commit::GroupCommit).
//!
//! If the transaction fails after its start, its connection is closed. SQLite ends a transaction by itself after some
//! errors, such as a full disk, and sqlx would consider it open.

use oauth_dance_core::StorageError;
use sqlx::Connection as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::InUse;
use crate::dialect::Dialect;
use crate::error::{ErrorClass, TimedOut, classify, source};
use crate::group_commit::{Failure, Writer};
use crate::runner::{Effect, FIRST_PAUSE, MAX_PAUSE, Runner};
use crate::write::Write;

impl<DB: Dialect> Writer for Runner<DB> {
    async fn write_one(&self, write: &Write<'_>, deadline: Instant) -> Result<u64, StorageError> {
        let sql = write.statement(&self.statements);
        Ok(self.run(Effect::Write, sql, &write.binds()?, deadline).await?.affected)
    }

    async fn write_several(&self, writes: &[&Write<'_>], deadline: Instant) -> Result<Vec<u64>, Failure> {
        let middle = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_several(writes, deadline).await {
                Err(Failure::Unavailable(_)) if Instant::now() < middle => {}
                result => return result,
            }
            sleep(pause).await;
            pause = MAX_PAUSE.min(pause * 2);
        }
    }
}

impl<DB: Dialect> Runner<DB> {
    /// Tries a transaction once.
    async fn try_several(&self, writes: &[&Write<'_>], deadline: Instant) -> Result<Vec<u64>, Failure> {
        let Ok(Ok(mut connection)) = timeout_at(deadline, self.writers.acquire()).await else {
            // Each write reports why there is no connection.
            return Err(Failure::RolledBack);
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
        Err(match (error, class) {
            (Some(error), _) if is_lost => Failure::Unknown(source(error).into()),
            (None, _) if is_lost => Failure::Unknown(TimedOut.into()),
            (Some(error), Some(ErrorClass::Busy)) => Failure::Unavailable(source(error).into()),
            (None, _) => Failure::Unavailable(TimedOut.into()),
            _ => Failure::RolledBack,
        })
    }

    /// If this is dropped or fails before the commit, the transaction is rolled back.
    async fn transaction(
        &self,
        connection: &mut InUse<DB>,
        writes: &[&Write<'_>],
        step: &mut Step,
    ) -> Result<Vec<u64>, sqlx::Error> {
        let begin = DB::BEGIN.unwrap_or("BEGIN");
        let mut transaction = connection.get().begin_with(begin).await?;
        *step = Step::Statements;
        let mut changed = Vec::with_capacity(writes.len());
        for write in writes {
            let binds = write.binds().map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
            changed.push(DB::run(&mut transaction, write.statement(&self.statements), &binds).await?.affected);
        }
        *step = Step::Commit;
        transaction.commit().await?;
        Ok(changed)
    }
}

/// What a transaction was doing when it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Statements,
    Commit,
}
