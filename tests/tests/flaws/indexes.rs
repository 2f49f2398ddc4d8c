//! Flaws of indexes: by user, by expiry, and by what a cursor points to.

use std::collections::BTreeSet;
use std::sync::Mutex;

use oauth_dance_core::{
    Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage as _,
};

use super::lists::{cut, everything};
use super::{Notes, Write, flaws};

flaws! {
    // Lists by expiry, so a write moves the record. The cursor has the expiry and the key.
    ListsInTheOrderOfExpiries(()) caught by pages_are_stable_under_writes {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if filter.expiring_before.is_none() {
                return self.server.list(filter, page).await;
            }
            let mut entries = everything(&self.server).await?;
            let after = match &page.after {
                Some(cursor) => Some(position(cursor, &entries)?),
                None => None,
            };
            entries.retain(|entry| filter.matches(entry) && after.as_ref().is_none_or(|after| rank(entry) > *after));
            entries.sort_by_key(rank);
            let more = entries.len() > page.limit.max(1);
            entries.truncate(page.limit.max(1));
            let next = entries.last().filter(|_| more).map(|last| {
                let (expiry, key) = rank(last);
                Cursor::from_bytes([&expiry.to_be_bytes()[..], Cursor::after(&key).as_bytes()].concat())
            });
            Ok(Page { entries, next })
        }
    }

    // Lists by expiry, and looks up where the key of the cursor is now.
    LooksUpTheExpiryOfACursor(()) caught by a_cursor_is_valid_for_any_filter {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if filter.expiring_before.is_none() {
                return self.server.list(filter, page).await;
            }
            let mut entries = everything(&self.server).await?;
            let after = page.after.as_ref().map(Cursor::key).transpose()?;
            let after = after.and_then(|key| entries.iter().find(|entry| entry.key == key).map(rank));
            entries.retain(|entry| filter.matches(entry) && after.as_ref().is_none_or(|after| rank(entry) > *after));
            entries.sort_by_key(rank);
            Ok(Page::collect(entries, page.limit))
        }
    }

    // The index of expiries retains the entry of a record that was replaced.
    ExpiriesOutliveTheirRecord(()) caught by filters_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            let indexed = record.expires_at.map(|expiry| (expiry, key.clone()));
            self.server.shared::<Mutex<BTreeSet<(Timestamp, TokenKey)>>>().lock().unwrap().extend(indexed);
            Ok(version)
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let Some(before) = filter.expiring_before else { return self.server.list(filter, page).await };
            let mut others = filter.clone();
            others.expiring_before = None;
            let index = self.server.shared::<Mutex<BTreeSet<(Timestamp, TokenKey)>>>().lock().unwrap().clone();
            let is_indexed = |key: &TokenKey| index.iter().any(|(expiry, other)| *expiry < before && other == key);
            let entries = everything(&self.server).await?.into_iter();
            cut(entries.filter(|entry| others.matches(entry) && is_indexed(&entry.key)), &page)
        }
    }

    ForgetsTheExpiryOnLaterPages(()) caught by filters_are_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut filter = filter.clone();
            if filter.user.is_some() && page.after.is_some() {
                filter.expiring_before = None;
            }
            self.server.list(&filter, page).await
        }
    }

    // The query of one user reads one page of the index.
    ListsAHundredRecordsOfAUser(()) caught by long_lists_are_whole {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if filter.user.is_none() {
                return self.server.list(filter, page).await;
            }
            let entries = everything(&self.server).await?.into_iter().filter(|entry| filter.matches(entry));
            cut(entries.take(100), &page)
        }
    }

    // The server has a limit for the results of all pages.
    ListsAtMost4000(()) caught by no_record_is_evicted_for_another {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let entries = everything(&self.server).await?.into_iter().filter(|entry| filter.matches(entry));
            cut(entries.take(4_000), &page)
        }
    }

    // The server closes a list that was idle for ten minutes.
    CursorsLastTenMinutes(()) caught by a_list_continues_after_an_expired_record {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let (issued, now) = (self.server.shared::<Notes<Vec<u8>, u64>>(), self.server.clock().now().as_unix_seconds());
            let is_closed = |after: &Cursor| issued.lock().unwrap().get(after.as_bytes()).is_some_and(|at| now > at + 600);
            if page.after.as_ref().is_some_and(is_closed) {
                return Err(StorageError::InvalidCursor);
            }
            let page = self.server.list(filter, page).await?;
            issued.lock().unwrap().extend(page.next.iter().map(|next| (next.as_bytes().to_vec(), now)));
            Ok(page)
        }
    }

    // The query of one user continues after the row of the cursor, which has to exist.
    EndsWhereARecordOfTheUserWasDeleted(()) caught by a_list_continues_from_any_cursor {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if let (Some(_), Some(cursor)) = (&filter.user, &page.after)
                && matches!(self.server.get(&cursor.key()?).await, Ok(None))
            {
                return Ok(Page { entries: Vec::new(), next: None });
            }
            self.server.list(filter, page).await
        }
    }

    CorruptIsNotListedForItsTenant(()) caught by a_corrupt_record_is_listed {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            if filter.tenant.as_ref().is_some_and(|tenant| !tenant.is_empty()) {
                let mut listed = Vec::new();
                for entry in page.entries {
                    if !matches!(self.server.get(&entry.key).await, Err(StorageError::Corrupt { .. })) {
                        listed.push(entry);
                    }
                }
                page.entries = listed;
            }
            Ok(page)
        }
    }

    // The index is in the memory of the server, and contains only what was written since its start.
    CrashLosesTheIndex(()) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            let lost = self.server.shared::<Notes<TokenKey, ()>>();
            if matches!(&written, Err(StorageError::Unavailable { source }) if source.to_string().contains("crashed")) {
                let all = PageRequest { after: None, limit: usize::MAX };
                let stored = self.server.memory().list(&Filter::everything(), all).await?.entries;
                lost.lock().unwrap().extend(stored.into_iter().map(|entry| (entry.key, ())));
            } else {
                lost.lock().unwrap().remove(key);
            }
            written
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let lost = self.server.shared::<Notes<TokenKey, ()>>().lock().unwrap().clone();
            page.entries.retain(|entry| !lost.contains_key(&entry.key));
            Ok(page)
        }
    }
}

/// The place of an entry in the order of the expiries.
fn rank(entry: &Entry) -> (u64, TokenKey) {
    (entry.expires_at.map_or(0, Timestamp::as_unix_seconds), entry.key.clone())
}

/// The place of a cursor, which is an expiry with a key, or the key of an entry.
fn position(cursor: &Cursor, entries: &[Entry]) -> Result<(u64, TokenKey), StorageError> {
    let (expiry, key) = cursor.as_bytes().split_first_chunk().ok_or(StorageError::InvalidCursor)?;
    if let Ok(key) = Cursor::from_bytes(key).key() {
        return Ok((u64::from_be_bytes(*expiry), key));
    }
    let key = cursor.key()?;
    let now = entries.iter().find(|entry| entry.key == key).map(rank);
    Ok(now.unwrap_or((0, key)))
}
