//! Flaws during faults of the server, and payloads in errors and logs.

use std::sync::atomic::{AtomicBool, Ordering};

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned,
};

use super::{Read, Write, flaws};

flaws! {
    OutageIsMissing(()) caught by an_outage_is_an_error {
        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await.unwrap_or_default())
        }
    }

    OutageIsAnEmptyList(()) caught by an_outage_is_an_error {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            match self.server.list(filter, page).await {
                Err(StorageError::Unavailable { .. }) => Ok(Page { entries: Vec::new(), next: None }),
                page => page,
            }
        }
    }

    OutageIsNothingToDelete(()) caught by an_outage_is_an_error {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            Ok(self.server.delete(key, only).await.unwrap_or(false))
        }
    }

    OutageIsAConflict(()) caught by an_outage_is_an_error {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(key, record, when).await.map_err(|_| StorageError::Conflict)
        }
    }

    WaitsIndefinitely(()) caught by a_silent_server_is_an_error_in_time {
        async fn get(&self, key: &TokenKey) -> Read {
            match self.server.get(key).await {
                Err(StorageError::Unavailable { source }) if source.to_string() == "no reply in time" => {
                    std::future::pending().await
                }
                found => found,
            }
        }
    }

    NeverRecovers(AtomicBool) caught by the_storage_recovers {
        async fn get(&self, key: &TokenKey) -> Read {
            if self.own.load(Ordering::SeqCst) {
                return Err(StorageError::unavailable("pool closed"));
            }
            let found = self.server.get(key).await;
            if matches!(found, Err(StorageError::Unavailable { .. })) {
                self.own.store(true, Ordering::SeqCst);
            }
            found
        }
    }

    // Reports that nothing has changed, although that is unknown.
    ReportsAmbiguousAsUnavailable(()) caught by an_error_means_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(key, record, when).await.map_err(|error| match error {
                StorageError::Ambiguous { source } => StorageError::Unavailable { source },
                other => other,
            })
        }
    }

    // The same in a write of two requests, of which the first usually loses its reply.
    ReportsALaterAmbiguityAsUnavailable(()) caught by an_error_means_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.get(key).await?;
            self.server.put(key, record, when).await.map_err(|error| match error {
                StorageError::Ambiguous { source } => StorageError::Unavailable { source },
                other => other,
            })
        }
    }

    // A retry encounters the effect of the first attempt.
    RetriesBlindly(()) caught by a_repeated_call_does_not_meet_its_own_effect {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            match self.server.put(key, record, when).await {
                Err(StorageError::Ambiguous { .. }) => self.server.put(key, record, when).await,
                written => written,
            }
        }
    }

    RetriesDeletesBlindly(()) caught by a_repeated_call_does_not_meet_its_own_effect {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            match self.server.delete(key, only).await {
                Err(StorageError::Ambiguous { .. }) => self.server.delete(key, only).await,
                removed => removed,
            }
        }
    }

    RetriesPurgesBlindly(()) caught by a_repeated_call_does_not_meet_its_own_effect {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            match self.server.purge(limit).await {
                Err(StorageError::Ambiguous { .. }) => self.server.purge(limit).await,
                removed => removed,
            }
        }
    }

    // Assumes that the write succeeded, and returns a made-up version.
    TreatsALostReplyAsSuccess(()) caught by a_repeated_call_does_not_meet_its_own_effect {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            match self.server.put(key, record, when).await {
                Err(StorageError::Ambiguous { .. }) if self.server.get(key).await.is_ok() => Ok(Version::random()),
                written => written,
            }
        }
    }

    // Buffers the last write in the process.
    BuffersAWrite(Buffer) caught by acknowledged_writes_survive_a_restart {
        async fn get(&self, key: &TokenKey) -> Read {
            let buffered = self.own.lock().await;
            match &*buffered {
                Some((owner, record, version)) if owner == key => Ok(Some(Versioned::new(record.clone(), *version))),
                _ => self.server.get(key).await,
            }
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut buffered = self.own.lock().await;
            if let Some((key, record, _)) = buffered.take() {
                self.server.put(&key, &record, Precondition::Always).await?;
            }
            if when != Precondition::Always {
                return self.server.put(key, record, when).await;
            }
            let version = Version::random();
            *buffered = Some((key.clone(), record.clone(), version));
            Ok(version)
        }
    }

    // Acknowledges writes before they are durable, so that a crash of the server loses them.
    LosesTheLastWrites(Buffer) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if self.server.get(key).await.is_err() {
                self.server.memory().put(key, &Record::new("0"), Precondition::Always).await?;
            }
            self.server.put(key, record, when).await
        }
    }

    // Knows the address of one server only.
    WaitsForTheFailedServer(()) caught by acknowledged_writes_survive_a_failover {
        async fn get(&self, key: &TokenKey) -> Read {
            if self.server.has_failed_over() {
                return Err(StorageError::unavailable("connection refused"));
            }
            self.server.get(key).await
        }
    }

    // The server that takes over has not received the last deletes.
    RestoresDeletedRecordsInAFailover(Deleted) caught by acknowledged_writes_survive_a_failover {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let deleted = self.own.lock().await.get(key).cloned();
            Ok(if self.server.has_failed_over() { found.or(deleted) } else { found })
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            if let Ok(Some(found)) = self.server.get(key).await {
                self.own.lock().await.insert(key.clone(), found);
            }
            self.server.delete(key, only).await
        }
    }

    ReadOnlyIsFine(()) caught by read_only_is_an_error {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            match self.server.put(key, record, when).await {
                Err(StorageError::Misconfigured { .. }) => Ok(Version::random()),
                written => written,
            }
        }
    }

    FullIsFine(()) caught by a_full_medium_is_an_error {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            match self.server.put(key, record, when).await {
                Err(StorageError::Unavailable { source }) if source.to_string() == "no space left" => Ok(Version::random()),
                written => written,
            }
        }
    }

    // A driver that quotes the statement with its parameters.
    QuotesThePayload(()) caught by errors_show_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(key, record, when).await.map_err(|error| match error {
                StorageError::Unavailable { source } => {
                    let text = String::from_utf8_lossy(&record.payload);
                    StorageError::unavailable(format!("{source}: INSERT INTO tokens VALUES ('{text}')"))
                }
                other => other,
            })
        }
    }

    LogsThePayload(()) caught by printing_shows_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.log(&format!("put {key}: {:02x?}", record.payload).replace(", ", ""));
            self.server.put(key, record, when).await
        }
    }
}

type Deleted = tokio::sync::Mutex<std::collections::HashMap<TokenKey, Versioned<Record>>>;
type Buffer = tokio::sync::Mutex<Option<(TokenKey, Record, Version)>>;
