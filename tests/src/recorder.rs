//! Remembers the last calls, so that a failure names them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};

use crate::show::{SHOWN, Show, text};

/// How many calls a failure shows.
const LAST: usize = 8;

/// The last calls of one property on its storages.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<(u64, VecDeque<Line>)>,
}

#[derive(Debug)]
struct Line {
    number: u64,
    handle: usize,
    call: Call,
    answer: Option<String>,
}

#[derive(Debug)]
enum Call {
    Get(TokenKey),
    /// The record's payload is shortened, and this is its length.
    Put(TokenKey, Record, usize, Precondition),
    Delete(TokenKey, Option<Version>),
    List(Filter, usize, bool),
    Purge(usize),
}

impl Log {
    /// The last calls in order, a line each.
    pub(crate) fn tell(&self) -> String {
        let lines = self.lines();
        let told = lines.1.iter().map(|line| {
            let answer = line.answer.as_deref().unwrap_or("not answered");
            let handle = if line.handle == 0 { String::new() } else { format!(" (handle {})", line.handle) };
            format!("\n  {}{handle} -> {answer}", line.call.show())
        });
        told.collect()
    }

    fn begin(&self, handle: usize, call: Call) -> u64 {
        let mut lines = self.lines();
        lines.0 += 1;
        let number = lines.0;
        lines.1.push_back(Line { number, handle, call, answer: None });
        if lines.1.len() > LAST {
            lines.1.pop_front();
        }
        number
    }

    fn end<T: Show>(&self, number: u64, answer: &Result<T, StorageError>) {
        let mut lines = self.lines();
        if let Some(line) = lines.1.iter_mut().rev().find(|line| line.number == number) {
            line.answer = Some(answer.show());
        }
    }

    fn lines(&self) -> MutexGuard<'_, (u64, VecDeque<Line>)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Show for Call {
    fn show(&self) -> String {
        match self {
            Self::Get(key) => format!("get({})", key.show()),
            Self::Put(key, record, length, when) => {
                let long = if *length > SHOWN { format!(" of {length} bytes") } else { String::new() };
                format!("put({}, {}{long}, {when:?})", key.show(), record.show())
            }
            Self::Delete(key, only) => format!("delete({}, {only:?})", key.show()),
            Self::List(filter, limit, after) => {
                let mut conditions = Vec::new();
                for (name, value) in
                    [("tenant", &filter.tenant), ("user", &filter.user), ("provider", &filter.provider)]
                {
                    conditions.extend(value.as_ref().map(|value| format!("{name} {}", text(value.as_bytes()))));
                }
                conditions.extend(filter.expiring_before.map(|at| format!("expiring before {}", at.as_unix_seconds())));
                let page = if *after { "the next page" } else { "the first page" };
                format!("list([{}], {page} of {limit})", conditions.join(", "))
            }
            Self::Purge(limit) => format!("purge({limit})"),
        }
    }
}

/// The same storage, with its calls remembered.
pub(crate) fn recorded(inner: Arc<dyn TokenStorage>, log: &Arc<Log>, handle: usize) -> Arc<dyn TokenStorage> {
    Arc::new(Recorded { inner, log: Arc::clone(log), handle })
}

struct Recorded {
    inner: Arc<dyn TokenStorage>,
    log: Arc<Log>,
    handle: usize,
}

impl Recorded {
    fn begin(&self, call: Call) -> u64 {
        self.log.begin(self.handle, call)
    }
}

#[async_trait]
impl TokenStorage for Recorded {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let number = self.begin(Call::Get(key.clone()));
        let found = self.inner.get(key).await;
        self.log.end(number, &found);
        found
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let start = &record.payload[..record.payload.len().min(SHOWN)];
        let brief = Record::new(start).with_expires_at(record.expires_at).with_key_id(record.key_id.clone());
        let brief = brief.with_retain_for(record.retain_for);
        let number = self.begin(Call::Put(key.clone(), brief, record.payload.len(), when));
        let written = self.inner.put(key, record, when).await;
        self.log.end(number, &written);
        written
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let number = self.begin(Call::Delete(key.clone(), only));
        let removed = self.inner.delete(key, only).await;
        self.log.end(number, &removed);
        removed
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let number = self.begin(Call::List(filter.clone(), page.limit, page.after.is_some()));
        let listed = self.inner.list(filter, page).await;
        self.log.end(number, &listed);
        listed
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let number = self.begin(Call::Purge(limit));
        let purged = self.inner.purge(limit).await;
        self.log.end(number, &purged);
        purged
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
