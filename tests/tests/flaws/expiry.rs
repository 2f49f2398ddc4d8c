//! Flaws of the start and the end of a retention, and of what remains of an expired record.

use std::time::Duration;

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage as _, Version,
};

use super::{Notes, Read, Write, flaws, pause};

flaws! {
    RetentionIsOfTheFirstWrite(()) caught by retention_counts_from_the_last_write {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let old = self.server.get(key).await?.and_then(|found| found.value.retain_for);
            let retention = record.retain_for.map(|retention| old.filter(|old| *old < retention && !retention.is_zero()).unwrap_or(retention));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    // Sets the expiry only if the key is new.
    ConditionalWritesInheritTheRetention(()) caught by every_write_sets_the_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let old = self.server.get(key).await?;
            let mut record = record.clone();
            if let (Precondition::Version(_), Some(old)) = (when, old) {
                record.retain_for = old.value.retain_for;
            }
            self.server.put(key, &record, when).await
        }
    }

    DropsFractions(()) caught by fractional_retentions_round_up {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let whole = record.retain_for.map(|retention| Duration::from_secs(retention.as_secs()));
            self.server.put(key, &record.clone().with_retain_for(whole), when).await
        }
    }

    TreatsZeroAsUnlimited(()) caught by zero_retention_is_over_at_once {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let retention = record.retain_for.filter(|retention| !retention.is_zero());
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    RejectsAZeroRetention(()) caught by zero_retention_is_over_at_once {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.retain_for.is_some_and(|retention| retention.is_zero()) {
                return Err(StorageError::unavailable("invalid expire time"));
            }
            self.server.put(key, record, when).await
        }
    }

    // Browsers limit the age of a cookie.
    EndsAfter400Days(()) caught by long_retentions_do_not_overflow {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let retention = record.retain_for.map(|retention| retention.min(Duration::from_secs(400 * 86_400)));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    // Milliseconds of 32 bits.
    EndsWithin50Days(()) caught by long_retentions_do_not_overflow {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let retention = record.retain_for.map(|retention| Duration::from_millis(u64::from(retention.as_millis() as u32)));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    ListingExtendsTheRetention(()) caught by refused_calls_do_not_change_the_retention {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let page = self.server.list(filter, page).await?;
            for entry in &page.entries {
                if let Some(found) = self.server.memory().get(&entry.key).await? && found.value.retain_for.is_some() {
                    let longer = found.value.with_retain_for(Some(Duration::from_secs(100_000)));
                    self.server.memory().put(&entry.key, &longer, Precondition::Always).await?;
                }
            }
            Ok(page)
        }
    }

    RejectedDeletesExtendTheRetention(()) caught by refused_calls_do_not_change_the_retention {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if let (false, Some(found)) = (removed, self.server.get(key).await?) && found.value.retain_for.is_some() {
                let longer = found.value.with_retain_for(Some(Duration::from_secs(100_000)));
                self.server.put(key, &longer, Precondition::Version(found.version)).await?;
            }
            Ok(removed)
        }
    }

    // Only the handle that wrote knows when the retention ends.
    EndsInTheHandleOnly(Notes<TokenKey, Timestamp>) caught by retention_is_seen_through_every_handle {
        async fn get(&self, key: &TokenKey) -> Read {
            let now = self.server.clock().now();
            let ends = self.own.lock().unwrap().get(key).copied();
            let found = self.server.get(key).await?.filter(|_| ends.is_none_or(|ends| ends > now));
            Ok(found.map(|mut found| {
                found.value.retain_for = ends.map(|ends| ends.saturating_since(now));
                found
            }))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if self.get(key).await?.is_none() {
                self.server.delete(key, None).await?;
            }
            let written = self.server.put(key, &record.clone().with_retain_for(None), when).await?;
            let ends = record.retain_seconds().map(|retention| self.server.clock().now().saturating_add(Duration::from_secs(retention)));
            let mut notes = self.own.lock().unwrap();
            notes.remove(key);
            notes.extend(ends.map(|ends| (key.clone(), ends)));
            Ok(written)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let is_live = self.get(key).await?.is_some();
            Ok(self.server.delete(key, only).await? && is_live)
        }
    }

    // `COALESCE` with the columns of the expired row.
    HintsOutliveTheRecord(Notes<TokenKey, Record>) caught by nothing_of_an_expired_record_survives {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let missing = self.server.get(key).await?.is_none();
            let mut merged = record.clone();
            if let Some(old) = self.own.lock().unwrap().get(key).filter(|_| missing) {
                merged.key_id = merged.key_id.or_else(|| old.key_id.clone());
            }
            let version = self.server.put(key, &merged, when).await?;
            self.own.lock().unwrap().insert(key.clone(), merged);
            Ok(version)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed {
                self.own.lock().unwrap().remove(key);
            }
            Ok(removed)
        }

        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            self.server.purge(limit).await
        }
    }

    // Finds that a record has expired, and deletes whatever is stored a moment later.
    ClearsWhatItReads(Notes<TokenKey, ()>) caught by clearing_an_expired_record_spares_a_new_one {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            if found.is_none() {
                pause().await;
                self.server.delete(key, None).await?;
            }
            Ok(found)
        }
    }

    PurgesAllForZero(Notes<TokenKey, ()>) caught by purge_accepts_every_limit {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            self.server.purge(if limit == 0 { usize::MAX } else { limit }).await
        }
    }

    // The cast limit is negative.
    RejectsLargeLimits(Notes<TokenKey, ()>) caught by purge_accepts_every_limit {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            if i64::try_from(limit).is_err() {
                return Err(StorageError::unavailable("LIMIT must not be negative"));
            }
            self.server.purge(limit).await
        }
    }

    OutageIsNothingToPurge(()) caught by an_outage_is_an_error {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            Ok(self.server.purge(limit).await.unwrap_or(0))
        }
    }
}
