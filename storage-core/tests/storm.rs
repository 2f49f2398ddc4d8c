//! Many requests at once: on one expired token, and on many tokens that expire in the same second at a provider that
//! limits the rate. Counts on a virtual clock; `--nocapture` prints the waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Clock, Due, Filter, Lease, MemoryStorage, OAuth2Token, Page, PageRequest, Precondition, Record,
    Redeem, RedeemError, RefreshError, Refresher, StorageError, Timestamp, TokenKey, TokenStorage, Tokens, Version,
    Versioned,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

const LIFE: Duration = Duration::from_secs(3600);
/// How long a call of the storage takes.
const STORAGE: Duration = Duration::from_millis(1);
/// How long a call of the provider takes.
const PROVIDER: Duration = Duration::from_millis(50);
/// How many requests the provider accepts in a second.
const LIMIT: u32 = 100;

/// A clock that advances with tokio's.
#[derive(Clone, Copy)]
struct Time(Instant);

impl Time {
    fn clock(self) -> Clock {
        Clock::new(move || self.now())
    }

    fn now(self) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + self.0.elapsed().as_secs())
    }

    /// When this instant of the clock comes.
    fn instant(self, at: Timestamp) -> Instant {
        self.0 + Duration::from_secs(at.as_unix_seconds() - 1_700_000_000)
    }
}

/// A storage that counts.
#[derive(Clone, Default)]
struct Counted {
    memory: MemoryStorage,
    reads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl Counted {
    /// Reads and writes since the last call.
    fn take(&self) -> (usize, usize) {
        (self.reads.swap(0, Ordering::SeqCst), self.writes.swap(0, Ordering::SeqCst))
    }
}

#[async_trait]
impl TokenStorage for Counted {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        sleep(STORAGE).await;
        self.memory.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        sleep(STORAGE).await;
        self.memory.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.memory.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.memory.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.memory.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }
}

/// A provider that rotates refresh tokens.
struct Provider {
    time: Time,
    is_limited: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: usize,
    refused: usize,
    in_flight: usize,
    most_in_flight: usize,
    /// The second of the last requests, and how many were accepted in it.
    second: (u64, u32),
    spent: HashSet<String>,
    replays: usize,
}

impl Provider {
    fn new(is_limited: bool) -> Arc<Self> {
        Arc::new(Self { time: Time(Instant::now()), is_limited, state: Mutex::default() })
    }

    fn token(&self, user: &str, generation: u32) -> OAuth2Token {
        let mut token = OAuth2Token::bearer(format!("access {user} {generation}"));
        token.refresh_token = Some(format!("{user} {generation}").into());
        token.expires_at = Some(self.time.now().saturating_add(LIFE));
        token.issued_at = Some(self.time.now());
        token
    }

    /// Whether the limit refuses a request.
    fn refuses(&self, state: &mut State) -> bool {
        let second = self.time.0.elapsed().as_secs();
        if state.second.0 != second {
            state.second = (second, 0);
        }
        state.second.1 += 1;
        self.is_limited && state.second.1 > LIMIT
    }
}

#[async_trait]
impl Redeem for Provider {
    async fn redeem(&self, token: &OAuth2Token, _: &Lease) -> Result<OAuth2Token, RedeemError> {
        let refused = {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            state.in_flight += 1;
            state.most_in_flight = state.most_in_flight.max(state.in_flight);
            let refused = self.refuses(&mut state);
            state.refused += usize::from(refused);
            refused
        };
        sleep(PROVIDER).await;
        let mut state = self.state.lock().unwrap();
        state.in_flight -= 1;
        if refused {
            let retry_after = Some(Duration::from_secs(1));
            return Err(RedeemError::NotRedeemed { cause: "429".to_owned(), retry_after });
        }
        let sent = token.refresh_token.as_ref().unwrap().expose().to_owned();
        let (user, generation) = sent.split_once(' ').unwrap();
        let new = self.token(user, generation.parse::<u32>().unwrap() + 1);
        if !state.spent.insert(sent) {
            state.replays += 1;
        }
        Ok(new)
    }

    async fn revoke(&self, _: &OAuth2Token) {
        panic!("no token is revoked here");
    }
}

fn key(user: usize) -> TokenKey {
    TokenKey::new("example", format!("user{user}")).unwrap()
}

/// Users whose tokens have just expired.
async fn expired(provider: &Provider, storage: &Counted, users: usize) -> Tokens {
    let tokens = Tokens::dangerous_plaintext(storage.clone());
    for user in 0..users {
        let token = provider.token(&format!("user{user}"), 0);
        // Without the storage's pause, so that all tokens expire in the same second.
        let sealed = tokens.clone().with_storage(Arc::new(storage.memory.clone()));
        sealed.put(&key(user), &token.into(), Precondition::Always).await.unwrap();
    }
    tokio::time::advance(LIFE).await;
    tokens
}

