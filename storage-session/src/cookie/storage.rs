//! The storage of one request.
//!
//! The cookies are decoded when a handler first uses them, because most requests need no token. Changes are collected,
//! and become `Set-Cookie` headers when the response is ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue};
use oauth_dance_core::{
    Capabilities, Filter, OpenError, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage, Version, Versioned,
};

use super::CookieTokens;
use super::chunks::{Chunks, new_generation};
use super::records::{MAX_KEY, Records, max_payload};
use crate::stored::StoredRecord;

/// The tokens in the cookies of one request, and the cookies that its response will set.
#[derive(Clone)]
pub(super) struct CookieStorage {
    config: Arc<CookieTokens>,
    name: Arc<str>,
    attributes: Arc<str>,
    state: Arc<Mutex<RequestState>>,
}

/// What has happened to the tokens during the request.
struct RequestState {
    /// The chunks in the request.
    received: Vec<(usize, String)>,
    /// The decoded records. `None` until they are first used.
    records: Option<Records>,
    /// Whether the received cookies are invalid, so that they are removed from the browser.
    is_invalid: bool,
    /// Whether an older key sealed the received cookies, so that they are sealed again.
    is_outdated: bool,
    /// Whether a token was written or deleted.
    is_changed: bool,
    /// Whether the response was sent.
    is_closed: bool,
}

/// The decoded cookies of a browser.
struct Opened {
    records: Records,
    is_outdated: bool,
}

impl RequestState {
    /// The records that are not past their retention.
    fn live(&self, now: Timestamp) -> Records {
        let mut records = self.records.clone().unwrap_or_default();
        records.0.retain(|_, stored| stored.is_live(now));
        records
    }

    /// Rejects a write that would be lost.
    fn check_open(&self) -> Result<(), StorageError> {
        if self.is_closed {
            return Err(StorageError::Unsupported(
                "a write after the response was sent or the browser has disconnected",
            ));
        }
        Ok(())
    }
}

impl CookieStorage {
    /// The storage of a request with these headers.
    pub(super) fn new(config: Arc<CookieTokens>, headers: &HeaderMap) -> Self {
        let name: Arc<str> = config.full_name().into();
        let secure = if config.https { "; Secure" } else { "" };
        let attributes: Arc<str> = format!("; HttpOnly; SameSite=Lax{secure}; Path=/; Max-Age=").into();
        let state = RequestState {
            received: Vec::new(),
            records: None,
            is_invalid: false,
            is_outdated: false,
            is_changed: false,
            is_closed: false,
        };
        let storage = Self { config, name, attributes, state: Arc::new(Mutex::new(state)) };
        storage.state().received = storage.chunks().received(headers);
        storage
    }

    /// Ends the request, and returns the `Set-Cookie` headers of its response. Later writes are rejected.
    ///
    /// All chunks are written with a new generation, even if only one record has changed. Received chunks beyond the
    /// new ones are removed from the browser. There is no header if the tokens are unchanged.
    pub(super) fn close(&self) -> Vec<HeaderValue> {
        let mut state = self.state();
        let was_closed = std::mem::replace(&mut state.is_closed, true);
        if was_closed || !(state.is_changed || state.is_invalid || state.is_outdated) {
            return Vec::new();
        }
        let records = state.records.clone().unwrap_or_default();
        let set = if records.0.is_empty() {
            Vec::new()
        } else {
            let generation = new_generation();
            self.chunks().split(generation, &records.seal(&self.config.keys, &self.name, generation))
        };
        let max_age = self.config.lifetime.as_secs();
        let mut headers: Vec<_> = set.iter().map(|(name, value)| self.header(name, value, max_age)).collect();
        let mut stale: Vec<_> =
            state.received.iter().map(|(index, _)| *index).filter(|index| *index >= set.len()).collect();
        stale.sort_unstable();
        stale.dedup();
        headers.extend(stale.into_iter().map(|index| self.header(&format!("{}.{index}", self.name), "", 0)));
        headers
    }

    /// A `Set-Cookie` header.
    fn header(&self, name: &str, value: &str, max_age: u64) -> HeaderValue {
        #[expect(clippy::expect_used, reason = "the name is checked and the value base64")]
        HeaderValue::try_from(format!("{name}={value}{}{max_age}", self.attributes)).expect("such a cookie is ASCII")
    }

