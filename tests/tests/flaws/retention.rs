//! Flaws of retention and purges.

use std::time::Duration;

use oauth_dance_core::{
    Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage as _, Version,
};

use super::{Notes, Read, Write, flaws, pause};

flaws! {
    // Treats the expiry of the access token as that of the record.
    DropsExpiredTokens(()) caught by an_expired_access_token_is_not_missing {
        async fn get(&self, key: &TokenKey) -> Read {
            let now = self.server.clock().now();
            let found = self.server.get(key).await?;
            Ok(found.filter(|found| found.value.expires_at.is_none_or(|expiry| expiry > now)))
        }
    }

    PurgesExpiredTokens(()) caught by an_expired_access_token_is_not_missing {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let filter = Filter::everything().expiring_before(self.server.clock().now());
            let page = self.server.list(&filter, PageRequest { after: None, limit }).await?;
            let mut purged = 0;
            for entry in page.entries {
                purged += u64::from(self.server.delete(&entry.key, Some(entry.version)).await?);
            }
            Ok(purged + self.server.purge(limit).await?)
        }
    }

    ForgetsTheRetention(()) caught by records_are_hidden_after_their_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(key, &record.clone().with_retain_for(None), when).await
        }
    }

    // `get` hides expired records, but the list does not.
    ListsExpiredRecords(Notes<TokenKey, Timestamp>) caught by records_are_hidden_after_their_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let ends = record.retain_for.map(|retention| self.server.clock().now().saturating_add(retention));
            let written = self.server.put(key, &record.clone().with_retain_for(None), when).await?;
            let mut notes = self.own.lock().unwrap();
            notes.remove(key);
            notes.extend(ends.map(|ends| (key.clone(), ends)));
            Ok(written)
        }

        async fn get(&self, key: &TokenKey) -> Read {
            let now = self.server.clock().now();
            let ends = self.own.lock().unwrap().get(key).copied();
            let found = self.server.get(key).await?.filter(|_| ends.is_none_or(|ends| ends > now));
            Ok(found.map(|mut found| {
                found.value.retain_for = ends.map(|ends| ends.saturating_since(now));
                found
            }))
        }
    }

    // An UPDATE without the column.
    InheritsTheRetention(()) caught by every_write_sets_the_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let old = self.server.get(key).await?.and_then(|found| found.value.retain_for);
            let retention = record.retain_for.or(old);
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    NeverShortensTheRetention(()) caught by every_write_sets_the_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let old = self.server.get(key).await?.map(|found| found.value.retain_for);
            let retention = record.retain_for.map(|retention| old.flatten().map_or(retention, |old| old.max(retention)));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    // Stores the end of the retention under a separate key, which is never deleted.
    RetentionOutlivesTheRecord(Notes<TokenKey, Timestamp>) caught by retention_ends_with_the_record {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            if let Some(retention) = record.retain_for {
                self.own.lock().unwrap().insert(key.clone(), self.server.clock().now().saturating_add(retention));
            }
            Ok(written)
        }

        async fn get(&self, key: &TokenKey) -> Read {
            let now = self.server.clock().now();
            let ends = self.own.lock().unwrap().get(key).copied();
            Ok(self.server.get(key).await?.filter(|_| ends.is_none_or(|ends| ends > now)))
        }
    }

    // The expired row still exists, so an insert fails.
    ExpiredBlocksCreation(Notes<TokenKey, ()>) caught by an_expired_record_counts_as_absent {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if when == Precondition::Absent && self.own.lock().unwrap().contains_key(key) {
                return Err(StorageError::Conflict);
            }
            let written = self.server.put(key, record, when).await?;
            self.own.lock().unwrap().insert(key.clone(), ());
            Ok(written)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed {
                self.own.lock().unwrap().remove(key);
            }
            Ok(removed)
        }
    }

    // The expired row still exists, so an update on its version revives it.
    RevivesExpiredRecords(Notes<TokenKey, Version>) caught by an_expired_record_counts_as_absent {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let last = self.own.lock().unwrap().get(key).copied();
            let gone = self.server.get(key).await?.is_none();
            let when = if gone && last.is_some_and(|last| when == Precondition::Version(last)) { Precondition::Absent } else { when };
            let written = self.server.put(key, record, when).await?;
            self.own.lock().unwrap().insert(key.clone(), written);
            Ok(written)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed {
                self.own.lock().unwrap().remove(key);
            }
            Ok(removed)
        }
    }

    // Sets the retention before it checks the condition.
    RejectedWritesExtendTheRetention(()) caught by refused_calls_do_not_change_the_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Conflict))
                && let Some(found) = self.server.get(key).await?
            {
                let extended = found.value.with_retain_for(record.retain_for);
                self.server.put(key, &extended, Precondition::Version(found.version)).await?;
            }
            written
        }
    }

    // Ends retentions at random times, so that they do not all end together.
    EndsSlightlyEarly(()) caught by retention_is_exact_to_the_second {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let spread = record.retain_for.map(|retention| retention - retention.min(Duration::from_secs(3)).min(retention / 20));
            self.server.put(key, &record.clone().with_retain_for(spread), when).await
        }
    }

    // A background job removes expired records some seconds late, and reads do not hide them.
    EndsLate(Notes<TokenKey, Timestamp>) caught by retention_is_exact_to_the_second {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let late = record.retain_for.filter(|retention| !retention.is_zero()).map(|retention| retention.saturating_add(Duration::from_secs(5)));
            let record = record.clone().with_retain_for(late.or(record.retain_for));
            self.server.put(key, &record, when).await
        }
    }

    // Extends the retention when the record is read, as session stores do.
    ReadingExtendsTheRetention(Notes<TokenKey, Duration>) caught by get_returns_the_remaining_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            let mut notes = self.own.lock().unwrap();
            notes.remove(key);
            notes.extend(record.retain_for.map(|retention| (key.clone(), retention)));
            Ok(written)
        }

        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let retention = self.own.lock().unwrap().get(key).copied();
            if let (Some(found), Some(retention)) = (&found, retention) {
                let extended = found.value.clone().with_retain_for(Some(retention));
                let _ = self.server.put(key, &extended, Precondition::Version(found.version)).await;
            }
            self.server.get(key).await
        }
    }

    ReturnsAFixedRetention(()) caught by get_returns_the_remaining_retention {
        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await?.map(|mut found| {
                found.value.retain_for = found.value.retain_for.map(|_| Duration::from_secs(600));
                found
            }))
        }
    }

    // Seconds in 32 bits, signed.
    LongRetentionsOverflow(()) caught by long_retentions_do_not_overflow {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let retention = record.retain_seconds().map(|seconds| Duration::from_secs((seconds as i32).max(0) as u64));
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    CountsMilliseconds(()) caught by records_are_hidden_after_their_retention {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let retention = record.retain_for.map(|retention| retention / 1_000);
            self.server.put(key, &record.clone().with_retain_for(retention), when).await
        }
    }

    PurgesLiveRecords(()) caught by purge_removes_only_expired_records {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            for entry in self.server.list(&Filter::everything(), PageRequest { after: None, limit }).await?.entries {
                let found = self.server.get(&entry.key).await?;
                if found.is_some_and(|found| found.value.retain_for.is_some()) {
                    self.server.delete(&entry.key, None).await?;
                }
            }
            self.server.purge(limit).await
        }
    }

    PurgesWithoutLimit(()) caught by purge_removes_only_expired_records {
        async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
            self.server.purge(usize::MAX).await
        }
    }

    // Collects the expired keys first, and then deletes them by key.
    PurgesInTwoSteps(Notes<TokenKey, Timestamp>) caught by purge_spares_records_written_meanwhile {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await?;
            let mut notes = self.own.lock().unwrap();
            notes.remove(key);
            notes.extend(record.retain_for.map(|retention| (key.clone(), self.server.clock().now().saturating_add(retention))));
            Ok(written)
        }

        async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
            let now = self.server.clock().now();
            let past = |(key, ends): (&TokenKey, &Timestamp)| (*ends <= now).then(|| key.clone());
            let chosen: Vec<_> = self.own.lock().unwrap().iter().filter_map(past).collect();
            for key in &chosen {
                pause().await;
                self.server.delete(key, None).await?;
                self.own.lock().unwrap().remove(key);
            }
            Ok(0)
        }

    }
}
