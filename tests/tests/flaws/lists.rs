//! Flaws of lists, filters, pages and cursors.

use oauth_dance_core::{
    Capabilities, Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage as _, Version,
};

use super::{Notes, Write, flaws};
use crate::bench::Server;

flaws! {
    // Puts the user into a LIKE pattern.
    ListsByPattern(()) caught by filters_are_not_patterns {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut others = filter.clone();
            let Some(pattern) = others.user.take() else { return self.server.list(filter, page).await };
            let entries = everything(&self.server).await?.into_iter().filter(|entry| others.matches(entry));
            cut(entries.filter(|entry| like(&pattern, entry.key.user())), &page)
        }
    }

    ListsByPrefix(()) caught by filters_are_not_patterns {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut others = filter.clone();
            let provider = others.provider.take().unwrap_or_default();
            let entries = everything(&self.server).await?.into_iter().filter(|entry| others.matches(entry));
            cut(entries.filter(|entry| entry.key.provider().starts_with(&provider)), &page)
        }
    }

    IgnoresTheTenant(()) caught by filters_are_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut filter = filter.clone();
            filter.tenant = None;
            self.server.list(&filter, page).await
        }
    }

    // Treats "no tenant" as "any tenant".
    ListsUsersOfAllTenants(()) caught by a_user_can_be_removed {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut filter = filter.clone();
            filter.tenant = filter.tenant.filter(|tenant| !tenant.is_empty());
            self.server.list(&filter, page).await
        }
    }

    ExpiringAtCountsAsBefore(()) caught by filters_are_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let second = std::time::Duration::from_secs(1);
            let mut filter = filter.clone();
            filter.expiring_before = filter.expiring_before.map(|before| before.saturating_add(second));
            self.server.list(&filter, page).await
        }
    }

    FiltersTheFirstPage(()) caught by filters_hold_on_every_page {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let everything = Filter::everything();
            self.server.list(if page.after.is_some() { &everything } else { filter }, page).await
        }
    }

    // Treats a page on which nothing matches the filter as the last one.
    EndsAtAnEmptyPage(()) caught by filters_hold_on_every_page {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(&Filter::everything(), page).await?;
            page.entries.retain(|entry| filter.matches(entry));
            page.next = page.next.filter(|_| !page.entries.is_empty());
            Ok(page)
        }
    }

    SkipsOneBetweenPages(()) caught by pages_of_any_size_cover_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut found = self.server.list(filter, page.clone()).await?;
            if page.after.is_some() && found.entries.len() > 1 {
                found.entries.remove(0);
            }
            Ok(found)
        }
    }

    RepeatsTheLastOfAPage(()) caught by pages_of_any_size_cover_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let start = page.after.as_ref().map(Cursor::key).transpose()?;
            let entries = everything(&self.server).await?.into_iter().filter(|entry| filter.matches(entry));
            let limit = page.limit.max(2);
            Ok(Page::collect(entries.filter(|entry| start.as_ref().is_none_or(|start| entry.key >= *start)), limit))
        }
    }

    IgnoresTheLimit(()) caught by pages_of_any_size_cover_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            self.server.list(filter, PageRequest { limit: 100, ..page }).await
        }
    }

    // LIMIT and OFFSET.
    PagesByOffset(()) caught by pages_are_stable_under_writes {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let offset = match &page.after {
                Some(cursor) => u64::from_be_bytes(cursor.as_bytes().try_into().map_err(|_| StorageError::InvalidCursor)?),
                None => 0,
            } as usize;
            let found: Vec<_> = everything(&self.server).await?.into_iter().filter(|entry| filter.matches(entry)).collect();
            let end = offset.saturating_add(page.limit).min(found.len());
            let next = (end < found.len()).then(|| Cursor::from_bytes((end as u64).to_be_bytes()));
            Ok(Page { entries: found.get(offset..end).unwrap_or_default().to_vec(), next })
        }
    }

    RestartsAtAForeignCursor(()) caught by foreign_cursors_are_refused {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let after = page.after.filter(|cursor| cursor.key().is_ok());
            self.server.list(filter, PageRequest { after, ..page }).await
        }
    }

    ListsOtherVersions(()) caught by the_list_is_exact {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            page.entries.iter_mut().for_each(|entry| entry.version = Version::from_bytes([0; 16]));
            Ok(page)
        }
    }

    ListsNoKeyIds(()) caught by the_sealing_key_is_recorded {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            page.entries.iter_mut().for_each(|entry| entry.key_id = None);
            Ok(page)
        }
    }

    ListsAtMostAThousand(()) caught by long_lists_are_whole {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut found = self.server.list(filter, PageRequest { limit: page.limit.min(1_000), ..page }).await?;
            found.next = found.next.filter(|_| page.limit <= 1_000);
            Ok(found)
        }
    }

    ZeroIsAnEmptyPage(()) caught by pages_of_any_size_cover_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if page.limit == 0 {
                return Ok(Page { entries: Vec::new(), next: None });
            }
            self.server.list(filter, page).await
        }
    }

    // A separate index, which conditional writes do not update.
    IndexMissesConditionalWrites(Notes<TokenKey, Entry>) caught by the_list_is_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            if !matches!(when, Precondition::Version(_)) {
                self.own.lock().unwrap().insert(key.clone(), Entry::new(key.clone(), version, record));
            }
            Ok(version)
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut found = self.server.list(filter, page).await?;
            let index = self.own.lock().unwrap();
            for entry in &mut found.entries {
                if let Some(indexed) = index.get(&entry.key) {
                    (entry.expires_at, entry.key_id) = (indexed.expires_at, indexed.key_id.clone());
                }
            }
            Ok(found)
        }
    }

    // Reads as many rows as requested and then omits the expired ones, so that an empty page looks like the end.
    ExpiredTakePlaces(Notes<TokenKey, ()>) caught by expired_records_do_not_end_a_list {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().insert(key.clone(), ());
            self.server.put(key, record, when).await
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let after = page.after.as_ref().map(Cursor::key).transpose()?;
            let mut rows: Vec<_> = self.own.lock().unwrap().keys().cloned().collect();
            rows.retain(|key| after.as_ref().is_none_or(|after| key > after));
            rows.sort();
            rows.truncate(page.limit.max(1));
            let live = everything(&self.server).await?;
            let entries: Vec<_> = live.into_iter().filter(|entry| rows.contains(&entry.key) && filter.matches(entry)).collect();
            let next = rows.last().filter(|_| !entries.is_empty()).map(Cursor::after);
            Ok(Page { entries, next })
        }
    }

    // The index entry of a user expires with the record that was written last.
    IndexEndsWithTheLastRecord(Notes<String, Option<Timestamp>>) caught by long_lived_records_stay_listed_after_short_ones {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let ends = record.retain_for.map(|retention| self.server.clock().now().saturating_add(retention));
            self.own.lock().unwrap().insert(key.user().to_owned(), ends);
            self.server.put(key, record, when).await
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let now = self.server.clock().now();
            let mut page = self.server.list(filter, page).await?;
            let ends = self.own.lock().unwrap().clone();
            page.entries.retain(|entry| ends.get(entry.key.user()).copied().flatten().is_none_or(|ends| ends > now));
            Ok(page)
        }
    }

    EmptyCursorIsTheStart(()) caught by foreign_cursors_are_refused {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let after = page.after.filter(|cursor| !cursor.as_bytes().is_empty());
            self.server.list(filter, PageRequest { after, ..page }).await
        }
    }

    // Continues after the record of the cursor, which has to exist.
    EndsWhereTheCursorWasDeleted(()) caught by a_list_continues_from_any_cursor {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if let Some(cursor) = &page.after && self.server.get(&cursor.key()?).await?.is_none() {
                return Ok(Page { entries: Vec::new(), next: None });
            }
            self.server.list(filter, page).await
        }
    }

    CorruptEndsTheList(()) caught by a_corrupt_record_is_listed {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let page = self.server.list(filter, page).await?;
            for entry in &page.entries {
                if let Err(error) = self.server.get(&entry.key).await && matches!(error, StorageError::Corrupt { .. }) {
                    return Err(error);
                }
            }
            Ok(page)
        }
    }

    OmitsCorruptRecords(()) caught by a_corrupt_record_is_listed {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let mut corrupt = Vec::new();
            for entry in &page.entries {
                if matches!(self.server.get(&entry.key).await, Err(StorageError::Corrupt { .. })) {
                    corrupt.push(entry.key.clone());
                }
            }
            page.entries.retain(|entry| !corrupt.contains(&entry.key));
            Ok(page)
        }
    }

    // Returns an empty list because it cannot list.
    ListsNothing(()) caught by an_undeclared_list_is_unsupported {
        async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
            Ok(Page { entries: Vec::new(), next: None })
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_listable(false)
        }
    }

    FiltersByWords(()) caught by filters_tell_lookalikes_apart {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let Some(user) = filter.user.clone() else { return self.server.list(filter, page).await };
            let mut others = filter.clone();
            others.user = None;
            let all = self.server.list(&others, PageRequest { after: page.after, limit: usize::MAX }).await?;
            let is = |entry: &Entry| entry.key.user().split(['-', '.']).next() == Some(user.as_str()) || entry.key.user() == user;
            Ok(Page::collect(all.entries.into_iter().filter(is), page.limit))
        }
    }

    EmptyTenantAndUserAreAll(()) caught by filters_tell_lookalikes_apart {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut filter = filter.clone();
            filter.user = filter.user.filter(|user| !user.is_empty());
            self.server.list(&filter, page).await
        }
    }

    // Reserves names that begin with an underscore.
    ListsNoUnderscores(()) caught by filters_tell_lookalikes_apart {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            page.entries.retain(|entry| !entry.key.user().starts_with("_s"));
            Ok(page)
        }
    }

    // The cursor is an ambiguous text, such as the name of a file.
    CursorsAreJoined(()) caught by a_list_continues_after_any_key {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let joined = |key: &TokenKey| key.parts().join("|").into_bytes();
            let after = page.after.as_ref().map(|cursor| cursor.as_bytes().to_vec());
            if after.as_ref().is_some_and(|after| std::str::from_utf8(after).is_err() || after.iter().filter(|byte| **byte == b'|').count() < 3) {
                return Err(StorageError::InvalidCursor);
            }
            let mut entries = self.server.list(filter, PageRequest { after: None, limit: usize::MAX }).await?.entries;
            entries.sort_by_key(|entry| joined(&entry.key));
            entries.retain(|entry| after.as_ref().is_none_or(|after| joined(&entry.key) > *after));
            let more = entries.len() > page.limit.max(1);
            entries.truncate(page.limit.max(1));
            let next = entries.last().filter(|_| more).map(|last| Cursor::from_bytes(joined(&last.key)));
            Ok(Page { entries, next })
        }
    }

    CursorsAreShort(()) caught by a_list_continues_after_any_key {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            page.next = page.next.filter(|next| next.as_bytes().len() <= 250);
            Ok(page)
        }
    }

    CursorsEndWithTheirRecord(()) caught by a_list_continues_after_an_expired_record {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if let Some(cursor) = &page.after && self.server.get(&cursor.key()?).await?.is_none() {
                return Err(StorageError::InvalidCursor);
            }
            self.server.list(filter, page).await
        }
    }

    ReadsTheStartOfACursor(()) caught by foreign_cursors_are_refused {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let after = page.after.map(|cursor| {
                let bytes = cursor.as_bytes();
                let start = (1..=bytes.len()).map(|end| Cursor::from_bytes(&bytes[..end])).find(|start| start.key().is_ok());
                start.unwrap_or(cursor)
            });
            self.server.list(filter, PageRequest { after, ..page }).await
        }
    }

    // A restart rebuilds the index without hints.
    IndexHasNoHintsAfterARestart(Notes<TokenKey, ()>) caught by acknowledged_writes_survive_a_restart {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().insert(key.clone(), ());
            self.server.put(key, record, when).await
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let known = self.own.lock().unwrap();
            page.entries.iter_mut().filter(|entry| !known.contains_key(&entry.key)).for_each(|entry| entry.expires_at = None);
            Ok(page)
        }
    }
}

/// All entries, without a filter.
pub(super) async fn everything(server: &Server) -> Result<Vec<Entry>, StorageError> {
    let page = server.list(&Filter::everything(), PageRequest { after: None, limit: usize::MAX }).await?;
    Ok(page.entries)
}

/// The page of these entries that was requested.
pub(super) fn cut(entries: impl Iterator<Item = Entry>, page: &PageRequest) -> Result<Page, StorageError> {
    let after = page.after.as_ref().map(Cursor::key).transpose()?;
    Ok(Page::collect(entries.filter(|entry| after.as_ref().is_none_or(|after| entry.key > *after)), page.limit))
}

/// `LIKE` as in SQL.
fn like(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    let mut tails = text.char_indices().map(|(index, _)| &text[index..]).chain([""]);
    match first {
        '%' => tails.any(|tail| like(rest, tail)),
        _ => text.chars().next().is_some_and(|c| (first == '_' || first == c) && like(rest, &text[c.len_utf8()..])),
    }
}
