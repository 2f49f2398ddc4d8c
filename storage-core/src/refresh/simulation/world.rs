//! The world of the simulation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Map;
use tokio::time::{Instant, sleep, timeout};

use super::oracle::{Oracle, edit_of};
use super::process;
use super::storage::ObservedStorage;
use crate::error::TokensError;
use crate::key::TokenKey;
use crate::memory::MemoryStorage;
use crate::progress::Stored;
use crate::record::Versioned;
use crate::storage::Precondition;
use crate::time::{Clock, Timestamp};
use crate::token::{Extra, Token};
use crate::tokens::Tokens;

/// Whether faults are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Faults {
    /// Nothing fails, but everything takes time.
    Off,
    On,
}

/// A deliberate bug in the surroundings of the protocol, which the oracle has to detect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// New tokens are written unconditionally.
    UnconditionalCommit,
    /// The storage compares first and swaps later.
    CompareThenSwap,
    /// Each process reads from its own cache.
    StaleReads,
    /// Leases end before the request timeout.
    ShortLease,
    /// Claims are taken over immediately.
    NoWait,
    /// The client retries with the same refresh token after a lost response.
    Retries,
    /// A write of the application erases the state of the refresh.
    LosesProgress,
    /// New tokens are written without the changes of the application.
    LosesEdits,
    /// Requests are sent after their lease has expired.
    IgnoresLease,
}

/// The result of one seed or of several.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) seeds: u64,
    pub(super) violations: Vec<String>,
    pub(super) trace: u64,
    pub(super) calls: u64,
    pub(super) redemptions: u64,
    pub(super) replays: u64,
    pub(super) taken_over: u64,
    pub(super) adopted: u64,
    pub(super) not_stored: u64,
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
        self.not_stored += other.not_stored;
        self.dropped += other.dropped;
        self.dead += other.dead;
        self.crashes += other.crashes;
        self.edits += other.edits;
        self.edits_during_refresh += other.edits_during_refresh;
        self.suspended += other.suspended;
        self.not_sent += other.not_sent;
    }
}

/// What all processes share: the storage, the provider's true state, time and chance.
pub(super) struct World {
    pub(super) faults: Faults,
    pub(super) bug: Bug,
    pub(super) shared: MemoryStorage,
    pub(super) key: TokenKey,
    pub(super) start: Instant,
    /// Whether faults are injected at the moment.
    pub(super) faults_active: AtomicBool,
    random: AtomicU64,
    oracle: Mutex<Oracle>,
}

impl World {
    pub(super) fn run(seed: u64, faults: Faults, bug: Bug) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(Self {
                faults,
                bug,
                shared: MemoryStorage::new(),
                key: TokenKey::new("example", "alice").unwrap(),
                start: Instant::now(),
                faults_active: AtomicBool::new(faults == Faults::On),
                random: AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
                oracle: Mutex::default(),
            });
            world.oracle().prints_trace = std::env::var_os("OAUTH_DANCE_TRACE").is_some();
            world.login();
            process::run_all(&world).await;
            world.oracle().report()
        })
    }

    pub(super) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap()
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

    /// Whether a fault of this probability occurs now. Always false while faults are inactive.
    pub(super) fn has_fault(&self, per_mille: u64) -> bool {
        let drawn = self.below(1000) < per_mille;
        drawn && self.faults_active.load(Ordering::SeqCst)
    }

    pub(super) fn up_to(&self, longest: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(longest.as_millis()).unwrap() + 1))
    }

    /// The latency of one direction through the network.
    pub(super) async fn network_delay(&self) {
        let longest = if self.has_fault(15) { 14_000 } else { 20 };
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

    /// The current content of the storage.
    pub(super) fn stored(&self) -> Option<Stored> {
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        ready(tokens.load(&self.key)).unwrap().map(|found| found.value)
    }

    pub(super) fn login(self: &Arc<Self>) {
        let now = self.start.elapsed();
        let token = self.oracle().login(now, self.clock_now());
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        ready(tokens.put(&self.key, &token.into(), Precondition::Always)).unwrap();
    }

    /// The application changes one member of the stored token with a conditional write.
    pub(super) async fn edit(&self, tokens: &Tokens) -> Result<(), TokensError> {
        let Some(Versioned { value: Token::OAuth2(mut token), version }) = tokens.get(&self.key).await? else {
            return Ok(());
        };
        token.extra = Extra::from(Map::from_iter([("edit".to_owned(), (edit_of(&token) + 1).into())]));
        if self.bug == Bug::LosesProgress {
            tokens.save(&self.key, &Stored::idle(token.into()), Precondition::Version(version)).await?;
        } else {
            tokens.put(&self.key, &token.into(), Precondition::Version(version)).await?;
        }
        Ok(())
    }

    /// Reseals the record, which only changes its version.
    pub(super) async fn reseal(&self, tokens: &Tokens) -> Result<(), TokensError> {
        let Some(found) = tokens.load(&self.key).await? else { return Ok(()) };
        tokens.save(&self.key, &found.value, Precondition::Version(found.version)).await?;
        Ok(())
    }

    /// Another request of the user, or an operator, writes during a refresh.
    pub(super) fn edit_soon(self: &Arc<Self>) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            let times = 1 + world.below(3);
            for _ in 0..times {
                sleep(world.up_to(Duration::from_secs(1))).await;
                let tokens = Tokens::dangerous_plaintext(ObservedStorage(Arc::clone(&world)));
                // A conflict with another writer is fine.
                let _ = if world.below(3) == 0 { world.reseal(&tokens).await } else { world.edit(&tokens).await };
            }
        });
    }

    /// The application stores the token of a new login with a conditional write.
    fn conditional_login(&self) {
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        let Some(found) = ready(tokens.get(&self.key)).unwrap() else { return };
        let token = self.oracle().login(self.start.elapsed(), self.clock_now());
        ready(tokens.put(&self.key, &token.into(), Precondition::Version(found.version))).unwrap();
    }

    pub(super) fn logout(&self) {
        self.oracle().logout(self.start.elapsed());
        let tokens = Tokens::dangerous_plaintext(self.shared.clone());
        ready(tokens.delete(&self.key, None)).unwrap();
    }

    /// The user logs in or out during a refresh.
    pub(super) fn log_in_or_out_soon(self: &Arc<Self>) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(world.up_to(Duration::from_secs(2))).await;
            match world.below(4) {
                0 => world.logout(),
                1 => world.login(),
                2 => world.conditional_login(),
                _ => {
                    world.logout();
                    sleep(world.up_to(Duration::from_secs(300))).await;
                    world.login();
                }
            }
        });
    }

    /// Runs `work` with a time limit. A timeout is a violation.
    pub(super) async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = T>) -> Option<T> {
        let outcome = timeout(limit, work).await.ok();
        if outcome.is_none() {
            self.violation(&format!("{what} takes longer than {limit:?}"));
        }
        outcome
    }

    pub(super) fn violation(&self, what: &str) {
        self.oracle().violation(self.start.elapsed(), what);
    }
}

/// Runs a future that never waits.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("the memory storage never waits"),
    }
}
