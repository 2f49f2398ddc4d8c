//! Flaws that short texts, plain records, first pages and calls without faults do not reveal.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_core::{
    Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version,
};

use super::lists::{cut, everything};
use super::{Write, flaws};
use crate::bench::Server;

flaws! {
    FiltersByTheFirst16Bytes(()) caught by filters_compare_long_parts_to_the_end {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let start = |text: &str| text.as_bytes()[..text.len().min(16)].to_vec();
            list_by(&self.server, filter, &page, |wanted, found| start(wanted) == start(found)).await
        }
    }

    FiltersByTheFirst64Characters(()) caught by filters_compare_long_parts_to_the_end {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            list_by(&self.server, filter, &page, |wanted, found| wanted.chars().take(64).eq(found.chars().take(64))).await
        }
    }

    // `user = ? OR account = ?`
    FindsTheUserInTheAccount(()) caught by filters_compare_each_part_with_its_own {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut others = filter.clone();
            let Some(user) = others.user.take() else { return self.server.list(filter, page).await };
            let entries = everything(&self.server).await?.into_iter().filter(|entry| others.matches(entry));
            cut(entries.filter(|entry| entry.key.user() == user || entry.key.account() == Some(&user)), &page)
        }
    }

    // Rejects a cursor that belongs to a list with another filter.
    CursorsAreValidForOneFilter(()) caught by a_cursor_is_valid_for_any_filter {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            if let Some(cursor) = &page.after {
                let entry = Entry::new(cursor.key()?, Version::random(), &Record::new(""));
                let mut others = filter.clone();
                others.expiring_before = None;
                if !others.matches(&entry) {
                    return Err(StorageError::InvalidCursor);
                }
            }
            self.server.list(filter, page).await
        }
    }

    OmitsTheLastSecond(()) caught by no_record_is_hidden_from_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let is_short = |record: &Record| record.retain_for.is_some_and(|left| left < Duration::from_secs(2));
            list_without(&self.server, filter, page, is_short).await
        }
    }

    ListsNoLargeRecords(()) caught by no_record_is_hidden_from_the_list {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            list_without(&self.server, filter, page, |record| record.payload.len() > 262_144).await
        }
    }

    // The index of a user is removed with the first account.
    ForgetsTheUserOfADeletedAccount(Mutex<HashSet<TokenKey>>) caught by deleting_one_account_hides_no_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.own.lock().unwrap().insert(key.clone());
            self.server.put(key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let owner = |key: &TokenKey| (key.tenant().map(str::to_owned), key.user().to_owned());
            let removed = self.server.delete(key, only).await?;
            if removed {
                self.own.lock().unwrap().retain(|other| owner(other) != owner(key));
            }
            Ok(removed)
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            if filter.user.is_some() && filter.tenant.is_some() {
                page.entries.retain(|entry| self.own.lock().unwrap().contains(&entry.key));
            }
            Ok(page)
        }
    }

    OutageEndsTheList(()) caught by an_outage_is_an_error {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            match self.server.list(filter, page.clone()).await {
                Err(StorageError::Unavailable { .. }) if page.after.is_some() => Ok(EMPTY),
                listed => listed,
            }
        }
    }

    SilenceIsAnInvalidCursor(()) caught by a_silent_server_is_an_error_in_time {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            match self.server.list(filter, page.clone()).await {
                Err(StorageError::Unavailable { .. }) if page.after.is_some() => Err(StorageError::InvalidCursor),
                listed => listed,
            }
        }
    }

    CutRepliesAreAnEmptyList(()) caught by a_cut_reply_is_an_error {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            match self.server.list(filter, page).await {
                Err(StorageError::Unavailable { source }) if source.to_string() == "connection reset" => Ok(EMPTY),
                listed => listed,
            }
        }
    }

    CutRepliesPurgeNothing(()) caught by a_cut_reply_is_an_error {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            match self.server.purge(limit).await {
                Err(StorageError::Ambiguous { .. }) => Ok(0),
                removed => removed,
            }
        }
    }

    RepeatsFailedWrites(()) caught by a_refused_call_is_not_repeated_later {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Unavailable { .. })) {
                let (server, key, record) = (self.server.clone(), key.clone(), record.clone());
                later(move || {
                    let (server, key, record) = (server.clone(), key.clone(), record.clone());
                    async move { server.put(&key, &record, when).await.is_ok() }
                });
            }
            written
        }
    }

    RepeatsForbiddenWrites(()) caught by a_refused_call_is_not_repeated_later {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if matches!(written, Err(StorageError::Misconfigured { .. })) {
                let (server, key, record) = (self.server.clone(), key.clone(), record.clone());
                later(move || {
                    let (server, key, record) = (server.clone(), key.clone(), record.clone());
                    async move { server.put(&key, &record, when).await.is_ok() }
                });
            }
            written
        }
    }

    RepeatsFailedDeletesOfAVersion(()) caught by a_refused_call_is_not_repeated_later {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await;
            if only.is_some() && matches!(removed, Err(StorageError::Unavailable { .. })) {
                let (server, key) = (self.server.clone(), key.clone());
                later(move || {
                    let (server, key) = (server.clone(), key.clone());
                    async move { server.delete(&key, only).await.is_ok() }
                });
            }
            removed
        }
    }
}

const EMPTY: Page = Page { entries: Vec::new(), next: None };

/// Repeats a call in the background until it reaches the server.
fn later<F: Future<Output = bool> + Send>(call: impl Fn() -> F + Send + 'static) {
    tokio::spawn(async move {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if call().await {
                break;
            }
        }
    });
}

/// A list with this comparison of texts.
async fn list_by(
    server: &Server,
    filter: &Filter,
    page: &PageRequest,
    equal: impl Fn(&str, &str) -> bool,
) -> Result<Page, StorageError> {
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| equal(wanted, found));
    let mut others = filter.clone();
    (others.tenant, others.user, others.provider) = (None, None, None);
    let entries = everything(server).await?.into_iter().filter(|entry| others.matches(entry));
    let entries = entries.filter(|entry| {
        let [tenant, user, provider, _] = entry.key.parts();
        is(&filter.tenant, tenant) && is(&filter.user, user) && is(&filter.provider, provider)
    });
    cut(entries, page)
}

/// A list that omits some records.
async fn list_without(
    server: &Server,
    filter: &Filter,
    page: PageRequest,
    is_hidden: impl Fn(&Record) -> bool,
) -> Result<Page, StorageError> {
    let mut page = server.list(filter, page).await?;
    let mut shown = Vec::new();
    for entry in page.entries {
        if server.memory().get(&entry.key).await?.is_none_or(|found| !is_hidden(&found.value)) {
            shown.push(entry);
        }
    }
    page.entries = shown;
    Ok(page)
}
