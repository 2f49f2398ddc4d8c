//! Lists two storages as one.
//!
//! A cursor is the key of the last entry, because the cursors of two storages could not be combined. A storage that
//! lists in the order of the keys continues at this key. Any other one has to be read completely for each page, and the
//! first entries after the key are selected.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mark::is_placeholder;
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::storage::{Cursor, Entry, Filter, Page, PageRequest, TokenStorage};

/// The size of a page if a storage lists in no particular order.
const SCAN_PAGE: usize = 1000;

/// The next page of two storages together, in the order of the keys.
pub(super) struct Merged {
    after: Option<TokenKey>,
    limit: usize,
    entries: BTreeMap<TokenKey, Entry>,
}

impl Merged {
    /// An empty page after the cursor of a request.
    pub(super) fn new(page: &PageRequest) -> Result<Self, StorageError> {
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        Ok(Self { after, limit: page.limit.max(1), entries: BTreeMap::new() })
    }

    /// Adds the matching entries of a storage that follow the cursor, as many as the page may need. They replace
    /// entries of the same keys from a storage that was added earlier.
    pub(super) async fn add(&mut self, storage: &Arc<dyn TokenStorage>, filter: &Filter) -> Result<(), StorageError> {
        let is_ordered = storage.capabilities().ordered;
        let after = self.after.as_ref().filter(|_| is_ordered).map(Cursor::after);
        // One entry more than requested is read, to see whether another page follows.
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

    /// The page of all added entries.
    pub(super) fn into_page(self) -> Page {
        Page::collect(self.entries.into_values(), self.limit)
    }
}
