use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use oauth_dance_core::random_bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::harness::{Harness, HarnessResult};
use crate::outcome::{PropertyResult, Stop, UNEXPECTED};
use crate::recorder::Log;
use crate::report::Report;
use crate::tested_storage::TestedStorage;

/// How long a maker, or a harness that cleans up, may take.
const SET_UP: Duration = Duration::from_secs(60);
/// Before the text of a panic in a property.
const PANICKED: &str = "the property panicked: ";
/// Before the time after which a property had not ended.
const NOT_DONE: &str = "the property was not done after ";
/// How many properties run at a time, unless libtest is given another number of threads.
pub(crate) const SIDE_BY_SIDE: usize = 8;

/// One promise of a storage, with the name of the function that checks it.
#[derive(Clone, Copy)]
pub struct Property {
    /// The module it is in: what it is about.
    pub group: &'static str,
    /// The function's name.
    pub name: &'static str,
    /// The properties that this one takes for granted, besides those of its group.
    pub(crate) rests_on: &'static [&'static str],
    pub(crate) check: Check,
}

pub(crate) type Check = fn(Arc<TestedStorage>) -> Pin<Box<dyn Future<Output = PropertyResult> + Send>>;

impl Property {
    /// Tries this property on a fresh harness, and waits for it at most as long as the harness has
    /// [patience](Harness::patience). Panics of the storage, and calls that never return, are failures.
    pub fn run<M, F, H>(&self, maker: M) -> PropertyResult
    where
        M: FnOnce() -> F,
        F: Future<Output = HarnessResult<H>> + Send + 'static,
        H: Harness,
    {
        self.run_in_turn(maker(), None)
    }

    fn run_in_turn<H: Harness>(
        &self,
        making: impl Future<Output = HarnessResult<H>> + Send + 'static,
        turn: Option<OwnedSemaphorePermit>,
    ) -> PropertyResult {
        let seed = seed();
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        let outcome = self.run_on(&runtime, making, seed, turn);
        // A storage that blocks a thread indefinitely must not block the suite.
        runtime.shutdown_background();
        outcome
    }

    fn run_on<H: Harness>(
        &self,
        runtime: &Runtime,
        making: impl Future<Output = HarnessResult<H>> + Send + 'static,
        seed: u64,
        turn: Option<OwnedSemaphorePermit>,
    ) -> PropertyResult {
        let made = wait(runtime, SET_UP, "the maker of the harness", making)?;
        let harness = made?;
        let patience = harness.patience();
        let subject = Arc::new(TestedStorage::new(harness, seed));
        subject.take_turn(turn);
        let outcome = wait(runtime, patience, "the property", (self.check)(Arc::clone(&subject)))
            .and_then(std::convert::identity);
        let outcome = outcome.map_err(|stop| match stop {
            Stop::Failed(why) => {
                let (why, calls) = (headline(&why, subject.log()), subject.log().last_calls());
                let calls = if calls.is_empty() { calls } else { format!("\nThe last calls were:{calls}") };
                Stop::Failed(format!("{why}{calls}\nThe same choices again: CONFORMANCE_SEED={seed}"))
            }
            other => other,
        });
        wait(runtime, SET_UP, "cleaning up", async move { subject.harness().clean_up().await })?;
        outcome
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

/// Tries every property, several side by side, each on a fresh harness. A property that only waits for time to pass lets
/// others run meanwhile.
///
/// [`conformance_tests!`](crate::conformance_tests) does the same with one test a property.
pub fn run_all<M, F, H>(name: &str, maker: M) -> Report
where
    M: Fn() -> F,
    F: Future<Output = HarnessResult<H>> + Send + 'static,
    H: Harness,
{
    let report = Mutex::new(Report::new(name));
    let all: Vec<_> = crate::PROPERTIES.iter().collect();
    side_by_side(&all, SIDE_BY_SIDE, maker, |property, outcome, took| {
        report.lock().unwrap_or_else(PoisonError::into_inner).add(property, outcome, took);
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tries properties, at most so many at a time, and reports each outcome as it comes.
pub(crate) fn side_by_side<M, F, H>(
    properties: &[&Property],
    at_once: usize,
    maker: M,
    done: impl Fn(&Property, PropertyResult, Duration) + Sync,
) where
    M: Fn() -> F,
    F: Future<Output = HarnessResult<H>> + Send + 'static,
    H: Harness,
{
    let turns = Arc::new(Semaphore::new(at_once));
    thread::scope(|scope| {
        for property in properties {
            let Some(turn) = next_turn(&turns) else { return };
            let (making, done) = (maker(), &done);
            scope.spawn(move || {
                let begun = Instant::now();
                let outcome = property.run_in_turn(making, Some(turn));
                done(property, outcome, begun.elapsed());
            });
        }
    });
}

fn next_turn(turns: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let runtime = Builder::new_current_thread().build().ok()?;
    runtime.block_on(Arc::clone(turns).acquire_owned()).ok()
}

/// What a failure says first: an error, a panic or a timeout with the call that it came from.
fn headline(why: &str, log: &Log) -> String {
    if let Some(error) = why.strip_prefix(UNEXPECTED) {
        return match log.call_with_error(error) {
            Some(call) => format!("{call} returned an error: {error}"),
            None => match log.panicked() {
                Some(call) if error.contains("panicked") => format!("{call}: {error}"),
                _ => why.to_owned(),
            },
        };
    }
    if let Some(panic) = why.strip_prefix(PANICKED) {
        return log.panicked().map_or_else(|| why.to_owned(), |call| format!("{call} panicked: {panic}"));
    }
    if let Some(time) = why.strip_prefix(NOT_DONE) {
        return log.in_flight().map_or_else(|| why.to_owned(), |call| format!("{call} did not return within {time}"));
    }
    why.to_owned()
}

/// Runs one task, and reports a panic and a task that does not end as failures.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    patience: Duration,
    what: &str,
    task: impl Future<Output = T> + Send + 'static,
) -> PropertyResult<T> {
    let task = runtime.spawn(task);
    match runtime.block_on(async { tokio::time::timeout(patience, task).await }) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Stop::Failed(format!("{what} panicked: {}", panic_text(error)))),
        Err(_) => Err(Stop::Failed(format!("{what} was not done after {patience:?}"))),
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "cancelled".to_owned() };
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// What random choices are made from: `CONFORMANCE_SEED`, or a new number.
fn seed() -> u64 {
    let set = std::env::var("CONFORMANCE_SEED").ok().and_then(|seed| seed.parse().ok());
    set.unwrap_or_else(|| u64::from_ne_bytes(random_bytes()))
}

/// Says something that libtest does not swallow.
pub(crate) fn say(line: &str) {
    // There is no one left to inform if the standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