/// The median and the 99th percentile.
fn percentiles(mut waits: Vec<Duration>) -> [Duration; 2] {
    waits.sort();
    [waits[waits.len() / 2], waits[waits.len() * 99 / 100]]
}

/// A thousand requests, in so many processes, on one expired token.
async fn on_one_token(processes: usize) -> (usize, usize) {
    let (provider, storage) = (Provider::new(false), Counted::default());
    let tokens = expired(&provider, &storage, 1).await;
    let refreshers: Vec<_> = (0..processes).map(|_| Refresher::new().with_clock(provider.time.clock())).collect();
    let mut requests = JoinSet::new();
    for request in 0..1_000 {
        let (refresher, tokens) = (refreshers[request % processes].clone(), tokens.clone());
        let provider = Arc::clone(&provider) as Arc<dyn Redeem>;
        requests.spawn(async move {
            let start = Instant::now();
            let token = refresher.usable(&tokens, &key(0), &provider).await.unwrap();
            assert_eq!(token.access_token.expose(), "access user0 1");
            start.elapsed()
        });
    }
    let [median, last] = percentiles(requests.join_all().await);
    let (reads, writes) = storage.take();
    println!("1,000 requests in {processes} processes: {reads} reads, {writes} writes, waits {median:?} and {last:?}");
    let state = provider.state.lock().unwrap();
    assert_eq!((state.calls, state.replays), (1, 0));
    (reads, writes)
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_cause_one_refresh() {
    // Each request reads the token, and the refresh reads it once more, claims it and stores its successor.
    assert_eq!(on_one_token(1).await, (1_001, 2));
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_of_eight_processes_cause_one_refresh() {
    let (reads, writes) = on_one_token(8).await;
    // The other seven processes try to claim it at the same time, and then wait together, with a few reads each.
    assert!(reads <= 1_000 + 8 * 10, "{reads} reads");
    assert!(writes <= 1 + 8, "{writes} writes");
}

/// 10,000 users come back at once, and each comes again when the error says that a retry makes sense.
#[tokio::test(start_paused = true)]
async fn ten_thousand_expired_tokens_wait_for_the_limit() {
    const USERS: usize = 10_000;

    let (provider, storage) = (Provider::new(true), Counted::default());
    let tokens = expired(&provider, &storage, USERS).await;
    let refresher = Refresher::new().with_clock(provider.time.clock());
    let mut requests = JoinSet::new();
    for user in 0..USERS {
        let (refresher, tokens, provider) = (refresher.clone(), tokens.clone(), Arc::clone(&provider));
        requests.spawn(async move {
            let start = Instant::now();
            let redeem = Arc::clone(&provider) as Arc<dyn Redeem>;
            loop {
                match refresher.usable(&tokens, &key(user), &redeem).await {
                    Ok(_) => return start.elapsed(),
                    Err(RefreshError::BackingOff { until, .. }) => sleep_until(provider.time.instant(until)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let [median, last] = percentiles(requests.join_all().await);
    refresher.finish().await;
    let (reads, writes) = storage.take();
    let state = provider.state.lock().unwrap();
    println!(
        "10,000 tokens, {LIMIT} a second: {} calls, {} of them refused, {reads} reads, {writes} writes, waits {median:?} and {last:?}",
        state.calls, state.refused
    );
    assert_eq!((state.spent.len(), state.replays), (USERS, 0), "each refresh token is spent once");
    assert_eq!(state.calls, USERS + state.refused);
    assert!(state.calls <= 10 * USERS, "{} calls: those that are refused have to spread", state.calls);
    // A try reads twice and writes twice: the claim, and its outcome.
    assert_eq!((reads, writes), (2 * state.calls, 2 * state.calls));
}

/// A job refreshes them at the rate of the limit: nothing is refused, and hardly anything is in flight.
#[tokio::test(start_paused = true)]
async fn ten_thousand_due_tokens_are_refreshed_within_the_limit() {
    const USERS: usize = 10_000;

    let (provider, storage) = (Provider::new(true), Counted::default());
    let tokens = expired(&provider, &storage, USERS).await;
    let refresher = Refresher::new().with_clock(provider.time.clock());
    let due = Due::expiring_within(Duration::from_secs(60)).with_rate(LIMIT);
    let start = Instant::now();
    let redeem = Arc::clone(&provider) as Arc<dyn Redeem>;
    let report = refresher.refresh_due(&tokens, &due, |_| Some(Arc::clone(&redeem))).await.unwrap();
    let (reads, writes) = storage.take();
    let state = provider.state.lock().unwrap();
    println!(
        "10,000 due tokens, {LIMIT} a second: {} calls, {reads} reads, {writes} writes, {:?}",
        state.calls,
        start.elapsed()
    );
    assert_eq!(report.refreshed, USERS as u64, "{report:?}");
    assert_eq!((state.calls, state.refused, state.replays), (USERS, 0, 0));
    assert!(state.most_in_flight <= 8, "{} in flight", state.most_in_flight);
    assert_eq!((reads, writes), (2 * USERS, 2 * USERS));
}
