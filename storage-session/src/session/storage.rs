//! The storage of one request.
//!
//! The session contains only the id of a separate record in the same store, and that record contains all tokens of the
//! session. tower-sessions saves a session at the end of a request with whatever it loaded at the beginning. Tokens
//! inside the session could therefore be overwritten by an older request that ends later.
//!
//! A session store has no conditional writes. A write therefore loads the record, changes it and saves it, under a lock
//! for this record within the process. Two processes that write at the same time are not detected.
//!
//! In the record, the name of a token is its [`TokenKey`] and the value its [`StoredRecord`], both in base64, because a
//! store may accept only JSON.

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
use super::vault::{Data, Session, StoreFailure, VaultId};
use crate::stored::StoredRecord;

/// The name of the session value that contains the id of the token record.
const POINTER: &str = "oauth-dance";

/// The tokens of one request's session.
#[derive(Clone)]
pub(super) struct SessionStorage {
    config: Arc<SessionTokens>,
    /// `None` if there is no session manager.
    session: Option<Arc<dyn Session>>,
    /// Serializes the writers of this request, so that a new session gets only one record.
    writing: Arc<Mutex<()>>,
    /// Whether a login has stored a token during the request.
    is_login: Arc<AtomicBool>,
}

impl SessionStorage {
    /// The storage of a request.
    pub(super) fn new(config: Arc<SessionTokens>, session: Option<Arc<dyn Session>>) -> Self {
        Self { config, session, writing: Arc::default(), is_login: Arc::default() }
    }

    /// Gives the session a new id, if a login has stored a token during this request.
    pub(super) async fn cycle_id_after_login(&self) {
        let Some(session) = self.session.as_ref().filter(|session| session.is_known()) else { return };
        if self.is_login.load(Ordering::Acquire)
            && let Err(failure) = session.cycle_id().await
        {
            // The session gets a new id nevertheless. Only its old record may remain in the store.
            tracing::warn!(?failure, "the session from before a login could not be removed");
        }
    }

    /// The session of the request.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if there is no session manager outside of this layer.
    fn session(&self) -> Result<&dyn Session, StorageError> {
        self.session.as_deref().ok_or_else(|| StorageError::Misconfigured {
            advice: "place `SessionTokens` inside of the `SessionManagerLayer`, and enable the feature for your \
                     release of tower-sessions"
                .to_owned(),
            source: "the request has no session".into(),
        })
    }

    /// The id of the token record in the session.
    async fn pointer(&self) -> Result<Option<VaultId>, StorageError> {
        let value = self.session()?.value(POINTER).await.map_err(read_error)?;
        // An invalid value counts as absent, and the next write replaces it.
        Ok(value.as_ref().and_then(Value::as_str).and_then(|id| id.parse().ok()))
    }

    /// Loads all tokens of this session.
    async fn load(&self, key: &TokenKey, pointer: Option<VaultId>) -> Result<Option<Loaded>, StorageError> {
        let Some(id) = pointer else { return Ok(None) };
        match self.session()?.load(id).await {
            Ok(found) => {
                Ok(found.map(|(data, left)| Loaded { id, data, needs_prolonging: left < self.config.lifetime / 2 }))
            }
            Err(StoreFailure::Unreadable(source)) => Err(StorageError::corrupt(key, source)),
            Err(failure) => Err(read_error(failure)),
        }
    }

    /// Prolongs the lifetime of a record that is still in use. The record is loaded again under its lock, because
    /// another request may have changed it since.
    async fn prolong(&self, key: &TokenKey, id: VaultId) -> Result<(), StorageError> {
        let _guard = self.config.locks.lock(id).await;
        let Some(Loaded { data, .. }) = self.load(key, Some(id)).await? else { return Ok(()) };
        self.session()?.save(id, data, self.config.lifetime).await.map_err(write_error)
    }

    /// Writes all tokens of this session. `loaded` is the id of their record, if it exists.
    async fn write(&self, loaded: Option<VaultId>, data: Data) -> Result<(), StorageError> {
        let session = self.session()?;
        let Some(id) = loaded else {
            // Until the session contains the id of the new record, nothing has changed.
            let id = session.create(data, self.config.lifetime).await.map_err(read_error)?;
            return session.set_value(POINTER, Value::String(id.to_string())).await.map_err(read_error);
        };
        session.save(id, data, self.config.lifetime).await.map_err(write_error)
    }
}

