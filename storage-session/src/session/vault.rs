//! The interface to a session and its store, which does not depend on the release of tower-sessions.
//!
//! [`release`](super::release) implements it for each supported release. The traits are used as `dyn`, so that
//! [`SessionTokens`](super::SessionTokens) needs no type parameter for the store.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use oauth_dance_core::BoxError;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

/// Finds the session of a request.
pub(crate) trait Sessions: Send + Sync {
    /// The session in the extensions of a request. `None` if there is no session manager.
    fn of(&self, extensions: &Extensions) -> Option<Arc<dyn Session>>;
}

/// A session, and the store behind it.
#[async_trait]
pub(crate) trait Session: Send + Sync {
    /// Reads a value in the session.
    async fn value(&self, name: &str) -> Result<Option<Value>, StoreFailure>;

    /// Sets a value in the session, which is saved when the request succeeds.
    async fn set_value(&self, name: &str, value: Value) -> Result<(), StoreFailure>;

    /// Whether the store contains the session.
    fn is_known(&self) -> bool;

    /// Gives the session a new id.
    async fn cycle_id(&self) -> Result<(), StoreFailure>;

    /// Loads a record of the store with its remaining lifetime.
    async fn load(&self, id: VaultId) -> Result<Option<(Data, Duration)>, StoreFailure>;

    /// Creates a record with an unguessable id.
    async fn create(&self, data: Data, lifetime: Duration) -> Result<VaultId, StoreFailure>;

    /// Replaces an existing record.
    async fn save(&self, id: VaultId, data: Data, lifetime: Duration) -> Result<(), StoreFailure>;
}

/// The id of a record with the tokens of a session.
pub(crate) type VaultId = i128;
/// The tokens of a session by their names.
pub(crate) type Data = HashMap<String, Value>;

/// An error of a session store.
#[derive(Debug)]
pub(crate) enum StoreFailure {
    /// The store failed.
    Store(BoxError),
    /// The stored data cannot be read.
    Unreadable(BoxError),
}

/// Locks for the records that this process writes. Different records rarely share a lock.
#[derive(Clone)]
pub(crate) struct WriteLocks {
    locks: Arc<[Mutex<()>; 64]>,
    hasher: RandomState,
}

impl Default for WriteLocks {
    fn default() -> Self {
        Self { locks: Arc::new([const { Mutex::const_new(()) }; 64]), hasher: RandomState::new() }
    }
}

impl WriteLocks {
    /// Waits for the lock of a record.
    pub(crate) async fn lock(&self, id: VaultId) -> MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(id) % self.locks.len() as u64;
        self.locks[index as usize].lock().await
    }
}
