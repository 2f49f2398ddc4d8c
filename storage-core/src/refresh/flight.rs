//! One refresh at a time for each key in this process, in a task of its own that no caller can abort.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::RefreshError;
use crate::key::TokenKey;
use crate::storage::TokenStorage;
use crate::token::OAuth2Token;
use crate::tokens::Tokens;

pub(super) type Outcome = Result<Found, RefreshError>;

/// The token that a refresh ended with.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) token: OAuth2Token,
    /// It comes from this very refresh, rather than from the storage.
    pub(super) redeemed: bool,
}

/// The refreshes under way in this process.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<FlightKey, watch::Receiver<Option<Outcome>>>>,
    /// Counts the refreshes under way, for those who wait for the last one.
    count: watch::Sender<usize>,
}

/// A key in one storage. Storages are told apart by their address, for some live only as long as a request; holding on
/// to it keeps the address from being given to another one.
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

impl Flights {
    /// Joins the refresh of this key, or starts it. `refresh` gets a sender for its outcome; it may go on after it has
    /// told it. The channel closes once it has ended and another one can start.
    pub(super) fn join<F>(
        self: &Arc<Self>,
        tokens: &Tokens,
        key: &TokenKey,
        refresh: impl FnOnce(watch::Sender<Option<Outcome>>) -> F,
    ) -> watch::Receiver<Option<Outcome>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let flight = FlightKey::new(tokens, key);
        let mut under_way = self.under_way();
        if let Some(outcome) = under_way.get(&flight) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        under_way.insert(flight.clone(), outcome.clone());
        // A runtime that is shutting down drops the new task at once, which takes it off the list.
        drop(under_way);
        self.count.send_modify(|count| *count += 1);

        let landing = Landing { flights: Arc::clone(self), flight, _open: sender.clone() };
        let refresh = refresh(sender);
        tokio::spawn(async move {
            // Also when the refresh panics, so that the next caller starts anew.
            let _landing = landing;
            refresh.await;
        });
        outcome
    }

    /// The new token of a refresh that is not over because the storage does not take it.
    pub(super) fn kept(&self, tokens: &Tokens, key: &TokenKey) -> Option<OAuth2Token> {
        let outcome = self.under_way().get(&FlightKey::new(tokens, key))?.borrow().clone();
        outcome?.ok().filter(|found| found.redeemed).map(|found| found.token)
    }

    /// Waits until no refresh is under way.
    pub(super) async fn all_landed(&self) {
        // An error says that the sender is gone, which `self` holds.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    #[cfg(test)]
    pub(super) fn under_way_now(&self) -> usize {
        self.under_way().len()
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<FlightKey, watch::Receiver<Option<Outcome>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a refresh off the list when it ends in whatever way, and only then closes its channel.
struct Landing {
    flights: Arc<Flights>,
    flight: FlightKey,
    _open: watch::Sender<Option<Outcome>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.flight);
        self.flights.count.send_modify(|count| *count -= 1);
    }
}