/// The record with all tokens of a session.
struct Loaded {
    id: VaultId,
    data: Data,
    needs_prolonging: bool,
}

/// Finds a record in the data, if it exists and is not past its retention.
fn find(data: &Data, key: &TokenKey, now: Timestamp) -> Result<Option<StoredRecord>, StorageError> {
    let Some(value) = data.get(&name(key)) else { return Ok(None) };
    let bytes = value.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let stored = bytes.and_then(|bytes| StoredRecord::from_bytes(&bytes));
    let stored =
        stored.ok_or_else(|| StorageError::corrupt(key, "the session store contains an invalid token record"))?;
    Ok(Some(stored).filter(|stored| stored.is_live(now)))
}

/// The name of a token in the data.
fn name(key: &TokenKey) -> String {
    URL_SAFE_NO_PAD.encode(key.to_bytes())
}

/// Removes the tokens past their retention.
fn remove_expired(data: &mut Data, now: Timestamp) {
    data.retain(|_, value| {
        let stored = value.as_str().and_then(|text| StoredRecord::from_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?));
        stored.is_none_or(|stored| stored.is_live(now))
    });
}

/// The error of a failed read, or of a write that had no effect.
fn read_error(failure: StoreFailure) -> StorageError {
    match failure {
        StoreFailure::Store(source) | StoreFailure::Unreadable(source) => StorageError::Unavailable { source },
    }
}

/// The error of a failed write. A session store does not report whether the write took effect.
fn write_error(failure: StoreFailure) -> StorageError {
    match failure {
        StoreFailure::Store(source) | StoreFailure::Unreadable(source) => StorageError::Ambiguous { source },
    }
}

#[async_trait]
impl TokenStorage for SessionStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let Some(loaded) = self.load(key, self.pointer().await?).await? else { return Ok(None) };
        if loaded.needs_prolonging
            && let Err(error) = self.prolong(key, loaded.id).await
        {
            tracing::warn!(%error, "the lifetime of a token record could not be prolonged");
        }
        let now = self.config.clock.now();
        Ok(find(&loaded.data, key, now)?.map(|stored| stored.read(now)))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let _writing = self.writing.lock().await;
        let pointer = self.pointer().await?;
        let _guard = self.config.locks.lock(pointer.unwrap_or_default()).await;
        let loaded = self.load(key, pointer).await?;
        let id = loaded.as_ref().map(|loaded| loaded.id);
        let mut data = loaded.map(|loaded| loaded.data).unwrap_or_default();

        let now = self.config.clock.now();
        // An unreadable record counts as existing, and only a new login may replace it.
        let current = match find(&data, key, now) {
            Err(_) if when == Precondition::Always => None,
            found => found?.map(|stored| stored.version),
        };
        if !when.holds_for(current) {
            return Err(StorageError::Conflict);
        }
        let stored = StoredRecord::new(record, now);
        remove_expired(&mut data, now);
        data.insert(name(key), Value::String(URL_SAFE_NO_PAD.encode(stored.to_bytes())));
        self.write(id, data).await?;
        if when == Precondition::Always {
            self.is_login.store(true, Ordering::Release);
        }
        Ok(stored.version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let Some(pointer) = self.pointer().await? else { return Ok(false) };
        let _guard = self.config.locks.lock(pointer).await;
        let Some(Loaded { id, mut data, .. }) = self.load(key, Some(pointer)).await? else { return Ok(false) };

        let now = self.config.clock.now();
        let exists = match (find(&data, key, now), only) {
            (Err(_), None) => true,
            (found, only) => found?.is_some_and(|stored| only.is_none_or(|version| version == stored.version)),
        };
        if !exists {
            return Ok(false);
        }
        remove_expired(&mut data, now);
        data.remove(&name(key));
        self.write(Some(id), data).await?;
        Ok(true)
    }

    async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
        Err(StorageError::Unsupported("list, because it sees the tokens of one session only"))
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0) // the next write removes the records past their retention
    }

    fn capabilities(&self) -> Capabilities {
        self.config.capabilities
    }
}
