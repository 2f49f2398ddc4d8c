//! A process of the application, with its crashes and suspensions.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::oracle::{TokenId, token_id};
use super::provider::Client;
use super::storage::RemoteStorage;
use super::world::{Faults, World};
use crate::refresh::{Redeem, RefreshError, Refresher};
use crate::storage::TokenStorage;
use crate::token::OAuth2Token;
use crate::tokens::Tokens;

const PROCESSES: u64 = 3;
const TASKS: u64 = 2;
const CALLS: i64 = 12;
/// The promised 80 seconds, and the slowest first read of the storage.
const MAX_CALL: Duration = Duration::from_secs(80 + 28 + 1);
const CALL_PERIOD: Duration = Duration::from_secs(1300);
const MAX_OUTAGE: Duration = Duration::from_secs(120);

/// The fate of one process: when it dies, when it is suspended, and when it cannot reach its storage.
pub(super) struct Process {
    pub(super) number: u64,
    dead: AtomicBool,
    steps_left: AtomicU64,
    died: Notify,
    outage: (Duration, Duration),
    /// Until when the process is suspended.
    suspended_until: Mutex<Duration>,
    world: Arc<World>,
}

impl Process {
    fn new(world: &Arc<World>, number: u64) -> Self {
        let steps = if world.has_fault(500) { 1 + world.below(200) } else { u64::MAX };
        let from = world.start.elapsed() + world.up_to(Duration::from_secs(3600));
        let long = if world.has_fault(500) { world.up_to(MAX_OUTAGE) } else { Duration::ZERO };
        Self {
            number,
            dead: AtomicBool::new(false),
            steps_left: AtomicU64::new(steps),
            died: Notify::new(),
            outage: (from, from + long),
            suspended_until: Mutex::default(),
            world: Arc::clone(world),
        }
    }

    /// Suspends the process at random before its request leaves, for longer than a lease. Returns the time.
    pub(super) fn suspend(&self, id: TokenId) -> Duration {
        if !self.world.has_fault(60) {
            return Duration::ZERO;
        }
        let (now, time) = (self.world.start.elapsed(), Duration::from_secs(20 + self.world.below(60)));
        self.world.oracle().suspended(now, id);
        *self.suspended_until.lock().unwrap() = now + time;
        time
    }

