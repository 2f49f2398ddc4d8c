use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Map;
use tokio::time::{Instant, sleep, timeout};

use super::books::{Books, edit_of};
use super::process;
use super::storage::Watched;
use crate::error::TokensError;
use crate::key::TokenKey;
use crate::memory::MemoryStorage;
use crate::record::Versioned;
use crate::refresh::state::Stored;
use crate::storage::Precondition;
use crate::time::{Clock, Timestamp};
use crate::token::{Extra, Token};
use crate::tokens::Tokens;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing fails, and everything takes some time.
    Calm,
    Storm,
}

/// What is broken on purpose, around the protocol and not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// New tokens are written whatever is there.
    UnconditionalCommit,
    /// The storage compares, and swaps a moment later.
    CompareThenSwap,
    /// A process reads from a cache of its own.
    StaleReads,
    /// Claims run out before the request does.
    ShortLease,
    /// Claims are taken over at once.
    NoWait,
    /// A lost answer is asked for again with the same refresh token.
    TriesTwice,
    /// A write of the application makes the record look as if nobody refreshed it.
    ForgetsProgress,
    /// New tokens are written without what the application has changed.
    ForgetsEdits,
    /// A request leaves whatever the clock says.
    IgnoresLease,
}

/// What came of one seed, or of many.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) seeds: u64,
    pub(super) breaches: Vec<String>,
    pub(super) trace: u64,
    pub(super) calls: u64,
    pub(super) redemptions: u64,
    pub(super) replays: u64,
    pub(super) taken_over: u64,
    pub(super) adopted: u64,
    pub(super) kept: u64,
    pub(super) dropped: u64,
    pub(super) dead: u64,
    pub(super) crashes: u64,
    pub(super) edits: u64,
    pub(super) edits_during_refresh: u64,
    pub(super) suspended: u64,
    pub(super) not_sent: u64,
}

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.calls += other.calls;
        self.redemptions += other.redemptions;
        self.replays += other.replays;
        self.taken_over += other.taken_over;
        self.adopted += other.adopted;
        self.kept += other.kept;
        self.dropped += other.dropped;
        self.dead += other.dead;
        self.crashes += other.crashes;
        self.edits += other.edits;
        self.edits_during_refresh += other.edits_during_refresh;
        self.suspended += other.suspended;
        self.not_sent += other.not_sent;
    }
}

pub(super) struct World {
    pub(super) weather: Weather,
    pub(super) bug: Bug,
    pub(super) shared: MemoryStorage,
    pub(super) key: TokenKey,
    pub(super) start: Instant,
    /// Whether things go wrong at the moment.
    pub(super) stormy: AtomicBool,
    random: AtomicU64,
    books: Mutex<Books>,
}

