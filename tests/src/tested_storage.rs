//! What every property gets: the storage under test, its harness, and tools that adapt to what both can do.
//!
//! A property states *what* it tests, and this module decides *how long* and *how fast*: on a clock that can be moved,
//! retention takes no time; on a slow storage, calls run concurrently and rounds are fewer; with a log, calls are recorded.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Capabilities, Cursor, Entry, Filter, PageRequest, Precondition, Record, TokenKey, TokenStorage,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::calls::pages;
use crate::harness::Harness;
use crate::outcome::{PropertyResult, Stop, ensure};
use crate::patient::Patient;
use crate::recorder::{Log, recorded, watched};

/// How many calls of a property on a slow storage are in flight at once.
const MAX_IN_FLIGHT: usize = 16;
/// The largest limit of payloads that is tried. A storage may declare one that is larger than the memory of this machine.
const MOST_TRIED: usize = 64 * 1_048_576;
/// A storage is fast if its calls take less than this.
const FAST: Duration = Duration::from_micros(500);
/// How much more time a fast storage gets for its rounds, in case the machine is busy.
const FAST_FACTOR: u32 = 5;
/// How many seconds a unit of time is if the clock can be moved: far more than any call takes.
const UNIT: u64 = 100;

/// The storage that a property tests, with its harness. It must be empty, and used by one property only.
///
/// Every property is a function of this type. [`conformance_tests!`](crate::conformance_tests) and
/// [`Property::run`](crate::Property::run) create it; create it yourself to call a property directly:
///
/// ```
/// use std::sync::Arc;
/// use oauth_dance_conformance::{TestedStorage, map};
/// use oauth_dance_core::MemoryStorage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tested = Arc::new(TestedStorage::new(MemoryStorage::new(), 42));
/// assert_eq!(map::missing_is_none(tested).await, Ok(()));
/// # }
/// ```
pub struct TestedStorage {
    harness: Box<dyn Harness>,
    storage: Arc<dyn TokenStorage>,
    log: Arc<Log>,
    seed: u64,
    start: Instant,
    time: Mutex<Time>,
    /// The permit that this property has among those that run concurrently.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

/// What is known about time on this storage. `None` means that it was not determined yet.
#[derive(Clone, Copy, Debug, Default)]
struct Time {
    can_be_moved: Option<bool>,
    /// Whether calls take hardly any time.
    is_fast: Option<bool>,
    /// How far the clock was moved, beyond the time that really passed.
    moved: Duration,
}

impl TestedStorage {
    /// A storage for one property. The random choices of the property are determined by `seed`.
    pub fn new(harness: impl Harness, seed: u64) -> Self {
        let log = Arc::default();
        let storage = recorded(harness.storage(), &log, 0);
        let (start, time) = (Instant::now(), Mutex::default());
        Self { harness: Box::new(harness), storage, log, seed, start, time, permit: Mutex::default() }
    }

    /// The storage under test, whose calls are recorded for the message of a failure.
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.storage
    }

    /// The harness: what can be done to the stored data from outside.
    pub fn harness(&self) -> &dyn Harness {
        self.harness.as_ref()
    }

