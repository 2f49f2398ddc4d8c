//! Flaws after a crash or a restart, for some kinds of records only.

use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_core::{
    Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned,
};

use super::{Notes, Read, Write, flaws};
use crate::bench::Server;

flaws! {
    CrashLosesEmptyPayloads(()) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if is_down(&written) {
                lose(&self.server, |_, found| found.value.payload.is_empty()).await?;
            }
            written
        }
    }

    CrashLosesLargePayloads(()) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if is_down(&written) {
                lose(&self.server, |_, found| found.value.payload.len() > 10_000).await?;
            }
            written
        }
    }

    // Only unconditional writes are in the server's log.
    CrashLosesConditionalWrites(Notes<TokenKey, bool>) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if is_down(&written) {
                let lost = self.own.lock().unwrap().clone();
                lose(&self.server, |key, _| lost.get(key) == Some(&true)).await?;
            } else {
                self.own.lock().unwrap().insert(key.clone(), when != Precondition::Always);
            }
            written
        }
    }

    CrashRestoresConditionalDeletes(Notes<TokenKey, Record>) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if is_down(&written) {
                let deleted: Vec<_> = self.own.lock().unwrap().drain().collect();
                for (key, record) in deleted {
                    self.server.memory().put(&key, &record, Precondition::Always).await?;
                }
            }
            written
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            if let Some(found) = self.server.get(key).await? && only == Some(found.version) {
                self.own.lock().unwrap().insert(key.clone(), found.value);
            }
            self.server.delete(key, only).await
        }
    }

    CrashMakesNewVersions(Mutex<bool>) caught by acknowledged_writes_survive_a_server_crash {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let crashed = *self.own.lock().unwrap();
            Ok(found.map(|found| if crashed { Versioned::new(found.value, Version::random()) } else { found }))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            *self.own.lock().unwrap() |= is_down(&written);
            written
        }
    }

    CrashLosesHints(Mutex<bool>) caught by acknowledged_writes_survive_a_server_crash {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let crashed = *self.own.lock().unwrap();
            Ok(found.map(|mut found| {
                found.value.key_id = found.value.key_id.filter(|_| !crashed);
                found
            }))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            *self.own.lock().unwrap() |= is_down(&written);
            written
        }
    }

    // A restart of the server restarts all retentions.
    CrashRestartsRetentions(Mutex<(bool, Option<Duration>)>) caught by acknowledged_writes_survive_a_server_crash {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let (crashed, whole) = *self.own.lock().unwrap();
            Ok(found.map(|mut found| {
                found.value.retain_for = found.value.retain_for.map(|left| whole.filter(|_| crashed).unwrap_or(left));
                found
            }))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            let mut own = self.own.lock().unwrap();
            own.0 |= is_down(&written);
            own.1 = record.retain_for.or(own.1);
            drop(own);
            written
        }
    }

    ForgetsRetentionsAtARestart(Notes<TokenKey, ()>) caught by acknowledged_writes_survive_a_restart {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let known = self.own.lock().unwrap().contains_key(key);
            Ok(found.map(|mut found| {
                found.value.retain_for = found.value.retain_for.filter(|_| known);
                found
            }))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().insert(key.clone(), ());
            self.server.put(key, record, when).await
        }
    }
}

fn is_down(written: &Write) -> bool {
    matches!(written, Err(StorageError::Unavailable { .. }))
}

/// Deletes some records, regardless of faults.
async fn lose(server: &Server, is_lost: impl Fn(&TokenKey, &Versioned<Record>) -> bool) -> Result<(), StorageError> {
    let all = PageRequest { after: None, limit: usize::MAX };
    for entry in server.memory().list(&Filter::everything(), all).await?.entries {
        if let Some(found) = server.memory().get(&entry.key).await?
            && is_lost(&entry.key, &found)
        {
            server.memory().delete(&entry.key, None).await?;
        }
    }
    Ok(())
}
