//! Runs properties: each on a fresh harness with a runtime of its own, several at a time, with a limit on their time.
//!
//! A property must not be able to stop the suite. A storage that panics, blocks its thread or never returns is a failure of
//! that property, and the failure names the call.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use oauth_dance_core::random_bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::harness::{Harness, HarnessError, HarnessResult};
use crate::outcome::{PropertyResult, Stop, UNEXPECTED};
use crate::recorder::Log;
use crate::report::Report;
use crate::tested_storage::TestedStorage;

/// How long creating a harness, or cleaning up after it, may take.
const SET_UP: Duration = Duration::from_secs(60);
/// The prefix of the text of a panic in a property.
const PANICKED: &str = "the property panicked: ";
/// How many times as long as one call a whole property may take.
const CALLS_OF_PROPERTY: u32 = 20;
/// The prefix of the failure of a property in which nothing has ended for too long. The limit follows.
const NOT_DONE: &str = "the property made no progress within ";
/// The properties that wait longest for time to pass. They start first, so that no other property has to wait for them.
const LONGEST: [&str; 5] = [
    "an_error_means_old_or_new",
    "dropped_calls_take_no_late_effect",
    "a_dropped_write_does_not_undo_another",
    "a_dropped_delete_leaves_the_record_or_nothing",
    "an_ambiguous_call_is_neither_undone_nor_repeated",
];
/// How many properties run at a time, unless libtest gets another number of threads.
pub(crate) const CONCURRENT_PROPERTIES: usize = 8;

/// One property of the contract, with the function that tests it.
///
/// [`PROPERTIES`](crate::PROPERTIES) lists all of them. Run one by itself to debug it, or from a test framework that does
/// not use [`conformance_tests!`](crate::conformance_tests):
///
/// ```
/// use oauth_dance_conformance::PROPERTIES;
/// use oauth_dance_core::MemoryStorage;
///
/// let property = PROPERTIES.iter().find(|property| property.name == "missing_is_none").unwrap();
/// assert_eq!(format!("{property:?}"), "map::missing_is_none");
/// assert_eq!(property.run(|| async { Ok(MemoryStorage::new()) }), Ok(()));
/// ```
#[derive(Clone, Copy)]
pub struct Property {
    /// The module of the property, which names its subject, such as `map` or `retention`.
    pub group: &'static str,
    /// The name of the function that tests it. Names are unique across all groups.
    pub name: &'static str,
    /// The properties that this one depends on, in addition to those that its group depends on.
    pub(crate) depends_on: &'static [&'static str],
    pub(crate) check: Check,
}

pub(crate) type Check = fn(Arc<TestedStorage>) -> Pin<Box<dyn Future<Output = PropertyResult> + Send>>;

impl Property {
    /// Tests this property on the harness that `maker` returns, within the [time limits](Harness::time_limit) of the
    /// harness, and cleans up.
    ///
    /// Creates a runtime and blocks the thread until the property has ended, so do not call it from asynchronous code.
    ///
    /// # Errors
    /// [`Stop::Failed`] if the storage does not have the property, panics, or does not return in time;
    /// [`Stop::NotApplicable`] and [`Stop::Missing`] if it could not be tested.
    pub fn run<M, F, H>(&self, maker: M) -> PropertyResult
    where
        M: FnOnce() -> F,
        F: Future<Output = HarnessResult<H>> + Send + 'static,
        H: Harness,
    {
        self.run_with_permit(maker(), None)
    }

    fn run_with_permit<H: Harness>(
        &self,
        making: impl Future<Output = HarnessResult<H>> + Send + 'static,
        permit: Option<OwnedSemaphorePermit>,
    ) -> PropertyResult {
        let seed = seed();
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        let outcome = self.run_on(&runtime, making, seed, permit);
        // A storage that blocks a thread indefinitely must not block the suite.
        runtime.shutdown_background();
        outcome
    }

