//! Many tasks on one record, through several handles.
//!
//! These properties use many tasks and few rounds, as a busy application does: pools run out of connections, statements wait
//! for locks, and transactions are rolled back. [`duels`](crate::duels) looks for the smallest gaps between two calls.

mod reads;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{Filter, Precondition, Record, StorageError, TokenKey, TokenStorage, Version, Versioned};
use tokio::task::JoinSet;

pub use self::reads::{no_read_is_torn, reads_at_once_return_their_own_records, reads_do_not_go_back};
use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// How long a task tries to increment the counter once, while no other task does.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// Of many concurrent `put` calls with `Absent`, exactly one succeeds, and the others return `Conflict`.
///
/// Twelve tasks on four handles. A read that is followed by an insert fails this, and so does an upsert. Let a unique
/// key decide.
pub async fn one_creation_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let handles = on.patient_handles(4).await?;
    for round in 0..10 {
        let key = key(&format!("user{round}"))?;
        let written = at_once(&handles, &key, 12, Precondition::Absent).await;
        let mut won = Vec::new();
        for (index, result) in written {
            match result {
                Ok(version) => won.push((index, version)),
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let what = format!("round {round}: 12 concurrent put({}, Absent)", key.show());
        ensure_eq!(won.len(), 1, "{what}: the number of successes");
        let found = on.storage().get(&key).await?.map(|found| (found.value.payload, found.version));
        let (index, version) = won[0];
        ensure_eq!(
            found,
            Some((index.to_string().into_bytes(), version)),
            "get after {what}: the record of the winner"
        );
    }
    Ok(())
}

/// Concurrent unconditional writes of a new key all succeed, and the record of one of them is stored.
///
/// An insert that loses a race has to become an update, and not a `Conflict`. A call that is `Unavailable` is repeated, as an
/// application does.
pub async fn racing_first_writes_all_succeed(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.patient_handles(4).await?;
    for round in 0..10 {
        let key = key(&format!("user{round}"))?;
        let mut versions = HashSet::new();
        let mut all = Vec::new();
        for (index, result) in at_once(&handles, &key, 12, Precondition::Always).await {
            let version = result?;
            let put = format!("put({}, Always)", key.show());
            ensure!(
                versions.insert(version),
                "round {round}: two concurrent {put} returned the same version, {version:?}"
            );
            all.push((index.to_string().into_bytes(), version));
        }
        let found = on.storage().get(&key).await?.map(|found| (found.value.payload, found.version));
        let what = format!("round {round}: {} after 12 concurrent put Always", Call::get(&key));
        let found = found.ok_or_else(|| Stop::failed(format_args!("{what} is None")))?;
        ensure!(all.contains(&found), "{what} is {}, which none of them wrote", found.show());
        if on.capabilities().listable {
            let listed = list_all(on.storage().as_ref(), &Filter::everything().user(key.user()), 10).await?;
            ensure_eq!(listed.len(), 1, "round {round}: list(user {:?}): the number of records of one key", key.user());
        }
    }
    Ok(())
}

/// A counter that many tasks increment with `get` and a conditional `put`, through several handles, loses no increment.
///
/// This is the classic test of compare-and-swap. A condition that is checked by one statement while another one writes
/// fails it.
pub async fn no_update_is_lost(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let (tasks, rounds) = (8, 25);
    let handles = on.patient_handles(4).await?;
    let mut counting = JoinSet::new();
    for index in 0..tasks {
        counting.spawn(count_up(Arc::clone(&handles[index % handles.len()]), rounds));
    }
    while let Some(counted) = counting.join_next().await {
        counted??;
    }
    let get = Call::get(&key("counter")?);
    let what =
        format!("{get}, after {tasks} concurrent tasks have incremented it {rounds} times each with put Version");
    ensure_eq!(count(on.storage().as_ref()).await?, tasks * rounds, "{what}");
    Ok(())
}

/// Of many concurrent deletes of a record, exactly one returns `Ok(true)`.
///
/// Return what the delete statement removed. A read before the delete lets several callers believe that they removed
/// the record.
pub async fn one_delete_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let handles = on.patient_handles(4).await?;
    for round in 0..20 {
        let key = key(&format!("user{round}"))?;
        let version = on.storage().put(&key, &rich("x"), Precondition::Always).await?;
        let mut deleting = JoinSet::new();
        for index in 0..8 {
            let (storage, key) = (Arc::clone(&handles[index % handles.len()]), key.clone());
            let only = (round % 2 == 0).then_some(version);
            deleting.spawn(async move { storage.delete(&key, only).await });
        }
        let mut removed = 0;
        for result in deleting.join_all().await {
            removed += usize::from(result?);
        }
        let delete = Call::delete(&key, (round % 2 == 0).then_some(version));
        ensure_eq!(removed, 1, "round {round}: 8 concurrent {delete}: the number of Ok(true)");
    }
    Ok(())
}

