//! Random histories of concurrent clients, each checked for linearizability.
//!
//! A history records when each call started and ended, and its result. It is *linearizable* if there is an order of the calls,
//! one after the other, in which every result is correct, and which respects that a call had ended before another started.
//! This is the strongest property that a single record can have, and the refresh relies on it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage, Version};
use tokio::task::JoinSet;

use crate::harness::Fault;
use crate::linearizability::{Action, Call, Reply, explain, impossible};
use crate::outcome::{PropertyResult, Stop};
use crate::show::Show as _;
use crate::tested_storage::{Random, TestedStorage, key};

/// Concurrent calls of several clients are linearizable: some sequential order of the calls explains every result, and
/// no call comes before one that had returned before it started.
///
/// Two to four clients call at random. The search for an order is that of Wing and Gong, with Lowe's improvement. If
/// there is none, the failure lists all calls with the times at which they started and ended.
pub async fn histories_are_linearizable(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    play(&on, 120, Duration::from_millis(700), None).await
}

/// Concurrent calls stay linearizable while replies are cut off, and while one of several servers fails: a write whose
/// reply was lost has happened at one instant, or never.
///
/// An `Ambiguous` write may appear anywhere in the order after its start, or not at all. Any other error means that it
/// never happened. A server that was suspended must not return what it knew before.
pub async fn histories_with_faults_are_linearizable(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let mut unable = Vec::new();
    let faults = [Fault::CutReply, Fault::Down, Fault::CutNextReply, Fault::Failover, Fault::Isolated];
    for fault in faults {
        match play(&on, 24, Duration::from_millis(500), Some(fault)).await {
            // Not every harness can cause every fault.
            Err(Stop::NotApplicable(why)) => unable.push(why),
            played => played?,
        }
    }
    if unable.len() == faults.len() { Err(Stop::NotApplicable(unable.swap_remove(0))) } else { Ok(()) }
}

async fn play(on: &Arc<TestedStorage>, most: usize, time: Duration, fault: Option<Fault>) -> PropertyResult {
    let handles = on.handles(4).await?;
    let mut random = on.random();
    let name = fault.map_or_else(String::new, |fault| format!("{fault:?} "));
    for history in on.rounds(most, time).await? {
        let keys = [key(&format!("{name}one{history}"))?, key(&format!("{name}two{history}"))?];
        let count = 1 + random.below(2);
        let shared = Arc::new(Shared::default());
        let mut clients = JoinSet::new();
        // Calls through one handle may share more than those through several.
        let share = random.below(3) == 0;
        for client in 0..2 + random.below(3) {
            let client = Client {
                storage: Arc::clone(&handles[if share { 0 } else { client % handles.len() }]),
                keys: keys[..count].to_vec(),
                shared: Arc::clone(&shared),
                random: Random(random.next()),
                number: client,
                may_fail: fault.is_some(),
            };
            let calls = 8 + random.below(5);
            clients.spawn(client.run(calls));
        }
        if let Some(fault) = fault {
            // The fault begins and ends in the middle of the calls.
            tokio::time::sleep(Duration::from_micros(random.next() % 4_000)).await;
            on.harness().inject(fault).await?;
            tokio::time::sleep(Duration::from_micros(random.next() % 4_000)).await;
            on.harness().heal().await?;
        }
        let mut finished = Ok(());
        while let Some(client) = clients.join_next().await {
            finished = finished.and(client?);
        }
        if fault.is_some() {
            crate::faults::heal(on).await?;
            for key in &keys[..count] {
                let begun = shared.ticks.fetch_add(1, Ordering::SeqCst);
                let found = handles[0].get(key).await?;
                let reply = found.map_or(Reply::Nothing, |found| Reply::Found(found.value.payload, found.version));
                let ended = shared.ticks.fetch_add(1, Ordering::SeqCst);
                lock(&shared.calls).push((key.clone(), Call { action: Action::Get, reply, begun, ended }));
            }
        }
        finished?;
        let calls = std::mem::take(&mut *shared.calls.lock().unwrap_or_else(PoisonError::into_inner));
        // A history is linearizable if and only if its calls for each key are.
        for key in &keys[..count] {
            let calls: Vec<Call> =
                calls.iter().filter(|(owner, _)| owner == key).map(|(_, call)| call.clone()).collect();
            if explain(&calls) {
                continue;
            }
            let why = match impossible(&calls) {
                Some((call, why)) => {
                    format!(
                        "the result of this call for ({}) is impossible, because {why}: {call}\nThe history",
                        key.show()
                    )
                }
                None => format!("no order of these calls for ({}) explains their results", key.show()),
            };
            return Err(Stop::failed(format_args!("{name}history {history}: {why}:\n{}", lines(&calls))));
        }
    }
    Ok(())
}

