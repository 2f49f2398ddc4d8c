//! Dropping a call does no harm. A web server does so when its client disconnects.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage};
use tokio::time::timeout;

use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// How many drops one property tries. More than any pool has connections.
const DROPS: usize = 120;
/// How long one property tries at most, once it has tried two.
const TIME: Duration = Duration::from_millis(1_500);
/// How often reads after a dropped call are tried again until they agree.
const SETTLES: usize = 16;
/// How long a write may wait for a call that is not polled.
const UNPOLLED: Duration = Duration::from_millis(500);
/// How long the suite waits for what was dropped.
const LATE: Duration = Duration::from_millis(1_800);
/// The retention of [`rich`].
const DAY: Duration = Duration::from_secs(86_400);

/// Checks again for a while, because what was dropped may arrive between two reads.
macro_rules! settled {
    ($check:expr) => {
        let mut checked = $check.await;
        for _ in 0..SETTLES {
            if checked.is_ok() {
                break;
            }
            wait(Duration::from_millis(25)).await;
            checked = $check.await;
        }
        checked?;
    };
}

/// A `put` that is dropped at any point leaves the old or the new record, whole: payload, hints and retention.
pub async fn a_dropped_write_leaves_old_or_new(on: Arc<TestedStorage>) -> PropertyResult {
    let old = Record::new("old").with_key_id(Some("old".to_owned()));
    // Some storages divide what is large, and others only what is larger still.
    let sizes = [5_000, 100_000].map(|size| on.fitting(size));
    for turn in on.rounds(DROPS, TIME).await? {
        let new = rich(vec![b'n'; sizes[turn % 5 % 2]]);
        // Unconditional is what a login writes, and a browser that hangs up then never learns of its new session.
        let is_login = turn % 3 == 2 && !on.capabilities().request_bound;
        // An unconditional write may still arrive in a later turn, so it has a key of its own.
        let key = key(&if is_login { format!("login{turn}") } else { "alice".to_owned() })?;
        let before = on.storage().put(&key, &old, Precondition::Always).await?;
        let when = if is_login { Precondition::Always } else { Precondition::Version(before) };
        cut(turn, on.storage().put(&key, &new, when)).await;
        let found = on.storage().get(&key).await?;
        let get = format!("turn {turn}: {} after a dropped {}", Call::get(&key), Call::put(&key, &new, when));
        let mut found = found.ok_or_else(|| Stop::failed(format_args!("{get} is None: the record is gone")))?;
        let is_old = found.version == before && found.value == old;
        let left = found.value.retain_for.take();
        let is_kept = left.is_some_and(|left| left <= DAY && left >= DAY / 2);
        let is_new = found.version != before && found.value == new.clone().with_retain_for(None) && is_kept;
        ensure!(
            is_old || is_new,
            "{get} is neither the old nor the new record: {}, retain_for {}",
            found.show(),
            left.show()
        );
        if is_login {
            continue;
        }
        // A conditional write may still arrive, but not over a write that came after it.
        let last = on.storage().put(&key, &Record::new("last"), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = format!("turn {turn}: {}: the version of the put that followed a dropped one", Call::get(&key));
        ensure_eq!(found, Some(last), "{get}");
    }
    Ok(())
}

/// A conditional `put` that is dropped does not undo what another handle wrote since it began.
pub async fn a_dropped_write_does_not_undo_another(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let handles = on.handles(2).await?;
    let settles = time_to_settle(&on).await?;
    for turn in on.rounds(DROPS, TIME).await? {
        let key = key(&format!("user{turn}"))?;
        let before = handles[0].put(&key, &Record::new("old"), Precondition::Always).await?;
        let (dropped, when) = (Record::new("dropped"), Precondition::Version(before));
        let mut call = Box::pin(handles[0].put(&key, &dropped, when));
        poll_in_flight(1 + turn % 4, call.as_mut()).await;
        let record = Record::new("other");
        let put = handles[1].put(&key, &record, Precondition::Always);
        let Ok(other) = timeout(UNPOLLED, put).await else {
            // The call that is not polled may have the only connection, or a lock.
            break;
        };
        let other = other?;
        drop(call);
        wait(settles).await;
        let found = handles[1].get(&key).await?.map(|found| found.version);
        let what = format!(
            "turn {turn}: {} after {}, begun before it and dropped",
            Call::get(&key),
            Call::put(&key, &dropped, when)
        );
        ensure_eq!(found, Some(other), "{what}: the version of a put Always by another handle");
    }
    Ok(())
}

/// A dropped call takes effect soon or never: not over a later write, and not after a later delete.
pub async fn dropped_calls_take_no_late_effect(on: Arc<TestedStorage>) -> PropertyResult {
    let settles = time_to_settle(&on).await?;
    let outcome = no_late_effect(&on, "user", DROPS, settles).await;
    if settles.is_zero() || !matches!(outcome, Err(Stop::Failed(_))) {
        return outcome;
    }
    // A busy machine delays a call once. A storage that is late by design is late again.
    no_late_effect(&on, "another", DROPS / 3, settles * 2 + Duration::from_millis(40)).await
}

async fn no_late_effect(on: &Arc<TestedStorage>, user: &str, drops: usize, settles: Duration) -> PropertyResult {
    let mut wanted = Vec::new();
    for turn in on.rounds(drops, TIME).await? {
        let key = key(&format!("{user}{turn}"))?;
        let old = on.storage().put(&key, &Record::new("old"), Precondition::Absent).await?;
        match turn / 4 % 4 {
            0 => cut(turn, on.storage().put(&key, &rich("late"), Precondition::Always)).await,
            1 => cut(turn, on.storage().delete(&key, None)).await,
            2 => cut(turn, on.storage().put(&key, &rich("late"), Precondition::Version(old))).await,
            _ => {
                on.storage().delete(&key, None).await?;
                cut(turn, on.storage().put(&key, &rich("late"), Precondition::Absent)).await;
            }
        }
        wait(settles).await;
        let is_deleted = turn / 16 % 2 == 1;
        let last = if is_deleted {
            on.storage().delete(&key, None).await?;
            None
        } else {
            Some(on.storage().put(&key, &Record::new("last"), Precondition::Always).await?)
        };
        wanted.push((turn, key, last));
    }
    on.take_turn(None);
    tokio::time::sleep(LATE).await;
    for (turn, key, last) in wanted {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = format!("turn {turn}: {} a while after the call that followed a dropped one", Call::get(&key));
        ensure_eq!(found, last, "{get}: the version");
    }
    Ok(())
}

/// A `delete` that is dropped at any point leaves the record or nothing.
pub async fn a_dropped_delete_leaves_the_record_or_nothing(on: Arc<TestedStorage>) -> PropertyResult {
    let settles = time_to_settle(&on).await?;
    for turn in on.rounds(DROPS, TIME).await? {
        let key = key(&format!("user{turn}"))?;
        let version = on.storage().put(&key, &Record::new("x"), Precondition::Absent).await?;
        cut(turn, on.storage().delete(&key, Some(version))).await;
        let found = on.storage().get(&key).await?;
        let whole = found.as_ref().is_none_or(|found| found.version == version && found.value == Record::new("x"));
        let get = format!("turn {turn}: {} after a dropped delete", Call::get(&key));
        ensure!(whole, "{get} is neither the record nor None: {}", found.show());
        wait(settles).await;
        on.storage().put(&key, &Record::new("y"), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.map(|found| found.value.payload);
        ensure_eq!(found, Some(b"y".to_vec()), "{get} and the put that followed it");
    }
    Ok(())
}

/// However many calls of any kind were dropped, the storage works: no connection, lock or transaction is left behind.
pub async fn dropped_calls_leave_the_storage_usable(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let listable = on.capabilities().listable;
    for turn in 0..DROPS {
        cut(turn, on.storage().get(&key)).await;
        cut(turn, on.storage().put(&key, &Record::new("x"), Precondition::Always)).await;
        cut(turn, on.storage().delete(&key, None)).await;
        cut(turn, on.storage().purge(10)).await;
        if listable {
            cut(turn, on.storage().list(&Filter::everything(), PageRequest::default())).await;
        }
    }
    for user in 0..5 {
        let key = crate::tested_storage::key(&format!("user{user}"))?;
        let mut using = pin!(use_once(on.storage().as_ref(), &key));
        match timeout(on.harness().patience() / 3, using.as_mut()).await {
            Ok(used) => used?,
            Err(_) => {
                let call = on.in_flight();
                return Err(Stop::failed(format_args!("{call} hangs after {DROPS} dropped calls of each kind")));
            }
        }
    }
    Ok(())
}

/// After a `put` or `delete` that was dropped, `list` agrees with `get`: no record is unlisted, and none listed that is gone.
pub async fn the_list_agrees_after_a_drop(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    for turn in on.rounds(DROPS / 2, TIME).await? {
        let (created, deleted) = (key(&format!("created{turn}"))?, key(&format!("deleted{turn}"))?);
        on.storage().put(&deleted, &Record::new("x"), Precondition::Always).await?;
        cut(turn, on.storage().put(&created, &rich("x"), Precondition::Always)).await;
        cut(turn, on.storage().delete(&deleted, None)).await;
        for (key, call) in [(created, "put"), (deleted, "delete")] {
            let what = format!("turn {turn}: after a dropped {call}");
            settled!(list_agrees(&on, &key, &what));
        }
    }
    Ok(())
}

/// After a `put` or `delete` that was dropped, every handle reads the same, and the version read holds in a `put`.
pub async fn handles_agree_after_a_drop(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.recorded_handles(2).await?;
    let key = key("alice")?;
    for turn in on.rounds(DROPS, TIME).await? {
        handles[0].put(&key, &Record::new("old"), Precondition::Always).await?;
        handles[0].get(&key).await?;
        if turn % 3 == 2 {
            cut(turn, handles[0].delete(&key, None)).await;
        } else {
            cut(turn, handles[0].put(&key, &Record::new(format!("new {turn}")), Precondition::Always)).await;
        }
        settled!(handles_agree(&handles, &key, turn));
    }
    Ok(())
}

/// A `get` or `list` that is dropped at any point blocks no other one, neither a later one nor one that ran at the same time.
pub async fn a_dropped_read_does_not_block_others(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    let patience = on.harness().patience() / 3;
    let storage = on.harness().storage();
    for turn in on.rounds(DROPS / 4, TIME).await? {
        let (reader, read) = (Arc::clone(&storage), key.clone());
        let get = move || {
            let (reader, read) = (Arc::clone(&reader), read.clone());
            async move { reader.get(&read).await.map(drop) }
        };
        let what = format!("turn {turn}: get({}) beside and after one that was dropped", key.show());
        drop_beside(turn % 10, get, patience, &what).await?;
        if on.capabilities().listable {
            let lister = Arc::clone(&storage);
            let list = move || {
                let lister = Arc::clone(&lister);
                async move { lister.list(&Filter::everything(), PageRequest::default()).await.map(drop) }
            };
            let what = format!("turn {turn}: list beside and after one that was dropped");
            drop_beside(turn % 10, list, patience, &what).await?;
        }
    }
    Ok(())
}

/// Drops a call after so many polls, while another one of the same kind runs, and makes a third one.
async fn drop_beside<F>(polls: usize, call: impl Fn() -> F, patience: Duration, what: &str) -> PropertyResult
where
    F: Future<Output = Result<(), StorageError>> + Send + 'static,
{
    let both = async {
        let mut first = Box::pin(call());
        poll_in_flight(polls, first.as_mut()).await;
        let beside = tokio::spawn(call());
        tokio::task::yield_now().await;
        drop(first);
        beside.await??;
        call().await?;
        PropertyResult::Ok(())
    };
    timeout(patience, both).await.map_err(|_| Stop::failed(format_args!("{what} hangs")))?
}

/// What `list` shows of a key is what `get` reads.
async fn list_agrees(on: &TestedStorage, key: &TokenKey, what: &str) -> PropertyResult {
    let filter = Filter::everything().tenant(None).user(key.user());
    let found = on.storage().get(key).await?.map(|found| found.version);
    let listed = list_all(on.storage().as_ref(), &filter, 10).await?;
    let listed: Vec<_> = listed.into_iter().map(|entry| entry.version).collect();
    ensure_eq!(
        listed,
        found.into_iter().collect::<Vec<_>>(),
        "{what}: list of ({}): the versions, compared with get",
        key.show()
    );
    Ok(())
}

/// Two handles read the same, and what they read is what a `put` compares with.
async fn handles_agree(handles: &[Arc<dyn TokenStorage>], key: &TokenKey, turn: usize) -> PropertyResult {
    let (here, there) = (handles[0].get(key).await?, handles[1].get(key).await?);
    let get = Call::get(key);
    ensure!(
        here == there,
        "turn {turn}: {get} is {} through the handle of a dropped call, and {} through another one",
        here.show(),
        there.show()
    );
    let when = here.map_or(Precondition::Absent, |found| Precondition::Version(found.version));
    let written = handles[0].put(key, &Record::new("next"), when).await;
    let holds = !matches!(written, Err(StorageError::Conflict));
    let put = Call::put(key, &Record::new("next"), when);
    ensure!(holds, "turn {turn}: {put} is a Conflict, with what get returned after a dropped call");
    written?;
    Ok(())
}

async fn use_once(storage: &dyn TokenStorage, key: &TokenKey) -> PropertyResult {
    let version = storage.put(key, &Record::new("x"), Precondition::Absent).await?;
    ensure!(storage.get(key).await?.is_some(), "{} after put, after dropped calls, is None", Call::get(key));
    let delete = Call::delete(key, Some(version));
    ensure_eq!(storage.delete(key, Some(version)).await?, true, "{delete} of a record, after dropped calls");
    storage.purge(10).await?;
    if storage.capabilities().listable {
        storage.list(&Filter::everything(), PageRequest::default()).await?;
    }
    Ok(())
}

/// Drops a call while it is in flight: at its first awaits, where it waits for a connection or an answer, and over the
/// turns at every later one too.
async fn cut<T>(turn: usize, call: impl Future<Output = T>) {
    match turn % 4 {
        0 => drop_in_flight(1, call).await,
        1 => drop_in_flight(2, call).await,
        2 => drop_in_flight(turn / 4 % 14, call).await,
        _ => drop(timeout(Duration::from_micros(100 * (turn as u64 % 40)), call).await),
    }
}

/// Drops a call after so many polls, as soon as it waits for something: not when the answer has come.
pub(crate) async fn drop_in_flight<T>(polls: usize, call: impl Future<Output = T>) {
    poll_in_flight(polls, pin!(call)).await;
}

/// Polls a call so many times, or until it ends.
async fn poll_in_flight<T>(polls: usize, mut call: Pin<&mut impl Future<Output = T>>) {
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Pending if left > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// How long a dropped call may take to arrive: three times as long as a call that is not dropped. A storage whose calls
/// never wait has nothing on its way.
async fn time_to_settle(on: &TestedStorage) -> PropertyResult<Duration> {
    let (key, record) = (key("settled")?, Record::new("x"));
    let (mut slowest, mut waits) = (Duration::ZERO, false);
    for turn in 0..12 {
        let begun = Instant::now();
        if turn % 2 == 0 {
            let call = on.storage().put(&key, &record, Precondition::Always);
            noting_waits(pin!(call), &mut waits).await?;
        } else {
            let call = on.storage().delete(&key, None);
            noting_waits(pin!(call), &mut waits).await?;
        }
        slowest = slowest.max(begun.elapsed());
    }
    let time = Duration::from_millis(15) + (slowest * 3).min(Duration::from_millis(200));
    Ok(if waits { time } else { Duration::ZERO })
}

/// Runs a call, and notes whether it had to wait.
async fn noting_waits<T>(mut call: Pin<&mut impl Future<Output = T>>, waits: &mut bool) -> T {
    poll_fn(|context| {
        let polled = call.as_mut().poll(context);
        *waits |= polled.is_pending();
        polled
    })
    .await
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