    fn chunks(&self) -> Chunks<'_> {
        // Ten bytes for the value of `Max-Age`, which has at most eight digits.
        Chunks { name: &self.name, attributes: self.attributes.len() + 10 }
    }

    /// The maximum length of the sealed text.
    fn capacity(&self) -> usize {
        self.chunks().capacity(self.config.limit)
    }

    fn state(&self) -> MutexGuard<'_, RequestState> {
        // No code with this lock can panic in the middle of a change, so a poisoned lock is safe to use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes the cookies of the browser, without the records whose lifetime has ended. If there are several complete
    /// sets, the one that was written last counts.
    fn open(&self, received: &[(usize, String)], now: Timestamp) -> Result<Option<Opened>, OpenError> {
        let (mut newest, mut missing_key): (Option<(_, Opened)>, _) = (None, None);
        for (generation, text) in Chunks::join(received) {
            match Records::open(&self.config.keys, &self.name, generation, &text) {
                Ok(mut records) => {
                    let written_at = records.0.values().map(|stored| stored.written_at).max();
                    records.0.retain(|_, stored| now.saturating_since(stored.written_at) < self.config.lifetime);
                    if newest.as_ref().is_none_or(|(other, _)| *other < written_at) {
                        let is_outdated = !Records::is_current(&self.config.keys, &text);
                        newest = Some((written_at, Opened { records, is_outdated }));
                    }
                }
                Err(error @ OpenError::KeyUnavailable { .. }) => missing_key = Some(error),
                Err(_) => {}
            }
        }
        match (newest, missing_key) {
            (Some((_, opened)), _) => Ok(Some(opened)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// The state of the request, after the cookies were decoded.
    fn opened(&self, now: Timestamp) -> MutexGuard<'_, RequestState> {
        let mut state = self.state();
        if state.records.is_some() {
            return state;
        }
        let records = match self.open(&state.received, now) {
            Ok(Some(Opened { records, is_outdated })) => {
                state.is_outdated = is_outdated;
                records
            }
            Ok(None) => {
                state.is_invalid = !state.received.is_empty();
                Records::default()
            }
            // The cookie remains, because another process may have the missing key.
            Err(error) => {
                tracing::warn!(%error, "a token cookie cannot be read and counts as absent");
                Records::default()
            }
        };
        state.records = Some(records);
        state
    }

    /// Replaces the records.
    ///
    /// # Errors
    /// [`StorageError::Unsupported`] after the response was sent.
    fn change(&self, state: &mut RequestState, records: Records) -> Result<(), StorageError> {
        state.check_open()?;
        state.records = Some(records);
        state.is_changed = true;
        Ok(())
    }

    /// Verifies that the records fit into the cookies. `payload` is the size of the one that is about to be written.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] with the size that would fit in addition to the other records.
    fn fits(&self, payload: usize, records: &Records) -> Result<(), StorageError> {
        let max_payload = max_payload(self.capacity());
        if payload > max_payload {
            return Err(StorageError::TooLarge { size: payload, limit: max_payload });
        }
        let excess = records.sealed_length().saturating_sub(self.capacity());
        if excess > 0 {
            let limit = payload.saturating_sub(excess.saturating_mul(3).div_ceil(4));
            return Err(StorageError::TooLarge { size: payload, limit });
        }
        Ok(())
    }
}

#[async_trait]
impl TokenStorage for CookieStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let now = self.config.clock.now();
        let mut records = self.opened(now).live(now);
        Ok(records.0.remove(key).map(|stored| stored.read(now)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        if key.len() > MAX_KEY {
            return Err(StorageError::KeyTooLong { part: "whole", length: key.len(), limit: MAX_KEY });
        }
        let now = self.config.clock.now();
        let mut state = self.opened(now);
        state.check_open()?;
        let mut records = state.live(now);
        if !when.holds_for(records.0.get(key).map(|stored| stored.version)) {
            return Err(StorageError::Conflict);
        }
        let stored = StoredRecord::new(record, now);
        let version = stored.version;
        records.0.insert(key.clone(), stored);
        self.fits(record.payload.len(), &records)?;
        self.change(&mut state, records)?;
        Ok(version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let now = self.config.clock.now();
        let mut state = self.opened(now);
        let mut records = state.live(now);
        if records.0.get(key).is_none_or(|stored| only.is_some_and(|version| version != stored.version)) {
            return Ok(false);
        }
        records.0.remove(key);
        self.change(&mut state, records)?;
        Ok(true)
    }

    async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
        Err(StorageError::Unsupported("list, because it sees the tokens of one browser only"))
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0) // the next cookie contains no records past their retention
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("cookie")
            .with_shared(true)
            .with_request_bound(true)
            .with_max_payload(max_payload(self.capacity()))
    }
}
