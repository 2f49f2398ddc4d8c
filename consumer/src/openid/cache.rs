//! A document of an issuer, kept: fetched when it is first needed, fetched anew when it is old, and kept if that fails.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::Timestamp;
use tokio::sync::Mutex;

use super::error::DiscoveryError;

/// How long an issuer that failed is left alone. Whoever asks meanwhile gets the same error, or what was there before.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a document is fetched although it is not old, such as for keys that it lacks.
const EARLY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Cached<T> {
    max_age: Duration,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    document: Option<(Arc<T>, Timestamp)>,
    failed: Option<(DiscoveryError, Timestamp)>,
    fetched_early: Option<Timestamp>,
}

impl<T> Cached<T> {
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, state: Mutex::new(State { document: None, failed: None, fetched_early: None }) }
    }

    /// The document. Callers at the same time share one fetch.
    pub(super) async fn get(
        &self,
        now: Timestamp,
        fetch: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<Arc<T>, DiscoveryError> {
        let mut state = self.state.lock().await;
        match &state.document {
            Some((document, at)) if is_within(self.max_age, *at, now) => return Ok(Arc::clone(document)),
            _ => {}
        }
        state.fetch(now, fetch).await
    }

    /// A document other than this one, or `None` if it was asked for too often.
    pub(super) async fn instead_of(
        &self,
        old: &Arc<T>,
        now: Timestamp,
        fetch: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<Option<Arc<T>>, DiscoveryError> {
        let mut state = self.state.lock().await;
        match &state.document {
            Some((document, _)) if !Arc::ptr_eq(document, old) => return Ok(Some(Arc::clone(document))),
            _ => {}
        }
        if state.fetched_early.is_some_and(|at| is_within(EARLY, at, now)) {
            return Ok(None);
        }
        state.fetched_early = Some(now);
        state.fetch(now, fetch).await.map(Some)
    }
}

impl<T> State<T> {
    async fn fetch(
        &mut self,
        now: Timestamp,
        fetch: impl Future<Output = Result<T, DiscoveryError>>,
    ) -> Result<Arc<T>, DiscoveryError> {
        let error = match &self.failed {
            Some((error, at)) if is_within(PAUSE, *at, now) => error.clone(),
            _ => match fetch.await {
                Ok(document) => {
                    let document = Arc::new(document);
                    self.failed = None;
                    self.document = Some((Arc::clone(&document), now));
                    return Ok(document);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "an issuer's document was not fetched");
                    self.failed = Some((error.clone(), now));
                    error
                }
            },
        };
        self.document.as_ref().map(|(document, _)| Arc::clone(document)).ok_or(error)
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