    /// Waits while the process is suspended. Never returns if the process is dead, or dies in this step.
    pub(super) async fn step(&self) {
        let suspended = self.suspended_until.lock().unwrap().saturating_sub(self.world.start.elapsed());
        sleep(suspended).await;
        if self.steps_left.fetch_sub(1, Ordering::SeqCst) == 1 && self.world.faults_active.load(Ordering::SeqCst) {
            self.dead.store(true, Ordering::SeqCst);
            self.world.oracle().crashed(self.world.start.elapsed(), self.number);
            self.died.notify_one();
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn die_soon(&self, steps: u64) {
        self.steps_left.store(1 + steps, Ordering::SeqCst);
    }

    pub(super) fn is_cut_off(&self, now: Duration) -> bool {
        self.world.faults_active.load(Ordering::SeqCst) && (self.outage.0..self.outage.1).contains(&now)
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// The application in one process. Clones are its tasks.
#[derive(Clone)]
struct App {
    world: Arc<World>,
    process: Arc<Process>,
    refresher: Refresher,
    tokens: Tokens,
    provider: Arc<dyn Redeem>,
}

impl App {
    fn new(world: &Arc<World>, number: u64) -> Self {
        let process = Arc::new(Process::new(world, number));
        let skew = i64::try_from(world.below(1201)).unwrap() - 600;
        let clock = world.clock(skew);
        let (observer, observed) = (Arc::clone(world), Arc::clone(&process));
        let mut refresher = Refresher::new().with_clock(clock.clone()).with_observer(move |_, event| {
            if !observed.is_dead() {
                let stored = observer.stored();
                observer.oracle().observed(observer.start.elapsed(), observed.number, event, stored.as_ref());
            }
        });
        let random = Arc::clone(world);
        refresher.policy = refresher.policy.with_random(move || random.random());
        let storage =
            RemoteStorage { world: Arc::clone(world), process: Arc::clone(&process), cache: Mutex::default() };
        Self {
            world: Arc::clone(world),
            process: Arc::clone(&process),
            refresher,
            tokens: Tokens::dangerous_plaintext(Arc::new(storage) as Arc<dyn TokenStorage>),
            provider: Arc::new(Client { world: Arc::clone(world), process, clock }),
        }
    }

    async fn usable(&self) -> Result<OAuth2Token, RefreshError> {
        self.refresher.usable(&self.tokens, &self.world.key, &self.provider).await
    }

    async fn refresh_rejected(&self, token: &OAuth2Token) -> Result<OAuth2Token, RefreshError> {
        self.refresher.refresh_rejected(&token.access_token, &self.tokens, &self.world.key, &self.provider).await
    }

    /// One call of the application. Some callers drop it early.
    async fn call(&self) {
        let work = async {
            let used = self.usable().await?;
            if self.world.oracle().accepts(self.world.start.elapsed(), &used) {
                return Ok(used);
            }
            self.world.oracle().note(self.world.start.elapsed(), (self.process.number, "rejected", token_id(&used)));
            self.refresh_rejected(&used).await
        };
        match self.world.below(12) {
            0 => drop(self.world.edit(&self.tokens).await),
            1 => drop(self.world.reseal(&self.tokens).await),
            _ => {}
        }
        let max_wait = if self.world.has_fault(100) { self.world.up_to(Duration::from_secs(5)) } else { MAX_CALL * 3 };
        let outcome = timeout(max_wait, self.world.within(MAX_CALL * 2, "a call", work)).await;
        if let (Ok(Some(Err(error))), Faults::Off) = (outcome, self.world.faults) {
            self.world.violation(&format!("a call fails: {error}"));
        }
    }

    /// The pause until the next call. The calls of several processes often coincide.
    fn pause(&self) -> Duration {
        if self.world.below(3) == 0 {
            return self.world.up_to(CALL_PERIOD);
        }
        let into = Duration::from_secs(self.world.start.elapsed().as_secs() % CALL_PERIOD.as_secs());
        CALL_PERIOD - into + self.world.up_to(Duration::from_secs(2))
    }

    async fn run(&self, calls: &Arc<AtomicI64>) {
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (process, calls) = (self.clone(), Arc::clone(calls));
            tasks.spawn(async move {
                while calls.fetch_sub(1, Ordering::SeqCst) > 0 {
                    sleep(process.pause()).await;
                    process.call().await;
                }
            });
        }
        tokio::select! {
            biased;
            () = self.process.died.notified() => {}
            () = async { while tasks.join_next().await.is_some() {} } => {}
        }
    }
}

/// Runs all processes with their crashes and restarts, then ends the faults and checks the final state.
pub(super) async fn run_all(world: &Arc<World>) {
    let mut slots = JoinSet::new();
    let numbers = Arc::new(AtomicU64::new(0));
    for _ in 0..PROCESSES {
        let (world, numbers) = (Arc::clone(world), Arc::clone(&numbers));
        slots.spawn(async move {
            let calls = Arc::new(AtomicI64::new(CALLS));
            let mut runs = Vec::new();
            loop {
                let process = App::new(&world, numbers.fetch_add(1, Ordering::SeqCst));
                process.run(&calls).await;
                let crashed = process.process.is_dead();
                runs.push(process);
                if !crashed {
                    return runs;
                }
                sleep(world.up_to(Duration::from_secs(60))).await;
            }
        });
    }
    let mut apps = Vec::new();
    while let Some(runs) = slots.join_next().await {
        apps.extend(runs.unwrap());
    }

    world.faults_active.store(false, Ordering::SeqCst);
    // All requests in transit arrive.
    sleep(Duration::from_secs(400)).await;
    for process in apps.iter().filter(|process| !process.process.is_dead()) {
        world.within(Duration::from_secs(300), "finishing", process.refresher.finish()).await;
    }
    let is_alive = |number| apps.iter().any(|process| process.process.number == number && !process.process.is_dead());
    let stored = world.stored();
    world.oracle().check_received(world.start.elapsed(), stored.as_ref(), is_alive);
    check_end_state(world, &App::new(world, u64::MAX)).await;
}

/// Checks that the login still works, was logged out, or was lost for a reported reason.
async fn check_end_state(world: &Arc<World>, process: &App) {
    world.oracle().is_finished = true;
    let mut outcome = Err(RefreshError::Busy);
    for _ in 0..60 {
        outcome = match process.usable().await {
            Ok(token) => process.refresh_rejected(&token).await,
            failed => failed,
        };
        match outcome {
            Err(RefreshError::BackingOff { .. } | RefreshError::Busy) => sleep(Duration::from_secs(60)).await,
            _ => break,
        }
    }
    let now = world.start.elapsed();
    let current = world.oracle().current();
    match outcome {
        Ok(token) if Some(token_id(&token).0) == current && world.oracle().accepts(now, &token) => {}
        Err(RefreshError::NotConnected) if current.is_none() => {}
        Err(RefreshError::NeedsAuthorization { .. }) if current.is_some() => world.oracle().check_death(now),
        outcome => world.violation(&format!("the final outcome is {outcome:?}, but the current login is {current:?}")),
    }
}
