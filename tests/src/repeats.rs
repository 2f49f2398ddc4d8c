//! A storage that repeats a call by itself does not meet what its first attempt did.

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

/// How long the suite waits for what a storage does after a call has returned.
const LATE: Duration = Duration::from_millis(1_500);

/// A storage that repeats a call because an answer was lost returns what the call did, or `Ambiguous`: never `Conflict`,
/// `Ok(false)` or `Ok(0)` because the first attempt had succeeded.
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
            let what = format!("{put}, whose first answer was lost, is");
            match written? {
                Ok(version) => {
                    ensure_eq!(found, Some(Versioned::new(new, version)), "get after {what} Ok({version:?})");
                }
                Err(StorageError::Ambiguous { .. }) => {}
                Err(StorageError::Unavailable { .. }) if !is_new => {}
                Err(error) => {
                    return Err(Stop::failed(format_args!(
                        "{what} {}, and get is {}",
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
            if let Some(answer) = wrong {
                let (delete, left) = (Call::delete(&key, only), if is_there { "there" } else { "gone" });
                let what = format!("{delete} of a record, whose first answer was lost, is {}", answer.show());
                return Err(Stop::failed(format_args!("{what}, and the record is {left}")));
            }
        }
        a_repeated_read_is_right(&on, round).await?;
        a_repeated_purge_is_right(&on).await?;
    }
    Ok(())
}

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
            Err(Stop::failed(format_args!("{}, whose first answer was lost, is {}", Call::get(&key), other.show())))
        }
    }
}

/// What it says that it removed, and what the next one removes, are all.
async fn a_repeated_purge_is_right(on: &TestedStorage) -> PropertyResult {
    if !purges(on).await? {
        return Ok(());
    }
    on.harness().inject(Fault::CutNextReply).await?;
    let removed = in_time(on, on.storage().purge(usize::MAX)).await;
    heal(on).await?;
    let rest = on.storage().purge(usize::MAX).await?;
    if let Ok(removed) = removed? {
        let count = "of 3 expired records, whose first answer was lost, is";
        ensure!(removed + rest == 3, "purge({}) {count} Ok({removed}), and the next one is Ok({rest})", usize::MAX);
    }
    Ok(())
}

/// What was seen after a call whose answer was lost is not undone, and the call is not repeated later, over what came after
/// it.
pub async fn an_ambiguous_call_is_neither_undone_nor_repeated(on: Arc<TestedStorage>) -> PropertyResult {
    let mut settled = Vec::new();
    for index in 0..8 {
        let key = key(&format!("user{index}"))?;
        let new = Record::new(format!("new {index}"));
        let old = on.storage().put(&key, &Record::new("old"), Precondition::Always).await?;
        on.harness().inject(Fault::CutReply).await?;
        // Its answer is lost, whatever it is.
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
    on.take_turn(None);
    sleep(LATE).await;
    for (key, call, seen) in settled {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = Call::get(&key);
        ensure_eq!(found, seen, "{get} {LATE:?} after {call}, whose answer was lost: the version seen before");
    }
    Ok(())
}

/// A put or delete that was refused because the server was down, read-only or full is not repeated once it works again.
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
        let mut answers = Vec::new();
        for (name, key, before) in calls {
            let (new, old) = (Record::new("new"), before.map_or(Precondition::Absent, Precondition::Version));
            let when = if name == "put Always" { Precondition::Always } else { old };
            let only = before.filter(|_| name == "delete of a version");
            let (call, answer) = match name {
                "delete" | "delete of a version" => {
                    (Call::delete(&key, only), in_time(&on, on.storage().delete(&key, only)).await?.map(|_| ()))
                }
                _ => (Call::put(&key, &new, when), in_time(&on, on.storage().put(&key, &new, when)).await?.map(|_| ())),
            };
            answers.push((fault, key, call, before, answer));
        }
        heal(&on).await?;
        // What may have changed something has a property of its own.
        let is_refused = |error: &StorageError| !matches!(error, StorageError::Ambiguous { .. });
        refused.extend(answers.into_iter().filter(|(.., answer)| answer.as_ref().is_err_and(is_refused)));
    }
    if refused.is_empty()
        && let Some(stop) = unable
    {
        return Err(stop);
    }
    on.take_turn(None);
    sleep(LATE).await;
    for (fault, key, call, before, _) in refused {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let get = Call::get(&key);
        ensure_eq!(found, before, "{fault:?}: {get} {LATE:?} after it ended, when {call} was refused: the version");
    }
    Ok(())
}
