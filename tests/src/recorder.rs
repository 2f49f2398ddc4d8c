//! Records calls, so that a failure can name them.
//!
//! Every storage under test is wrapped in [`Recorded`]. Properties with calls one after the other record each call with its
//! result. Properties with concurrent calls record only those in flight and those that failed, so that the lock of the log
//! does not serialize the calls which should race.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};

use crate::calls::Call;
use crate::outcome::chain;
use crate::show::Show;

/// How many calls a failure shows.
const LAST: usize = 8;
/// How many times the limit of a call applies to what consists of several requests, or waits for other calls.
const LONG_FACTOR: u32 = 3;
/// How many calls that returned an error are recorded.
const ERRORS: usize = 32;

/// The calls of one property on its storages.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    /// When the last call ended, in milliseconds after the start.
    last_end: AtomicU64,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    count: u64,
    in_flight: BTreeMap<u64, Line>,
    last: VecDeque<(u64, Line)>,
    /// Failed calls, each with the text of its error.
    failed: VecDeque<(String, String)>,
    panicked: Option<String>,
}

#[derive(Clone, Debug)]
struct Line {
    begun: Instant,
    handle: usize,
    call: Call,
    result: Option<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self { start: Instant::now(), last_end: AtomicU64::default(), calls: Mutex::default() }
    }
}

impl Log {
    /// Returns the time until a limit is over. It is over if no call has ended for so long, although one is in flight. Three
    /// times the limit applies to each call, because it may wait for others; to lists and purges, which may consist of many
    /// requests; and to everything else that a property waits for.
    ///
    /// # Errors
    /// The limit that is over.
    pub(crate) fn time_left(&self, limit: Duration) -> Result<Duration, Duration> {
        let (idle, long_limit) = (self.since_last_end(), limit.saturating_mul(LONG_FACTOR));
        let calls = self.calls();
        let age_of = |line: Option<&Line>| line.map(|line| line.begun.elapsed());
        let short = age_of(calls.in_flight.values().find(|line| line.call.is_short())).unwrap_or_default().min(idle);
        let long = age_of(calls.in_flight.values().next()).unwrap_or(idle);
        if short >= limit {
            return Err(limit);
        }
        if long >= long_limit {
            return Err(long_limit);
        }
        Ok((limit - short).min(long_limit - long))
    }

