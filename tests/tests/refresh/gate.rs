//! A storage that can be blocked at any write, and that counts the writes of the refresh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use oauth_dance_core::{
    Capabilities, Clock, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage, Version, Versioned,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Where a worker is blocked: before or after the n-th conditional write from now on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Point {
    Before(u32),
    After(u32),
}

/// How a blocked worker continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resume {
    AsUsual,
    /// As if the connection had been lost after the write was sent.
    Ambiguous,
}

/// The writes of the refresh.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Conditional writes with the same token: claims, and records of failures.
    pub claims: u64,
    /// Claims of a token that had not expired.
    pub early: u64,
    /// Conditional writes with a new token.
    pub commits: u64,
}

#[derive(Clone)]
pub struct Gated {
    inner: Arc<dyn TokenStorage>,
    state: Arc<Mutex<GateState>>,
    clock: Clock,
}

#[derive(Default)]
struct GateState {
    writes: u32,
    point: Option<Point>,
    held: Option<oneshot::Sender<Resume>>,
    is_offline: bool,
    expiries: HashMap<TokenKey, Option<Timestamp>>,
    seen: Seen,
}

impl Gated {
    pub fn new(inner: Arc<dyn TokenStorage>, clock: Clock) -> Self {
        Self { inner, state: Arc::default(), clock }
    }

    pub fn hold(&self, point: Point) {
        let mut state = self.state.lock().unwrap();
        (state.writes, state.point) = (0, Some(point));
    }

    pub fn resume(&self, how: Resume) {
        let held = self.state.lock().unwrap().held.take();
        let _ = held.expect("nothing is blocked").send(how);
    }

    /// Makes the storage unavailable.
    pub fn set_offline(&self, is_offline: bool) {
        self.state.lock().unwrap().is_offline = is_offline;
    }

    pub fn seen(&self) -> Seen {
        self.state.lock().unwrap().seen
    }

    fn online(&self) -> Result<(), StorageError> {
        match self.state.lock().unwrap().is_offline {
            true => Err(StorageError::unavailable("taken offline by the test")),
            false => Ok(()),
        }
    }

    async fn pass(&self, here: Point) -> Result<(), StorageError> {
        let held = {
            let mut state = self.state.lock().unwrap();
            if state.point != Some(here) {
                return Ok(());
            }
            let (sender, held) = oneshot::channel();
            (state.point, state.held) = (None, Some(sender));
            held
        };
        crate::worker::report(&serde_json::json!({ "held": here }));
        match held.await {
            Ok(Resume::Ambiguous) => Err(StorageError::ambiguous("cut off by the test")),
            _ => Ok(()),
        }
    }

    fn note(&self, record: &Record, was: Option<Option<Timestamp>>) {
        let mut state = self.state.lock().unwrap();
        if was != Some(record.expires_at) {
            state.seen.commits += 1;
            return;
        }
        state.seen.claims += 1;
        state.seen.early += u64::from(record.expires_at.is_none_or(|expiry| expiry > self.clock.now()));
    }
}

#[async_trait::async_trait]
impl TokenStorage for Gated {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.online()?;
        let found = self.inner.get(key).await?;
        if let Some(found) = &found {
            self.state.lock().unwrap().expiries.insert(key.clone(), found.value.expires_at);
        }
        Ok(found)
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        if !matches!(when, Precondition::Version(_)) {
            return self.inner.put(key, record, when).await;
        }
        // Before the write, because another task may read the record as soon as the write is done.
        let (number, was) = {
            let mut state = self.state.lock().unwrap();
            state.writes += 1;
            (state.writes, state.expiries.get(key).copied())
        };
        self.pass(Point::Before(number)).await?;
        self.online()?;
        let written = self.inner.put(key, record, when).await;
        if written.is_ok() {
            self.note(record, was);
        }
        self.pass(Point::After(number)).await?;
        written
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.online()?;
        self.inner.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.inner.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.inner.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