    /// The capabilities that the storage declares. They decide which properties are applicable.
    pub fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }

    /// Stores the permit of this property. `None` releases it: the property only waits from then on, and another one may
    /// run.
    pub(crate) fn set_permit(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }

    /// The calls so far, for a failure.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The call that has not returned, for a message about a timeout.
    pub(crate) fn in_flight(&self) -> String {
        self.log.in_flight().unwrap_or_else(|| "a call".to_owned())
    }

    /// Handles on the same data, through pools of their own if the harness can open them. Only their calls in flight, and
    /// those that returned an error, are recorded, so that calls can start at the same time.
    pub(crate) async fn handles(&self, count: usize) -> PropertyResult<Vec<Arc<dyn TokenStorage>>> {
        let handles = self.open(count).await?.into_iter().enumerate();
        Ok(handles.map(|(number, handle)| watched(handle, &self.log, number)).collect())
    }

    /// The same, for calls that contend for one record. A call that is `Unavailable` is repeated.
    pub(crate) async fn patient_handles(&self, count: usize) -> PropertyResult<Vec<Arc<dyn TokenStorage>>> {
        let handles = self.handles(count).await?.into_iter();
        Ok(handles.map(|handle| Arc::new(Patient(handle)) as Arc<dyn TokenStorage>).collect())
    }

    /// The storage under test, for a write of a record that another call may still be writing. If it is `Unavailable`, it is
    /// repeated.
    pub(crate) fn patient_storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(Patient(Arc::clone(&self.storage)))
    }

    async fn open(&self, count: usize) -> PropertyResult<Vec<Arc<dyn TokenStorage>>> {
        let mut handles = vec![self.harness.storage()];
        if self.capabilities().max_age.is_some() {
            // Another handle may return older records. A property of its own tests that.
            handles.resize(count, self.harness.storage());
        }
        while handles.len() < count {
            let next = match self.harness.reopen().await.map_err(Stop::from) {
                Err(Stop::NotApplicable(_)) => self.harness.storage(),
                other => other?,
            };
            handles.push(next);
        }
        Ok(handles)
    }

    /// Handles whose calls are all recorded, for calls that come one after the other.
    pub(crate) async fn recorded_handles(&self, count: usize) -> PropertyResult<Vec<Arc<dyn TokenStorage>>> {
        let handles = self.open(count).await?.into_iter().enumerate();
        Ok(handles.map(|(number, handle)| recorded(handle, &self.log, number)).collect())
    }

    /// Waits until a cached record is too old to be returned.
    pub(crate) async fn outlast_caches(&self) {
        if let Some(max_age) = self.capabilities().max_age {
            tokio::time::sleep(max_age).await;
        }
    }

    /// Ends the property as not applicable if the storage does not declare `list`.
    pub(crate) fn needs_list(&self) -> PropertyResult {
        self.capabilities().listable.then_some(()).ok_or_else(|| Stop::not_applicable("not listable"))
    }

    /// Ends the property as not applicable if the storage does not declare that preconditions are atomic.
    pub(crate) fn needs_atomic(&self) -> PropertyResult {
        self.capabilities().atomic.then_some(()).ok_or_else(|| Stop::not_applicable("not atomic"))
    }

    /// Ends the property as not applicable if the storage belongs to a request, which has room for few records.
    pub(crate) fn needs_many_records(&self) -> PropertyResult {
        let bound = self.capabilities().request_bound;
        (!bound).then_some(()).ok_or_else(|| Stop::not_applicable("bound to a request, which has room for few records"))
    }

    /// The largest length of a payload up to this one that the storage accepts.
    pub(crate) fn accepted_length(&self, length: usize) -> usize {
        self.capabilities().max_payload.unwrap_or(length).min(length)
    }

    /// The declared limit of payloads, unless it is larger than what a test can try.
    pub(crate) fn limit_to_try(&self) -> Option<usize> {
        self.capabilities().max_payload.filter(|limit| *limit <= MOST_TRIED)
    }

    /// A retention of that many units of time. A unit is a second, or much longer if the clock can be moved. The first call
    /// may move the clock by a second, so it has to come before the first write.
    pub(crate) async fn units(&self, count: u64) -> PropertyResult<Duration> {
        let known = self.time().can_be_moved;
        let can_be_moved = match known {
            Some(known) => known,
            None => {
                let (second, begun) = (Duration::from_secs(1), Instant::now());
                let moved = timeout(second * 3 / 10, self.harness.advance(second)).await;
                moved.is_ok_and(|moved| moved.is_ok()) && begun.elapsed() < second
            }
        };
        self.time().can_be_moved = Some(can_be_moved);
        Ok(Duration::from_secs(if can_be_moved { count * UNIT } else { count }))
    }

    /// Whether the harness can move the clock.
    pub(crate) async fn can_move_time(&self) -> PropertyResult<bool> {
        Ok(self.units(1).await?.as_secs() == UNIT)
    }

    /// Lets that many tenths of a unit pass.
    pub(crate) async fn pass(&self, tenths: u64) -> PropertyResult {
        let by = self.units(tenths).await? / 10;
        self.advance(by).await
    }

    /// Lets time pass: by moving the clock if that is possible, otherwise by waiting.
    pub(crate) async fn advance(&self, by: Duration) -> PropertyResult {
        let can_be_moved = self.time().can_be_moved == Some(true);
        if !can_be_moved {
            self.set_permit(None);
        }
        let begun = Instant::now();
        self.harness.advance(by).await?;
        self.time().moved += if can_be_moved { by } else { by.saturating_sub(begun.elapsed()) };
        Ok(())
    }

    /// The time on the clock that counts retention, since the start of the property.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed() + self.time().moved
    }

    fn time(&self) -> std::sync::MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of rounds: at most `most`, and only two if this time has passed by then, so that a property does not take
    /// long on a slow storage.
    pub(crate) async fn rounds(
        &self,
        most: usize,
        time: Duration,
    ) -> PropertyResult<impl Iterator<Item = usize> + use<>> {
        let time = if self.is_fast().await? { time * FAST_FACTOR } else { time };
        let end = Instant::now() + time;
        Ok((0..most).take_while(move |round| *round < 2 || Instant::now() < end))
    }

    /// Whether calls take hardly any time.
    async fn is_fast(&self) -> PropertyResult<bool> {
        if let Some(known) = self.time().is_fast {
            return Ok(known);
        }
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            self.harness.storage().get(&key("missing at all")?).await?;
            fastest = fastest.min(begun.elapsed());
        }
        self.time().is_fast = Some(fastest < FAST);
        Ok(fastest < FAST)
    }

    /// Does something with each item: several at a time if the storage is slow and declares `atomic`, otherwise one after
    /// the other. The results are in the order of the items.
    pub(crate) async fn concurrently<T, R, F>(
        &self,
        items: impl IntoIterator<Item = T>,
        call: impl Fn(Arc<dyn TokenStorage>, T) -> F + Clone + Send + 'static,
    ) -> PropertyResult<Vec<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = PropertyResult<R>> + Send + 'static,
    {
        if !self.capabilities().atomic || self.is_fast().await? {
            let mut results = Vec::new();
            for item in items {
                results.push(call(Arc::clone(&self.storage), item).await?);
            }
            return Ok(results);
        }
        let mut queues: Vec<Vec<(usize, T)>> = (0..MAX_IN_FLIGHT).map(|_| Vec::new()).collect();
        for (index, item) in items.into_iter().enumerate() {
            queues[index % MAX_IN_FLIGHT].push((index, item));
        }
        let mut running = JoinSet::new();
        for queue in queues {
            let (storage, call) = (Arc::clone(&self.storage), call.clone());
            running.spawn(async move {
                let mut results = Vec::with_capacity(queue.len());
                for (index, item) in queue {
                    results.push((index, call(Arc::clone(&storage), item).await?));
                }
                PropertyResult::Ok(results)
            });
        }
        let mut results = Vec::new();
        while let Some(finished) = running.join_next().await {
            results.extend(finished??);
        }
        results.sort_by_key(|(index, _)| *index);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    /// Writes a record under each key, several at a time if the storage is slow.
    pub(crate) async fn put_all(
        &self,
        records: Vec<(TokenKey, Record)>,
    ) -> PropertyResult<Vec<oauth_dance_core::Version>> {
        self.concurrently(records, |storage, (key, record)| async move {
            Ok(storage.put(&key, &record, Precondition::Always).await?)
        })
        .await
    }

    /// The source of the property's random choices. Each call returns the same sequence.
    pub(crate) fn random(&self) -> Random {
        Random(self.seed)
    }
}

