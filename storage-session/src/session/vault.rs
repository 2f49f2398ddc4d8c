//! What is needed of a session and its store, in no release's terms.

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
    fn of(&self, extensions: &Extensions) -> Option<Arc<dyn Session>>;
}

/// A session, and the store behind it.
#[async_trait]
pub(crate) trait Session: Send + Sync {
    /// A value in the session.
    async fn value(&self, name: &str) -> Result<Option<Value>, Failure>;

    /// Sets a value in the session, which is saved when the request ends well.
    async fn set_value(&self, name: &str, value: Value) -> Result<(), Failure>;

    /// Whether it is in the store already.
    fn is_known(&self) -> bool;

    /// Gives it a new id.
    async fn cycle_id(&self) -> Result<(), Failure>;

    /// A record of the store beside the sessions, and how long it has left.
    async fn load(&self, id: VaultId) -> Result<Option<(Data, Duration)>, Failure>;

    /// Makes such a record, with an id that nobody can guess.
    async fn create(&self, data: Data, lifetime: Duration) -> Result<VaultId, Failure>;

    /// Writes one that is there.
    async fn save(&self, id: VaultId, data: Data, lifetime: Duration) -> Result<(), Failure>;
}

/// The id of a record that holds tokens.
pub(crate) type VaultId = i128;
pub(crate) type Data = HashMap<String, Value>;

/// What went wrong in a session store.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not answer as it should.
    Store(BoxError),
    /// What it has cannot be read.
    Unreadable(BoxError),
}

/// Lets writers of one process come one after the other: those of one record share a turn, others seldom do.
#[derive(Clone)]
pub(crate) struct Turns {
    turns: Arc<[Mutex<()>; 64]>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turns: Arc::new([const { Mutex::const_new(()) }; 64]), hasher: RandomState::new() }
    }
}

impl Turns {
    pub(crate) async fn take(&self, id: VaultId) -> MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(id) % self.turns.len() as u64;
        self.turns[index as usize].lock().await
    }
}
