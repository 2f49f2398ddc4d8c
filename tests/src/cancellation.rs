//! Dropping a call at any point does no harm.
//!
//! A web server drops the future of a handler when the client disconnects, and a timeout drops the call that it limits. The
//! storage cannot run anything afterwards: no rollback that awaits, no cleaning up. These properties drop calls at each of
//! their awaits and after random times. A dropped call may still arrive at the server, but soon, and only over the version
//! that it was meant for.

mod dropping;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Entry, Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Versioned,
};
use tokio::time::timeout;

pub(crate) use self::dropping::drop_in_flight;
use self::dropping::{cut, poll_in_flight, time_to_settle, wait};
use crate::calls::{Call, pages};
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// How many calls a property drops: more than a pool has connections.
const DROPS: usize = 120;
/// How long a property takes at most for its rounds.
const TIME: Duration = Duration::from_millis(1_500);
/// How often reads after a dropped call are repeated until they agree.
const SETTLE_ATTEMPTS: usize = 16;
/// How many calls may take longer than what counts as the duration of a slow call.
const OUTLIERS: usize = 3;
/// How long a write may wait while another call is in flight and not polled.
const UNPOLLED: Duration = Duration::from_millis(500);
/// How long the suite waits for late effects of dropped calls.
const LATE: Duration = Duration::from_millis(1_800);
/// The retention of [`rich`].
const DAY: Duration = Duration::from_secs(86_400);

/// Repeats a check for a while, because the dropped call may take effect between two reads.
macro_rules! settled {
    ($check:expr) => {
        let mut checked = $check.await;
        for _ in 0..SETTLE_ATTEMPTS {
            if checked.is_ok() {
                break;
            }
            wait(Duration::from_millis(25)).await;
            checked = $check.await;
        }
        checked?;
    };
}

/// A `put` that is dropped at any point leaves the old or the new record complete: payload, hints and retention.
///
/// Web servers drop the future of a handler when the client disconnects. Write a record with one statement, or in a
/// transaction that is rolled back on drop.
pub async fn a_dropped_write_leaves_old_or_new(on: Arc<TestedStorage>) -> PropertyResult {
    let old = Record::new("old").with_key_id(Some("old".to_owned()));
    // Some storages split payloads of the first size, others only larger ones.
    let sizes = [5_000, 100_000, 5_000, 100_000, 400_000].map(|size| on.accepted_length(size));
    // The dropped call may still be writing the record.
    let patient = on.patient_storage();
    for turn in on.rounds(DROPS, TIME).await? {
        let new = rich(vec![b'n'; sizes[turn % 5]]);
        // A login writes unconditionally. With a request-bound storage, the record would be in a response that is not sent.
        let is_login = turn % 3 == 2 && !on.capabilities().request_bound;
        // An unconditional write may still take effect in a later turn, so it needs a key of its own.
        let key = key(&if is_login { format!("login{turn}") } else { "alice".to_owned() })?;
        let before = patient.put(&key, &old, Precondition::Always).await?;
        let when = if is_login { Precondition::Always } else { Precondition::Version(before) };
        cut(turn, on.storage().put(&key, &new, when)).await;
        let found = on.storage().get(&key).await?;
        let get = format!("turn {turn}: {} after a dropped {}", Call::get(&key), Call::put(&key, &new, when));
        let mut found = found.ok_or_else(|| Stop::failed(format_args!("{get} is None: the record is lost")))?;
        let is_old = found.version == before && found.value == old;
        let left = found.value.retain_for.take();
        let is_retained = left.is_some_and(|left| left <= DAY && left >= DAY / 2);
        let is_new = found.version != before && found.value == new.clone().with_retain_for(None) && is_retained;
        ensure!(
            is_old || is_new,
            "{get} is neither the old nor the new record: {}, retain_for {}",
            found.show(),
            left.show()
        );
        if is_login {
            continue;
        }
        // A conditional write may still take effect, but not over a later write.
        let last = patient.put(&key, &Record::new("last"), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = format!("turn {turn}: {}: the version of the put that followed a dropped one", Call::get(&key));
        ensure_eq!(found, Some(last), "{get}");
    }
    Ok(())
}

/// A conditional `put` that is dropped does not overwrite what another handle has written since it started.
///
/// Cleaning up after a dropped call must not write: by then the record may belong to another call.
pub async fn a_dropped_write_does_not_undo_another(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let handles = on.patient_handles(2).await?;
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
            // The call that is not polled may have a lock, or the only connection.
            break;
        };
        let other = other?;
        drop(call);
        wait(settles).await;
        let found = handles[1].get(&key).await?.map(|found| found.version);
        let what = format!(
            "turn {turn}: {} after a dropped {} that was in flight",
            Call::get(&key),
            Call::put(&key, &dropped, when)
        );
        ensure_eq!(found, Some(other), "{what} during a put Always by another handle: the version");
    }
    Ok(())
}