/// The state that the clients of one history share.
#[derive(Default)]
struct Shared {
    /// Counts starts and ends of calls, as a clock.
    ticks: AtomicU64,
    calls: Mutex<Vec<(TokenKey, Call)>>,
    /// The versions observed so far, for conditions.
    versions: Mutex<Vec<(TokenKey, Version)>>,
}

struct Client {
    storage: Arc<dyn TokenStorage>,
    keys: Vec<TokenKey>,
    shared: Arc<Shared>,
    random: Random,
    number: usize,
    /// Whether replies may be cut off.
    may_fail: bool,
}

impl Client {
    async fn run(mut self, calls: usize) -> PropertyResult {
        for call in 0..calls {
            let key = self.keys[self.random.below(self.keys.len())].clone();
            let action = self.choose(&key, call);
            let begun = self.shared.ticks.fetch_add(1, Ordering::SeqCst);
            let reply = self.call(&key, &action).await?;
            let mut ended = self.shared.ticks.fetch_add(1, Ordering::SeqCst);
            if reply == Some(Reply::Unknown) {
                ended = u64::MAX;
            }
            // A storage that was too busy has changed nothing.
            let Some(reply) = reply else { continue };
            if let Some(version) = reply.version() {
                lock(&self.shared.versions).push((key.clone(), version));
            }
            lock(&self.shared.calls).push((key, Call { action, reply, begun, ended }));
            if self.may_fail {
                tokio::time::sleep(Duration::from_micros(self.random.next() % 1_500)).await;
            } else if self.random.below(3) == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn choose(&mut self, key: &TokenKey, call: usize) -> Action {
        let payload = format!("client {}, call {call}", self.number).into_bytes();
        let version = self.seen(key);
        match self.random.below(10) {
            0..=2 => Action::Get,
            3 => Action::Put(payload, Precondition::Always),
            4 | 5 => Action::Put(payload, Precondition::Absent),
            6 | 7 => Action::Put(payload, Precondition::Version(version)),
            8 => Action::Delete(None),
            _ => Action::Delete(Some(version)),
        }
    }

    /// One of the last versions observed for a key, so that conditions are often met.
    fn seen(&mut self, key: &TokenKey) -> Version {
        let versions = lock(&self.shared.versions);
        let recent: Vec<_> = versions.iter().rev().filter(|(owner, _)| owner == key).take(3).collect();
        if recent.is_empty() { Version::random() } else { recent[self.random.below(recent.len())].1 }
    }

    async fn call(&self, key: &TokenKey, action: &Action) -> PropertyResult<Option<Reply>> {
        let result = match action {
            Action::Get => self.storage.get(key).await.map(|found| match found {
                Some(found) => Reply::Found(found.value.payload, found.version),
                None => Reply::Nothing,
            }),
            Action::Put(payload, when) => {
                let written = self.storage.put(key, &Record::new(payload.clone()), *when).await;
                written.map(Reply::Written)
            }
            Action::Delete(only) => self.storage.delete(key, *only).await.map(Reply::Deleted),
        };
        match result {
            Ok(reply) => Ok(Some(reply)),
            Err(StorageError::Conflict) => Ok(Some(Reply::Conflict)),
            Err(error) if error.is_retryable() => Ok(None),
            Err(StorageError::Ambiguous { .. }) if self.may_fail && matches!(action, Action::Get) => Ok(None),
            Err(StorageError::Ambiguous { .. }) if self.may_fail => Ok(Some(Reply::Unknown)),
            Err(error) => Err(error.into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A history as text, one line for each call, sorted by their starts.
fn lines(calls: &[Call]) -> String {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.begun);
    calls.iter().map(|call| format!("  {call}\n")).collect()
}
