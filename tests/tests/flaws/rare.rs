//! Flaws that last for an instant, or occur rarely.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version};

use super::{Notes, Read, Write, flaws, pause};

flaws! {
    // One in three hundred acknowledged writes is not done.
    LosesAWriteIn300(AtomicUsize) caught by no_acknowledged_write_is_lost {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if self.own.fetch_add(1, Ordering::SeqCst) % 300 == 299 && when == Precondition::Always {
                return Ok(Version::random());
            }
            self.server.put(key, record, when).await
        }
    }

    LosesADeleteIn150(AtomicUsize) caught by no_acknowledged_write_is_lost {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            if self.own.fetch_add(1, Ordering::SeqCst) % 150 == 149 {
                return Ok(self.server.get(key).await?.is_some_and(|found| only.is_none_or(|only| only == found.version)));
            }
            self.server.delete(key, only).await
        }
    }

    // Checks, releases the lock for an instant and writes, without an await in between.
    ChecksThenCreates(()) caught by one_of_two_creations_wins {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if when != Precondition::Absent {
                return self.server.put(key, record, when).await;
            }
            if now(self.server.memory().get(key))?.is_some() {
                return Err(StorageError::Conflict);
            }
            std::thread::yield_now();
            now(self.server.memory().put(key, record, Precondition::Always))
        }
    }

    ChecksThenUpdates(()) caught by one_of_two_updates_wins {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let Precondition::Version(wanted) = when else { return self.server.put(key, record, when).await };
            if now(self.server.memory().get(key))?.is_none_or(|found| found.version != wanted) {
                return Err(StorageError::Conflict);
            }
            std::thread::yield_now();
            now(self.server.memory().put(key, record, Precondition::Always))
        }
    }

    // Overwrites an unconditional write that came between its check and its write.
    UpdatesOverAWrite(()) caught by an_update_does_not_undo_a_write {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let Precondition::Version(wanted) = when else { return self.server.put(key, record, when).await };
            if self.server.get(key).await?.is_none_or(|found| found.version != wanted) {
                return Err(StorageError::Conflict);
            }
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }

    ChecksThenDeletes(()) caught by one_of_two_deletes_wins {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let found = now(self.server.memory().get(key))?;
            if found.is_none_or(|found| only.is_some_and(|only| only != found.version)) {
                return Ok(false);
            }
            std::thread::yield_now();
            now(self.server.memory().delete(key, None))?;
            Ok(true)
        }
    }

    DeletesAnUpdate(()) caught by an_update_or_a_delete_wins {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let Some(wanted) = only else { return self.server.delete(key, None).await };
            let found = self.server.get(key).await?;
            if found.is_none_or(|found| found.version != wanted) {
                return Ok(false);
            }
            self.server.delete(key, None).await
        }
    }

    // All records are in one file, which is read, changed and written back.
    WritesEverythingBack(Notes<TokenKey, ()>) caught by simultaneous_writes_of_two_keys_both_persist {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let other = TokenKey::new("github", if key.user() == "bob" { "alice" } else { "bob" }).unwrap();
            let before = self.server.get(&other).await?;
            let version = self.server.put(key, record, when).await?;
            if ["alice", "bob"].contains(&key.user())
                && let (Some(before), Some(now)) = (before, self.server.get(&other).await?)
                && before.version != now.version
            {
                self.server.put(&other, &before.value, Precondition::Always).await?;
            }
            Ok(version)
        }
    }

    // Works in its own task: immediately if the caller waits, and with the next batch if the caller has dropped the call.
    ContinuesAWriteAfterTheDrop(()) caught by dropped_calls_take_no_late_effect {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (server, key, record) = (self.server.clone(), key.clone(), record.clone());
            for_a_caller(async move { server.put(&key, &record, when).await }).await
        }
    }

    ContinuesADeleteAfterTheDrop(()) caught by dropped_calls_take_no_late_effect {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let (server, key) = (self.server.clone(), key.clone());
            for_a_caller(async move { server.delete(&key, only).await }).await
        }
    }

    // Sets the retention with a second statement.
    SetsTheRetentionLater(()) caught by a_dropped_write_leaves_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, &record.clone().with_retain_for(None), when).await?;
            if record.retain_for.is_none() {
                return Ok(version);
            }
            pause().await;
            self.server.put(key, record, Precondition::Version(version)).await
        }
    }

    // Retries a failed write as soon as the server works again.
    WritesAgainLater(()) caught by an_error_means_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Unavailable { .. })) {
                let (server, key, record) = (self.server.clone(), key.clone(), record.clone());
                tokio::spawn(async move {
                    while server.get(&key).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    server.put(&key, &record, when).await
                });
            }
            written
        }
    }

    // Retries a write whose reply was lost, over whatever was written in between.
    RepeatsALostWrite(()) caught by histories_with_faults_are_linearizable {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Ambiguous { .. })) {
                tokio::time::sleep(Duration::from_millis(3)).await;
                drop(self.server.put(key, record, Precondition::Always).await);
            }
            written
        }
    }

    // Returns earlier reads while the server is down.
    ReadsFromMemoryInAnOutage(Notes<TokenKey, oauth_dance_core::Versioned<Record>>) caught by an_outage_is_an_error {
        async fn get(&self, key: &TokenKey) -> Read {
            match self.server.get(key).await {
                Ok(Some(found)) => {
                    self.own.lock().unwrap().insert(key.clone(), found.clone());
                    Ok(Some(found))
                }
                Err(error) => self.own.lock().unwrap().get(key).cloned().map(Some).ok_or(error),
                missing => missing,
            }
        }
    }

    ReadOnlyDeletesNothing(()) caught by read_only_is_an_error {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            match self.server.delete(key, only).await {
                Err(StorageError::Misconfigured { .. }) => Ok(false),
                removed => removed,
            }
        }
    }

    FullDeletesAreFine(()) caught by a_full_medium_is_an_error {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            match self.server.delete(key, only).await {
                Err(StorageError::Unavailable { source }) if source.to_string() == "no space left" => Ok(true),
                removed => removed,
            }
        }
    }

    CorruptCannotBeDeleted(()) caught by a_corrupt_record_can_be_replaced_and_removed {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            self.server.get(key).await?;
            self.server.delete(key, only).await
        }
    }

    CorruptBlocksWrites(()) caught by a_corrupt_record_can_be_replaced_and_removed {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.get(key).await?;
            self.server.put(key, record, when).await
        }
    }

    CorruptIsAbsent(()) caught by conditions_fail_for_a_corrupt_record {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let corrupt = matches!(self.server.get(key).await, Err(StorageError::Corrupt { .. }));
            let when = if corrupt && when == Precondition::Absent { Precondition::Always } else { when };
            self.server.put(key, record, when).await
        }
    }

    LogsNumbers(()) caught by printing_shows_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.log(&format!("put {key}: {:?}", record.payload));
            self.server.put(key, record, when).await
        }
    }

    LogsTheFirstBytes(()) caught by printing_shows_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let start = &record.payload[..record.payload.len().min(6)];
            self.server.log(&format!("put {key}: {}...", start.escape_ascii()));
            self.server.put(key, record, when).await
        }
    }

    QuotesEscaped(()) caught by errors_show_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Unavailable { .. })) {
                let escaped: String = record.payload.iter().map(|byte| format!("\\x{byte:02X}")).collect();
                return Err(StorageError::unavailable(escaped));
            }
            written
        }
    }
}

/// The result of a call on a storage in memory, without an await.
fn now<T>(call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    match call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => unreachable!("calls on memory do not wait"),
    }
}

/// Works in its own task, and later if the caller has dropped the call.
async fn for_a_caller<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let caller = Arc::new(());
    let waiting = Arc::downgrade(&caller);
    let done = tokio::spawn(async move {
        pause().await;
        if waiting.upgrade().is_none() {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        work.await
    });
    let done = done.await.unwrap();
    drop(caller);
    done
}
