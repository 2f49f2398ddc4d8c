//! The storage of one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage,
    Version, Versioned,
};
use serde_json::Value;
use tokio::sync::Mutex;

use super::SessionTokens;
use super::vault::{Data, Failure, Session, VaultId};
use crate::kept::Kept;

/// Where the session says which record holds the tokens.
const POINTER: &str = "oauth-dance";

/// The tokens of one request's session.
#[derive(Clone)]
pub(super) struct SessionStorage {
    config: Arc<SessionTokens>,
    /// `None` where there is no session manager outside.
    session: Option<Arc<dyn Session>>,
    /// Writers of this request come one after the other, so that a new session gets one record.
    writing: Arc<Mutex<()>>,
    is_login: Arc<AtomicBool>,
}

impl SessionStorage {
    pub(super) fn new(config: Arc<SessionTokens>, session: Option<Arc<dyn Session>>) -> Self {
        Self { config, session, writing: Arc::default(), is_login: Arc::default() }
    }

    /// Gives the session a new id if somebody logged in during this request.
    pub(super) async fn cycle_id_after_login(&self) {
        let Some(session) = self.session.as_ref().filter(|session| session.is_known()) else { return };
        if self.is_login.load(Ordering::Acquire)
            && let Err(failure) = session.cycle_id().await
        {
            // The session goes on under a new id all the same; only the old record may be left.
            tracing::warn!(?failure, "the session from before a login could not be removed");
        }
    }

    fn session(&self) -> Result<&dyn Session, StorageError> {
        self.session.as_deref().ok_or_else(|| StorageError::Misconfigured {
            advice: "`SessionTokens` must be inside of the `SessionManagerLayer`, and its feature must be that of the \
                     release of tower-sessions"
                .to_owned(),
            source: "the request has no session".into(),
        })
    }

    /// The record that the session points to.
    async fn pointer(&self) -> Result<Option<VaultId>, StorageError> {
        let value = self.session()?.value(POINTER).await.map_err(while_reading)?;
        // Whatever is no pointer of ours leads nowhere, and the next write puts one in its place.
        Ok(value.as_ref().and_then(Value::as_str).and_then(|id| id.parse().ok()))
    }

    /// Everything that is kept for this session.
    async fn load(&self, key: &TokenKey, pointer: Option<VaultId>) -> Result<Option<Loaded>, StorageError> {
        let Some(id) = pointer else { return Ok(None) };
        match self.session()?.load(id).await {
            Ok(found) => Ok(found.map(|(data, left)| Loaded { id, data, is_fading: left < self.config.lifetime / 2 })),
            Err(Failure::Unreadable(source)) => Err(StorageError::corrupt(key, source)),
            Err(failure) => Err(while_reading(failure)),
        }
    }

    /// Lets the store keep the record of somebody who still uses it.
    async fn prolong(&self, key: &TokenKey, id: VaultId) -> Result<(), StorageError> {
        let _turn = self.config.turns.take(id).await;
        let Some(Loaded { data, .. }) = self.load(key, Some(id)).await? else { return Ok(()) };
        self.session()?.save(id, data, self.config.lifetime).await.map_err(while_writing)
    }

    async fn write(&self, loaded: Option<VaultId>, data: Data) -> Result<(), StorageError> {
        let session = self.session()?;
        let Some(id) = loaded else {
            // Until the session points to it, nothing has changed.
            let id = session.create(data, self.config.lifetime).await.map_err(while_reading)?;
            return session.set_value(POINTER, Value::String(id.to_string())).await.map_err(while_reading);
        };
        session.save(id, data, self.config.lifetime).await.map_err(while_writing)
    }
}

struct Loaded {
    id: VaultId,
    data: Data,
    is_fading: bool,
}

/// A record within the data, if it is there and not past its retention.
fn find(data: &Data, key: &TokenKey, now: Timestamp) -> Result<Option<Kept>, StorageError> {
    let Some(value) = data.get(&name(key)) else { return Ok(None) };
    let bytes = value.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let kept = bytes.and_then(|bytes| Kept::from_bytes(&bytes));
    let kept = kept.ok_or_else(|| StorageError::corrupt(key, "it is no record that was written here"))?;
    Ok(Some(kept).filter(|kept| kept.is_live(now)))
}

fn name(key: &TokenKey) -> String {
    URL_SAFE_NO_PAD.encode(key.to_bytes())
}

fn remove_dead(data: &mut Data, now: Timestamp) {
    data.retain(|_, value| {
        let kept = value.as_str().and_then(|text| Kept::from_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?));
        kept.is_none_or(|kept| kept.is_live(now))
    });
}

fn while_reading(failure: Failure) -> StorageError {
    match failure {
        Failure::Store(source) | Failure::Unreadable(source) => StorageError::Unavailable { source },
    }
}

/// A session store does not tell whether a failed write was done.
fn while_writing(failure: Failure) -> StorageError {
    match failure {
        Failure::Store(source) | Failure::Unreadable(source) => StorageError::Ambiguous { source },
    }
}

#[async_trait]
impl TokenStorage for SessionStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let Some(loaded) = self.load(key, self.pointer().await?).await? else { return Ok(None) };
        if loaded.is_fading
            && let Err(error) = self.prolong(key, loaded.id).await
        {
            tracing::warn!(%error, "the session store did not prolong a record of tokens");
        }
        let now = self.config.clock.now();
        Ok(find(&loaded.data, key, now)?.map(|kept| kept.read(now)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let _writing = self.writing.lock().await;
        let pointer = self.pointer().await?;
        let _turn = self.config.turns.take(pointer.unwrap_or_default()).await;
        let loaded = self.load(key, pointer).await?;
        let id = loaded.as_ref().map(|loaded| loaded.id);
        let mut data = loaded.map(|loaded| loaded.data).unwrap_or_default();

        let now = self.config.clock.now();
        // What cannot be read is there all the same, and only a new login may write over it.
        let current = match find(&data, key, now) {
            Err(_) if when == Precondition::Always => None,
            found => found?.map(|kept| kept.version),
        };
        if !when.holds_for(current) {
            return Err(StorageError::Conflict);
        }
        let kept = Kept::new(record, now);
        remove_dead(&mut data, now);
        data.insert(name(key), Value::String(URL_SAFE_NO_PAD.encode(kept.to_bytes())));
        self.write(id, data).await?;
        if when == Precondition::Always {
            self.is_login.store(true, Ordering::Release);
        }
        Ok(kept.version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let Some(pointer) = self.pointer().await? else { return Ok(false) };
        let _turn = self.config.turns.take(pointer).await;
        let Some(Loaded { id, mut data, .. }) = self.load(key, Some(pointer)).await? else { return Ok(false) };

        let now = self.config.clock.now();
        let is_there = match (find(&data, key, now), only) {
            (Err(_), None) => true,
            (found, only) => found?.is_some_and(|kept| only.is_none_or(|version| version == kept.version)),
        };
        if !is_there {
            return Ok(false);
        }
        remove_dead(&mut data, now);
        data.remove(&name(key));
        self.write(Some(id), data).await?;
        Ok(true)
    }

    async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
        Err(StorageError::Unsupported("listing: it sees the tokens of one session only"))
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0) // the next write leaves out what is past its retention
    }

    fn capabilities(&self) -> Capabilities {
        self.config.capabilities
    }
}