/// A dropped call takes effect soon or never: never over a later write, and never after a later delete.
///
/// A call that continues in a spawned task, and retries there, fails this.
pub async fn dropped_calls_take_no_late_effect(on: Arc<TestedStorage>) -> PropertyResult {
    let settles = time_to_settle(&on).await?;
    let mut durations = Vec::new();
    let outcome = no_late_effect(&on, "user", DROPS, settles, &mut durations).await;
    if settles.is_zero() || !matches!(outcome, Err(Stop::Failed(_))) {
        return outcome;
    }
    // A busy machine may delay a call once, and some storages are slow now and then. A storage that is late by design is late
    // again.
    durations.sort();
    let slow = durations.iter().rev().nth(OUTLIERS).copied().unwrap_or_default() * 3 / 2;
    let settles = (settles * 2 + Duration::from_millis(40)).max(slow.min(Duration::from_millis(400)));
    no_late_effect(&on, "another", DROPS / 3, settles, &mut durations).await
}

/// Adds the duration of each call that was not dropped to `durations`.
async fn no_late_effect(
    on: &Arc<TestedStorage>,
    user: &str,
    drops: usize,
    settles: Duration,
    durations: &mut Vec<Duration>,
) -> PropertyResult {
    let mut wanted = Vec::new();
    for turn in on.rounds(drops, TIME).await? {
        let key = key(&format!("{user}{turn}"))?;
        let begun = Instant::now();
        let old = on.storage().put(&key, &Record::new("old"), Precondition::Absent).await?;
        durations.push(begun.elapsed());
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
        let (is_deleted, begun) = (turn / 16 % 2 == 1, Instant::now());
        let last = if is_deleted {
            on.storage().delete(&key, None).await?;
            None
        } else {
            Some(on.storage().put(&key, &Record::new("last"), Precondition::Always).await?)
        };
        durations.push(begun.elapsed());
        wanted.push((turn, key, last));
    }
    on.set_permit(None);
    tokio::time::sleep(LATE).await;
    for (turn, key, last) in wanted {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = format!("turn {turn}: {} {LATE:?} after the call that followed a dropped one", Call::get(&key));
        ensure_eq!(found, last, "{get}: the version");
    }
    Ok(())
}

