use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testing::TestClock;

const LIMIT: Duration = Duration::from_secs(20);
const MAX_AGE: Duration = Duration::from_secs(100);
const DOWN: DiscoveryError = DiscoveryError::Status(503);

/// A document, with the clock that determines its age.
struct TestCache {
    cached: Arc<Cached<u32>>,
    clock: TestClock,
    fetches: Arc<AtomicUsize>,
}

impl TestCache {
    fn new() -> Self {
        Self { cached: Arc::new(Cached::new(MAX_AGE)), clock: TestClock::new(), fetches: Arc::default() }
    }

    async fn get(
        &self,
        fetch: impl Future<Output = Result<u32, DiscoveryError>> + Send + 'static,
    ) -> Result<u32, DiscoveryError> {
        let clock = self.clock.clock();
        let terms = CallTime { now: clock.now(), clock: &clock, timeout: LIMIT };
        self.cached.get(terms, self.counted(fetch)).await.map(|document| *document)
    }

    async fn newer_than(
        &self,
        old: u32,
        fetch: impl Future<Output = Result<u32, DiscoveryError>> + Send + 'static,
    ) -> Option<u32> {
        let clock = self.clock.clock();
        let terms = CallTime { now: clock.now(), clock: &clock, timeout: LIMIT };
        let known = lock(&self.cached.state).any().filter(|known| **known == old).unwrap_or_else(|| Arc::new(old));
        self.cached.newer_than(&known, terms, self.counted(fetch)).await.map(|document| *document)
    }