    /// The time since a call has ended, or since the start.
    pub(crate) fn since_last_end(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_end.load(Ordering::Relaxed)))
    }

    /// The last calls in order, one line for each.
    pub(crate) fn last_calls(&self) -> String {
        let calls = self.calls();
        let in_flight = calls.in_flight.iter().map(|(number, line)| (*number, line));
        let mut lines: Vec<_> = calls.last.iter().map(|(number, line)| (*number, line)).chain(in_flight).collect();
        lines.sort_by_key(|(number, _)| *number);
        let shown = lines.iter().skip(lines.len().saturating_sub(LAST)).map(|(_, line)| {
            let handle = if line.handle == 0 { String::new() } else { format!(" (handle {})", line.handle) };
            format!("\n  {}{handle} -> {}", line.call, line.result.as_deref().unwrap_or("in flight"))
        });
        shown.collect()
    }

    /// The oldest call in flight, and how many others there are.
    pub(crate) fn in_flight(&self) -> Option<String> {
        let calls = self.calls();
        let first = calls.in_flight.values().next()?;
        let others = calls.in_flight.len() - 1;
        let others = if others > 0 { format!(" (and {others} other calls)") } else { String::new() };
        Some(format!("{}{others}", first.call))
    }

    /// The last call whose error this text contains.
    pub(crate) fn call_with_error(&self, text: &str) -> Option<String> {
        let calls = self.calls();
        calls.failed.iter().rev().find(|(_, error)| text.contains(error)).map(|(call, _)| call.clone())
    }

    /// The last call that panicked.
    pub(crate) fn panicked(&self) -> Option<String> {
        self.calls().panicked.clone()
    }

    fn begin(&self, handle: usize, call: Call) -> u64 {
        let mut calls = self.calls();
        calls.count += 1;
        let number = calls.count;
        calls.in_flight.insert(number, Line { begun: Instant::now(), handle, call, result: None });
        number
    }

    /// Records the end of a call. Unless it is to be retained, only its entry among those in flight is removed.
    fn end(&self, number: u64, result: Option<String>, is_retained: bool) {
        let mut calls = self.calls();
        let Some(mut line) = calls.in_flight.remove(&number) else { return };
        if !is_retained {
            return;
        }
        line.result = result;
        calls.last.push_back((number, line));
        if calls.last.len() > LAST {
            calls.last.pop_front();
        }
    }

    fn fail(&self, call: String, error: &StorageError) {
        let mut calls = self.calls();
        calls.failed.push_back((call, chain(error)));
        if calls.failed.len() > ERRORS {
            calls.failed.pop_front();
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same storage, with all its calls recorded.
pub(crate) fn recorded(inner: Arc<dyn TokenStorage>, log: &Arc<Log>, handle: usize) -> Arc<dyn TokenStorage> {
    Arc::new(Recorded { inner, log: Arc::clone(log), handle, retains: true })
}

/// The same storage, with only those calls recorded that are in flight or that returned an error. A call that returns
/// immediately does not wait for the lock of the log, so that concurrent calls can start at the same time.
pub(crate) fn watched(inner: Arc<dyn TokenStorage>, log: &Arc<Log>, handle: usize) -> Arc<dyn TokenStorage> {
    Arc::new(Recorded { inner, log: Arc::clone(log), handle, retains: false })
}

struct Recorded {
    inner: Arc<dyn TokenStorage>,
    log: Arc<Log>,
    handle: usize,
    /// Whether calls stay in the log after they have returned.
    retains: bool,
}

impl Recorded {
    async fn record<T: Show>(
        &self,
        call: impl Fn() -> Call,
        running: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let mut in_flight = InFlight { of: self, number: None };
        if self.retains {
            in_flight.number = Some(self.log.begin(self.handle, call()));
        }
        let mut running = pin!(running);
        let result = poll_fn(|context| {
            let polled = running.as_mut().poll(context);
            if polled.is_pending() && in_flight.number.is_none() {
                in_flight.number = Some(self.log.begin(self.handle, call()));
            }
            polled
        })
        .await;
        self.log.last_end.store(elapsed_millis(self.log.start), Ordering::Relaxed);
        if let Err(error) = &result {
            self.log.fail(call().to_string(), error);
        }
        if let Some(number) = in_flight.number.take() {
            let shown = self.retains.then(|| result.show());
            self.log.end(number, shown, self.retains);
        }
        result
    }
}

fn elapsed_millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A call in flight.
struct InFlight<'a> {
    of: &'a Recorded,
    number: Option<u64>,
}

/// If the call is still in flight, it was dropped, or it panicked.
impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let panics = std::thread::panicking();
        if panics {
            let mut calls = self.of.log.calls();
            calls.panicked = calls.in_flight.get(&number).map(|line| line.call.to_string());
        }
        let end = if panics { "a panic" } else { "dropped" };
        self.of.log.end(number, Some(end.to_owned()), self.of.retains);
    }
}

#[async_trait]
impl TokenStorage for Recorded {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.record(|| Call::get(key), self.inner.get(key)).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.record(|| Call::put(key, record, when), self.inner.put(key, record, when)).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.record(|| Call::delete(key, only), self.inner.delete(key, only)).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let (limit, is_later) = (page.limit, page.after.is_some());
        self.record(|| Call::List(filter.clone(), limit, is_later), self.inner.list(filter, page)).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.record(|| Call::Purge(limit), self.inner.purge(limit)).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
