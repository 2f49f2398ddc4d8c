use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use oauth_dance_core::{
    Capabilities, Clock, Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp,
    TokenKey, TokenStorage, Version, Versioned, async_trait,
};

#[derive(Default)]
struct MyStorage {
    records: Mutex<BTreeMap<TokenKey, Stored>>,
    clock: Clock,
}

#[derive(Clone)]
struct Stored {
    record: Record,
    version: Version,
    retain_until: Option<Timestamp>,
}

impl MyStorage {
    fn with_live<T>(&self, change: impl FnOnce(&mut BTreeMap<TokenKey, Stored>) -> T) -> T {
        let mut records = self.records.lock().expect("no holder of this lock panics");
        let now = self.clock.now();
        records.retain(|_, stored| stored.retain_until.is_none_or(|until| until > now));
        change(&mut records)
    }
}

#[async_trait]
impl TokenStorage for MyStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let now = self.clock.now();
        let Some(stored) = self.with_live(|records| records.get(key).cloned()) else { return Ok(None) };
        let left = stored.retain_until.map(|until| until.saturating_since(now));
        Ok(Some(Versioned::new(stored.record.with_retain_for(left), stored.version)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        // Rounded up: a fraction of a second counts as a whole one.
        let seconds = record.retain_seconds().map(Duration::from_secs);
        let retain_until = seconds.map(|seconds| self.clock.now().saturating_add(seconds));
        self.with_live(|records| {
            if !when.holds_for(records.get(key).map(|stored| stored.version)) {
                return Err(StorageError::Conflict);
            }
            let version = Version::random();
            records.insert(key.clone(), Stored { record: record.clone(), version, retain_until });
            Ok(version)
        })
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        Ok(self.with_live(|records| match records.get(key) {
            Some(stored) if only.is_none_or(|version| version == stored.version) => records.remove(key).is_some(),
            _ => false,
        }))
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        self.with_live(|records| {
            let matching = records
                .iter()
                .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                .map(|(key, stored)| Entry::new(key.clone(), stored.version, &stored.record))
                .filter(|entry| filter.matches(entry));
            Ok(Page::collect(matching, page.limit))
        })
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0) // every call removes the records past their retention
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("my storage").with_atomic(true).with_listable(true).with_ordered(true)
    }
}
