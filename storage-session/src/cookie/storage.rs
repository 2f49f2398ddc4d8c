//! The storage of one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue};
use oauth_dance_core::{
    Capabilities, Filter, OpenError, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage, Version, Versioned,
};

use super::CookieTokens;
use super::chunks::{Chunks, new_generation};
use super::records::{KEY, Records, max_payload};
use crate::kept::Kept;

/// The tokens in the cookies of one request, and what its response is to set.
#[derive(Clone)]
pub(super) struct CookieStorage {
    config: Arc<CookieTokens>,
    name: Arc<str>,
    attributes: Arc<str>,
    state: Arc<Mutex<State>>,
}

struct State {
    received: Vec<(usize, String)>,
    /// `None` until somebody asks.
    records: Option<Records>,
    /// What was received makes no sense, and never will.
    is_broken: bool,
    /// An older key has sealed what was received.
    is_outdated: bool,
    is_changed: bool,
    has_left: bool,
}

/// What a browser sent.
struct Opened {
    records: Records,
    is_outdated: bool,
}

impl State {
    /// The records that are not past their retention.
    fn live(&self, now: Timestamp) -> Records {
        let mut records = self.records.clone().unwrap_or_default();
        records.0.retain(|_, kept| kept.is_live(now));
        records
    }
}

impl CookieStorage {
    pub(super) fn new(config: Arc<CookieTokens>, headers: &HeaderMap) -> Self {
        let name: Arc<str> = config.full_name().into();
        let secure = if config.https { "; Secure" } else { "" };
        let attributes: Arc<str> = format!("; HttpOnly; SameSite=Lax{secure}; Path=/; Max-Age=").into();
        let state = State {
            received: Vec::new(),
            records: None,
            is_broken: false,
            is_outdated: false,
            is_changed: false,
            has_left: false,
        };
        let storage = Self { config, name, attributes, state: Arc::new(Mutex::new(state)) };
        storage.state().received = storage.chunks().received(headers);
        storage
    }

    /// Ends the request: the `Set-Cookie` headers of its response. What is written later is refused.
    pub(super) fn leave(&self) -> Vec<HeaderValue> {
        let mut state = self.state();
        let has_left = std::mem::replace(&mut state.has_left, true);
        if has_left || !(state.is_changed || state.is_broken || state.is_outdated) {
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

    fn header(&self, name: &str, value: &str, max_age: u64) -> HeaderValue {
        #[expect(clippy::expect_used, reason = "the name is checked and the value base64")]
        HeaderValue::try_from(format!("{name}={value}{}{max_age}", self.attributes)).expect("a cookie of ours is ASCII")
    }

    fn chunks(&self) -> Chunks<'_> {
        // Ten digits for the age, of which there are never more than eight.
        Chunks { name: &self.name, attributes: self.attributes.len() + 10 }
    }

    fn capacity(&self) -> usize {
        self.chunks().capacity(self.config.limit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code below can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the browser sent, without what is past its time.
    fn open(&self, received: &[(usize, String)], now: Timestamp) -> Result<Option<Opened>, OpenError> {
        let (mut newest, mut missing_key): (Option<(_, Opened)>, _) = (None, None);
        for (generation, text) in Chunks::join(received) {
            match Records::open(&self.config.keys, &self.name, generation, &text) {
                Ok(mut records) => {
                    let written_at = records.0.values().map(|kept| kept.written_at).max();
                    records.0.retain(|_, kept| now.saturating_since(kept.written_at) < self.config.lifetime);
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

    /// The state with its records read.
    fn opened(&self, now: Timestamp) -> MutexGuard<'_, State> {
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
                state.is_broken = !state.received.is_empty();
                Records::default()
            }
            // Another process may have that key: it stays where it is.
            Err(error) => {
                tracing::warn!(%error, "a token cookie cannot be read and is taken as absent");
                Records::default()
            }
        };
        state.records = Some(records);
        state
    }

    /// Takes over the records with a change, if they fit and the response has not left.
    fn change(&self, state: &mut State, records: Records) -> Result<(), StorageError> {
        if state.has_left {
            return Err(StorageError::Unsupported("writing once the response has left or the browser has gone"));
        }
        state.records = Some(records);
        state.is_changed = true;
        Ok(())
    }

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
        Ok(records.0.remove(key).map(|kept| kept.read(now)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        if key.len() > KEY {
            return Err(StorageError::KeyTooLong { part: "whole", length: key.len(), limit: KEY });
        }
        let now = self.config.clock.now();
        let mut state = self.opened(now);
        let mut records = state.live(now);
        if !when.holds_for(records.0.get(key).map(|kept| kept.version)) {
            return Err(StorageError::Conflict);
        }
        let kept = Kept::new(record, now);
        let version = kept.version;
        records.0.insert(key.clone(), kept);
        self.fits(record.payload.len(), &records)?;
        self.change(&mut state, records)?;
        Ok(version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let now = self.config.clock.now();
        let mut state = self.opened(now);
        let mut records = state.live(now);
        if records.0.get(key).is_none_or(|kept| only.is_some_and(|version| version != kept.version)) {
            return Ok(false);
        }
        records.0.remove(key);
        self.change(&mut state, records)?;
        Ok(true)
    }

    async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
        Err(StorageError::Unsupported("listing: it sees the tokens of one browser only"))
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0) // what is past its retention is left out of the next cookie
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("cookie")
            .with_shared(true)
            .with_request_bound(true)
            .with_max_payload(max_payload(self.capacity()))
    }
}
