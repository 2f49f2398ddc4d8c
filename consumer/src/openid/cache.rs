//! A document of an issuer, kept: fetched when it is first needed, fetched anew when it is old, and kept if that fails.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oauth_dance_core::Timestamp;

use super::error::DiscoveryError;

/// How long an issuer that failed is left alone. Whoever asks meanwhile gets the same error, or what was there before.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a document is fetched although it is not old, such as for keys that it lacks.
const EARLY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Cached<T> {
    max_age: Duration,
    state: Mutex<State<T>>,
    /// Held by whoever fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State<T> {
    document: Option<(Arc<T>, Timestamp)>,
    failed: Option<(DiscoveryError, Timestamp)>,
    fetched_early: Option<Timestamp>,
}

impl<T> Cached<T> {
    pub(super) fn new(max_age: Duration) -> Self {
        let state = State { document: None, failed: None, fetched_early: None };
        Self { max_age, state: Mutex::new(state), fetching: tokio::sync::Mutex::default() }
    }

    /// The document. Callers at the same time share one fetch, and do not wait for it where there is an old document.
    pub(super) async fn get(
        &self,
        now: Timestamp,
        fetch: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<Arc<T>, DiscoveryError> {
        if let Some(document) = self.state().fresh(self.max_age, now) {
            return Ok(document);
        }
        let _fetching = match self.fetching.try_lock() {
            Ok(fetching) => fetching,
            Err(_) => {
                if let Some(old) = self.state().any() {
                    return Ok(old);
                }
                self.fetching.lock().await
            }
        };
        // Somebody may have fetched it meanwhile.
        if let Some(document) = self.state().fresh(self.max_age, now) {
            return Ok(document);
        }
        self.fetch(now, fetch).await
    }

    /// A document other than this one, or `None` if it was asked for too often.
    pub(super) async fn instead_of(
        &self,
        old: &Arc<T>,
        now: Timestamp,
        fetch: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<Option<Arc<T>>, DiscoveryError> {
        let _fetching = self.fetching.lock().await;
        {
            let mut state = self.state();
            if let Some(newer) = state.any().filter(|document| !Arc::ptr_eq(document, old)) {
                return Ok(Some(newer));
            }
            if state.fetched_early.is_some_and(|at| is_within(EARLY, at, now)) {
                return Ok(None);
            }
            state.fetched_early = Some(now);
        }
        self.fetch(now, fetch).await.map(Some)
    }

    /// Fetches it, unless that has just failed. Where it fails, what was there before will do.
    async fn fetch(
        &self,
        now: Timestamp,
        fetch: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<Arc<T>, DiscoveryError> {
        let failed = self.state().failed.clone();
        let error = match failed {
            Some((error, at)) if is_within(PAUSE, at, now) => error,
            _ => match fetch.await {
                Ok(document) => {
                    let document = Arc::new(document);
                    let mut state = self.state();
                    state.failed = None;
                    state.document = Some((Arc::clone(&document), now));
                    return Ok(document);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "an issuer's document was not fetched");
                    self.state().failed = Some((error.clone(), now));
                    error
                }
            },
        };
        self.state().any().ok_or(error)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn fresh(&self, max_age: Duration, now: Timestamp) -> Option<Arc<T>> {
        let (document, at) = self.document.as_ref()?;
        is_within(max_age, *at, now).then(|| Arc::clone(document))
    }

    fn any(&self) -> Option<Arc<T>> {
        self.document.as_ref().map(|(document, _)| Arc::clone(document))
    }
}

/// Whether less than `limit` has passed. A clock that was set back says nothing.
fn is_within(limit: Duration, since: Timestamp, now: Timestamp) -> bool {
    now >= since && now.saturating_since(since) < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: DiscoveryError = DiscoveryError::Status(503);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    async fn never() -> Result<u32, DiscoveryError> {
        panic!("nothing should be fetched");
    }

    #[tokio::test]
    async fn a_document_is_fetched_once_and_kept_when_a_later_fetch_fails() {
        let cached = Cached::new(Duration::from_secs(100));
        assert_eq!(*cached.get(at(1000), async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(*cached.get(at(1099), never()).await.unwrap(), 1);
        assert_eq!(*cached.get(at(1100), async { Err(DOWN) }).await.unwrap(), 1);
        assert_eq!(*cached.get(at(1104), never()).await.unwrap(), 1, "it is left alone for a while");
        assert_eq!(*cached.get(at(1105), async { Ok(2) }).await.unwrap(), 2);
        assert_eq!(*cached.get(at(900), async { Ok(3) }).await.unwrap(), 3, "the clock was set back");
    }

    #[tokio::test]
    async fn what_was_never_there_is_an_error_until_it_is() {
        let cached = Cached::new(Duration::from_secs(100));
        assert!(cached.get(at(1000), async { Err(DOWN) }).await.is_err());
        assert!(cached.get(at(1004), never()).await.is_err());
        assert_eq!(*cached.get(at(1005), async { Ok(1) }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_a_fetch_gets_what_there_is() {
        let cached = Cached::new(Duration::from_secs(100));
        let (ready, wait) = tokio::sync::oneshot::channel();
        let first = cached.get(at(1000), async {
            wait.await.unwrap();
            Ok(1)
        });
        // Nothing is there: both get what the first one fetches.
        let second = async {
            let second = cached.get(at(1000), never());
            tokio::pin!(second);
            assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
            ready.send(()).unwrap();
            second.await
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((*first.unwrap(), *second.unwrap()), (1, 1));

        // It is old, and whoever fetches it takes for ever.
        let hanging = cached.get(at(1100), std::future::pending());
        tokio::pin!(hanging);
        assert!(tokio::time::timeout(Duration::ZERO, &mut hanging).await.is_err());
        assert_eq!(*cached.get(at(1100), never()).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_document_is_replaced_early_once_a_minute() {
        let cached = Cached::new(Duration::from_secs(1000));
        let first = cached.get(at(1000), async { Ok(1) }).await.unwrap();
        let second = cached.instead_of(&first, at(1001), async { Ok(2) }).await.unwrap().unwrap();
        assert_eq!(*second, 2);
        assert_eq!(*cached.instead_of(&first, at(1002), never()).await.unwrap().unwrap(), 2, "it is there already");
        assert!(cached.instead_of(&second, at(1060), never()).await.unwrap().is_none());
        assert_eq!(*cached.instead_of(&second, at(1061), async { Ok(3) }).await.unwrap().unwrap(), 3);
    }
}
