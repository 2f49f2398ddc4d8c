//! Many tasks on one record, through several handles.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{
    Filter, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Version, Versioned,
};
use tokio::task::JoinSet;

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::subject::{Subject, key, list_all, rich};

/// Of many `put Absent` at once exactly one succeeds, and the others get a `Conflict`.
pub async fn one_creation_wins(on: Arc<Subject>) -> Outcome {
    on.needs_atomic()?;
    let handles = on.handles(4).await?;
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
        ensure_eq!(won.len(), 1, "round {round}: how many of 12 created the record");
        let found = on.storage().get(&key).await?.map(|found| (found.value.payload, found.version));
        let (index, version) = won[0];
        ensure_eq!(found, Some((index.to_string().into_bytes(), version)), "round {round}: the record created");
    }
    Ok(())
}

/// Unconditional writes of one new key at once all succeed, and leave one record: that of one of them.
pub async fn racing_first_writes_all_succeed(on: Arc<Subject>) -> Outcome {
    let handles = on.handles(4).await?;
    for round in 0..10 {
        let key = key(&format!("user{round}"))?;
        let mut versions = HashSet::new();
        let mut all = Vec::new();
        for (index, result) in at_once(&handles, &key, 12, Precondition::Always).await {
            let version = result?;
            ensure!(versions.insert(version), "round {round}: two writes have one version");
            all.push((index.to_string().into_bytes(), version));
        }
        let found = on.storage().get(&key).await?.map(|found| (found.value.payload, found.version));
        let found = found.ok_or_else(|| Stop::failed("the record is missing"))?;
        ensure!(all.contains(&found), "round {round}: get shows {}, which is none of the writes", found.show());
        if on.capabilities().listable {
            let listed = list_all(on.storage().as_ref(), &Filter::everything().user(key.user()), 10).await?;
            ensure_eq!(listed.len(), 1, "round {round}: entries of one key");
        }
    }
    Ok(())
}

/// A counter that many tasks count up by read and `put Version`, through several handles, misses nothing.
pub async fn no_update_is_lost(on: Arc<Subject>) -> Outcome {
    on.needs_atomic()?;
    let (tasks, rounds) = (8, 25);
    let handles = on.handles(4).await?;
    let mut counting = JoinSet::new();
    for index in 0..tasks {
        counting.spawn(count_up(Arc::clone(&handles[index % handles.len()]), rounds));
    }
    while let Some(counted) = counting.join_next().await {
        counted??;
    }
    ensure_eq!(count(on.storage().as_ref()).await?, tasks * rounds, "the counter");
    Ok(())
}

/// Of many that delete one record at once exactly one is told that it removed it.
pub async fn one_delete_wins(on: Arc<Subject>) -> Outcome {
    on.needs_atomic()?;
    let handles = on.handles(4).await?;
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
        ensure_eq!(removed, 1, "round {round}: how many were told that they removed the record");
    }
    Ok(())
}

/// Of a delete and a write of the same version at once exactly one happens.
pub async fn a_delete_and_a_write_exclude_each_other(on: Arc<Subject>) -> Outcome {
    on.needs_atomic()?;
    let handles = on.handles(2).await?;
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
        ensure!(written != deleted, "round {round}: written {written}, deleted {deleted}");
        ensure_eq!(on.storage().get(&key).await?.is_some(), written, "round {round}: whether the record is there");
    }
    Ok(())
}

/// No reader ever sees one write's payload with another one's hints, nor a part of a payload.
pub async fn no_read_is_torn(on: Arc<Subject>) -> Outcome {
    let handles = on.handles(3).await?;
    // Some storages divide what is large, and others only what is larger still.
    for size in BTreeSet::from([5_000, 100_000].map(|size| on.fitting(size))) {
        no_read_of_this_size_is_torn(&on, &handles, size).await?;
    }
    Ok(())
}

async fn no_read_of_this_size_is_torn(on: &Subject, handles: &[Arc<dyn TokenStorage>], size: usize) -> Outcome {
    let key = key(&format!("user{size}"))?;
    on.storage().put(&key, &generation(0, size), Precondition::Always).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut reading = JoinSet::new();
    for storage in handles {
        reading.spawn(read_whole_generations(Arc::clone(storage), key.clone(), Arc::clone(&done), size));
    }
    let mut written = Ok(());
    let rounds = on.rounds(400, Duration::from_millis(200)).await?.map(|round| round as u64 + 1);
    for number in rounds {
        written = on.storage().put(&key, &generation(number, size), Precondition::Always).await.map(drop);
        if written.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(written?)
}

/// Of several that write a large record over one version, or over nothing, at once exactly one succeeds.
pub async fn large_writes_exclude_each_other(on: Arc<Subject>) -> Outcome {
    on.needs_atomic()?;
    let handles = on.handles(4).await?;
    for size in BTreeSet::from([5_000, 100_000].map(|size| on.fitting(size))) {
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
            ensure_eq!(won.len(), 1, "round {round}: how many of 4 writes of {size} bytes succeeded, {when:?}");
            ensure_eq!(on.storage().get(&key).await?, won.pop(), "round {round}: get after writes of {size} bytes");
        }
    }
    Ok(())
}

