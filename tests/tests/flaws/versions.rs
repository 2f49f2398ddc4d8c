//! Flaws of versions and conditions.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned,
};

use super::{Notes, Read, Write, flaws};

flaws! {
    SwallowsConflicts(()) caught by stale_versions_conflict_and_change_nothing {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            match self.server.put(key, record, when).await {
                Err(StorageError::Conflict) => Ok(Version::random()),
                written => written,
            }
        }
    }

    WritesAndThenRejects(()) caught by stale_versions_conflict_and_change_nothing {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let current = self.server.get(key).await?.map(|found| found.version);
            let version = self.server.put(key, record, Precondition::Always).await?;
            if when.holds_for(current) { Ok(version) } else { Err(StorageError::Conflict) }
        }
    }

    RejectsAndClearsTheHints(()) caught by stale_versions_conflict_and_change_nothing {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if let (Err(StorageError::Conflict), Some(found)) = (&written, self.server.get(key).await?) {
                let blank = found.value.with_key_id(None);
                self.server.put(key, &blank, Precondition::Version(found.version)).await?;
            }
            written
        }
    }

    // `INSERT OR REPLACE`.
    CreatesOverARecord(()) caught by put_absent_conflicts_where_a_record_is_stored {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let when = if when == Precondition::Absent { Precondition::Always } else { when };
            self.server.put(key, record, when).await
        }
    }

    // An upsert with a condition on the update alone.
    CreatesForAVersion(()) caught by put_version_conflicts_where_nothing_is_stored and a_logout_beats_a_claim {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let missing = self.server.get(key).await?.is_none();
            let when = if missing && matches!(when, Precondition::Version(_)) { Precondition::Absent } else { when };
            self.server.put(key, record, when).await
        }
    }

    AlwaysIsAbsent(()) caught by put_always_never_conflicts {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let when = if when == Precondition::Always { Precondition::Absent } else { when };
            self.server.put(key, record, when).await
        }
    }

    DeletesAnyVersion(()) caught by delete_of_another_version_removes_nothing {
        async fn delete(&self, key: &TokenKey, _only: Option<Version>) -> Result<bool, StorageError> {
            self.server.delete(key, None).await
        }
    }

    // Reports a rejected delete as done.
    ReportsADeleteOfAnotherVersion(()) caught by delete_of_another_version_removes_nothing {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let present = self.server.get(key).await?.is_some();
            self.server.delete(key, only).await?;
            Ok(present)
        }
    }

    // Counts from 1 again after a delete.
    CountsVersions(Numbers) caught by a_version_is_void_after_a_delete {
        async fn get(&self, key: &TokenKey) -> Read {
            let numbers = self.own.lock().await;
            let found = self.server.memory().get(key).await?;
            Ok(found.map(|found| Versioned::new(found.value, number(*numbers.get(key).unwrap_or(&0)))))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut numbers = self.own.lock().await;
            let current = self.server.memory().get(key).await?.map(|_| number(*numbers.get(key).unwrap_or(&0)));
            if !when.holds_for(current) {
                return Err(StorageError::Conflict);
            }
            self.server.memory().put(key, record, Precondition::Always).await?;
            let next = current.map_or(1, |_| numbers.get(key).unwrap_or(&0) + 1);
            numbers.insert(key.clone(), next);
            Ok(number(next))
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let numbers = self.own.lock().await;
            let current = number(*numbers.get(key).unwrap_or(&0));
            Ok(only.is_none_or(|only| only == current) && self.server.memory().delete(key, None).await?)
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let numbers = self.own.lock().await;
            page.entries.iter_mut().for_each(|entry| entry.version = number(*numbers.get(&entry.key).unwrap_or(&0)));
            Ok(page)
        }
    }

    // The version is a hash of the content, like an ETag.
    HashesTheRecord(Notes<TokenKey, ()>) caught by versions_are_never_used_again {
        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await?.map(|found| Versioned::new(found.value.clone(), hash(&found.value))))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let found = self.server.get(key).await?;
            if !when.holds_for(found.as_ref().map(|found| hash(&found.value))) {
                return Err(StorageError::Conflict);
            }
            self.server.put(key, record, found.map_or(Precondition::Absent, |found| Precondition::Version(found.version))).await?;
            Ok(hash(record))
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let found = self.server.get(key).await?.filter(|found| only.is_none_or(|only| only == hash(&found.value)));
            match found {
                Some(found) => self.server.delete(key, Some(found.version)).await,
                None => Ok(false),
            }
        }
    }

    // Writes on every read, for instance to a column with the time of the last use.
    ReadingWrites(()) caught by reading_does_not_change_the_version {
        async fn get(&self, key: &TokenKey) -> Read {
            if let Some(found) = self.server.get(key).await? {
                let _ = self.server.put(key, &found.value, Precondition::Version(found.version)).await;
            }
            self.server.get(key).await
        }
    }

    // A conditional write requires only that the key has a record.
    AcceptsAnyVersion(()) caught by a_lost_claim_cannot_commit and a_new_login_beats_a_claim {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let present = self.server.get(key).await?.is_some();
            let when = if present && matches!(when, Precondition::Version(_)) { Precondition::Always } else { when };
            self.server.put(key, record, when).await
        }
    }

    CorruptIsMissing(()) caught by an_unreadable_record_is_reported_as_corrupt {
        async fn get(&self, key: &TokenKey) -> Read {
            match self.server.get(key).await {
                Err(StorageError::Corrupt { .. }) => Ok(None),
                found => found,
            }
        }
    }

    CorruptIsDeleted(()) caught by an_unreadable_record_is_reported_as_corrupt {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await;
            if matches!(found, Err(StorageError::Corrupt { .. })) {
                self.server.delete(key, None).await?;
            }
            found
        }
    }
}

type Numbers = tokio::sync::Mutex<std::collections::HashMap<TokenKey, u64>>;

fn number(number: u64) -> Version {
    Version::from_bytes(u128::from(number).to_be_bytes())
}

fn hash(record: &Record) -> Version {
    let mut hasher = DefaultHasher::new();
    (&record.payload, record.expires_at, &record.key_id).hash(&mut hasher);
    number(hasher.finish())
}