/// Of a delete and a write of the same version at the same time, exactly one takes effect.
///
/// They are a logout and the commit of a refresh. If both succeeded, the token of a user who has logged out would
/// remain.
pub async fn a_delete_and_a_write_exclude_each_other(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let handles = on.patient_handles(2).await?;
    for round in 0..40 {
        let key = key(&format!("user{round}"))?;
        let version = on.storage().put(&key, &rich("x"), Precondition::Always).await?;
        let (writer, target) = (Arc::clone(&handles[0]), key.clone());
        let writing =
            tokio::spawn(async move { writer.put(&target, &rich("y"), Precondition::Version(version)).await });
        let (deleter, target) = (Arc::clone(&handles[1]), key.clone());
        let deleting = tokio::spawn(async move { deleter.delete(&target, Some(version)).await });
        let written = match writing.await? {
            Ok(_) => true,
            Err(StorageError::Conflict) => false,
            Err(error) => return Err(error.into()),
        };
        let deleted = deleting.await??;
        let written_is = if written { "succeeded" } else { "is a Conflict" };
        let both = format!(
            "round {round}: put({}, {version:?}) {written_is} and a concurrent delete of that version is Ok({deleted})",
            key.show()
        );
        ensure!(written != deleted, "{both}: exactly one must succeed");
        let is_there = on.storage().get(&key).await?.is_some();
        ensure!(
            is_there == written,
            "{both}, and afterwards the record is {}",
            if is_there { "stored" } else { "not stored" }
        );
    }
    Ok(())
}