/// A `delete` that is dropped at any point leaves the unchanged record, or none.
///
/// A record in several rows or files needs an order in which each intermediate state is one of the two.
pub async fn a_dropped_delete_leaves_the_record_or_nothing(on: Arc<TestedStorage>) -> PropertyResult {
    let settles = time_to_settle(&on).await?;
    for turn in on.rounds(DROPS, TIME).await? {
        let key = key(&format!("user{turn}"))?;
        let version = on.storage().put(&key, &Record::new("x"), Precondition::Absent).await?;
        cut(turn, on.storage().delete(&key, Some(version))).await;
        let found = on.storage().get(&key).await?;
        let whole = found.as_ref().is_none_or(|found| found.version == version && found.value == Record::new("x"));
        let get = format!("turn {turn}: {} after a dropped delete", Call::get(&key));
        ensure!(whole, "{get} is neither the unchanged record nor None: {}", found.show());
        wait(settles).await;
        on.storage().put(&key, &Record::new("y"), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.map(|found| found.value.payload);
        ensure_eq!(found, Some(b"y".to_vec()), "{get} and the put that followed it");
    }
    Ok(())
}

/// However many calls of any kind are dropped, the storage works: no connection, lock or transaction is leaked.
///
/// Drops 120 calls of each kind, more than most pools have connections. A connection whose last statement was cut off
/// has to be closed, or drained before it is used again: otherwise the next call takes its reply.
pub async fn dropped_calls_leave_the_storage_usable(on: Arc<TestedStorage>) -> PropertyResult {
    let (key, bob) = (key("alice")?, key("bob")?);
    on.storage().put(&bob, &Record::new("bob's"), Precondition::Always).await?;
    let listable = on.capabilities().listable;
    for turn in 0..DROPS {
        cut(turn, on.storage().get(&bob)).await;
        cut(turn, on.storage().put(&key, &Record::new("x"), Precondition::Always)).await;
        cut(turn, on.storage().delete(&key, None)).await;
        cut(turn, on.storage().purge(10)).await;
        if listable {
            cut(turn, on.storage().list(&Filter::everything(), PageRequest::default())).await;
        }
    }
    // No call of the last key has changed it, so none of them can still do so.
    let users = (0..5).map(|user| crate::tested_storage::key(&format!("user{user}"))).chain([Ok(bob)]);
    for key in users {
        let key = key?;
        let mut using = pin!(use_once(on.storage().as_ref(), &key));
        match timeout(on.harness().time_limit() / 3, using.as_mut()).await {
            Ok(used) => used?,
            Err(_) => {
                let call = on.in_flight();
                return Err(Stop::failed(format_args!(
                    "{call} does not return after {DROPS} dropped calls of each kind"
                )));
            }
        }
    }
    Ok(())
}

/// After a dropped `put` or `delete`, `list` agrees with `get`: no stored record is missing, and no deleted one is
/// listed.
///
/// An index that is updated by a second statement fails this if the future is dropped between the two.
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

/// After a dropped `put` or `delete`, every handle reads the same state, and the version that was read matches in a
/// `put`.
///
/// A cache has to be invalidated before a write is sent, because nothing runs after the drop.
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

/// A `get` or `list` that is dropped at any point blocks no other read, whether it is later or concurrent.
///
/// A storage that combines concurrent reads into one call must not depend on the caller that started it.
pub async fn a_dropped_read_does_not_block_others(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    let time_limit = on.harness().time_limit() / 3;
    let storage = on.harness().storage();
    for turn in on.rounds(DROPS / 4, TIME).await? {
        let (reader, read) = (Arc::clone(&storage), key.clone());
        let get = move || {
            let (reader, read) = (Arc::clone(&reader), read.clone());
            async move { reader.get(&read).await.map(drop) }
        };
        let what = format!("turn {turn}: get({}) during or after one that was dropped", key.show());
        drop_one_of_two(turn % 10, get, time_limit, &what).await?;
        if on.capabilities().listable {
            let lister = Arc::clone(&storage);
            let list = move || {
                let lister = Arc::clone(&lister);
                async move { lister.list(&Filter::everything(), PageRequest::default()).await.map(drop) }
            };
            let what = format!("turn {turn}: list during or after one that was dropped");
            drop_one_of_two(turn % 10, list, time_limit, &what).await?;
        }
    }
    Ok(())
}

/// Drops a call after that many polls, while a second one of the same kind is in flight, and then makes a third one.
async fn drop_one_of_two<F>(polls: usize, call: impl Fn() -> F, time_limit: Duration, what: &str) -> PropertyResult
where
    F: Future<Output = Result<(), StorageError>> + Send + 'static,
{
    let both = async {
        let mut first = Box::pin(call());
        poll_in_flight(polls, first.as_mut()).await;
        let other = tokio::spawn(call());
        tokio::task::yield_now().await;
        drop(first);
        other.await??;
        call().await?;
        PropertyResult::Ok(())
    };
    timeout(time_limit, both).await.map_err(|_| Stop::failed(format_args!("{what} does not return")))?
}

/// `list` returns the same version of a key as `get`, at the latest when a call in flight has taken effect.
pub(crate) async fn list_will_agree(on: &TestedStorage, key: &TokenKey, what: &str) -> PropertyResult {
    settled!(list_agrees(on, key, what));
    Ok(())
}

/// `list` returns the same version of a key as `get`, with a filter on the user and with one on the expiry.
async fn list_agrees(on: &TestedStorage, key: &TokenKey, what: &str) -> PropertyResult {
    let mine = Filter::everything().tenant(None).user(key.user());
    let far = Timestamp::from_unix_seconds(253_402_300_799);
    for filter in [mine.clone(), mine.expiring_before(far)] {
        let found = on.storage().get(key).await?;
        let found = found.map(|found| Entry::new(key.clone(), found.version, &found.value));
        let wanted: Vec<_> =
            found.into_iter().filter(|entry| filter.matches(entry)).map(|entry| entry.version).collect();
        let listed = list_all(on.storage().as_ref(), &filter, 10).await?;
        let listed: Vec<_> = listed.into_iter().map(|entry| entry.version).collect();
        ensure_eq!(
            listed,
            wanted,
            "{what}: the versions in {} of ({}), compared with get",
            pages(&filter, 10),
            key.show()
        );
    }
    Ok(())
}

/// Two handles read the same record, and a `put` on the condition of its version succeeds.
async fn handles_agree(handles: &[Arc<dyn TokenStorage>], key: &TokenKey, turn: usize) -> PropertyResult {
    let (here, there) = (handles[0].get(key).await?, handles[1].get(key).await?);
    let get = Call::get(key);
    ensure!(
        here == there,
        "turn {turn}: {get} is {} through the handle of the dropped call, but {} through another one",
        here.show(),
        there.show()
    );
    let when = here.map_or(Precondition::Absent, |found| Precondition::Version(found.version));
    let written = handles[0].put(key, &Record::new("next"), when).await;
    let holds = !matches!(written, Err(StorageError::Conflict));
    let put = Call::put(key, &Record::new("next"), when);
    ensure!(holds, "turn {turn}: {put} is a Conflict, although get returned that state after a dropped call");
    written?;
    Ok(())
}

/// Makes one call of each kind.
async fn use_once(storage: &dyn TokenStorage, key: &TokenKey) -> PropertyResult {
    let before = storage.get(key).await?;
    let is_mine = before.as_ref().is_none_or(|found| found.value.payload == b"bob's" && key.user() == "bob");
    ensure!(is_mine, "{}, after dropped calls, is another key's record: {}", Call::get(key), before.show());
    let when = before.map_or(Precondition::Absent, |found| Precondition::Version(found.version));
    let version = storage.put(key, &Record::new("x"), when).await?;
    let found = storage.get(key).await?;
    let wanted = Some(Versioned::new(Record::new("x"), version));
    ensure_eq!(found, wanted, "{} after put, after dropped calls", Call::get(key));
    let delete = Call::delete(key, Some(version));
    ensure_eq!(storage.delete(key, Some(version)).await?, true, "{delete} of a record, after dropped calls");
    storage.purge(10).await?;
    if storage.capabilities().listable {
        storage.list(&Filter::everything(), PageRequest::default()).await?;
    }
    Ok(())
}