impl fmt::Debug for TestedStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestedStorage").field("capabilities", &self.capabilities()).field("seed", &self.seed).finish()
    }
}

/// The key of this user, without a tenant or an account.
pub(crate) fn key(user: &str) -> PropertyResult<TokenKey> {
    Ok(TokenKey::new("github", user)?)
}

/// A record with every hint and a retention of a day.
pub(crate) fn rich(payload: impl Into<Vec<u8>>) -> Record {
    let expires_at = oauth_dance_core::Timestamp::from_unix_seconds(4_102_444_800);
    Record::new(payload)
        .with_expires_at(Some(expires_at))
        .with_key_id(Some("0123456789abcdef".to_owned()))
        .with_retain_for(Some(Duration::from_secs(86_400)))
}

/// A record with a retention.
pub(crate) fn retained_for(payload: impl Into<Vec<u8>>, time: Duration) -> Record {
    Record::new(payload).with_retain_for(Some(time))
}

/// The entries of all pages of a list.
pub(crate) async fn list_all(storage: &dyn TokenStorage, filter: &Filter, limit: usize) -> PropertyResult<Vec<Entry>> {
    list_after(storage, filter, None, limit).await
}

/// All entries after a cursor.
pub(crate) async fn list_after(
    storage: &dyn TokenStorage,
    filter: &Filter,
    mut after: Option<Cursor>,
    limit: usize,
) -> PropertyResult<Vec<Entry>> {
    let mut entries = Vec::new();
    for _ in 0..10_000 {
        let page = storage.list(filter, PageRequest { after, limit }).await?;
        let count = page.entries.len();
        ensure!(count <= limit.max(1), "{}: a page has {count} entries, more than requested", pages(filter, limit));
        entries.extend(page.entries);
        let Some(next) = page.next else { return Ok(entries) };
        after = Some(next);
    }
    Err(Stop::failed(format_args!("{} does not end: there is a next page after 10,000 pages", pages(filter, limit))))
}

/// SplitMix64: good enough for random choices, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
