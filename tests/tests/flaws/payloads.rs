//! Flaws of payloads, hints and the comparison of versions.

use std::collections::HashMap;

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage as _, Version,
    Versioned,
};

use super::{Notes, Read, Write, flaws};

flaws! {
    // Overwrites a file without truncating it.
    LeavesTheOldTail(()) caught by payloads_of_other_lengths_replace_each_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            if let Some(old) = self.server.get(key).await? && old.value.payload.len() > 1_000 && !record.payload.is_empty() {
                let written = record.payload.len();
                record.payload.extend(old.value.payload.get(written..).unwrap_or_default());
            }
            self.server.put(key, &record, when).await
        }
    }

    TrimsPayloads(()) caught by any_bytes_come_back {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload = record.payload.trim_ascii_end().to_vec();
            self.server.put(key, &record, when).await
        }
    }

    // Payloads of the same length share their bytes.
    SharesPayloads(Notes<usize, Vec<u8>>) caught by equal_tokens_are_stored_differently {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            let length = record.payload.len();
            record.payload = self.own.lock().unwrap().entry(length).or_insert(record.payload).clone();
            self.server.put(key, &record, when).await
        }
    }

    // Encodes what it writes, so that the dump is not the one that is searched.
    HidesFromTheDump(()) caught by sealed_tokens_leave_no_trace {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload.iter_mut().for_each(|byte| *byte ^= 0x5a);
            self.server.put(key, &record, when).await
        }

        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await?.map(|mut found| {
                found.value.payload.iter_mut().for_each(|byte| *byte ^= 0x5a);
                found
            }))
        }
    }

    // Each claim occupies one of a few connections until its commit.
    ClaimsOccupyConnections(std::sync::atomic::AtomicUsize) caught by held_claims_do_not_block_other_keys {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let is_claim = matches!(when, Precondition::Version(_));
            if is_claim && self.own.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 40 {
                return Err(StorageError::unavailable("no connection came free"));
            }
            self.server.put(key, record, when).await
        }
    }

    // Uses a payload of its own as the mark of a deleted record.
    HasATombstone(()) caught by payloads_that_look_encoded_come_back {
        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await?.filter(|found| found.value.payload != b"__deleted__"))
        }
    }

    EmptyIsMissing(()) caught by sizes_are_exact {
        async fn get(&self, key: &TokenKey) -> Read {
            Ok(self.server.get(key).await?.filter(|found| !found.value.payload.is_empty()))
        }
    }

    FoldsKeyIds(()) caught by key_ids_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let folded = record.key_id.as_ref().map(|id| id.to_lowercase());
            self.server.put(key, &record.clone().with_key_id(folded), when).await
        }
    }

    TruncatesKeyIds(()) caught by key_ids_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let cut = record.key_id.as_ref().map(|id| id.chars().take(32).collect());
            self.server.put(key, &record.clone().with_key_id(cut), when).await
        }
    }

    TreatsZeroAsNoExpiry(()) caught by instants_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let expires_at = record.expires_at.filter(|at| *at != Timestamp::from_unix_seconds(0));
            self.server.put(key, &record.clone().with_expires_at(expires_at), when).await
        }
    }

    // Skips a write that changes nothing.
    SkipsTheSameBytes(()) caught by writing_the_same_bytes_makes_a_new_version {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if let Some(found) = self.server.get(key).await?
                && when.holds_for(Some(found.version))
                && found.value.clone().with_retain_for(None) == record.clone().with_retain_for(None)
            {
                return Ok(found.version);
            }
            self.server.put(key, record, when).await
        }
    }

    // An index on the first eight bytes.
    ComparesHalfOfAVersion(()) caught by every_byte_of_a_version_counts {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let when = match (when, self.server.get(key).await?) {
                (Precondition::Version(wanted), Some(found)) if wanted.as_bytes()[..8] == found.version.as_bytes()[..8] => {
                    Precondition::Version(found.version)
                }
                _ => when,
            };
            self.server.put(key, record, when).await
        }
    }

    DeletesBySevenBytes(()) caught by every_byte_of_a_version_counts {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let only = match (only, self.server.get(key).await?) {
                (Some(wanted), Some(found)) if wanted.as_bytes()[9..] == found.version.as_bytes()[9..] => Some(found.version),
                _ => only,
            };
            self.server.delete(key, only).await
        }
    }

    ZeroIsAnyVersion(()) caught by stale_versions_conflict_and_change_nothing {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let zero = when == Precondition::Version(Version::from_bytes([0; 16]));
            self.server.put(key, record, if zero { Precondition::Always } else { when }).await
        }
    }

    // The version is a counter in the record, which starts again after the record has expired.
    CountsWithinTheRecord(Notes<TokenKey, HashMap<Version, u64>>) caught by a_version_is_void_after_its_retention {
        async fn get(&self, key: &TokenKey) -> Read {
            let found = self.server.get(key).await?;
            Ok(found.map(|found| Versioned::new(found.value, self.shown(key, found.version))))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let found = self.server.get(key).await?;
            if !when.holds_for(found.as_ref().map(|found| self.shown(key, found.version))) {
                return Err(StorageError::Conflict);
            }
            let (before, real) = match &found {
                Some(found) => (self.number(key, found.version), Precondition::Version(found.version)),
                None => (0, Precondition::Absent),
            };
            let version = self.server.put(key, record, real).await?;
            self.own.lock().unwrap().entry(key.clone()).or_default().insert(version, before + 1);
            Ok(self.shown(key, version))
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            match self.server.get(key).await? {
                Some(found) if only.is_none_or(|only| only == self.shown(key, found.version)) => {
                    self.server.delete(key, Some(found.version)).await
                }
                _ => Ok(false),
            }
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            page.entries.iter_mut().for_each(|entry| entry.version = self.shown(&entry.key, entry.version));
            Ok(page)
        }
    }

    // Loses a hint in a combination that no single property tests.
    ForgetsHintsOfFewBytes(()) caught by random_histories_match_the_model {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            if record.payload == b"the same" && matches!(when, Precondition::Version(_)) {
                record.expires_at = None;
            }
            self.server.put(key, &record, when).await
        }
    }
}

impl CountsWithinTheRecord {
    fn number(&self, key: &TokenKey, version: Version) -> u64 {
        self.own.lock().unwrap().get(key).and_then(|numbers| numbers.get(&version)).copied().unwrap_or(1)
    }

    fn shown(&self, key: &TokenKey, version: Version) -> Version {
        Version::from_bytes(u128::from(self.number(key, version)).to_be_bytes())
    }
}
