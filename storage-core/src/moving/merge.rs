use std::collections::BTreeMap;
use std::sync::Arc;

use super::mark::is_placeholder;
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::storage::{Cursor, Entry, Filter, Page, PageRequest, TokenStorage};

/// How many entries of a storage without order are read at once.
const SCAN_PAGE: usize = 1000;

/// The next entries of two storages, in the order of their keys.
pub(super) struct Merged {
    after: Option<TokenKey>,
    limit: usize,
    entries: BTreeMap<TokenKey, Entry>,
}

impl Merged {
    pub(super) fn new(page: &PageRequest) -> Result<Self, StorageError> {
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        Ok(Self { after, limit: page.limit.max(1), entries: BTreeMap::new() })
    }

    /// Adds the first matching entries of a storage after the cursor. They replace those of a storage added earlier.
    pub(super) async fn add(&mut self, storage: &Arc<dyn TokenStorage>, filter: &Filter) -> Result<(), StorageError> {
        let is_ordered = storage.capabilities().ordered;
        let after = self.after.as_ref().filter(|_| is_ordered).map(Cursor::after);
        // One more than the page has, which shows whether another page follows.
        let wanted = self.limit.saturating_add(1);
        let mut page = PageRequest { after, limit: if is_ordered { wanted } else { SCAN_PAGE } };
        let mut found = 0_usize;
        loop {
            let Page { entries, next } = storage.list(filter, page.clone()).await?;
            for entry in entries {
                let is_next = self.after.as_ref().is_none_or(|after| entry.key > *after);
                if is_next && !is_placeholder(entry.key_id.as_deref()) {
                    self.entries.insert(entry.key.clone(), entry);
                    found = found.saturating_add(1);
                }
            }
            while self.entries.len() > wanted {
                self.entries.pop_last();
            }
            match next {
                Some(next) if !(is_ordered && found >= wanted) => page.after = Some(next),
                _ => return Ok(()),
            }
        }
    }

    pub(super) fn into_page(self) -> Page {
        Page::collect(self.entries.into_values(), self.limit)
    }
}
