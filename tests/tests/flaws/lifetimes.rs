//! Flaws of how long something lasts: records, cached results, versions, pools.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version,
    Versioned,
};

use super::lists::everything;
use super::{Notes, Read, Write, delete_and_forget, flaws, put_and_forget};
use crate::bench::Server;

const DAY: u64 = 86_400;
const MAX_AGE: Duration = Duration::from_millis(20);

flaws! {
    // The table has a default for writes without a retention.
    RetainsFor90DaysByDefault(()) caught by long_retentions_do_not_overflow {
        async fn get(&self, key: &TokenKey) -> Read {
            let written = self.server.shared::<Notes<TokenKey, u64>>().lock().unwrap().get(key).copied();
            let is_over = written.is_some_and(|at| self.server.clock().now().as_unix_seconds() > at + 90 * DAY);
            Ok(self.server.get(key).await?.filter(|found| found.value.retain_for.is_some() || !is_over))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            let now = self.server.clock().now().as_unix_seconds();
            self.server.shared::<Notes<TokenKey, u64>>().lock().unwrap().insert(key.clone(), now);
            Ok(version)
        }
    }

    // Removes a record a week after its token has expired.
    RetentionEndsAWeekAfterTheExpiry(()) caught by long_retentions_do_not_overflow {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (now, week) = (self.server.clock().now(), Duration::from_secs(7 * DAY));
            let most = record.expires_at.map_or(Duration::MAX, |expiry| expiry.saturating_since(now).saturating_add(week));
            let retention = record.retain_for.map(|retention| retention.min(most));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    // As session stores do: a read extends the retention once most of it is over.
    ReadsExtendWhatIsNearlyOver(()) caught by refused_calls_do_not_change_the_retention {
        async fn get(&self, key: &TokenKey) -> Read {
            let whole = self.server.shared::<Notes<TokenKey, Duration>>().lock().unwrap().get(key).copied();
            let found = self.server.get(key).await?;
            if let (Some(found), Some(whole)) = (&found, whole)
                && found.value.retain_for.is_some_and(|left| left < whole / 5)
            {
                let extended = found.value.clone().with_retain_for(Some(whole));
                let _ = self.server.put(key, &extended, Precondition::Version(found.version)).await;
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            let whole = self.server.shared::<Notes<TokenKey, Duration>>();
            whole.lock().unwrap().remove(key);
            whole.lock().unwrap().extend(record.retain_for.map(|retention| (key.clone(), retention)));
            Ok(version)
        }
    }

    // A retention of zero is a delete, which has no condition.
    ZeroRetentionNeverConflicts(()) caught by zero_retention_is_over_at_once {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let is_zero = record.retain_for == Some(Duration::ZERO);
            self.server.put(key, record, if is_zero { Precondition::Always } else { when }).await
        }
    }

    // The condition of the account is missing in the statement that deletes.
    PurgesAllAccountsOfAUser(()) caught by purge_removes_only_expired_records {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            if record.retain_for == Some(Duration::ZERO) {
                self.server.shared::<Notes<String, ()>>().lock().unwrap().insert(key.user().to_owned(), ());
            }
            Ok(version)
        }

        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let users = std::mem::take(&mut *self.server.shared::<Notes<String, ()>>().lock().unwrap());
            for entry in everything(&self.server).await? {
                if users.contains_key(entry.key.user()) {
                    self.server.delete(&entry.key, None).await?;
                }
            }
            self.server.purge(limit).await
        }
    }

    // With a limit, it looks ten seconds ahead.
    PurgesAheadWithALimit(()) caught by purge_spares_live_records_of_any_retention {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            for entry in everything(&self.server).await? {
                let found = self.server.memory().get(&entry.key).await?.and_then(|found| found.value.retain_for);
                if limit < usize::MAX && found.is_some_and(|left| left < Duration::from_secs(10)) {
                    self.server.delete(&entry.key, Some(entry.version)).await?;
                }
            }
            self.server.purge(limit).await
        }
    }

    PurgeIsUnavailableAlthoughDone(()) caught by a_repeated_call_does_not_meet_its_own_effect {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            self.server.purge(limit).await.map_err(|error| match error {
                StorageError::Ambiguous { source } => StorageError::Unavailable { source },
                other => other,
            })
        }
    }

    // Cleans up after a dropped purge, with a wrong condition.
    DroppedPurgesRemoveLiveRecords(()) caught by a_dropped_purge_does_not_stop_later_ones {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let mut cleaning = CleansUp(Some(self.server.clone()));
            let removed = self.server.purge(limit).await;
            cleaning.0 = None;
            removed
        }
    }

    // Updates the row of an expired record, which a purge may have removed since.
    CreationLosesToAPurge(()) caught by clearing_an_expired_record_spares_a_new_one {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (purges, expired) = (self.server.shared::<AtomicU64>(), self.server.shared::<Notes<TokenKey, u64>>());
            let found = expired.lock().unwrap().get(key).copied().filter(|at| *at == purges.load(SeqCst));
            if when == Precondition::Absent && found.is_some() {
                tokio::task::yield_now().await;
                if found != Some(purges.load(SeqCst)) {
                    return Err(StorageError::Conflict);
                }
            }
            let version = self.server.put(key, record, when).await?;
            expired.lock().unwrap().remove(key);
            if record.retain_for == Some(Duration::ZERO) {
                expired.lock().unwrap().insert(key.clone(), purges.load(SeqCst));
            }
            Ok(version)
        }

        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let removed = self.server.purge(limit).await?;
            self.server.shared::<AtomicU64>().fetch_add(removed, SeqCst);
            Ok(removed)
        }
    }

    // The age of a cached record counts from its last read: the time to idle instead of the time to live.
    CachesWhatIsOftenRead(Notes<TokenKey, (Versioned<Record>, Instant)>) caught by cached_records_are_no_older_than_declared {
        async fn get(&self, key: &TokenKey) -> Read {
            let cached = self.own.lock().unwrap().get(key).filter(|(_, since)| since.elapsed() < MAX_AGE).cloned();
            let found = match cached {
                Some((found, _)) => Some(found),
                None => self.server.get(key).await?,
            };
            let mut cached = self.own.lock().unwrap();
            cached.remove(key);
            cached.extend(found.iter().map(|found| (key.clone(), (found.clone(), Instant::now()))));
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            put_and_forget(&self.server, &self.own, key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            delete_and_forget(&self.server, &self.own, key, only).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_age(MAX_AGE)
        }
    }

    // AUTO_INCREMENT: after a crash it continues after the greatest number that is stored.
    CrashSetsTheCounterBack(()) caught by a_version_is_void_after_a_crash {
        async fn get(&self, key: &TokenKey) -> Read {
            let counter = self.server.shared::<Counter>();
            Ok(self.server.get(key).await?.map(|found| Versioned::new(found.value, counter.shown(found.version))))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let counter = self.server.shared::<Counter>();
            let real = match when {
                Precondition::Version(shown) => Precondition::Version(counter.real(&self.server, key, shown).await?),
                other => other,
            };
            let written = self.server.put(key, record, real).await;
            if matches!(written, Err(StorageError::Unavailable { .. })) {
                counter.set_back(&self.server).await?;
            }
            Ok(counter.count(written?))
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let counter = self.server.shared::<Counter>();
            let only = match only {
                Some(shown) => Some(counter.real(&self.server, key, shown).await?),
                None => None,
            };
            self.server.delete(key, only).await
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let counter = self.server.shared::<Counter>();
            let mut page = self.server.list(filter, page).await?;
            page.entries.iter_mut().for_each(|entry| entry.version = counter.shown(entry.version));
            Ok(page)
        }
    }

    // The pool of the lists closes when the server crashes.
    ListsNeverRecover(AtomicBool) caught by an_outage_is_an_error {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let page = self.server.list(filter, page).await;
            if matches!(&page, Err(StorageError::Unavailable { source }) if source.to_string().contains("crashed")) {
                self.own.store(true, SeqCst);
            }
            if self.own.load(SeqCst) { Err(StorageError::unavailable("pool closed")) } else { page }
        }
    }

    // All handles share a pool, and each closes it at its end.
    AnyHandleClosesThePool(Pool) caught by acknowledged_writes_survive_a_restart {
        async fn get(&self, key: &TokenKey) -> Read {
            let is_closed = self.own.0.get_or_init(|| self.server.shared::<AtomicBool>()).load(SeqCst);
            if is_closed { Err(StorageError::unavailable("pool closed")) } else { self.server.get(key).await }
        }
    }
}

