//! A storage that retries a call on its own handles the effect of its first attempt.
//!
//! Drivers and pools retry after a broken connection, often without being configured to. If the reply to the first attempt
//! was lost, that attempt may have succeeded, and a conditional write then fails on its own version. The caller would believe
//! that another process has won, and would drop a token that the provider has already issued.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, Versioned};
use tokio::time::sleep;

use crate::calls::Call;
use crate::faults::{heal, in_time, purges};
use crate::harness::Fault;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::{Show as _, error_name};
use crate::tested_storage::{TestedStorage, key};

/// How long the suite waits for effects after a call has returned.
const LATE: Duration = Duration::from_millis(1_500);

/// A storage that retries a call after a lost reply returns the result of the call, or `Ambiguous`: never `Conflict`,
/// `Ok(false)` or `Ok(0)` because its first attempt had succeeded.
///
/// Some drivers retry on their own. A conditional write that is retried finds its own version in the record: that is
/// success, not a conflict.
pub async fn a_repeated_call_does_not_meet_its_own_effect(on: Arc<TestedStorage>) -> PropertyResult {
    let fault = Fault::CutNextReply;
    for round in 0..3 {
        for name in ["Always", "Absent", "Version"] {
            let key = key(&format!("put {name} {round}"))?;
            let when = match name {
                "Always" => Precondition::Always,
                "Absent" => Precondition::Absent,
                _ => Precondition::Version(on.storage().put(&key, &Record::new("old"), Precondition::Always).await?),
            };
            let (new, put) = (Record::new("new"), Call::put(&key, &Record::new("new"), when));
            on.harness().inject(fault).await?;
            let written = in_time(&on, on.storage().put(&key, &new, when)).await;
            heal(&on).await?;
            let found = on.storage().get(&key).await?;
            let is_new = found.as_ref().is_some_and(|found| found.value == new);
            let what = format!("{put}, whose first reply was lost, is");
            match written? {
                Ok(version) => {
                    ensure_eq!(found, Some(Versioned::new(new, version)), "get after {what} Ok({version:?})");
                }
                Err(StorageError::Ambiguous { .. }) => {}
                Err(StorageError::Unavailable { .. }) if !is_new => {}
                Err(error) => {
                    return Err(Stop::failed(format_args!(
                        "{what} {}, but get is {}",
                        error_name(&error),
                        found.show()
                    )));
                }
            }
        }
        for is_conditional in [false, true] {
            let key = key(&format!("delete {is_conditional} {round}"))?;
            let version = on.storage().put(&key, &Record::new("old"), Precondition::Always).await?;
            let only = is_conditional.then_some(version);
            on.harness().inject(fault).await?;
            let deleted = in_time(&on, on.storage().delete(&key, only)).await;
            heal(&on).await?;
            let is_there = on.storage().get(&key).await?.is_some();
            let wrong = match deleted? {
                Err(StorageError::Ambiguous { .. }) => None,
                Ok(true) if !is_there => None,
                Err(StorageError::Unavailable { .. }) if is_there => None,
                other => Some(other),
            };
            if let Some(result) = wrong {
                let (delete, left) = (Call::delete(&key, only), if is_there { "still stored" } else { "deleted" });
                let what = format!("{delete} of a record, whose first reply was lost, is {}", result.show());
                return Err(Stop::failed(format_args!("{what}, and the record is {left}")));
            }
        }
        a_repeated_read_is_right(&on, round).await?;
        a_repeated_purge_is_right(&on).await?;
    }
    Ok(())
}

/// A `get` whose first reply was lost returns the record or an error.
async fn a_repeated_read_is_right(on: &TestedStorage, round: usize) -> PropertyResult {
    let key = key(&format!("read {round}"))?;
    let version = on.storage().put(&key, &Record::new("x"), Precondition::Always).await?;
    on.harness().inject(Fault::CutNextReply).await?;
    let found = in_time(on, on.storage().get(&key)).await;
    heal(on).await?;
    match found? {
        Ok(Some(found)) if found.version == version => Ok(()),
        Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => Ok(()),
        other => {
            Err(Stop::failed(format_args!("{}, whose first reply was lost, is {}", Call::get(&key), other.show())))
        }
    }
}

