//! Flaws of plain reads, writes and deletes.

use oauth_dance_core::{
    Capabilities, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage as _, Version,
};

use super::{Read, Write, flaws};

flaws! {
    // Retains hints that the new record does not have.
    Merges(()) caught by a_write_replaces_the_whole_record {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let old = self.server.get(key).await?.map(|found| found.value);
            let mut merged = record.clone();
            if let Some(old) = old {
                merged.expires_at = merged.expires_at.or(old.expires_at);
                merged.key_id = merged.key_id.or(old.key_id);
            }
            self.server.put(key, &merged, when).await
        }
    }

    ForgetsTheKeyId(()) caught by the_sealing_key_is_recorded {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(key, &record.clone().with_key_id(None), when).await
        }
    }

    // A column that cannot be null.
    FillsAbsentHints(()) caught by absent_hints_stay_absent {
        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await?.map(|mut found| {
                found.value.expires_at = found.value.expires_at.or(Some(Timestamp::from_unix_seconds(0)));
                found
            }))
        }
    }

    // A MySQL TEXT column without strict mode.
    TruncatesAt64KiB(()) caught by sizes_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload.truncate(65_535);
            self.server.put(key, &record, when).await
        }
    }

    RejectsPayloadsBelowTheLimit(()) caught by sizes_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() > 4_096 {
                return Err(StorageError::TooLarge { size: record.payload.len(), limit: 4_096 });
            }
            self.server.put(key, record, when).await
        }
    }

    TruncatesAtTheDeclaredLimit(()) caught by too_large_is_refused {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload.truncate(10_000);
            self.server.put(key, &record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_payload(10_000)
        }
    }

    // Rejects the write after it has deleted the old record.
    DeletesBeforeItRejects(()) caught by too_large_is_refused {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() > 10_000 {
                self.server.delete(key, None).await?;
                return Err(StorageError::TooLarge { size: record.payload.len(), limit: 10_000 });
            }
            self.server.put(key, record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_payload(10_000)
        }
    }

    TruncatesPayloadsAtNul(()) caught by any_bytes_come_back {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload = record.payload.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            self.server.put(key, &record, when).await
        }
    }

    StoresPayloadsAsText(()) caught by any_bytes_come_back and records_come_back_exactly and tokens_come_back_whole and sealed_records_are_bound_to_their_key {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload = String::from_utf8_lossy(&record.payload).into_owned().into_bytes();
            self.server.put(key, &record, when).await
        }
    }

    // Parses a payload that looks like JSON.
    ReformatsJson(()) caught by payloads_that_look_encoded_come_back {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&record.payload) {
                record.payload = value.to_string().into_bytes();
            }
            self.server.put(key, &record, when).await
        }
    }

    // Seconds in 32 bits.
    ExpiresIn2106(()) caught by instants_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let cut = record.expires_at.map(|at| Timestamp::from_unix_seconds(u64::from(at.as_unix_seconds() as u32)));
            self.server.put(key, &record.clone().with_expires_at(cut), when).await
        }
    }

    MissingIsAnError(()) caught by missing_is_none {
        async fn get(&self, key: &TokenKey) -> Read {
            match self.server.get(key).await? {
                None => Err(StorageError::corrupt(key, "no rows returned")),
                found => Ok(found),
            }
        }
    }

    MissingIsAnEmptyRecord(()) caught by missing_is_none {
        async fn get(&self, key: &TokenKey) -> Read {
            let empty = || oauth_dance_core::Versioned::new(Record::new(""), Version::from_bytes([0; 16]));
            Ok(Some(self.server.get(key).await?.unwrap_or_else(empty)))
        }
    }

    DeleteOfNothingIsAnError(()) caught by delete_of_nothing_is_false {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            if self.server.delete(key, only).await? { Ok(true) } else { Err(StorageError::Conflict) }
        }
    }

    DeleteOfNothingIsTrue(()) caught by delete_of_nothing_is_false {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            self.server.delete(key, only).await.map(|_| true)
        }
    }

    // Marks the record as deleted, but reads ignore the mark.
    DeletesNothing(()) caught by delete_removes_the_record {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let found = self.server.get(key).await?;
            Ok(found.is_some_and(|found| only.is_none_or(|only| only == found.version)))
        }
    }

    // Clears the row instead of deleting it.
    LeavesATombstone(()) caught by a_deleted_key_can_be_written_again {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let when = if when == Precondition::Absent && record.payload == b"new" { Precondition::Version(Version::random()) } else { when };
            self.server.put(key, record, when).await
        }
    }

    PanicsOnEmpty(()) caught by sizes_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            assert!(!record.payload.is_empty(), "no first byte");
            self.server.put(key, record, when).await
        }
    }

    ChangesItsCapabilities(std::sync::atomic::AtomicBool) caught by capabilities_do_not_change {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.store(true, std::sync::atomic::Ordering::SeqCst);
            self.server.put(key, record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_listable(self.own.load(std::sync::atomic::Ordering::SeqCst))
        }
    }
}
