//! All interleavings of two calls of two processes. A process may be interrupted at each of its calls of a storage.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use super::mark::{mark, placeholder};
use super::*;
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::memory::MemoryStorage;
use crate::record::Version;
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};

mod lost_replies;
mod model;
mod verified;

use model::{CALLS, Call, Config, STARTS, Start, expected, is_documented, is_linearizable, model};

/// The maximum number of times that a run switches to the other process.
const MAX_SWITCHES: usize = 3;

/// The storage of one process. Another process may run before each call, and one reply may be lost.
struct StepStorage {
    memory: MemoryStorage,
    /// The number of replies that this process receives before one is lost.
    replies: Arc<AtomicUsize>,
}

impl StepStorage {
    fn reply<T>(&self, is_write: bool, reply: Result<T, StorageError>) -> Result<T, StorageError> {
        match self.replies.fetch_sub(1, Ordering::Relaxed) {
            0 if is_write => Err(StorageError::ambiguous("lost")),
            0 => Err(StorageError::unavailable("lost")),
            _ => reply,
        }
    }
}

/// Yields once.
#[derive(Default)]
struct Step(bool);

impl Future for Step {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[async_trait]
impl TokenStorage for StepStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        Step::default().await;
        self.reply(false, self.memory.get(key).await)
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        Step::default().await;
        self.reply(true, self.memory.put(key, record, when).await)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        Step::default().await;
        self.reply(true, self.memory.delete(key, only).await)
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        Step::default().await;
        self.reply(false, self.memory.list(filter, page).await)
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.memory.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }
}

struct World {
    old: MemoryStorage,
    new: MemoryStorage,
    first: Version,
}

fn key() -> TokenKey {
    TokenKey::new("github", "alice").unwrap()
}

impl World {
    fn new(start: Start) -> Self {
        let (old, new) = (MemoryStorage::new(), MemoryStorage::new());
        let record = Record::new("first");
        let first = now(async {
            if start == Start::Nowhere {
                return Version::random();
            }
            if start == Start::New {
                return new.put(&key(), &record, Precondition::Always).await.unwrap();
            }
            if start == Start::PlaceholderOnly {
                new.put(&key(), &placeholder(), Precondition::Always).await.unwrap();
                return Version::random();
            }
            let mut version = old.put(&key(), &record, Precondition::Always).await.unwrap();
            if start != Start::Old {
                let marked = mark(&Versioned::new(record.clone(), version));
                version = old.put(&key(), &marked, Precondition::Always).await.unwrap();
            }
            if start == Start::MarkedWithPlaceholder {
                new.put(&key(), &placeholder(), Precondition::Always).await.unwrap();
            }
            if start == Start::Both {
                version = new.put(&key(), &record, Precondition::Always).await.unwrap();
            }
            version
        });
        Self { old, new, first }
    }

    fn open(&self, config: Config, replies: usize) -> (Arc<dyn TokenStorage>, Migrating) {
        let replies = Arc::new(AtomicUsize::new(replies));
        let old: Arc<dyn TokenStorage> =
            Arc::new(StepStorage { memory: self.old.clone(), replies: Arc::clone(&replies) });
        let new: Arc<dyn TokenStorage> = Arc::new(StepStorage { memory: self.new.clone(), replies });
        let migrating = Migrating::new(Arc::clone(&new), Arc::clone(&old));
        let storage: Arc<dyn TokenStorage> = match config {
            Config::Old => old,
            Config::Prepare => Arc::new(Migrating::prepare(new, old)),
            Config::New => Arc::new(migrating.clone()),
        };
        (storage, migrating)
    }

    /// The result of a call as text.
    async fn call(&self, call: Call, config: Config, name: &str) -> String {
        self.call_until(usize::MAX, call, config, name).await.unwrap()
    }

    /// The same, but one reply of a storage is lost after this number of replies.
    async fn call_until(&self, replies: usize, call: Call, config: Config, name: &str) -> Result<String, StorageError> {
        let (storage, migrating) = self.open(config, replies);
        let (key, record) = (key(), Record::new(name));
        let wrote = |written: Result<Version, StorageError>| match written {
            Ok(_) => Ok("written".to_owned()),
            Err(StorageError::Conflict) => Ok("conflict".to_owned()),
            Err(error) => Err(error),
        };
        Ok(match call {
            Call::Get => storage.get(&key).await?.map_or("nothing".to_owned(), |found| text(&found.value)),
            Call::List => {
                let page = storage.list(&Filter::everything(), PageRequest::default()).await?;
                page.entries.len().to_string()
            }
            Call::Change => wrote(storage.put(&key, &record, Precondition::Version(self.first)).await)?,
            Call::Create => wrote(storage.put(&key, &record, Precondition::Absent).await)?,
            Call::Login => wrote(storage.put(&key, &record, Precondition::Always).await)?,
            Call::Logout => storage.delete(&key, None).await?.to_string(),
            Call::Remove => storage.delete(&key, Some(self.first)).await?.to_string(),
            Call::Move => {
                let moved = migrating.verifying().move_record(&key).await.map_err(CopyError::into_storage_error);
                moved.map(|_| String::new())?
            }
        })
    }

    fn stored(&self) -> String {
        now(self.call(Call::Get, Config::New, ""))
    }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.payload.clone()).unwrap()
}

/// Runs a future to its end.
fn now<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    for _ in 0..10_000 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("the call does not end");
}

