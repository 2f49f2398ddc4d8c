//! Flaws that only concurrent or dropped calls reveal.

use std::sync::atomic::{AtomicUsize, Ordering};

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned};

use super::{Notes, Read, Write, delete_and_forget, flaws, pause, put_and_forget};

flaws! {
    // Checks the condition with one call and writes with the next.
    ReadsThenWrites(()) caught by no_update_is_lost {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let current = self.server.get(key).await?.map(|found| found.version);
            if !when.holds_for(current) {
                return Err(StorageError::Conflict);
            }
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }

    ReadsThenCreates(()) caught by one_creation_wins {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if when != Precondition::Absent {
                return self.server.put(key, record, when).await;
            }
            if self.server.get(key).await?.is_some() {
                return Err(StorageError::Conflict);
            }
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }

    ComparesThenWrites(()) caught by one_claim_wins {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let Precondition::Version(_) = when else { return self.server.put(key, record, when).await };
            if !when.holds_for(self.server.get(key).await?.map(|found| found.version)) {
                return Err(StorageError::Conflict);
            }
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }

    ReadsThenDeletes(()) caught by one_delete_wins {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let current = self.server.get(key).await?.map(|found| found.version);
            if current.is_none() || only.is_some_and(|only| current != Some(only)) {
                return Ok(false);
            }
            pause().await;
            self.server.delete(key, None).await?;
            Ok(true)
        }
    }

    // Deletes a record that is written between the check and the delete.
    DeletesALaterWrite(()) caught by a_delete_and_a_write_exclude_each_other {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let current = self.server.get(key).await?.map(|found| found.version);
            if only.is_some_and(|only| current != Some(only)) {
                return Ok(false);
            }
            pause().await;
            self.server.delete(key, None).await
        }
    }

    // An update, followed by an insert if there was no row.
    UpdatesThenInserts(()) caught by racing_first_writes_all_succeed {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if when != Precondition::Always {
                return self.server.put(key, record, when).await;
            }
            if self.server.get(key).await?.is_some() {
                return self.server.put(key, record, when).await;
            }
            pause().await;
            self.server.put(key, record, Precondition::Absent).await
        }
    }

    // Writes payload and hints with two statements.
    WritesInTwoSteps(()) caught by no_read_is_torn {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut half = record.clone();
            if let Some(old) = self.server.get(key).await? {
                half.payload = old.value.payload;
            }
            let version = self.server.put(key, &half, when).await?;
            pause().await;
            self.server.put(key, record, Precondition::Version(version)).await
        }
    }

    // Deletes and inserts instead of updating.
    DeletesThenInserts(()) caught by a_dropped_write_leaves_old_or_new and a_record_is_listed_while_it_is_rewritten {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if !when.holds_for(self.server.get(key).await?.map(|found| found.version)) {
                return Err(StorageError::Conflict);
            }
            self.server.delete(key, None).await?;
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }

    // Writes a tombstone, and deletes the record later.
    DeletesInTwoSteps(()) caught by a_dropped_delete_leaves_the_record_or_nothing {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let Some(found) = self.server.get(key).await? else { return Ok(false) };
            if only.is_some_and(|only| only != found.version) {
                return Ok(false);
            }
            let tombstone = Record::new("");
            let Ok(version) = self.server.put(key, &tombstone, Precondition::Version(found.version)).await else {
                return Ok(false);
            };
            pause().await;
            self.server.delete(key, Some(version)).await
        }
    }

    // A pool to which connections return only if the call ends.
    LeaksConnections(AtomicUsize) caught by dropped_calls_leave_the_storage_usable {
        async fn get(&self, key: &TokenKey) -> Read {
            if self.own.fetch_add(1, Ordering::SeqCst) >= 10 {
                std::future::pending::<()>().await;
            }
            let found = self.server.get(key).await;
            self.own.fetch_sub(1, Ordering::SeqCst);
            found
        }
    }

    // A cache in each handle.
    CachesIndefinitely(Notes<TokenKey, Option<Versioned<Record>>>) caught by writes_are_seen_through_every_handle {
        async fn get(&self, key: &TokenKey) -> Read {
            if let Some(cached) = self.own.lock().unwrap().get(key).cloned() {
                return Ok(cached);
            }
            let found = self.server.get(key).await?;
            self.own.lock().unwrap().insert(key.clone(), found.clone());
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            put_and_forget(&self.server, &self.own, key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            delete_and_forget(&self.server, &self.own, key, only).await
        }
    }

    // Sends every second read to a replica that is one write behind.
    ReadsFromAReplica(Replica) caught by a_read_shows_the_last_write and reads_do_not_go_back {
        async fn get(&self, key: &TokenKey) -> Read {
            let behind = self.own.behind.lock().unwrap().get(key).cloned();
            match behind {
                Some(behind) if self.own.reads.fetch_add(1, Ordering::SeqCst) % 2 == 1 => Ok(behind),
                _ => self.server.get(key).await,
            }
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let before = self.server.get(key).await?;
            let written = self.server.put(key, record, when).await?;
            self.own.behind.lock().unwrap().insert(key.clone(), before);
            Ok(written)
        }
    }

    // A conditional write deletes the record, and inserts it a moment later.
    WritesBehind(()) caught by the_next_read_after_a_claim_sees_the_commit {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let Precondition::Version(_) = when else { return self.server.put(key, record, when).await };
            if !when.holds_for(self.server.get(key).await?.map(|found| found.version)) {
                return Err(StorageError::Conflict);
            }
            self.server.delete(key, None).await?;
            let (server, key, record) = (self.server.clone(), key.clone(), record.clone());
            tokio::spawn(async move {
                pause().await;
                server.put(&key, &record, Precondition::Absent).await
            })
            .await
            .unwrap()
        }
    }

    // Takes two locks in an order that depends on the key, which can deadlock.
    LocksInAnyOrder(Locks) caught by keys_do_not_block_each_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (first, second) = if key.user() == "one" { (&self.own.0, &self.own.1) } else { (&self.own.1, &self.own.0) };
            let _first = first.lock().await;
            pause().await;
            let _second = second.lock().await;
            self.server.put(key, record, when).await
        }
    }

    // A conditional write waits between its check and its write, and overwrites what came in between.
    ResealsOverRefreshes(()) caught by resealing_loses_no_update {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let current = self.server.get(key).await?.map(|found| found.version);
            if !when.holds_for(current) {
                return Err(StorageError::Conflict);
            }
            if matches!(when, Precondition::Version(_)) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            self.server.put(key, record, Precondition::Always).await
        }
    }

    // A delete reports what was stored before it.
    LinearizableButForDeletes(Notes<TokenKey, Version>) caught by histories_are_linearizable {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let present = self.server.get(key).await?.is_some_and(|found| only.is_none_or(|only| only == found.version));
            pause().await;
            self.server.delete(key, only).await?;
            Ok(present)
        }
    }
}

#[derive(Default)]
pub(crate) struct Replica {
    behind: Notes<TokenKey, Option<Versioned<Record>>>,
    reads: AtomicUsize,
}

#[derive(Default)]
pub(crate) struct Locks(tokio::sync::Mutex<()>, tokio::sync::Mutex<()>);
