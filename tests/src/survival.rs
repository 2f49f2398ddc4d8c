//! Acknowledged writes and deletes of every kind survive a restart and a crash of the server.
//!
//! A rotated refresh token exists nowhere else: if its write is lost, the user has to authorize again. A crash is therefore
//! tested with records of many kinds, because storages may write small and large payloads, hints and deletes in different
//! ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{
    Entry, Filter, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Version, Versioned,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::calls::{Call, pages};
use crate::faults::{heal, in_time, responds, works};
use crate::harness::Fault;
use crate::listing::are_listed;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// The retention of the records that have one.
const RETENTION: Duration = Duration::from_secs(86_400);
/// How many kinds of writes there are.
const WRITES: usize = 27;
/// How many kinds of writes and deletes there are.
pub(crate) const KINDS: usize = WRITES + 6;
/// The length of a large payload, if the storage accepts it.
pub(crate) const LARGE: usize = 65_536;

/// Everything that was written before a restart is read and listed through a new pool, also with filters: every kind of
/// record, with its version, its hints and its remaining retention.
///
/// The kinds combine empty, small and large payloads with and without hints and retention, written with each condition,
/// and deleted records.
pub async fn acknowledged_writes_survive_a_restart(on: Arc<TestedStorage>) -> PropertyResult {
    on.units(1).await?;
    let mut written = write_each_kind(&on, "restart").await?;
    if !on.capabilities().request_bound {
        written.extend(write_accounts(&on, "several").await?);
    }
    on.pass(35).await?;
    let reopened = on.harness().reopen().await?;
    are_unchanged(&on, reopened.as_ref(), &written, "through a storage opened again").await?;
    entries_are_unchanged(&on, reopened.as_ref(), &written, "through a storage opened again").await?;
    // The handles share nothing that ends with one of them.
    drop(reopened);
    works(&on).await
}

/// Lists show what was written, with and without a filter, and no deleted record. Records of other keys do not matter.
async fn entries_are_unchanged(
    on: &TestedStorage,
    storage: &dyn TokenStorage,
    written: &[Written],
    what: &str,
) -> PropertyResult {
    if !on.capabilities().listable {
        return Ok(());
    }
    let entry = |written: &Written| {
        let stored = written.stored.as_ref()?;
        Some(Entry::new(written.key.clone(), stored.version, &stored.value))
    };
    let mut wanted: Vec<_> = written.iter().filter_map(entry).collect();
    wanted.sort_by(|one, other| one.key.cmp(&other.key));
    for filter in [
        Filter::everything(),
        Filter::everything().tenant(None).user("several"),
        Filter::everything().provider("github"),
        Filter::everything().expiring_before(Timestamp::from_unix_seconds(4_102_444_801)),
    ] {
        let mut listed = list_all(storage, &filter, 100).await?;
        listed.retain(|entry| written.iter().any(|written| written.key == entry.key));
        listed.sort_by(|one, other| one.key.cmp(&other.key));
        let matching: Vec<_> = wanted.iter().filter(|entry| filter.matches(entry)).cloned().collect();
        are_listed(&listed, &matching, &format!("{} {what}", pages(&filter, 100)))?;
    }
    Ok(())
}

/// Writes several accounts of one user, with different hints.
async fn write_accounts(on: &TestedStorage, user: &str) -> PropertyResult<Vec<Written>> {
    let mut written = Vec::new();
    for number in 0..6 {
        let key = key(user)?.with_account(format!("account{number}"))?;
        let (record, begun) = (record(number * 3 + 1, 0), on.now());
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        let call = Call::put(&key, &record, Precondition::Always);
        written.push(Written { key, call, stored: Some(Versioned::new(record, version)), at: (begun, on.now()) });
    }
    Ok(written)
}

/// If the server crashes during writes (`kill -9`), no acknowledged write or delete is lost, every record is unchanged,
/// and the same storage works again once the server does.
///
/// Only for storages that declare
/// `durable`. The server has to flush a write before it acknowledges it, such as Redis with `appendfsync always`.
pub async fn acknowledged_writes_survive_a_server_crash(on: Arc<TestedStorage>) -> PropertyResult {
    if !on.capabilities().durable {
        return Err(Stop::not_applicable("not durable"));
    }
    on.units(1).await?;
    survive(&on, Fault::Crash).await
}

/// If one of several servers fails during writes, no acknowledged write or delete is lost, and the storage works without
/// that server. When the server is back, it returns nothing that it knew before.
///
/// Give the storage the addresses of all servers, and let it try the next one. A read from one server alone, without
/// asking the others, returns what that server knew before it failed.
pub async fn acknowledged_writes_survive_a_failover(on: Arc<TestedStorage>) -> PropertyResult {
    on.units(1).await?;
    survive(&on, Fault::Failover).await?;
    match survive(&on, Fault::Isolated).await {
        // Not every harness can suspend a server.
        Err(Stop::NotApplicable(_)) => Ok(()),
        survived => survived,
    }
}

