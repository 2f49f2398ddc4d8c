use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oauth_dance_core::{Capabilities, Entry, Filter, PageRequest, Precondition, Record, TokenKey, TokenStorage};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::calls::pages;
use crate::harness::Harness;
use crate::outcome::{PropertyResult, Stop, ensure};
use crate::recorder::{Log, recorded, watched};

/// How many calls of one property are in flight at once, so that a slow storage does not take long.
const LANES: usize = 16;
/// What no call of a slow storage takes.
const QUICK: Duration = Duration::from_micros(500);
/// How much longer a quick storage is tried, if the machine has other things to do.
const QUICK_FACTOR: u32 = 5;
/// What stands for a second where the clock can be moved: far more than any call takes.
const UNIT: u64 = 100;

/// What a property is tried on: a storage that is still empty, and its harness.
pub struct TestedStorage {
    harness: Box<dyn Harness>,
    storage: Arc<dyn TokenStorage>,
    log: Arc<Log>,
    seed: u64,
    start: Instant,
    time: Mutex<Time>,
    /// Its turn among the properties that run side by side.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

/// What is known of how time passes.
#[derive(Clone, Copy, Debug, Default)]
struct Time {
    can_be_moved: Option<bool>,
    /// Whether calls take hardly any time.
    is_quick: Option<bool>,
    /// How far it was moved beyond the time that passed.
    moved: Duration,
}

impl TestedStorage {
    /// A subject for one property.
    pub fn new(harness: impl Harness, seed: u64) -> Self {
        let log = Arc::default();
        let storage = recorded(harness.storage(), &log, 0);
        let (start, time) = (Instant::now(), Mutex::default());
        Self { harness: Box::new(harness), storage, log, seed, start, time, turn: Mutex::default() }
    }

    /// The storage under test.
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.storage
    }

    /// What else can be done to it.
    pub fn harness(&self) -> &dyn Harness {
        self.harness.as_ref()
    }

