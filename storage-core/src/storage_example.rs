use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use oauth_dance_core::{
    Capabilities, Clock, Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp,
    TokenKey, TokenStorage, Version, Versioned, async_trait,
};

#[derive(Default)]
struct MyStorage {
    records: Mutex<BTreeMap<TokenKey, Kept>>,
    clock: Clock,
}

#[derive(Clone)]
struct Kept {
    record: Record,
    version: Version,
    retain_until: Option<Timestamp>,
}

impl MyStorage {
    fn with_live<T>(&self, change: impl FnOnce(&mut BTreeMap<TokenKey, Kept>) -> T) -> T {
        let mut records = self.records.lock().expect("no holder of this lock panics");
        let now = self.clock.now();
        records.retain(|_, kept| kept.retain_until.is_none_or(|until| until > now));
        change(&mut records)
    }
}

#[async_trait]
impl TokenStorage for MyStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let now = self.clock.now();
        let Some(kept) = self.with_live(|records| records.get(key).cloned()) else { return Ok(None) };
        let left = kept.retain_until.map(|until| until.saturating_since(now));
        Ok(Some(Versioned::new(kept.record.with_retain_for(left), kept.version)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        // Rounded up: a fraction of a second counts as a whole one.
        let seconds = record.retain_seconds().map(Duration::from_secs);
        let retain_until = seconds.map(|seconds| self.clock.now().saturating_add(seconds));
        self.with_live(|records| {
            if !when.holds_for(records.get(key).map(|kept| kept.version)) {
                return Err(StorageError::Conflict);
            }
            let version = Version::random();
            records.insert(key.clone(), Kept { record: record.clone(), version, retain_until });
            Ok(version)
        })
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        Ok(self.with_live(|records| match records.get(key) {
            Some(kept) if only.is_none_or(|version| version == kept.version) => records.remove(key).is_some(),
            _ => false,
        }))
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        self.with_live(|records| {
            let matching = records
                .iter()
                .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                .map(|(key, kept)| Entry::new(key.clone(), kept.version, &kept.record))
                .filter(|entry| filter.matches(entry));
            Ok(Page::collect(matching, page.limit))
        })
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0) // nothing past its retention outlives the next call of any kind
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("my storage").with_atomic(true).with_listable(true)
    }
}
