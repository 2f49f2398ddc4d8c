//! Flaws that only dropped calls, large records or changes between two pages reveal.

use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_core::{
    Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version,
    Versioned,
};

use super::{Notes, Read, Write, flaws, pause};

/// The largest payload that is written with one statement.
const CHUNK: usize = 65_536;

flaws! {
    SkipsTheSameRecord(()) caught by writing_the_same_bytes_makes_a_new_version {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            match self.server.get(key).await? {
                Some(found) if found.value == *record && when.holds_for(Some(found.version)) => Ok(found.version),
                _ => self.server.put(key, record, when).await,
            }
        }
    }

    // File names in which each byte that is not a letter or a digit takes three characters.
    EscapesKeysBeyondALimit(()) caught by keys_of_any_characters_work {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let plain = key.parts().concat().bytes().filter(u8::is_ascii_alphanumeric).count();
            let length = plain + 3 * (key.len() - plain);
            if length > 255 {
                return Err(StorageError::KeyTooLong { part: "user", length, limit: 255 });
            }
            self.server.put(key, record, when).await
        }
    }

    // The limit is a signed 32-bit number.
    PurgesNothingWithoutLimit(()) caught by purge_below_its_limit_leaves_nothing_expired {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            self.server.purge(usize::try_from(limit as i32).unwrap_or(0)).await
        }
    }

    // Later pages are slices of what the first request found.
    ListsFromASnapshot(Mutex<Vec<Entry>>) caught by later_pages_show_the_current_state {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let after = page.after.as_ref().map(Cursor::key).transpose()?;
            if after.is_none() {
                let all = PageRequest { after: None, limit: usize::MAX };
                let entries = self.server.list(&Filter::everything(), all).await?.entries;
                *self.own.lock().unwrap() = entries;
            }
            let entries = self.own.lock().unwrap().clone().into_iter();
            let later = entries.filter(|entry| after.as_ref().is_none_or(|after| entry.key > *after));
            Ok(Page::collect(later.filter(|entry| filter.matches(entry)), page.limit))
        }
    }

    IndexesAfterTheWrite(Notes<TokenKey, ()>) caught by the_list_agrees_after_a_drop {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            pause().await;
            self.own.lock().unwrap().insert(key.clone(), ());
            Ok(version)
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            page.entries.retain(|entry| self.own.lock().unwrap().contains_key(&entry.key));
            Ok(page)
        }
    }

    UpdatesItsCacheAfterTheWrite(Notes<TokenKey, Versioned<Record>>) caught by handles_agree_after_a_drop {
        async fn get(&self, key: &TokenKey) -> Read {
            let cached = self.own.lock().unwrap().get(key).cloned();
            if cached.is_some() { Ok(cached) } else { self.server.get(key).await }
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            pause().await;
            self.own.lock().unwrap().insert(key.clone(), Versioned::new(record.clone(), version));
            Ok(version)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            self.own.lock().unwrap().remove(key);
            self.server.delete(key, only).await
        }
    }

    // Concurrent reads of a key wait for the first one, even if that is dropped.
    WaitsForTheFirstReader(Notes<TokenKey, ()>) caught by a_dropped_read_does_not_block_others {
        async fn get(&self, key: &TokenKey) -> Read {
            while self.own.lock().unwrap().contains_key(key) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.own.lock().unwrap().insert(key.clone(), ());
            let found = self.server.get(key).await;
            self.own.lock().unwrap().remove(key);
            found
        }
    }

    WritesLargeRecordsInChunks(()) caught by no_read_is_torn and a_dropped_write_leaves_old_or_new {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() <= CHUNK {
                return self.server.put(key, record, when).await;
            }
            let mut first = record.clone();
            first.payload.truncate(CHUNK);
            let version = self.server.put(key, &first, when).await?;
            pause().await;
            self.server.put(key, record, Precondition::Version(version)).await
        }
    }

    // Checks the condition, uploads the payload, and then writes unconditionally.
    UploadsLargeRecords(()) caught by large_writes_exclude_each_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            if record.payload.len() <= CHUNK {
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