    /// What the storage declares.
    pub fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }

    /// Gives its turn to another property while it only waits.
    pub(crate) fn take_turn(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }

    /// The calls so far, for a failure.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// What has not returned, for a message about a timeout.
    pub(crate) fn in_flight(&self) -> String {
        self.log.in_flight().unwrap_or_else(|| "a call".to_owned())
    }

    /// As many handles on the same data, through pools of their own if the harness can open them. Of their calls only
    /// those in flight and those that returned an error are remembered, so that they can begin at the same time.
    pub(crate) async fn handles(&self, count: usize) -> PropertyResult<Vec<Arc<dyn TokenStorage>>> {
        let handles = self.open(count).await?.into_iter().enumerate();
        Ok(handles.map(|(number, handle)| watched(handle, &self.log, number)).collect())
    }

    async fn open(&self, count: usize) -> PropertyResult<Vec<Arc<dyn TokenStorage>>> {
        let mut handles = vec![self.harness.storage()];
        if self.capabilities().max_age.is_some() {
            // Another handle may see a write late, which has a property of its own.
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

    /// Handles whose calls are remembered: for calls that come one after the other.
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

    /// Ends the property as not applicable where `list` is not declared.
    pub(crate) fn needs_list(&self) -> PropertyResult {
        self.capabilities().listable.then_some(()).ok_or_else(|| Stop::not_applicable("not listable"))
    }

    /// Ends the property as not applicable where preconditions are not declared to be atomic.
    pub(crate) fn needs_atomic(&self) -> PropertyResult {
        self.capabilities().atomic.then_some(()).ok_or_else(|| Stop::not_applicable("not atomic"))
    }

    /// Ends the property as not applicable where a request holds the few records of one browser.
    pub(crate) fn needs_room(&self) -> PropertyResult {
        let bound = self.capabilities().request_bound;
        (!bound).then_some(()).ok_or_else(|| Stop::not_applicable("bound to a request, which has few records"))
    }

    /// A length that the storage accepts: this one, or the largest that it declares.
    pub(crate) fn fitting(&self, length: usize) -> usize {
        self.capabilities().max_payload.unwrap_or(length).min(length)
    }

    /// A retention of so many units of time: seconds, or much more if the clock can be moved. Call it before the first
    /// write: it may move the clock a little.
    pub(crate) async fn units(&self, count: u64) -> PropertyResult<Duration> {
        let known = self.time().can_be_moved;
        let can_be_moved = match known {
            Some(known) => known,
            None => {
                let moving = self.harness.advance(Duration::from_secs(1));
                let moved = timeout(Duration::from_millis(300), moving).await;
                moved.is_ok_and(|moved| moved.is_ok())
            }
        };
        self.time().can_be_moved = Some(can_be_moved);
        Ok(Duration::from_secs(if can_be_moved { count * UNIT } else { count }))
    }

    /// Whether time passes at once.
    pub(crate) async fn can_move_time(&self) -> PropertyResult<bool> {
        Ok(self.units(1).await?.as_secs() == UNIT)
    }

    /// Lets so many tenths of a unit pass.
    pub(crate) async fn pass(&self, tenths: u64) -> PropertyResult {
        let by = self.units(tenths).await? / 10;
        self.advance(by).await
    }

    /// Lets time pass, by whole seconds if the clock can be moved.
    pub(crate) async fn advance(&self, by: Duration) -> PropertyResult {
        if self.time().can_be_moved != Some(true) {
            self.take_turn(None);
        }
        let begun = Instant::now();
        self.harness.advance(by).await?;
        self.time().moved += by.saturating_sub(begun.elapsed());
        Ok(())
    }

    /// The time on the clock that retention is counted on, from the property's start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed() + self.time().moved
    }

    fn time(&self) -> std::sync::MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most so many rounds, and no more once this time has passed, so that a slow storage is not tried for long.
    pub(crate) async fn rounds(
        &self,
        most: usize,
        time: Duration,
    ) -> PropertyResult<impl Iterator<Item = usize> + use<>> {
        let time = if self.is_quick().await? { time * QUICK_FACTOR } else { time };
        let end = Instant::now() + time;
        Ok((0..most).take_while(move |round| *round < 2 || Instant::now() < end))
    }

    /// Whether calls take hardly any time.
    async fn is_quick(&self) -> PropertyResult<bool> {
        if let Some(known) = self.time().is_quick {
            return Ok(known);
        }
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            self.harness.storage().get(&key("nobody at all")?).await?;
            fastest = fastest.min(begun.elapsed());
        }
        self.time().is_quick = Some(fastest < QUICK);
        Ok(fastest < QUICK)
    }

    /// Does something with each item: many at the same time if the storage promises to stand that, one after the other
    /// if not. The answers come in the order of the items.
    pub(crate) async fn together<T, R, F>(
        &self,
        items: impl IntoIterator<Item = T>,
        call: impl Fn(Arc<dyn TokenStorage>, T) -> F + Clone + Send + 'static,
    ) -> PropertyResult<Vec<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = PropertyResult<R>> + Send + 'static,
    {
        if !self.capabilities().atomic || self.is_quick().await? {
            let mut answers = Vec::new();
            for item in items {
                answers.push(call(Arc::clone(&self.storage), item).await?);
            }
            return Ok(answers);
        }
        let mut queues: Vec<Vec<(usize, T)>> = (0..LANES).map(|_| Vec::new()).collect();
        for (index, item) in items.into_iter().enumerate() {
            queues[index % LANES].push((index, item));
        }
        let mut running = JoinSet::new();
        for queue in queues {
            let (storage, call) = (Arc::clone(&self.storage), call.clone());
            running.spawn(async move {
                let mut answers = Vec::with_capacity(queue.len());
                for (index, item) in queue {
                    answers.push((index, call(Arc::clone(&storage), item).await?));
                }
                PropertyResult::Ok(answers)
            });
        }
        let mut answers = Vec::new();
        while let Some(lane) = running.join_next().await {
            answers.extend(lane??);
        }
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Writes a record to each key, as many at once as the storage stands.
    pub(crate) async fn put_all(
        &self,
        records: Vec<(TokenKey, Record)>,
    ) -> PropertyResult<Vec<oauth_dance_core::Version>> {
        self.together(records, |storage, (key, record)| async move {
            Ok(storage.put(&key, &record, Precondition::Always).await?)
        })
        .await
    }

    pub(crate) fn random(&self) -> Random {
        Random(self.seed)
    }
}

impl fmt::Debug for TestedStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestedStorage").field("capabilities", &self.capabilities()).field("seed", &self.seed).finish()
    }
}

/// The key of one user, as plain as keys get.
pub(crate) fn key(user: &str) -> PropertyResult<TokenKey> {
    Ok(TokenKey::new("github", user)?)
}

/// A record with every hint set, kept for a day.
pub(crate) fn rich(payload: impl Into<Vec<u8>>) -> Record {
    let expires_at = oauth_dance_core::Timestamp::from_unix_seconds(4_102_444_800);
    Record::new(payload)
        .with_expires_at(Some(expires_at))
        .with_key_id(Some("0123456789abcdef".to_owned()))
        .with_retain_for(Some(Duration::from_secs(86_400)))
}

/// A record with a retention.
pub(crate) fn kept_for(payload: impl Into<Vec<u8>>, time: Duration) -> Record {
    Record::new(payload).with_retain_for(Some(time))
}

/// All pages together.
pub(crate) async fn list_all(storage: &dyn TokenStorage, filter: &Filter, limit: usize) -> PropertyResult<Vec<Entry>> {
    let (mut entries, mut after) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = storage.list(filter, PageRequest { after, limit }).await?;
        let count = page.entries.len();
        ensure!(count <= limit.max(1), "{}: a page has {count} entries", pages(filter, limit));
        entries.extend(page.entries);
        let Some(next) = page.next else { return Ok(entries) };
        after = Some(next);
    }
    Err(Stop::failed(format_args!("{}: there is always another page, after 10,000 of them", pages(filter, limit))))
}

/// SplitMix64: good enough to choose with, and the same on every machine.
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
