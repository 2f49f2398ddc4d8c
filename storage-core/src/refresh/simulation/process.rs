use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::books::{Link, link_of};
use super::provider::Client;
use super::storage::Way;
use super::world::{Weather, World};
use crate::refresh::{Redeem, RefreshError, Refresher};
use crate::storage::TokenStorage;
use crate::token::OAuth2Token;
use crate::tokens::Tokens;

const PROCESSES: u64 = 3;
const TASKS: u64 = 2;
const CALLS: i64 = 12;
/// The promised 80 seconds, and the slowest first look at the storage.
const LONGEST_CALL: Duration = Duration::from_secs(80 + 28 + 1);
const RENDEZVOUS: Duration = Duration::from_secs(1300);
const LONGEST_OUTAGE: Duration = Duration::from_secs(120);

/// How long one process lives, and when it reaches its storage.
pub(super) struct Life {
    pub(super) number: u64,
    dead: AtomicBool,
    steps_left: AtomicU64,
    died: Notify,
    outage: (Duration, Duration),
    /// Until when it stands still.
    asleep_until: Mutex<Duration>,
    world: Arc<World>,
}

impl Life {
    fn new(world: &Arc<World>, number: u64) -> Self {
        let steps = if world.strikes(500) { 1 + world.below(200) } else { u64::MAX };
        let from = world.start.elapsed() + world.up_to(Duration::from_secs(3600));
        let long = if world.strikes(500) { world.up_to(LONGEST_OUTAGE) } else { Duration::ZERO };
        Self {
            number,
            dead: AtomicBool::new(false),
            steps_left: AtomicU64::new(steps),
            died: Notify::new(),
            outage: (from, from + long),
            asleep_until: Mutex::default(),
            world: Arc::clone(world),
        }
    }

    /// How long the process stands still from now on, mostly not at all: longer than a lease, before its request leaves.
    pub(super) fn is_suspended(&self, link: Link) -> Duration {
        if !self.world.strikes(60) {
            return Duration::ZERO;
        }
        let (now, time) = (self.world.start.elapsed(), Duration::from_secs(20 + self.world.below(60)));
        self.world.books().suspended(now, link);
        *self.asleep_until.lock().unwrap() = now + time;
        time
    }

