//! Wrong beside what the plain case of a property shows: for a similar payload, a neighbour, the rest of a record.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use oauth_dance_core::{
    Capabilities, Cursor, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _,
    Version, Versioned,
};

use super::{Notes, Read, Write, flaws};

flaws! {
    // Takes a payload for the one it has if the length and the beginning are the same.
    SkipsWhatBeginsAlike(()) caught by similar_payloads_are_told_apart {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let found = self.server.memory().get(key).await?;
            let is_alike = |old: &[u8]| old.len() == record.payload.len() && old.get(..512) == record.payload.get(..512);
            match found.filter(|found| record.payload.len() > 512 && is_alike(&found.value.payload)) {
                Some(found) => {
                    let mut record = record.clone();
                    record.payload = found.value.payload;
                    self.server.put(key, &record, when).await
                }
                None => self.server.put(key, record, when).await,
            }
        }
    }

    // The packet that was refused is never taken off the count.
    CountsWhatItRefused(Mutex<usize>) caught by too_large_is_refused {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let (size, limit) = (record.payload.len(), 1_000_000);
            let refused = *self.own.lock().unwrap();
            if size > 5_000 || refused > limit {
                *self.own.lock().unwrap() += size;
                return Err(StorageError::TooLarge { size, limit: 5_000 });
            }
            self.server.put(key, record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_payload(5_000)
        }
    }

    // JavaScript takes these for ends of lines.
    RefusesLineSeparators(()) caught by keys_of_any_characters_work {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if key.parts().iter().any(|part| part.contains(['\u{2028}', '\u{2029}'])) {
                return Err(StorageError::unavailable("invalid string literal"));
            }
            self.server.put(key, record, when).await
        }
    }

    CorruptIsOkAndStays(()) caught by conditions_fail_for_a_corrupt_record {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let is_corrupt = matches!(self.server.get(key).await, Err(StorageError::Corrupt { .. }));
            let found = self.server.memory().get(key).await?.map(|found| Precondition::Version(found.version));
            if is_corrupt && found == Some(when) {
                return Ok(Version::random());
            }
            self.server.put(key, record, when).await
        }
    }

    CorruptHasNoTenant(()) caught by an_unreadable_record_is_reported_as_corrupt {
        async fn get(&self, key: &TokenKey) -> Read {
            match self.server.get(key).await {
                Err(StorageError::Corrupt { source, .. }) => {
                    let [_, user, provider, account] = key.parts();
                    let key = TokenKey::from_parts("", user, provider, account).unwrap();
                    Err(StorageError::corrupt(&key, source))
                }
                found => found,
            }
        }
    }

    // The retention is a second statement, which the lost answer of the first one prevents.
    LosesTheRetentionWithTheAnswer(()) caught by an_error_means_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Ambiguous { .. })) {
                let memory = self.server.memory();
                if let Some(found) = memory.get(key).await?.filter(|found| found.value.payload == record.payload) {
                    memory.put(key, &found.value.with_retain_for(None), Precondition::Always).await?;
                }
            }
            written
        }
    }

    // The index of expiries is in the memory of each handle.
    IndexesItsOwnWrites(Notes<TokenKey, ()>) caught by acknowledged_writes_survive_a_restart {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().insert(key.clone(), ());
            self.server.put(key, record, when).await
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            if filter.expiring_before.is_some() {
                let indexed = self.own.lock().unwrap().clone();
                page.entries.retain(|entry| indexed.contains_key(&entry.key));
            }
            Ok(page)
        }
    }

    // As with NULLS LAST.
    ListsAbsentTenantsLast(()) caught by an_ordered_list_is_in_the_order_of_the_keys {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let rank = |key: &TokenKey| (key.tenant().is_none(), key.clone());
            let after = page.after.as_ref().map(Cursor::key).transpose()?;
            let mut found = self.server.list(filter, PageRequest { after: None, limit: usize::MAX }).await?.entries;
            found.sort_by_key(|entry| rank(&entry.key));
            found.retain(|entry| after.as_ref().is_none_or(|after| rank(&entry.key) > rank(after)));
            Ok(Page::collect(found, page.limit))
        }
    }

    LogsWhatIsLate(()) caught by printing_shows_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() > 100_000 {
                self.server.log(&format!("slow: put {key} {}", record.payload.escape_ascii()));
            }
            self.server.put(key, record, when).await
        }
    }

    LogsWhatWasNotSent(()) caught by errors_show_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Ambiguous { .. })) {
                self.server.log(&format!("lost: put {key} {}", record.payload.escape_ascii()));
            }
            written
        }
    }

    // The set of a user's records is a second command, which the lost answer of the first one prevents.
    UnlistsWithTheAnswer(Notes<TokenKey, ()>) caught by an_error_means_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Ambiguous { .. })) {
                self.own.lock().unwrap().insert(key.clone(), ());
            }
            written
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let unlisted = self.own.lock().unwrap().clone();
            page.entries.retain(|entry| filter.expiring_before.is_none() || !unlisted.contains_key(&entry.key));
            Ok(page)
        }
    }

    // Leaves what has expired for a day, for support to look at.
    PurgesTheNextDay(AtomicU64) caught by purge_below_its_limit_leaves_nothing_expired {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let now = self.server.clock().now().as_unix_seconds();
            let since = self.own.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|since| since);
            if since == 0 || now < since + 86_400 {
                return Ok(0);
            }
            self.server.purge(limit).await
        }
    }

    // A failed write makes it forget what it shows in an outage.
    ShowsTheLastReadInAnOutage(Notes<TokenKey, Versioned<Record>>) caught by an_outage_is_an_error {
        async fn get(&self, key: &TokenKey) -> Read {
            match self.server.get(key).await {
                Err(StorageError::Unavailable { source }) => match self.own.lock().unwrap().get(key) {
                    Some(found) => Ok(Some(found.clone())),
                    None => Err(StorageError::Unavailable { source }),
                },
                found => {
                    if let Ok(Some(found)) = &found {
                        self.own.lock().unwrap().insert(key.clone(), found.clone());
                    }
                    found
                }
            }
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().remove(key);
            self.server.put(key, record, when).await
        }
    }

    // A server that starts again has no rows yet.
    CrashedIsEmpty(()) caught by an_outage_is_an_error {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            match self.server.list(filter, page).await {
                Err(StorageError::Unavailable { source }) if source.to_string().contains("crashed") => {
                    Ok(Page { entries: Vec::new(), next: None })
                }
                page => page,
            }
        }
    }
}