/// Removes all records when it is dropped with a server.
struct CleansUp(Option<Server>);

impl Drop for CleansUp {
    fn drop(&mut self) {
        let Some(server) = self.0.take() else { return };
        tokio::spawn(async move {
            for entry in everything(&server).await? {
                server.delete(&entry.key, None).await?;
            }
            Ok::<_, StorageError>(())
        });
    }
}

#[derive(Default)]
pub(crate) struct Pool(OnceLock<Arc<AtomicBool>>);

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(is_closed) = self.0.get() {
            is_closed.store(true, SeqCst);
        }
    }
}

/// A counter that is the version of all records.
#[derive(Default)]
pub(crate) struct Counter {
    last: AtomicU64,
    numbers: Mutex<HashMap<Version, u64>>,
}

impl Counter {
    fn count(&self, real: Version) -> Version {
        self.numbers.lock().unwrap().insert(real, self.last.fetch_add(1, SeqCst) + 1);
        self.shown(real)
    }

    fn shown(&self, real: Version) -> Version {
        let number = self.numbers.lock().unwrap().get(&real).copied();
        number.map_or(real, |number| Version::from_bytes(u128::from(number).to_be_bytes()))
    }

    async fn real(&self, server: &Server, key: &TokenKey, shown: Version) -> Result<Version, StorageError> {
        let found = server.memory().get(key).await?.filter(|found| self.shown(found.version) == shown);
        Ok(found.map_or_else(Version::random, |found| found.version))
    }

    async fn set_back(&self, server: &Server) -> Result<(), StorageError> {
        let all = PageRequest { after: None, limit: usize::MAX };
        let stored = server.memory().list(&Filter::everything(), all).await?.entries;
        let numbers = self.numbers.lock().unwrap();
        self.last
            .store(stored.iter().filter_map(|entry| numbers.get(&entry.version)).copied().max().unwrap_or(0), SeqCst);
        Ok(())
    }
}