/// A `purge` whose first reply was lost, and the next one, together return the number of expired records.
async fn a_repeated_purge_is_right(on: &TestedStorage) -> PropertyResult {
    if !purges(on).await? {
        return Ok(());
    }
    on.harness().inject(Fault::CutNextReply).await?;
    let removed = in_time(on, on.storage().purge(usize::MAX)).await;
    heal(on).await?;
    let rest = on.storage().purge(usize::MAX).await?;
    let what = format!("purge({}) of 3 expired records, whose first reply was lost, is", usize::MAX);
    match removed? {
        Ok(removed) => ensure!(removed + rest == 3, "{what} Ok({removed}), and the next one is Ok({rest})"),
        Err(StorageError::Unavailable { .. }) => {
            ensure!(rest == 3, "{what} Unavailable, but then only {rest} are left");
        }
        Err(_) => {}
    }
    Ok(())
}

/// Once the state after a call with a lost reply was observed, it is final: the call is not undone, and not retried
/// later over newer writes.
///
/// A queue of pending writes that is sent after reconnecting fails this.
pub async fn an_ambiguous_call_is_neither_undone_nor_repeated(on: Arc<TestedStorage>) -> PropertyResult {
    let mut settled = Vec::new();
    for index in 0..8 {
        let key = key(&format!("user{index}"))?;
        let new = Record::new(format!("new {index}"));
        let old = on.storage().put(&key, &Record::new("old"), Precondition::Always).await?;
        on.harness().inject(Fault::CutReply).await?;
        // The reply is lost, so the result does not matter.
        let call = match index / 2 {
            0 => {
                drop(in_time(&on, on.storage().put(&key, &new, Precondition::Always)).await?);
                Call::put(&key, &new, Precondition::Always)
            }
            1 => {
                let when = Precondition::Version(old);
                drop(in_time(&on, on.storage().put(&key, &new, when)).await?);
                Call::put(&key, &new, when)
            }
            _ => {
                let only = (index / 2 == 3).then_some(old);
                drop(in_time(&on, on.storage().delete(&key, only)).await?);
                Call::delete(&key, only)
            }
        };
        heal(&on).await?;
        let mut seen = on.storage().get(&key).await?.map(|found| found.version);
        if index % 2 == 1 {
            seen = Some(on.storage().put(&key, &Record::new("newer"), Precondition::Always).await?);
        }
        settled.push((key, call, seen));
    }
    on.set_permit(None);
    sleep(LATE).await;
    for (key, call, seen) in settled {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = Call::get(&key);
        ensure_eq!(found, seen, "{get} {LATE:?} after {call}, whose reply was lost: the version");
    }
    Ok(())
}

/// A `put` or `delete` that failed because the server was down, read-only or full is not retried once the server works
/// again.
///
/// The caller has received the error and may have acted on it, for instance with a new login.
pub async fn a_refused_call_is_not_repeated_later(on: Arc<TestedStorage>) -> PropertyResult {
    let (mut refused, mut unable) = (Vec::new(), None);
    let faults = [Fault::Down, Fault::ReadOnly, Fault::Full];
    for fault in faults {
        let mut calls = Vec::new();
        for name in ["put Always", "put Version", "put Absent", "delete", "delete of a version"] {
            let key = key(&format!("{fault:?} {name}"))?;
            let before = match name {
                "put Absent" => None,
                _ => Some(on.storage().put(&key, &Record::new("old"), Precondition::Always).await?),
            };
            calls.push((name, key, before));
        }
        match on.harness().inject(fault).await.map_err(Stop::from) {
            Err(stop @ Stop::NotApplicable(_)) => {
                unable = Some(stop);
                continue;
            }
            injected => injected?,
        }
        let mut results = Vec::new();
        for (name, key, before) in calls {
            let (new, old) = (Record::new("new"), before.map_or(Precondition::Absent, Precondition::Version));
            let when = if name == "put Always" { Precondition::Always } else { old };
            let only = before.filter(|_| name == "delete of a version");
            let (call, result) = match name {
                "delete" | "delete of a version" => {
                    (Call::delete(&key, only), in_time(&on, on.storage().delete(&key, only)).await?.map(|_| ()))
                }
                _ => (Call::put(&key, &new, when), in_time(&on, on.storage().put(&key, &new, when)).await?.map(|_| ())),
            };
            results.push((fault, key, call, before, result));
        }
        heal(&on).await?;
        // An ambiguous call may have taken effect. A property of its own tests that.
        let is_refused = |error: &StorageError| !matches!(error, StorageError::Ambiguous { .. });
        refused.extend(results.into_iter().filter(|(.., result)| result.as_ref().is_err_and(is_refused)));
    }
    if refused.is_empty()
        && let Some(stop) = unable
    {
        return Err(stop);
    }
    on.set_permit(None);
    sleep(LATE).await;
    for (fault, key, call, before, _) in refused {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = Call::get(&key);
        ensure_eq!(
            found,
            before,
            "{get} {LATE:?} after the fault {fault:?}, during which {call} was rejected: the version"
        );
    }
    Ok(())
}