/// The fault begins during writes, and none that was acknowledged is lost.
async fn survive(on: &TestedStorage, fault: Fault) -> PropertyResult {
    let mut written = write_each_kind(on, &format!("early {fault:?}")).await?;
    on.pass(35).await?;
    let (mut writers, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for writer in 0..4 {
        let (storage, key) = (Arc::clone(on.storage()), key(&format!("user{writer} {fault:?}"))?);
        storage.put(&key, &Record::new("0"), Precondition::Always).await?;
        let stop = Arc::clone(&stop);
        writers.spawn(async move {
            let mut acknowledged = 0_usize;
            // More than any storage writes before the fault.
            for number in 1..1_000_000 {
                let written = storage.put(&key, &Record::new(number.to_string()), Precondition::Always).await;
                if written.is_err() {
                    break;
                }
                acknowledged = number;
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                tokio::task::yield_now().await;
            }
            (key, acknowledged)
        });
    }
    sleep(Duration::from_millis(150)).await;
    written.extend(write_each_kind(on, &format!("late {fault:?}")).await?);
    let injected = on.harness().inject(fault).await;
    stop.store(true, Ordering::SeqCst);
    let counted = writers.join_all().await;
    injected?;
    if fault != Fault::Crash {
        responds(on, &format!("the fault {fault:?} began, which the other servers have to survive")).await?;
        works(on).await?;
        are_counted(on, &counted, fault).await?;
        are_unchanged(on, on.storage().as_ref(), &written, &format!("during the fault {fault:?}")).await?;
    }
    heal(on).await?;
    are_counted(on, &counted, fault).await?;
    let what = format!("after the fault {fault:?}");
    are_unchanged(on, on.storage().as_ref(), &written, &what).await?;
    entries_are_unchanged(on, on.storage().as_ref(), &written, &what).await?;
    works(on).await
}

/// A version from before a crash of the server is never used again, and matches nothing, also if its record was the last one
/// and was deleted.
///
/// A counter that the server continues after the greatest stored number fails this, such as `AUTO_INCREMENT` in MySQL 5.7.
pub async fn a_version_is_void_after_a_crash(on: Arc<TestedStorage>) -> PropertyResult {
    let (zero, long) = (Record::new("x").with_retain_for(Some(Duration::ZERO)), rich("x"));
    let mut void = Vec::new();
    let keys = ["deleted", "of a version", "purged"].map(key);
    let keys = keys.into_iter().collect::<PropertyResult<Vec<_>>>()?;
    for (index, key) in keys.iter().enumerate() {
        for record in [&long, &zero, &long] {
            void.push(on.storage().put(key, record, Precondition::Always).await?);
        }
        match index {
            0 => drop(on.storage().delete(key, None).await?),
            1 => drop(on.storage().delete(key, void.last().copied()).await?),
            _ => {
                void.push(on.storage().put(key, &zero, Precondition::Always).await?);
                on.storage().purge(usize::MAX).await?;
            }
        }
    }
    on.harness().inject(Fault::Crash).await?;
    // The first call after a crash may find a broken connection.
    drop(in_time(&on, on.storage().put(&key("probe")?, &zero, Precondition::Always)).await?);
    heal(&on).await?;
    for key in &keys {
        for when in [Precondition::Absent, Precondition::Always, Precondition::Always] {
            let version = on.storage().put(key, &long, when).await?;
            let put = format!("{} after a crash", Call::put(key, &long, when));
            ensure!(!void.contains(&version), "{put}: it returned the version of an earlier write, {version:?}");
            for old in void.iter().copied() {
                let late = on.storage().put(key, &long, Precondition::Version(old)).await;
                ensure_error!(late, StorageError::Conflict, "put over {old:?}, a version from before a crash");
                let removed = on.storage().delete(key, Some(old)).await?;
                ensure_eq!(removed, false, "{} from before a crash", Call::delete(key, Some(old)));
            }
        }
    }
    Ok(())
}

/// Each key has the number of its last acknowledged write, or that of the write that failed.
async fn are_counted(on: &TestedStorage, counted: &[(TokenKey, usize)], fault: Fault) -> PropertyResult {
    for (key, acknowledged) in counted {
        let found = on.storage().get(key).await?;
        let number = found.as_ref().and_then(|found| std::str::from_utf8(&found.value.payload).ok()?.parse().ok());
        let whole = number.is_some_and(|number: usize| (*acknowledged..=acknowledged + 1).contains(&number));
        let get = Call::get(key);
        ensure!(
            whole,
            "{get} after the fault {fault:?} began is {}, but write {acknowledged} was acknowledged",
            found.show()
        );
    }
    Ok(())
}

/// A key, the last call for it, and what the storage should contain since then.
struct Written {
    key: TokenKey,
    call: Call,
    stored: Option<Versioned<Record>>,
    /// The times just before and just after the call.
    at: (Duration, Duration),
}

/// Writes and deletes one record of each kind.
async fn write_each_kind(on: &TestedStorage, name: &str) -> PropertyResult<Vec<Written>> {
    let mut written = Vec::new();
    for number in 0..KINDS {
        if on.capabilities().request_bound && number % 3 == 2 {
            // A request has no room for several large records.
            continue;
        }
        let key = key(&format!("{name} {number}"))?;
        let begun = on.now();
        let (call, version) = write_kind(on.storage().as_ref(), &key, number, on.accepted_length(LARGE)).await?;
        let stored = version.map(|version| Versioned::new(record(number, on.accepted_length(LARGE)), version));
        written.push(Written { key, call, stored, at: (begun, on.now()) });
    }
    Ok(written)
}

/// Each record is as it was written, except for the remaining retention, and no deleted record is stored.
async fn are_unchanged(
    on: &TestedStorage,
    storage: &dyn TokenStorage,
    written: &[Written],
    what: &str,
) -> PropertyResult {
    for Written { key, call, stored, at } in written {
        let called = on.now();
        let found = storage.get(key).await?;
        let what = format!("{} {what}, after {call}", Call::get(key));
        let passed = (called.saturating_sub(at.1), on.now().saturating_sub(at.0));
        is_unchanged(found.as_ref(), stored.as_ref(), passed, &what)?;
    }
    Ok(())
}

/// The record is as it was written. `passed` is how long ago that was, at least and at most.
pub(crate) fn is_unchanged(
    found: Option<&Versioned<Record>>,
    stored: Option<&Versioned<Record>>,
    passed: (Duration, Duration),
    what: &str,
) -> PropertyResult {
    let bare = |found: &Versioned<Record>| Versioned::new(found.value.clone().with_retain_for(None), found.version);
    ensure_eq!(found.map(bare), stored.map(bare), "{what}");
    let [left, whole] = [found, stored].map(|found| found.and_then(|found| found.value.retain_for));
    let Some(whole) = whole else {
        ensure_eq!(left, None, "{what}: retain_for");
        return Ok(());
    };
    // A clock that counts whole seconds is off by less than a second. The server may have restarted on another one.
    let most = (whole.saturating_sub(passed.0) + Duration::from_millis(2_100)).min(whole);
    let least = whole.saturating_sub(passed.1 + Duration::from_millis(2_100));
    let right = left.is_some_and(|left| (least..=most).contains(&left));
    ensure!(right, "{what}: retain_for is {} of {whole:?}, {:?} after the write", left.show(), passed.0);
    Ok(())
}

/// Writes or deletes a record of this kind, under a key that was never used. Returns the last call, and the version that is
/// stored after it.
pub(crate) async fn write_kind(
    storage: &dyn TokenStorage,
    key: &TokenKey,
    number: usize,
    large: usize,
) -> PropertyResult<(Call, Option<Version>)> {
    let record = record(number, large);
    if number % KINDS >= WRITES {
        let version = storage.put(key, &record, Precondition::Always).await?;
        let only = number.is_multiple_of(2).then_some(version);
        let delete = Call::delete(key, only);
        ensure_eq!(storage.delete(key, only).await?, true, "{delete} of a record");
        return Ok((delete, None));
    }
    let when = match number % KINDS / 9 {
        0 => Precondition::Always,
        1 => Precondition::Absent,
        _ => {
            let before = Record::new("before").with_retain_for(Some(RETENTION / 2));
            Precondition::Version(storage.put(key, &before, Precondition::Always).await?)
        }
    };
    let version = storage.put(key, &record, when).await?;
    Ok((Call::put(key, &record, when), Some(version)))
}

/// A record of this kind: with an empty, small or large payload, and without hints, with hints, or with hints and a
/// retention.
pub(crate) fn record(number: usize, large: usize) -> Record {
    let payload = match number % 3 {
        0 => Vec::new(),
        1 => format!("payload {number}").into_bytes(),
        _ => (0..large).map(|index| b'a' + ((index + number) % 23) as u8).collect(),
    };
    let hints = rich(payload).with_retain_for(None);
    match number / 3 % 3 {
        0 => Record::new(hints.payload),
        1 => hints,
        _ => hints.with_retain_for(Some(RETENTION)),
    }
}