/// Runs `check` with each possible sequence of choices.
fn each_schedule(mut check: impl FnMut(&mut dyn FnMut() -> bool)) -> usize {
    let (mut choices, mut count) = (Vec::new(), 0);
    loop {
        let mut index = 0;
        check(&mut || {
            if index == choices.len() {
                choices.push(false);
            }
            index += 1;
            choices[index - 1]
        });
        count += 1;
        while choices.last() == Some(&true) {
            choices.pop();
        }
        match choices.last_mut() {
            Some(last) => *last = true,
            None => return count,
        }
    }
}

/// Runs two calls side by side. A process that is killed returns nothing.
fn race(world: &World, calls: [(Call, Config); 2], choose: &mut dyn FnMut() -> bool) -> [String; 2] {
    let [one, two] = calls;
    let (mut first, mut second) = (pin!(world.call(one.0, one.1, "one")), pin!(world.call(two.0, two.1, "two")));
    let mut context = Context::from_waker(Waker::noop());
    let mut results = [None, None];
    let (mut turn, mut switches) = (usize::from(choose()), 0);
    for _ in 0..10_000 {
        turn = match &results {
            [None, None] if switches < MAX_SWITCHES && choose() => {
                switches += 1;
                1 - turn
            }
            [None, None] => turn,
            [None, Some(_)] => 0,
            [Some(_), None] => 1,
            _ => return results.map(Option::unwrap),
        };
        let polled = if turn == 0 { first.as_mut().poll(&mut context) } else { second.as_mut().poll(&mut context) };
        if let Poll::Ready(result) = polled {
            results[turn] = Some(result);
        }
    }
    panic!("the calls do not end");
}

fn check_pairs(configs: &[[Config; 2]], starts: &[Start]) -> usize {
    let mut count = 0;
    for (configs, start) in configs.iter().flat_map(|configs| starts.iter().map(move |start| (*configs, *start))) {
        for calls in CALLS.iter().flat_map(|one| CALLS.map(|two| [*one, two])) {
            if calls.iter().zip(configs).any(|(call, config)| *call == Call::Move && config != Config::New) {
                continue;
            }
            let is_mirrored = configs[0] == configs[1] && calls[0] as u8 > calls[1] as u8;
            let has_write = calls.iter().any(|call| !matches!(call, Call::Get | Call::List));
            if is_mirrored || !has_write {
                continue;
            }
            count += each_schedule(|choose| {
                let world = World::new(start);
                let results = race(&world, [(calls[0], configs[0]), (calls[1], configs[1])], choose);
                let stored = world.stored();
                let is_right = is_linearizable(start, calls, &results, &stored);
                assert!(
                    is_right || is_documented(configs, calls, start, &results),
                    "{configs:?} {calls:?} from {start:?} return {results:?}, and {stored} is stored"
                );
            });
        }
    }
    count
}

#[test]
fn two_processes_in_step_two_are_linearizable() {
    let count = check_pairs(&[[Config::New; 2]], &STARTS);
    assert!(count > 10_000, "{count}");
}

#[test]
fn steps_one_and_two_are_linearizable_side_by_side() {
    check_pairs(&[[Config::Prepare; 2], [Config::Prepare, Config::New]], &STARTS);
}

#[test]
fn step_one_is_linearizable_beside_the_old_storage() {
    let starts = [Start::Nowhere, Start::Old];
    check_pairs(&[[Config::Old, Config::Prepare]], &starts);
}

/// A process is killed before one of its calls of a storage, and another one continues.
#[test]
fn killed_process_leaves_the_old_or_new_record() {
    for (config, start) in [Config::Prepare, Config::New].iter().flat_map(|config| STARTS.map(|start| (*config, start)))
    {
        for calls in CALLS.iter().flat_map(|one| CALLS.map(|two| [*one, two])) {
            for steps in 0..20 {
                let world = World::new(start);
                let mut killed = Box::pin(world.call(calls[0], config, "one"));
                let mut context = Context::from_waker(Waker::noop());
                let has_ended = (0..steps).any(|_| killed.as_mut().poll(&mut context).is_ready());
                drop(killed);
                let result = now(world.call(calls[1], Config::New, "two"));
                let stored = world.stored();

                let ([_, after], state) = expected(start, [(calls[0], "one"), (calls[1], "two")]);
                let mut before =
                    if expected(start, [(Call::Get, ""); 2]).1 == "first" { "first" } else { "nothing" }.to_owned();
                let alone = model(&mut before, calls[1], "two");
                let is_done = (result.as_str(), stored.as_str()) == (after.as_str(), state.as_str());
                let is_undone = (result.as_str(), stored.as_str()) == (alone.as_str(), before.as_str());
                let spurious =
                    matches!(calls[1], Call::Change | Call::Remove) && stored == "first" && calls[0] != Call::Get;
                assert!(
                    is_done || (is_undone && !has_ended) || spurious,
                    "{config:?} {calls:?} from {start:?}, killed after {steps} steps, then {result}, and {stored} is stored"
                );
            }
        }
    }
}

#[test]
fn storage_is_not_moved_into_itself() {
    let world = World::new(Start::Old);
    let same: Arc<dyn TokenStorage> = Arc::new(world.old.clone());
    let migrating = Migrating::new(Arc::clone(&same), same);
    let error = now(migrating.move_record(&key())).unwrap_err();
    assert!(matches!(error, CopyError::Target(StorageError::Misconfigured { .. })), "{error:?}");
    assert_eq!(text(&now(world.old.get(&key())).unwrap().unwrap().value), "first");
}