    fn run_on<H: Harness>(
        &self,
        runtime: &Runtime,
        making: impl Future<Output = HarnessResult<H>> + Send + 'static,
        seed: u64,
        permit: Option<OwnedSemaphorePermit>,
    ) -> PropertyResult {
        // On the runtime, which the storage may need.
        let making = async move {
            let harness = making.await?;
            let time_limit = harness.time_limit();
            Ok::<_, HarnessError>((Arc::new(TestedStorage::new(harness, seed)), time_limit))
        };
        let made = wait(runtime, "creating the harness", making, time_left(SET_UP, "creating the harness"))?;
        let (subject, time_limit) = made?;
        subject.set_permit(permit);
        let (check, left) = ((self.check)(Arc::clone(&subject)), time_left_with_calls(time_limit, subject.log()));
        let outcome = wait(runtime, "the property", check, left).and_then(std::convert::identity);
        let is_stuck = matches!(&outcome, Err(Stop::Failed(why)) if why.starts_with(NOT_DONE));
        let outcome = outcome.map_err(|stop| match stop {
            Stop::Failed(why) => {
                let (why, calls) = (headline(&why, subject.log()), subject.log().last_calls());
                let calls = if calls.is_empty() { calls } else { format!("\nThe last calls were:{calls}") };
                Stop::Failed(format!("{why}{calls}\nTo repeat the random choices, set CONFORMANCE_SEED={seed}"))
            }
            other => other,
        });
        let cleaning = async move { subject.harness().clean_up().await };
        // If every thread is blocked, this cannot end.
        let limit = if is_stuck { SET_UP.min(time_limit) } else { SET_UP };
        let cleaned = wait(runtime, "cleaning up", cleaning, time_left(limit, "cleaning up"));
        outcome.and(cleaned)
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

/// Tests every property, several at a time, each on a fresh harness that `maker` returns. `name` is the name of the storage
/// in the report.
///
/// [`conformance_tests!`](crate::conformance_tests) does the same with a separate test for each property. Use this function
/// to compare storages or set-ups in one test, or to process the [`Report`]:
///
/// ```no_run
/// use oauth_dance_conformance::run_all;
/// use oauth_dance_core::MemoryStorage;
///
/// let report = run_all("memory", || async { Ok(MemoryStorage::new()) });
/// assert!(report.failed().is_empty(), "{report}");
/// assert!(report.passed() > 100);
/// ```
pub fn run_all<M, F, H>(name: &str, maker: M) -> Report
where
    M: Fn() -> F,
    F: Future<Output = HarnessResult<H>> + Send + 'static,
    H: Harness,
{
    let report = Mutex::new(Report::new(name));
    let mut all: Vec<_> = crate::PROPERTIES.iter().collect();
    all.sort_by_key(|property| !LONGEST.contains(&property.name));
    run_concurrently(&all, CONCURRENT_PROPERTIES, maker, |property, outcome, took| {
        report.lock().unwrap_or_else(PoisonError::into_inner).add(property, outcome, took);
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tests properties, at most `limit` at a time, and passes each outcome to `done`. A property that only waits for time to
/// pass does not count towards the limit.
pub(crate) fn run_concurrently<M, F, H>(
    properties: &[&Property],
    limit: usize,
    maker: M,
    done: impl Fn(&Property, PropertyResult, Duration) + Sync,
) where
    M: Fn() -> F,
    F: Future<Output = HarnessResult<H>> + Send + 'static,
    H: Harness,
{
    let permits = Arc::new(Semaphore::new(limit));
    thread::scope(|scope| {
        for property in properties {
            let Some(permit) = next_permit(&permits) else { return };
            // One at a time means that no other property runs even if this one only waits.
            let (lent, kept) = if limit == 1 { (None, Some(permit)) } else { (Some(permit), None) };
            let (making, done) = (caught(&maker), &done);
            scope.spawn(move || {
                let begun = Instant::now();
                let outcome = making.and_then(|making| caught(|| property.run_with_permit(making, lent))?);
                done(property, outcome, begun.elapsed());
                drop(kept);
            });
        }
    });
}

/// Converts a panic into a failure, so that the test of the property does not wait for its outcome indefinitely.
fn caught<T>(run: impl FnOnce() -> T) -> PropertyResult<T> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|payload| Stop::Failed(format!("the harness panicked: {}", text_of(payload.as_ref()))))
}

fn next_permit(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let runtime = Builder::new_current_thread().build().ok()?;
    runtime.block_on(Arc::clone(permits).acquire_owned()).ok()
}

/// The first line of a failure: an error, a panic or a timeout together with the call that caused it.
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

/// Runs a task. A panic, and a task whose time is over, are failures. The time is taken on this thread, because the task may
/// block every thread of the runtime.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    what: &str,
    task: impl Future<Output = T> + Send + 'static,
    time_left: impl Fn() -> PropertyResult<Duration>,
) -> PropertyResult<T> {
    let (sender, receiver) = mpsc::channel();
    let task = runtime.spawn(task);
    runtime.spawn(async move { sender.send(task.await) });
    loop {
        match receiver.recv_timeout(time_left()?) {
            Ok(done) => return done.map_err(|error| Stop::Failed(format!("{what} panicked: {}", panic_text(error)))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Stop::Failed("the runtime has ended".to_owned())),
        }
    }
}

/// Limits the time of a task.
fn time_left(limit: Duration, what: &str) -> impl Fn() -> PropertyResult<Duration> {
    let begun = Instant::now();
    move || match limit.saturating_sub(begun.elapsed()) {
        Duration::ZERO => Err(Stop::Failed(format!("{what} did not end within {limit:?}"))),
        left => Ok(left),
    }
}

/// Limits the time of each call of a property, and the time between two calls. A property with many calls that are slow during
/// a fault takes much longer, but not indefinitely.
fn time_left_with_calls(limit: Duration, log: &Log) -> impl Fn() -> PropertyResult<Duration> {
    let total = time_left(limit.saturating_mul(CALLS_OF_PROPERTY), "the property");
    move || match log.time_left(limit) {
        Ok(left) => Ok(left.min(total()?)),
        Err(limit) => Err(Stop::Failed(format!("{NOT_DONE}{limit:?}"))),
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    error.try_into_panic().map_or_else(|_| "cancelled".to_owned(), |payload| text_of(payload.as_ref()))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// The seed of the random choices: `CONFORMANCE_SEED`, or a random number.
fn seed() -> u64 {
    let set = std::env::var("CONFORMANCE_SEED").ok().and_then(|seed| seed.parse().ok());
    set.unwrap_or_else(|| u64::from_ne_bytes(random_bytes()))
}

/// Prints to the standard error. Unlike with `eprintln!`, libtest does not hide the text if the test passes.
pub(crate) fn print_line(line: &str) {
    // If the standard error is closed, there is nowhere to report that.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use oauth_dance_core::MemoryStorage;

    use super::*;

    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);

    /// A property that waits for time to pass, so that others may run.
    fn waiting(on: Arc<TestedStorage>) -> Pin<Box<dyn Future<Output = PropertyResult> + Send>> {
        Box::pin(async move {
            on.set_permit(None);
            MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        })
    }

    #[test]
    fn no_property_runs_beside_another_one_with_one_thread() {
        let property = Property { group: "run", name: "waiting", depends_on: &[], check: waiting };
        run_concurrently(
            &[&property; 4],
            1,
            || async { Ok(MemoryStorage::new()) },
            |_, outcome, _| assert_eq!(outcome, Ok(())),
        );
        assert_eq!(MOST.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn longest_properties_exist() {
        for name in LONGEST {
            assert!(crate::PROPERTIES.iter().any(|property| property.name == name), "{name}");
        }
    }
}