/// Once `put` or `delete` returned, every handle on the same data sees it.
pub async fn writes_are_seen_through_every_handle(on: Arc<Subject>) -> Outcome {
    let one = Arc::clone(on.storage());
    let other = on.harness().reopen().await?;
    let key = key("alice")?;
    for round in 0..30 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let payload = format!("round {round}").into_bytes();
        let version = writer.put(&key, &Record::new(payload.clone()), Precondition::Always).await?;
        let found = reader.get(&key).await?.map(|found| (found.value.payload, found.version));
        ensure_eq!(found, Some((payload, version)), "round {round}: read through the other handle");
        if round % 5 == 4 {
            writer.delete(&key, None).await?;
            ensure_eq!(reader.get(&key).await?, None, "round {round}: read through the other handle after a delete");
        }
    }
    Ok(())
}

/// Once a handle has shown a write it does not go back to an earlier one.
pub async fn reads_do_not_go_back(on: Arc<Subject>) -> Outcome {
    let handles = on.handles(3).await?;
    let key = key("alice")?;
    on.storage().put(&key, &Record::new("0"), Precondition::Always).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut reading = JoinSet::new();
    for storage in &handles {
        let (storage, key, done) = (Arc::clone(storage), key.clone(), Arc::clone(&done));
        reading.spawn(async move {
            let mut last = 0;
            while !done.load(Ordering::SeqCst) {
                let now = number(storage.get(&key).await?.map(|found| found.value))?;
                ensure!(now >= last, "generation {now} was read after {last}");
                last = now;
                tokio::task::yield_now().await;
            }
            Outcome::Ok(())
        });
    }
    let mut written = Ok(());
    for generation in 1..80 {
        let record = Record::new(generation.to_string());
        written = on.storage().put(&key, &record, Precondition::Always).await.map(drop);
        if written.is_err() {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(written?)
}

/// Tasks that write two keys in opposite orders do not wait for each other for ever, and a busy key does not hold up another.
pub async fn keys_do_not_block_each_other(on: Arc<Subject>) -> Outcome {
    let handles = on.handles(4).await?;
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
            Outcome::Ok(())
        });
    }
    for _ in 0..20 {
        let version = on.storage().put(&calm, &rich("x"), Precondition::Always).await?;
        let found = on.storage().get(&calm).await?.map(|found| found.version);
        ensure_eq!(found, Some(version), "a calm key beside busy ones");
    }
    while let Some(finished) = busy.join_next().await {
        finished??;
    }
    Ok(())
}

/// Counts the counter of [`no_update_is_lost`] up, as often as it takes.
pub(crate) async fn count_up(storage: Arc<dyn TokenStorage>, rounds: usize) -> Outcome {
    let key = key("counter")?;
    for _ in 0..rounds {
        loop {
            let found = storage.get(&key).await?;
            let when = found.as_ref().map_or(Precondition::Absent, |found| Precondition::Version(found.version));
            let next = found.map_or(Ok(0), |found| number(Some(found.value)))? + 1;
            match storage.put(&key, &Record::new(next.to_string()), when).await {
                Ok(_) => break,
                Err(StorageError::Conflict) => {}
                // Too busy: nothing was written, and the caller may come again.
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Where that counter stands.
pub(crate) async fn count(storage: &dyn TokenStorage) -> Outcome<usize> {
    number(storage.get(&key("counter")?).await?.map(|found| found.value))
}

fn number(record: Option<Record>) -> Outcome<usize> {
    let record = record.ok_or_else(|| Stop::failed("the record is missing"))?;
    Ok(std::str::from_utf8(&record.payload)?.parse()?)
}

/// The same precondition from many tasks at once, each writing its own number.
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

/// A record whose every part tells the number of its write.
fn generation(number: u64, size: usize) -> Record {
    let mut payload = number.to_be_bytes().repeat(size / 8 + 1);
    payload.truncate(size);
    Record::new(payload)
        .with_expires_at(Some(Timestamp::from_unix_seconds(number)))
        .with_key_id(Some(format!("{number:016x}")))
}

async fn read_whole_generations(
    storage: Arc<dyn TokenStorage>,
    key: TokenKey,
    done: Arc<AtomicBool>,
    size: usize,
) -> Outcome {
    while !done.load(Ordering::SeqCst) {
        let found = storage.get(&key).await?.ok_or_else(|| Stop::failed("the record is missing"))?.value;
        let number = found.expires_at.map_or(0, Timestamp::as_unix_seconds);
        ensure!(found == generation(number, size), "a read shows parts of several writes");
        tokio::task::yield_now().await;
    }
    Ok(())
}
