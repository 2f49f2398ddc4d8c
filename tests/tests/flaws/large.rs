//! Flaws of large payloads, which take another path than small ones.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned,
};

use super::confusions::crc32;
use super::{Notes, Read, Write, flaws, pause};

/// Larger payloads are objects of their own.
const OBJECT: usize = 262_144;

flaws! {
    // The column has twice the declared limit, but an escaped byte takes four characters.
    EscapesBeyondItsColumn(()) caught by any_bytes_come_back {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (size, limit) = (record.payload.len(), 16_384);
            if size > limit {
                return Err(StorageError::TooLarge { size, limit });
            }
            let plain = record.payload.iter().filter(|byte| byte.is_ascii_graphic()).count();
            if plain + (size - plain) * 4 > 2 * limit {
                return Err(StorageError::unavailable("value too long for column"));
            }
            self.server.put(key, record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_payload(16_384)
        }
    }

    WritesLargePayloadsAsText(()) caught by any_bytes_come_back {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            if record.payload.len() > 8_000 {
                record.payload = String::from_utf8_lossy(&record.payload).into_owned().into_bytes();
            }
            self.server.put(key, &record, when).await
        }
    }

    // The buffer for the compressed payload is as large as the payload, and never grows.
    CutsWhatDoesNotCompress(()) caught by any_bytes_come_back {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            let different: std::collections::BTreeSet<_> = record.payload.iter().collect();
            if record.payload.len() > 10_000 && different.len() > 200 {
                record.payload.truncate(record.payload.len() - 16);
            }
            self.server.put(key, &record, when).await
        }
    }

    // Only the unconditional write checks the size.
    TruncatesConditionalWrites(()) caught by too_large_is_refused {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (size, limit) = (record.payload.len(), 10_000);
            if size > limit && when == Precondition::Always {
                return Err(StorageError::TooLarge { size, limit });
            }
            let mut record = record.clone();
            record.payload.truncate(limit);
            self.server.put(key, &record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_payload(10_000)
        }
    }

    // The parameter of the UPDATE has another type than that of the INSERT.
    TruncatesUpdates(()) caught by payloads_of_other_lengths_replace_each_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            if matches!(when, Precondition::Version(_)) {
                record.payload.truncate(131_072);
            }
            self.server.put(key, &record, when).await
        }
    }

    // Skips a write of a payload with a known checksum.
    StoresPayloadsByChecksum(()) caught by similar_payloads_are_told_apart {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let known = self.server.shared::<Mutex<HashMap<(usize, u32), Vec<u8>>>>();
            let mut record = record.clone();
            let checksum = (record.payload.len(), crc32(&record.payload));
            record.payload = known.lock().unwrap().entry(checksum).or_insert(record.payload).clone();
            self.server.put(key, &record, when).await
        }
    }

    // A delete leaves the object, which the next read of the key returns.
    DeletesNoObjects(()) caught by sizes_are_exact {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let left = self.server.shared::<Notes<TokenKey, Versioned<Record>>>().lock().unwrap().get(key).cloned();
            Ok(found.or(left))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.shared::<Notes<TokenKey, Versioned<Record>>>().lock().unwrap().remove(key);
            self.server.put(key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let found = self.server.memory().get(key).await?;
            let removed = self.server.delete(key, only).await?;
            if let Some(found) = found.filter(|found| removed && found.value.payload.len() > OBJECT) {
                self.server.shared::<Notes<TokenKey, Versioned<Record>>>().lock().unwrap().insert(key.clone(), found);
            }
            Ok(removed)
        }
    }

    // Objects have no retention.
    ObjectsNeverExpire(()) caught by records_are_hidden_after_their_retention {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            let object = self.server.shared::<Notes<TokenKey, Versioned<Record>>>().lock().unwrap().get(key).cloned();
            Ok(found.or(object))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            let objects = self.server.shared::<Notes<TokenKey, Versioned<Record>>>();
            let mut objects = objects.lock().unwrap();
            objects.remove(key);
            if record.payload.len() > OBJECT && record.retain_for > Some(Duration::ZERO) {
                objects.insert(key.clone(), Versioned::new(record.clone(), version));
            }
            Ok(version)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed {
                self.server.shared::<Notes<TokenKey, Versioned<Record>>>().lock().unwrap().remove(key);
            }
            Ok(removed)
        }
    }

    // Objects are written in two requests.
    WritesObjectsInTwoParts(()) caught by no_read_is_torn and a_dropped_write_leaves_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() <= OBJECT {
                return self.server.put(key, record, when).await;
            }
            let mut first = record.clone();
            first.payload.truncate(OBJECT);
            let version = self.server.put(key, &first, when).await?;
            pause().await;
            self.server.put(key, record, Precondition::Version(version)).await
        }
    }

    // Checks the condition, uploads the object, and then writes unconditionally.
    UploadsObjects(()) caught by large_writes_exclude_each_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() <= OBJECT {
                return self.server.put(key, record, when).await;
            }
            if !when.holds_for(self.server.get(key).await?.map(|found| found.version)) {
                return Err(StorageError::Conflict);
            }
            pause().await;
            self.server.put(key, record, Precondition::Always).await
        }
    }
}
