//! Flaws with which the call itself is correct, but other calls, keys or records are affected.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned,
};

use super::{Notes, Read, Write, flaws, pause};
use crate::bench::Server;

flaws! {
    // Replaces an expired row in two steps: it reads, then it writes.
    CreatesOverExpiredInTwoSteps(Notes<TokenKey, ()>) caught by one_of_two_creations_over_an_expired_record_wins {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let had_retention = match record.retain_for {
                Some(_) => self.own.lock().unwrap().insert(key.clone(), ()).is_some(),
                None => self.own.lock().unwrap().contains_key(key),
            };
            if when != Precondition::Absent || !had_retention {
                return self.server.put(key, record, when).await;
            }
            if self.server.get(key).await?.is_some() {
                return Err(StorageError::Conflict);
            }
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }

    // The condition of the update is the payload, and not the version.
    ComparesPayloads(()) caught by one_of_two_updates_without_a_change_wins {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let Precondition::Version(wanted) = when else { return self.server.put(key, record, when).await };
            let Some(before) = self.server.get(key).await?.filter(|found| found.version == wanted) else {
                return Err(StorageError::Conflict);
            };
            pause().await;
            match self.server.get(key).await? {
                Some(now) if now.value.payload == before.value.payload => {
                    self.server.put(key, record, Precondition::Version(now.version)).await
                }
                _ => Err(StorageError::Conflict),
            }
        }
    }

    // Restores the previous record if the call is dropped.
    RollsBackWhenDropped(()) caught by a_dropped_write_does_not_undo_another {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            struct RollBack(Option<(Server, TokenKey, Record)>);
            impl Drop for RollBack {
                fn drop(&mut self) {
                    let Some((server, key, before)) = self.0.take() else { return };
                    tokio::spawn(async move { server.put(&key, &before, Precondition::Always).await });
                }
            }
            let before = self.server.get(key).await?;
            let mut roll_back = RollBack(before.map(|found| (self.server.clone(), key.clone(), found.value)));
            pause().await;
            let written = self.server.put(key, record, when).await;
            roll_back.0 = None;
            written
        }
    }

    // Purges only records without a tenant.
    PurgesWithoutTenants(AtomicU64) caught by purge_covers_every_kind_of_key {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let is_spared = key.tenant().is_some() && record.retain_for == Some(Duration::ZERO);
            self.own.fetch_add(u64::from(is_spared), SeqCst);
            self.server.put(key, record, when).await
        }

        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let spared = self.own.swap(0, SeqCst);
            Ok(self.server.purge(limit).await?.saturating_sub(spared))
        }
    }

    // Returns the number of selected records, and not that of deleted ones.
    CountsSelectedRecords(Notes<TokenKey, ()>) caught by purges_at_once_count_each_record_once {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            let mut expired = self.own.lock().unwrap();
            expired.remove(key);
            expired.extend((record.retain_for == Some(Duration::ZERO)).then(|| (key.clone(), ())));
            Ok(written)
        }

        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let chosen = self.own.lock().unwrap().len().min(limit) as u64;
            pause().await;
            let removed = self.server.purge(limit).await?;
            if removed > 0 {
                self.own.lock().unwrap().clear();
            }
            Ok(chosen.max(removed))
        }
    }

    // Sets a flag while a purge runs.
    NeverEndsADroppedPurge(AtomicBool) caught by a_dropped_purge_does_not_stop_later_ones {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            if self.own.swap(true, SeqCst) {
                return Ok(0);
            }
            pause().await;
            let removed = self.server.purge(limit).await;
            self.own.store(false, SeqCst);
            removed
        }
    }

    // Stores each payload once, under its hash, and deletes it with the first key.
    StoresEqualPayloadsOnce(Notes<Vec<u8>, ()>) caught by equal_payloads_have_records_of_their_own {
        async fn get(&self, key: &TokenKey) -> Read {
            let mut found = self.server.get(key).await?;
            if let Some(found) = &mut found
                && self.own.lock().unwrap().contains_key(&found.value.payload)
            {
                found.value.payload.clear();
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            self.own.lock().unwrap().remove(&record.payload);
            Ok(written)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let found = self.server.get(key).await?;
            let removed = self.server.delete(key, only).await?;
            let payload = found.filter(|_| removed).map(|found| (found.value.payload, ()));
            self.own.lock().unwrap().extend(payload);
            Ok(removed)
        }
    }

    // Reads the hints from an index, and the version from the record.
    ListsHintsOfAnotherVersion(()) caught by entries_have_the_hints_of_their_version {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            for entry in &mut page.entries {
                pause().await;
                if let Some(found) = self.server.get(&entry.key).await? {
                    entry.version = found.version;
                }
            }
            Ok(page)
        }
    }

    // A log-structured store: when the retention of a record ends, an older record of the key becomes visible.
    ShowsTheOlderFile((Notes<TokenKey, (usize, Versioned<Record>)>, AtomicUsize)) caught by other_writes_do_not_change_a_retention {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let moved = self.own.1.load(SeqCst).saturating_sub(300);
            let older = self.own.0.lock().unwrap().get(key).filter(|(at, _)| *at < moved).map(|(_, older)| older.clone());
            Ok(found.or(older))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            let at = self.own.1.fetch_add(1, SeqCst);
            let mut older = self.own.0.lock().unwrap();
            if record.retain_for.is_none() {
                older.insert(key.clone(), (at, Versioned::new(record.clone(), written)));
            } else if older.get(key).is_some_and(|(before, _)| before + 300 > at) {
                older.remove(key);
            }
            Ok(written)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed {
                self.own.0.lock().unwrap().remove(key);
            }
            Ok(removed)
        }
    }

    // A log-structured store: compaction drops the retention of old records.
    DropsRetentionsOfOldRecords((Notes<TokenKey, usize>, AtomicUsize)) caught by other_writes_do_not_change_a_retention {
        async fn get(&self, key: &TokenKey) -> Read {
            let mut found = self.server.get(key).await?;
            let moved = self.own.1.load(SeqCst).saturating_sub(500);
            if let Some(found) = &mut found
                && self.own.0.lock().unwrap().get(key).is_some_and(|at| *at < moved)
            {
                found.value.retain_for = None;
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            let at = self.own.1.fetch_add(1, SeqCst);
            self.own.0.lock().unwrap().insert(key.clone(), at);
            Ok(written)
        }
    }
}
