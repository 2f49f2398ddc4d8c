//! Flaws that were written after the properties, to test whether these detect what they were not made for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage as _,
    Version, Versioned,
};

use super::{Notes, Read, Write, delete_and_forget, flaws, put_and_forget};

flaws! {
    // Sorts by another column than that of the cursor.
    ListsInTheOrderOfVersions(()) caught by pages_of_any_size_cover_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let all = PageRequest { after: page.after, limit: usize::MAX };
            let mut entries = self.server.list(filter, all).await?.entries;
            entries.sort_by_key(|entry| *entry.version.as_bytes());
            Ok(Page::collect(entries, page.limit))
        }
    }

    // Uses an index of tenant and user, and does not compare the provider.
    UserIndexForgetsTheProvider(()) caught by filters_are_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut filter = filter.clone();
            if filter.tenant.is_some() && filter.user.is_some() {
                filter.provider = None;
            }
            self.server.list(&filter, page).await
        }
    }

    // Treats NULL as the smallest value.
    NeverExpiringIsExpiring(()) caught by filters_are_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let Some(before) = filter.expiring_before else { return self.server.list(filter, page).await };
            let mut others = filter.clone();
            others.expiring_before = None;
            let mut page = self.server.list(&others, page).await?;
            page.entries.retain(|entry| entry.expires_at.is_none_or(|at| at < before));
            Ok(page)
        }
    }

    FiltersIn32Bits(()) caught by filters_are_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut filter = filter.clone();
            let cut = |at: Timestamp| Timestamp::from_unix_seconds(at.as_unix_seconds().min(u64::from(u32::MAX)));
            filter.expiring_before = filter.expiring_before.map(cut);
            self.server.list(&filter, page).await
        }
    }

    ListsNoEmptyPayloads(Notes<TokenKey, ()>) caught by random_histories_match_the_model {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let mut listed: Vec<Entry> = Vec::new();
            for entry in page.entries {
                if self.server.get(&entry.key).await.is_ok_and(|found| found.is_some_and(|found| found.value.payload.is_empty())) {
                    continue;
                }
                listed.push(entry);
            }
            page.entries = listed;
            Ok(page)
        }
    }

    // A cache in each handle, for a short time.
    CachesForAMoment(Notes<TokenKey, (Instant, Option<Versioned<Record>>)>) caught by writes_are_seen_through_every_handle {
        async fn get(&self, key: &TokenKey) -> Read {
            let cached = self.own.lock().unwrap().get(key).cloned();
            if let Some((read, found)) = cached && read.elapsed() < Duration::from_millis(50) {
                return Ok(found);
            }
            let found = self.server.get(key).await?;
            self.own.lock().unwrap().insert(key.clone(), (Instant::now(), found.clone()));
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            put_and_forget(&self.server, &self.own, key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            delete_and_forget(&self.server, &self.own, key, only).await
        }
    }

    // Caches absence, even after another handle has written the record.
    CachesAbsenceIndefinitely(Notes<TokenKey, ()>) caught by random_histories_match_the_model {
        async fn get(&self, key: &TokenKey) -> Read {
            if self.own.lock().unwrap().contains_key(key) {
                return Ok(None);
            }
            let found = self.server.get(key).await?;
            if found.is_none() {
                self.own.lock().unwrap().insert(key.clone(), ());
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().remove(key);
            self.server.put(key, record, when).await
        }
    }

    // Retentions in minutes.
    RetainsWholeMinutes(()) caught by random_histories_match_the_model {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let retention = record.retain_for.map(|retention| Duration::from_secs(retention.as_secs().div_ceil(60).saturating_mul(60).max(1) - 1));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    DeletesInEveryTenant(()) caught by every_part_keeps_keys_apart {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed && only.is_none() {
                for entry in self.server.list(&Filter::everything().user(key.user()), PageRequest::default()).await?.entries {
                    if entry.key.provider() == key.provider() && entry.key.account() == key.account() {
                        self.server.delete(&entry.key, None).await?;
                    }
                }
            }
            Ok(removed)
        }
    }

    DeleteOfAVersionAlwaysSucceeds(()) caught by a_version_is_void_after_a_delete {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            Ok(self.server.delete(key, only).await? || only.is_some())
        }
    }

    // Retries a failed delete as soon as the server works again.
    DeletesAgainLater(()) caught by an_error_means_old_or_new {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await;
            if matches!(removed, Err(StorageError::Unavailable { .. })) {
                let (server, key) = (self.server.clone(), key.clone());
                tokio::spawn(async move {
                    while server.get(&key).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(40)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(40)).await;
                    server.delete(&key, only).await
                });
            }
            removed
        }
    }

    // A version that has one byte.
    CountsTo256(AtomicUsize) caught by no_acknowledged_write_is_lost {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            let number = self.own.fetch_add(1, Ordering::SeqCst) % 256;
            // `put` returns a version that repeats. A caller that compares the versions of writes detects it.
            Ok(if number == 255 { Version::from_bytes([7; 16]) } else { version })
        }
    }

    // A text column that cannot store NUL.
    RejectsNul(()) caught by unicode_keeps_keys_apart {
        async fn get(&self, key: &TokenKey) -> Read {
            if key.parts().concat().contains('\0') {
                return Err(StorageError::unavailable("invalid byte sequence"));
            }
            self.server.get(key).await
        }
    }
}