    fn counted(
        &self,
        fetch: impl Future<Output = Result<u32, DiscoveryError>> + Send + 'static,
    ) -> impl Future<Output = Result<u32, DiscoveryError>> + Send + 'static {
        let fetches = Arc::clone(&self.fetches);
        async move {
            fetches.fetch_add(1, Ordering::SeqCst);
            fetch.await
        }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

async fn never() -> Result<u32, DiscoveryError> {
    panic!("nothing should be fetched");
}

#[tokio::test]
async fn a_document_is_retained_when_a_later_fetch_fails() {
    let world = TestCache::new();
    assert_eq!(world.get(async { Ok(1) }).await.unwrap(), 1);
    world.advance(99);
    assert_eq!(world.get(never()).await.unwrap(), 1);
    world.advance(1);
    assert_eq!(world.get(async { Err(DOWN) }).await.unwrap(), 1);
    world.advance(4);
    assert_eq!(world.get(never()).await.unwrap(), 1, "there is a pause after a failure");
    world.advance(1);
    assert_eq!(world.get(async { Ok(2) }).await.unwrap(), 2);
    assert_eq!(world.fetches(), 3);
}

/// The issuer has rotated its keys, and the first request for the new ones fails.
#[tokio::test]
async fn failed_early_fetch_is_repeated_after_a_pause() {
    let world = TestCache::new();
    assert_eq!(world.get(async { Ok(1) }).await.unwrap(), 1);
    assert_eq!(world.newer_than(1, async { Err(DOWN) }).await, None);
    world.advance(4);
    assert_eq!(world.newer_than(1, never()).await, None, "there is a pause after a failure");
    world.advance(1);
    assert_eq!(world.newer_than(1, async { Ok(2) }).await, Some(2));
    world.advance(59);
    assert_eq!(world.newer_than(2, never()).await, None, "the last early fetch was too recent");
    world.advance(1);
    assert_eq!(world.newer_than(2, async { Ok(3) }).await, Some(3));
}

#[tokio::test]
async fn a_document_is_fetched_when_the_clock_was_set_back() {
    let cached = Cached::new(MAX_AGE);
    let clock = Clock::new(|| Timestamp::from_unix_seconds(1000));
    let at = |seconds| CallTime { now: Timestamp::from_unix_seconds(seconds), clock: &clock, timeout: LIMIT };
    assert_eq!(*cached.get(at(1000), async { Ok(1) }).await.unwrap(), 1);
    assert_eq!(*cached.get(at(900), async { Ok(2) }).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_from_its_end() {
    let world = Arc::new(TestCache::new());
    let failing = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            world
                .get(async {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    Err(DOWN)
                })
                .await
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.advance(10);
    assert!(failing.await.unwrap().is_err());
    world.advance(4);
    assert!(matches!(world.get(never()).await, Err(DiscoveryError::Status(503))));
    world.advance(1);
    assert_eq!(world.get(async { Ok(1) }).await.unwrap(), 1);
}

/// One login a second at an issuer that never responds.
#[tokio::test(start_paused = true)]
async fn callers_wait_at_most_the_timeout_when_it_hangs() {
    let world = Arc::new(TestCache::new());
    let world_clock = world.clock.clone();
    let mut waiting = Vec::new();
    for second in 0..120 {
        let world = Arc::clone(&world);
        waiting.push(tokio::spawn(async move {
            let since = tokio::time::Instant::now();
            let outcome = world.get(pending()).await;
            assert!(matches!(outcome, Err(DiscoveryError::Timeout)), "{second}: {outcome:?}");
            since.elapsed()
        }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        world_clock.advance(Duration::from_secs(1));
    }
    let mut longest = Duration::ZERO;
    for caller in waiting {
        longest = longest.max(caller.await.unwrap());
    }
    assert!(longest <= LIMIT, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_share_one_fetch() {
    let world = TestCache::new();
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(1)
    };
    let (one, two, three) = tokio::join!(world.get(slow()), world.get(never()), world.get(never()));
    assert_eq!((one.unwrap(), two.unwrap(), three.unwrap()), (1, 1, 1));
    assert_eq!(world.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_continues_when_its_first_caller_is_dropped() {
    let world = TestCache::new();
    let slow = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(1)
    };
    assert!(timeout(Duration::from_secs(1), world.get(slow)).await.is_err(), "the caller is dropped");
    assert_eq!(world.get(never()).await.unwrap(), 1);
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_fetch_that_panicked_is_started_again() {
    let world = TestCache::new();
    assert!(matches!(world.get(never()).await, Err(DiscoveryError::Timeout)));
    assert_eq!(world.get(async { Ok(1) }).await.unwrap(), 1);
}

#[test]
fn a_fetch_whose_runtime_ended_is_started_again() {
    let world = TestCache::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let first = runtime();
    first.block_on(async {
        assert!(timeout(Duration::from_millis(10), world.get(pending())).await.is_err());
    });
    drop(first);
    assert_eq!(runtime().block_on(world.get(async { Ok(1) })).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_old_document_serves_while_a_fetch_hangs() {
    let world = TestCache::new();
    assert_eq!(world.get(async { Ok(1) }).await.unwrap(), 1);
    world.advance(100);
    let since = tokio::time::Instant::now();
    assert_eq!(world.get(pending()).await.unwrap(), 1);
    assert!(since.elapsed() <= RENEWAL_TIMEOUT);
    let since = tokio::time::Instant::now();
    assert_eq!(world.get(never()).await.unwrap(), 1);
    assert_eq!(since.elapsed(), Duration::ZERO, "the others do not wait");
}

#[tokio::test]
async fn a_document_is_replaced_early_once_a_minute() {
    let world = TestCache::new();
    world.get(async { Ok(1) }).await.unwrap();
    assert_eq!(world.newer_than(1, async { Ok(2) }).await, Some(2));
    assert_eq!(world.newer_than(1, never()).await, Some(2), "it is already there");
    world.advance(59);
    assert_eq!(world.newer_than(2, never()).await, None);
    world.advance(1);
    assert_eq!(world.newer_than(2, async { Err(DOWN) }).await, None);
    world.advance(60);
    assert_eq!(world.newer_than(2, async { Ok(3) }).await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn callers_share_one_early_fetch() {
    let world = TestCache::new();
    world.get(async { Ok(1) }).await.unwrap();
    let slow = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(2)
    };
    let (one, two) = tokio::join!(world.newer_than(1, slow), world.newer_than(1, never()));
    assert_eq!((one, two), (Some(2), Some(2)));
}