impl World {
    pub(super) fn run(seed: u64, weather: Weather, bug: Bug) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(Self {
                weather,
                bug,
                shared: MemoryStorage::new(),
                key: TokenKey::new("example", "alice").unwrap(),
                start: Instant::now(),
                stormy: AtomicBool::new(weather == Weather::Storm),
                random: AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
                books: Mutex::default(),
            });
            world.books().is_told = std::env::var_os("OAUTH_DANCE_TRACE").is_some();
            world.login();
            process::run_all(&world).await;
            world.books().report()
        })
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// The next number of the seed (SplitMix64).
    pub(super) fn random(&self) -> u64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&self, limit: u64) -> u64 {
        self.random() % limit
    }

    /// True this many times out of a thousand, while things go wrong.
    pub(super) fn strikes(&self, per_mille: u64) -> bool {
        let drawn = self.below(1000) < per_mille;
        drawn && self.stormy.load(Ordering::SeqCst)
    }

    pub(super) fn up_to(&self, longest: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(longest.as_millis()).unwrap() + 1))
    }

    /// One way through the network.
    pub(super) async fn travel(&self) {
        let longest = if self.strikes(15) { 14_000 } else { 20 };
        sleep(self.up_to(Duration::from_millis(longest))).await;
    }

    fn clock_now(&self) -> Timestamp {
        self.clock(0).now()
    }

    pub(super) fn clock(&self, skew: i64) -> Clock {
        let start = self.start;
        let base = 1_700_000_000_u64.checked_add_signed(skew).unwrap();
        Clock::new(move || Timestamp::from_unix_seconds(base + start.elapsed().as_secs()))
    }

    /// What is in the storage this moment.
    pub(super) fn stored(&self) -> Option<Stored> {
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        ready(tokens.load(&self.key)).unwrap().map(|found| found.value)
    }

    pub(super) fn login(self: &Arc<Self>) {
        let now = self.start.elapsed();
        let token = self.books().login(now, self.clock_now());
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        ready(tokens.put(&self.key, &token.into(), Precondition::Always)).unwrap();
    }

    /// The application changes one member of the stored token, on the condition that it is still the one it read.
    pub(super) async fn edit(&self, tokens: &Tokens) -> Result<(), TokensError> {
        let Some(Versioned { value: Token::OAuth2(mut token), version }) = tokens.get(&self.key).await? else {
            return Ok(());
        };
        token.extra = Extra::from(Map::from_iter([("edit".to_owned(), (edit_of(&token) + 1).into())]));
        if self.bug == Bug::ForgetsProgress {
            tokens.save(&self.key, &Stored::idle(token.into()), Precondition::Version(version)).await?;
        } else {
            tokens.put(&self.key, &token.into(), Precondition::Version(version)).await?;
        }
        Ok(())
    }

    /// The record is sealed again, by whatever tool: the same content gets another version.
    pub(super) async fn reseal(&self, tokens: &Tokens) -> Result<(), TokensError> {
        let Some(found) = tokens.load(&self.key).await? else { return Ok(()) };
        tokens.save(&self.key, &found.value, Precondition::Version(found.version)).await?;
        Ok(())
    }

    /// Another request of the user, or an operator, writes during a refresh.
    pub(super) fn write_soon(self: &Arc<Self>) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            let times = 1 + world.below(3);
            for _ in 0..times {
                sleep(world.up_to(Duration::from_secs(1))).await;
                let tokens = Tokens::dangerous_plaintext(Watched(Arc::clone(&world)));
                // Whoever is faster wins.
                let _ = if world.below(3) == 0 { world.reseal(&tokens).await } else { world.edit(&tokens).await };
            }
        });
    }

    /// The application stores the token of a new login on the condition of what it read.
    fn login_over_what_is_there(&self) {
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        let Some(found) = ready(tokens.get(&self.key)).unwrap() else { return };
        let token = self.books().login(self.start.elapsed(), self.clock_now());
        ready(tokens.put(&self.key, &token.into(), Precondition::Version(found.version))).unwrap();
    }

    pub(super) fn logout(&self) {
        self.books().logout(self.start.elapsed());
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        ready(tokens.delete(&self.key, None)).unwrap();
    }

    /// The user comes by during a refresh.
    pub(super) fn disturb(self: &Arc<Self>) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(world.up_to(Duration::from_secs(2))).await;
            match world.below(4) {
                0 => world.logout(),
                1 => world.login(),
                2 => world.login_over_what_is_there(),
                _ => {
                    world.logout();
                    sleep(world.up_to(Duration::from_secs(300))).await;
                    world.login();
                }
            }
        });
    }

    /// Whether `work` ends within the limit; if not, that is a breach.
    pub(super) async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = T>) -> Option<T> {
        let outcome = timeout(limit, work).await.ok();
        if outcome.is_none() {
            self.breach(&format!("{what} takes longer than {limit:?}"));
        }
        outcome
    }

    pub(super) fn breach(&self, what: &str) {
        self.books().breach(self.start.elapsed(), what);
    }
}

/// The result of a future that never waits.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("the memory waits for nobody"),
    }
}
