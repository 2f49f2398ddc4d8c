//! At most one refresh in flight for each key in this process.
//!
//! The refresh runs in a task of its own, which no caller can abort. A caller waits on a channel. Between processes,
//! the claim in the record does the same. Within a process this saves reads, writes and waiting.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::RefreshError;
use crate::key::TokenKey;
use crate::secret::Secret;
use crate::storage::TokenStorage;
use crate::token::OAuth2Token;
use crate::tokens::Tokens;

pub(super) type RefreshResult = Result<Refreshed, RefreshError>;

/// The token that a refresh ended with.
#[derive(Clone)]
pub(super) struct Refreshed {
    pub(super) token: OAuth2Token,
    /// The access token that it replaces, if this refresh received the token from the provider. Otherwise it found the
    /// token in the storage.
    pub(super) replaces: Option<Secret>,
}

impl Refreshed {
    /// The token that the provider issued for this one.
    pub(super) fn redeemed(token: OAuth2Token, old: &OAuth2Token) -> Self {
        Self { token, replaces: Some(old.access_token.clone()) }
    }

    pub(super) fn found(token: OAuth2Token) -> Self {
        Self { token, replaces: None }
    }

    pub(super) fn is_redeemed(&self) -> bool {
        self.replaces.is_some()
    }
}

/// The refreshes in flight in this process.
#[derive(Default)]
pub(super) struct InFlight {
    refreshes: Mutex<HashMap<FlightKey, watch::Receiver<Option<RefreshResult>>>>,
    /// The size of this map. It is changed under the lock, and read without it.
    size: AtomicUsize,
    /// The number of refreshes in flight, for callers that wait until it is zero.
    count: watch::Sender<usize>,
}

/// A key in one storage.
///
/// Storages are compared by address, because each request may have its own. The `Arc` prevents a new storage from
/// getting the same address while the refresh is in flight.
#[derive(Clone)]
struct FlightKey {
    storage: Arc<dyn TokenStorage>,
    key: TokenKey,
}

impl FlightKey {
    fn new(tokens: &Tokens, key: &TokenKey) -> Self {
        Self { storage: Arc::clone(tokens.storage()), key: key.clone() }
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.storage).cast::<()>().addr()
    }
}

impl PartialEq for FlightKey {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address() && self.key == other.key
    }
}

impl Eq for FlightKey {}

impl Hash for FlightKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.address(), &self.key).hash(state);
    }
}

impl InFlight {
    /// Joins the refresh of this key, or starts one.
    ///
    /// `refresh` receives the sender for its outcome, and may continue after it has sent one. The channel is closed
    /// when the refresh has ended and another one can start.
    pub(super) fn join<F>(
        self: &Arc<Self>,
        tokens: &Tokens,
        key: &TokenKey,
        refresh: impl FnOnce(watch::Sender<Option<RefreshResult>>) -> F,
    ) -> watch::Receiver<Option<RefreshResult>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let flight = FlightKey::new(tokens, key);
        let mut refreshes = self.refreshes();
        if let Some(outcome) = refreshes.get(&flight) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        refreshes.insert(flight.clone(), outcome.clone());
        self.size.store(refreshes.len(), Ordering::Release);
        // The lock is released first, because a runtime that is shutting down drops the new task immediately, which
        // removes the entry.
        drop(refreshes);
        self.count.send_modify(|count| *count += 1);

        let guard = FlightGuard { in_flight: Arc::clone(self), flight, _open: sender.clone() };
        let refresh = refresh(sender);
        tokio::spawn(async move {
            // The guard is dropped after a panic as well, so that the next caller starts a new refresh.
            let _guard = guard;
            refresh.await;
        });
        outcome
    }

    /// The new token of a refresh that is still in flight because the storage has not accepted the token yet.
    ///
    /// This is called for every use of a token. It takes no lock while no refresh is in flight.
    pub(super) fn unstored_token(&self, tokens: &Tokens, key: &TokenKey) -> Option<Refreshed> {
        if self.size.load(Ordering::Acquire) == 0 {
            return None;
        }
        let flight = FlightKey::new(tokens, key);
        let outcome = self.refreshes().get(&flight)?.borrow().clone();
        outcome?.ok().filter(Refreshed::is_redeemed)
    }

    /// Waits until no refresh is in flight.
    pub(super) async fn wait_until_idle(&self) {
        // The sender belongs to `self`, so the channel is open and waiting cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.refreshes().len()
    }

    fn refreshes(&self) -> MutexGuard<'_, HashMap<FlightKey, watch::Receiver<Option<RefreshResult>>>> {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a refresh from the map when it ends for any reason, and closes its channel afterwards.
struct FlightGuard {
    in_flight: Arc<InFlight>,
    flight: FlightKey,
    _open: watch::Sender<Option<RefreshResult>>,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        let mut refreshes = self.in_flight.refreshes();
        refreshes.remove(&self.flight);
        self.in_flight.size.store(refreshes.len(), Ordering::Release);
        drop(refreshes);
        self.in_flight.count.send_modify(|count| *count -= 1);
    }
}