/// Of several concurrent writes of a large record over one version, or over nothing, exactly one succeeds.
///
/// Large payloads may take another path, such as chunks or a separate object. The record that is stored has to be the
/// winner's, completely.
pub async fn large_writes_exclude_each_other(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let handles = on.patient_handles(4).await?;
    for size in BTreeSet::from([5_000, 100_000, 400_000].map(|size| on.accepted_length(size))) {
        for round in on.rounds(10, Duration::from_millis(200)).await? {
            let key = key(&format!("user{size}-{round}"))?;
            let when = if round % 2 == 0 {
                Precondition::Version(on.storage().put(&key, &rich("x"), Precondition::Always).await?)
            } else {
                Precondition::Absent
            };
            let mut writing = JoinSet::new();
            for (storage, letter) in handles.iter().cloned().zip([b'a', b'b', b'c', b'd']) {
                let (key, record) = (key.clone(), Record::new(vec![letter; size]));
                writing.spawn(async move { (storage.put(&key, &record, when).await, record) });
            }
            let mut won = Vec::new();
            for (written, record) in writing.join_all().await {
                match written {
                    Ok(version) => won.push(Versioned::new(record, version)),
                    Err(StorageError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let put = format!("put({}, {size} bytes, {})", key.show(), when.show());
            ensure_eq!(won.len(), 1, "round {round}: 4 concurrent {put}: the number of successes");
            ensure_eq!(on.storage().get(&key).await?, won.pop(), "round {round}: get after 4 concurrent {put}");
        }
    }
    Ok(())
}

/// Tasks that write two keys in opposite orders do not deadlock, and a busy key does not block another one.
///
/// A transaction that spans several keys, or one lock for all keys that is held across a network call, fails this.
pub async fn keys_do_not_block_each_other(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.patient_handles(4).await?;
    let (one, two, calm) = (key("one")?, key("two")?, key("calm")?);
    let mut busy = JoinSet::new();
    for index in 0..12 {
        let storage = Arc::clone(&handles[index % handles.len()]);
        let (first, second) = if index % 2 == 0 { (one.clone(), two.clone()) } else { (two.clone(), one.clone()) };
        busy.spawn(async move {
            for _ in 0..10 {
                storage.put(&first, &rich("x"), Precondition::Always).await?;
                storage.put(&second, &rich("y"), Precondition::Always).await?;
                storage.delete(&first, None).await?;
            }
            PropertyResult::Ok(())
        });
    }
    for _ in 0..20 {
        let version = on.storage().put(&calm, &rich("x"), Precondition::Always).await?;
        let found = on.storage().get(&calm).await?.map(|found| found.version);
        ensure_eq!(
            found,
            Some(version),
            "{} after put, while other keys are being written: the version",
            Call::get(&calm)
        );
    }
    while let Some(finished) = busy.join_next().await {
        finished??;
    }
    Ok(())
}

/// Increments the counter of [`no_update_is_lost`] that many times, and repeats each increment until it succeeds.
pub(crate) async fn count_up(storage: Arc<dyn TokenStorage>, rounds: usize) -> PropertyResult {
    let key = key("counter")?;
    for _ in 0..rounds {
        let (mut begun, mut seen) = (Instant::now(), None);
        loop {
            let found = storage.get(&key).await?;
            // On a slow storage, the others may win for a long time.
            let version = found.as_ref().map(|found| found.version);
            if seen.replace(version) != Some(version) {
                begun = Instant::now();
            }
            let when = found.as_ref().map_or(Precondition::Absent, |found| Precondition::Version(found.version));
            let next = found.map_or(Ok(0), |found| number(&key, Some(&found.value)))? + 1;
            let put = storage.put(&key, &Record::new(next.to_string()), when).await;
            if put.is_err() && begun.elapsed() > LONGEST_ROUND {
                let call = Call::put(&key, &Record::new(next.to_string()), when);
                return Err(Stop::failed(format_args!("{call} is {} for {LONGEST_ROUND:?}", put.show())));
            }
            match put {
                Ok(_) => break,
                Err(StorageError::Conflict) => {}
                // The storage is too busy and has written nothing, so the call can be repeated.
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The value of the counter.
pub(crate) async fn count(storage: &dyn TokenStorage) -> PropertyResult<usize> {
    number(&key("counter")?, storage.get(&key("counter")?).await?.as_ref().map(|found| &found.value))
}

fn number(key: &TokenKey, record: Option<&Record>) -> PropertyResult<usize> {
    let number = record.and_then(|record| std::str::from_utf8(&record.payload).ok()?.parse().ok());
    number.ok_or_else(|| {
        Stop::failed(format_args!("{} is {}, but only numbers were written", Call::get(key), record.show()))
    })
}

/// Writes with the same precondition from many tasks concurrently. Each writes its own number.
async fn at_once(
    handles: &[Arc<dyn TokenStorage>],
    key: &TokenKey,
    count: usize,
    when: Precondition,
) -> Vec<(usize, Result<Version, StorageError>)> {
    let mut writing = JoinSet::new();
    for index in 0..count {
        let (storage, key) = (Arc::clone(&handles[index % handles.len()]), key.clone());
        writing.spawn(async move { (index, storage.put(&key, &Record::new(index.to_string()), when).await) });
    }
    writing.join_all().await
}
