//! A document of an issuer, cached: fetched when it is first needed, fetched again when it is old, and retained if that
//! fails.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oauth_dance_core::{Clock, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::error::DiscoveryError;

/// After a failed fetch, the pause before the next one, from the end of the fetch. In the meantime, every caller gets the
/// same error, or the earlier document.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a document may be fetched successfully before it is old, for example because it lacks a key.
const EARLY: Duration = Duration::from_secs(60);
/// How long a caller waits for a newer document if an old one exists.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(3);

/// A document, with the one fetch of it that may be in progress. All callers share the fetch, and it runs in its own task,
/// so that dropping a caller's future does not abort it.
#[derive(Debug)]
pub(super) struct Cached<T> {
    max_age: Duration,
    state: Arc<Mutex<CacheState<T>>>,
}

#[derive(Debug)]
struct CacheState<T> {
    document: Option<(Arc<T>, Timestamp)>,
    failed: Option<(DiscoveryError, Timestamp)>,
    fetched_early: Option<Timestamp>,
    in_flight: Option<InFlight<T>>,
}

/// Receives the result of a fetch. It is closed if the task ended with its runtime.
type InFlight<T> = watch::Receiver<Option<Result<Arc<T>, DiscoveryError>>>;

/// The parameters of one call: the current time, the clock, and the caller's timeout.
#[derive(Clone, Copy)]
pub(super) struct CallTime<'a> {
    pub(super) now: Timestamp,
    pub(super) clock: &'a Clock,
    pub(super) timeout: Duration,
}

impl<T: Send + Sync + 'static> Cached<T> {
    pub(super) fn new(max_age: Duration) -> Self {
        let state = CacheState { document: None, failed: None, fetched_early: None, in_flight: None };
        Self { max_age, state: Arc::new(Mutex::new(state)) }
    }

    /// The document. If only an old one exists, one caller waits briefly for a newer one, and the others do not wait.
    ///
    /// # Cancel safety
    /// Dropping this future leaves the fetch to the other callers.
    pub(super) async fn get(
        &self,
        terms: CallTime<'_>,
        fetch: impl Future<Output = Result<T, DiscoveryError>> + Send + 'static,
    ) -> Result<Arc<T>, DiscoveryError> {
        let (old, in_flight) = {
            let mut state = lock(&self.state);
            if let Some(document) = state.fresh(self.max_age, terms.now) {
                return Ok(document);
            }
            let old = state.any();
            if let Some(error) = state.failure(terms.now) {
                return old.ok_or(error);
            }
            match (state.in_flight(), old) {
                (Some(_), Some(old)) => return Ok(old),
                (Some(in_flight), None) => (None, in_flight),
                (None, old) => (old, self.start(&mut state, terms, fetch)),
            }
        };
        let limit = if old.is_some() { RENEWAL_TIMEOUT.min(terms.timeout) } else { terms.timeout };
        match self.outcome(in_flight, limit).await {
            Err(error) => old.ok_or(error),
            fetched => fetched,
        }
    }

    /// A document that is newer than this one, or `None` if there is none or the last early fetch was too recent.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    pub(super) async fn newer_than(
        &self,
        old: &Arc<T>,
        terms: CallTime<'_>,
        fetch: impl Future<Output = Result<T, DiscoveryError>> + Send + 'static,
    ) -> Option<Arc<T>> {
        let in_flight = {
            let mut state = lock(&self.state);
            if let Some(newer) = state.any().filter(|document| !Arc::ptr_eq(document, old)) {
                return Some(newer);
            }
            match state.in_flight() {
                Some(in_flight) => in_flight,
                None => {
                    let is_recent = state.fetched_early.is_some_and(|at| is_within(EARLY, at, terms.now));
                    if is_recent || state.failure(terms.now).is_some() {
                        return None;
                    }
                    state.fetched_early = Some(terms.now);
                    self.start(&mut state, terms, fetch)
                }
            }
        };
        self.outcome(in_flight, terms.timeout).await.ok()
    }

    /// Starts a fetch, whose result is stored when it ends, with the time of that moment.
    fn start(
        &self,
        state: &mut CacheState<T>,
        terms: CallTime<'_>,
        fetch: impl Future<Output = Result<T, DiscoveryError>> + Send + 'static,
    ) -> InFlight<T> {
        let (sender, receiver) = watch::channel(None);
        state.in_flight = Some(receiver.clone());
        let (shared, clock, limit) = (Arc::clone(&self.state), terms.clock.clone(), terms.timeout);
        let task = async move {
            let outcome = timeout(limit, fetch).await.unwrap_or(Err(DiscoveryError::Timeout)).map(Arc::new);
            lock(&shared).end(&outcome, clock.now());
            sender.send_replace(Some(outcome));
        };
        tokio::spawn(task.in_current_span());
        receiver
    }

    /// Waits for a fetch. It has its own timeout, but a suspended runtime does not run that.
    async fn outcome(&self, mut in_flight: InFlight<T>, limit: Duration) -> Result<Arc<T>, DiscoveryError> {
        match timeout(limit, in_flight.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(DiscoveryError::Timeout)),
            Ok(Err(_)) | Err(_) => Err(DiscoveryError::Timeout),
        }
    }
}

impl<T> CacheState<T> {
    fn end(&mut self, outcome: &Result<Arc<T>, DiscoveryError>, now: Timestamp) {
        self.in_flight = None;
        match outcome {
            Ok(document) => {
                self.failed = None;
                self.document = Some((Arc::clone(document), now));
            }
            Err(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "an issuer's document could not be fetched");
                self.failed = Some((error.clone(), now));
                // An early fetch that failed may be repeated after the pause, because tokens with a new key fail until then.
                self.fetched_early = None;
            }
        }
    }

    fn fresh(&self, max_age: Duration, now: Timestamp) -> Option<Arc<T>> {
        let (document, at) = self.document.as_ref()?;
        is_within(max_age, *at, now).then(|| Arc::clone(document))
    }

    fn any(&self) -> Option<Arc<T>> {
        self.document.as_ref().map(|(document, _)| Arc::clone(document))
    }

    /// The error of the last fetch, if that failed a moment ago.
    fn failure(&self, now: Timestamp) -> Option<DiscoveryError> {
        let (error, at) = self.failed.as_ref()?;
        is_within(PAUSE, *at, now).then(|| error.clone())
    }

    /// The fetch in progress, if its task still exists.
    fn in_flight(&self) -> Option<InFlight<T>> {
        self.in_flight.as_ref().filter(|in_flight| in_flight.has_changed().is_ok()).cloned()
    }
}

fn lock<T>(state: &Mutex<CacheState<T>>) -> MutexGuard<'_, CacheState<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether less than `limit` has passed. `false` if the clock was set back.
fn is_within(limit: Duration, since: Timestamp, now: Timestamp) -> bool {
    now >= since && now.saturating_since(since) < limit
}

#[cfg(test)]
mod tests;