    /// Ends here for ever if the process is dead, or dies of this step. Waits while it stands still.
    pub(super) async fn step(&self) {
        let asleep = self.asleep_until.lock().unwrap().saturating_sub(self.world.start.elapsed());
        sleep(asleep).await;
        if self.steps_left.fetch_sub(1, Ordering::SeqCst) == 1 && self.world.stormy.load(Ordering::SeqCst) {
            self.dead.store(true, Ordering::SeqCst);
            self.world.books().crashed(self.world.start.elapsed(), self.number);
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
        self.world.stormy.load(Ordering::SeqCst) && (self.outage.0..self.outage.1).contains(&now)
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// One process between its start and its crash. Clones are its tasks.
#[derive(Clone)]
struct Process {
    world: Arc<World>,
    life: Arc<Life>,
    refresher: Refresher,
    tokens: Tokens,
    provider: Arc<dyn Redeem>,
}

impl Process {
    fn new(world: &Arc<World>, number: u64) -> Self {
        let life = Arc::new(Life::new(world, number));
        let skew = i64::try_from(world.below(1201)).unwrap() - 600;
        let clock = world.clock(skew);
        let (observer, observed) = (Arc::clone(world), Arc::clone(&life));
        let mut refresher = Refresher::new().with_clock(clock.clone()).with_observer(move |_, event| {
            if !observed.is_dead() {
                let stored = observer.stored();
                observer.books().observed(observer.start.elapsed(), observed.number, event, stored.as_ref());
            }
        });
        let random = Arc::clone(world);
        refresher.policy = refresher.policy.with_random(move || random.random());
        let way = Way { world: Arc::clone(world), life: Arc::clone(&life), cache: Mutex::default() };
        Self {
            world: Arc::clone(world),
            life: Arc::clone(&life),
            refresher,
            tokens: Tokens::dangerous_plaintext(Arc::new(way) as Arc<dyn TokenStorage>),
            provider: Arc::new(Client { world: Arc::clone(world), life, clock }),
        }
    }

    async fn usable(&self) -> Result<OAuth2Token, RefreshError> {
        self.refresher.usable(&self.tokens, &self.world.key, &self.provider).await
    }

    async fn instead_of(&self, token: &OAuth2Token) -> Result<OAuth2Token, RefreshError> {
        self.refresher.instead_of(&token.access_token, &self.tokens, &self.world.key, &self.provider).await
    }

    /// One call of the application, which some callers do not wait for.
    async fn call(&self) {
        let work = async {
            let used = self.usable().await?;
            if self.world.books().accepts(self.world.start.elapsed(), &used) {
                return Ok(used);
            }
            self.world.books().note(self.world.start.elapsed(), (self.life.number, "rejected", link_of(&used)));
            self.instead_of(&used).await
        };
        match self.world.below(12) {
            0 => drop(self.world.edit(&self.tokens).await),
            1 => drop(self.world.reseal(&self.tokens).await),
            _ => {}
        }
        let patience =
            if self.world.strikes(100) { self.world.up_to(Duration::from_secs(5)) } else { LONGEST_CALL * 3 };
        let outcome = timeout(patience, self.world.within(LONGEST_CALL * 2, "a call", work)).await;
        if let (Ok(Some(Err(error))), Weather::Calm) = (outcome, self.world.weather) {
            self.world.breach(&format!("a call fails: {error}"));
        }
    }

    /// Until the next call: often when the others come too.
    fn pause(&self) -> Duration {
        if self.world.below(3) == 0 {
            return self.world.up_to(RENDEZVOUS);
        }
        let into = Duration::from_secs(self.world.start.elapsed().as_secs() % RENDEZVOUS.as_secs());
        RENDEZVOUS - into + self.world.up_to(Duration::from_secs(2))
    }

    async fn live(&self, calls: &Arc<AtomicI64>) {
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
            () = self.life.died.notified() => {}
            () = async { while tasks.join_next().await.is_some() {} } => {}
        }
    }
}

/// Runs every process with its crashes and restarts, lets the storm pass, and looks at what is left.
pub(super) async fn run_all(world: &Arc<World>) {
    let mut slots = JoinSet::new();
    let numbers = Arc::new(AtomicU64::new(0));
    for _ in 0..PROCESSES {
        let (world, numbers) = (Arc::clone(world), Arc::clone(&numbers));
        slots.spawn(async move {
            let calls = Arc::new(AtomicI64::new(CALLS));
            let mut lives = Vec::new();
            loop {
                let process = Process::new(&world, numbers.fetch_add(1, Ordering::SeqCst));
                process.live(&calls).await;
                let crashed = process.life.is_dead();
                lives.push(process);
                if !crashed {
                    return lives;
                }
                sleep(world.up_to(Duration::from_secs(60))).await;
            }
        });
    }
    let mut processes = Vec::new();
    while let Some(lives) = slots.join_next().await {
        processes.extend(lives.unwrap());
    }

    world.stormy.store(false, Ordering::SeqCst);
    // Whatever the network still carries arrives.
    sleep(Duration::from_secs(400)).await;
    for process in processes.iter().filter(|process| !process.life.is_dead()) {
        world.within(Duration::from_secs(300), "finishing", process.refresher.finish()).await;
    }
    let is_alive = |number| processes.iter().any(|process| process.life.number == number && !process.life.is_dead());
    let stored = world.stored();
    world.books().check_received(world.start.elapsed(), stored.as_ref(), is_alive);
    look_at_what_is_left(world, &Process::new(world, u64::MAX)).await;
}

/// The login must still work, be gone, or have a name.
async fn look_at_what_is_left(world: &Arc<World>, process: &Process) {
    world.books().is_over = true;
    let mut outcome = Err(RefreshError::Busy);
    for _ in 0..60 {
        outcome = match process.usable().await {
            Ok(token) => process.instead_of(&token).await,
            failed => failed,
        };
        match outcome {
            Err(RefreshError::BackingOff { .. } | RefreshError::Busy) => sleep(Duration::from_secs(60)).await,
            _ => break,
        }
    }
    let now = world.start.elapsed();
    let current = world.books().current();
    match outcome {
        Ok(token) if Some(link_of(&token).0) == current && world.books().accepts(now, &token) => {}
        Err(RefreshError::NotConnected) if current.is_none() => {}
        Err(RefreshError::NeedsAuthorization { .. }) if current.is_some() => world.books().check_death(now),
        outcome => world.breach(&format!("at the end there is {outcome:?}, and the login is {current:?}")),
    }
}
