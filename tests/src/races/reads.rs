//! Reads beside writes and beside other reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{Filter, Precondition, Record, Timestamp, TokenKey, TokenStorage, Versioned};
use tokio::task::JoinSet;

use super::number;
use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all};

/// No read mixes the payload of one write with the hints of another, returns a part of a payload, or returns `None`
/// between two writes.
///
/// A storage fails this if it stores a record in several rows, keys or files and does not replace them atomically, or
/// replaces a record by deleting and inserting it.
pub async fn no_read_is_torn(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.patient_handles(3).await?;
    // Some storages split payloads of the first size, others only larger ones.
    for size in BTreeSet::from([5_000, 100_000, 400_000].map(|size| on.accepted_length(size))) {
        no_read_of_this_size_is_torn(&on, &handles, size).await?;
    }
    Ok(())
}

async fn no_read_of_this_size_is_torn(
    on: &TestedStorage,
    handles: &[Arc<dyn TokenStorage>],
    size: usize,
) -> PropertyResult {
    let key = key(&format!("user{size}"))?;
    on.storage().put(&key, &generation(0, size), Precondition::Always).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut reading = JoinSet::new();
    for storage in handles {
        reading.spawn(read_whole_generations(Arc::clone(storage), key.clone(), Arc::clone(&done), size));
    }
    let mut written = Ok(());
    let most = if size > 200_000 { 50 } else { 400 };
    let rounds = on.rounds(most, Duration::from_millis(200)).await?.map(|round| round as u64 + 1);
    for number in rounds {
        written = handles[0].put(&key, &generation(number, size), Precondition::Always).await.map(drop);
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

/// Once a handle has returned a write, it never returns an earlier one (monotonic reads).
///
/// Neither does a read through any handle that starts after a write. A handle that reads from several replicas fails this,
/// and so does one that lets a read share the result of a read that started earlier.
pub async fn reads_do_not_go_back(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.patient_handles(3).await?;
    let key = key("alice")?;
    on.storage().put(&key, &Record::new("0"), Precondition::Always).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut reading = JoinSet::new();
    for storage in &handles {
        let (storage, key, done) = (Arc::clone(storage), key.clone(), Arc::clone(&done));
        reading.spawn(async move {
            let mut last = 0;
            while !done.load(Ordering::SeqCst) {
                let now = number(&key, storage.get(&key).await?.as_ref().map(|found| &found.value))?;
                ensure!(now >= last, "{} returned write {now} after it had returned write {last}", Call::get(&key));
                last = now;
                tokio::task::yield_now().await;
            }
            PropertyResult::Ok(())
        });
    }
    let mut written = Ok(());
    for generation in 1..80 {
        written = write_and_read(&handles, &key, generation).await;
        if written.is_err() {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    while let Some(read) = reading.join_next().await {
        read??;
    }
    written
}

/// Writes a number through the first handle, and reads it through one of them.
async fn write_and_read(handles: &[Arc<dyn TokenStorage>], key: &TokenKey, number: usize) -> PropertyResult {
    let record = Record::new(number.to_string());
    handles[0].put(key, &record, Precondition::Always).await?;
    let found = handles[number % handles.len()].get(key).await?.map(|found| found.value);
    ensure_eq!(found, Some(record), "{} after put, while others read it", Call::get(key));
    Ok(())
}

/// Concurrent reads of different keys return each its own record, or none, and so do lists of different users.
///
/// The keys differ in one part each, and some have no record. A storage fails this if calls share a variable, a connection
/// or a statement, and it gives the result of one to another.
pub async fn reads_at_once_return_their_own_records(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.patient_handles(2).await?;
    let alice = key("alice")?;
    let stored = [
        alice.clone(),
        alice.clone().with_account("work")?,
        alice.clone().with_tenant("acme")?,
        TokenKey::new("google", "alice")?,
        key("bob")?,
    ];
    let absent = [key("carol")?, alice.clone().with_tenant("other")?, alice.with_account("home")?];
    let mut wanted = Vec::new();
    for (index, key) in stored.into_iter().enumerate() {
        let record = Record::new(format!("record {index}"));
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        wanted.push((key, Some(Versioned::new(record, version))));
    }
    wanted.extend(absent.map(|key| (key, None)));
    let listable = on.capabilities().listable;
    for round in on.rounds(100, Duration::from_millis(150)).await? {
        let mut reading = JoinSet::new();
        for turn in 0..wanted.len() * 2 {
            let (key, wanted) = wanted[(turn * 5 + round) % wanted.len()].clone();
            let storage = Arc::clone(&handles[turn / 2 % handles.len()]);
            reading.spawn(async move {
                let what = format!("round {round}: {} during reads of other keys", Call::get(&key));
                ensure_eq!(storage.get(&key).await?, wanted, "{what}");
                if listable && turn % 4 == 0 {
                    let filter = Filter::everything().tenant(key.tenant()).user(key.user()).provider(key.provider());
                    let listed = list_all(storage.as_ref(), &filter, 10).await?;
                    let found = listed.into_iter().find(|entry| entry.key == key).map(|entry| entry.version);
                    let wanted = wanted.map(|wanted| wanted.version);
                    ensure_eq!(
                        found,
                        wanted,
                        "round {round}: list of ({}) during other reads: the version",
                        key.show()
                    );
                }
                PropertyResult::Ok(())
            });
        }
        while let Some(read) = reading.join_next().await {
            read??;
        }
    }
    Ok(())
}

/// A record whose parts all contain the number of its write.
fn generation(number: u64, size: usize) -> Record {
    let mut payload = number.to_be_bytes().repeat(size / 8 + 1);
    payload.truncate(size);
    Record::new(payload)
        .with_expires_at(Some(Timestamp::from_unix_seconds(number)))
        .with_key_id(Some(format!("{number:016x}")))
}

/// Reads until `done`, and checks that every record is that of one write.
async fn read_whole_generations(
    storage: Arc<dyn TokenStorage>,
    key: TokenKey,
    done: Arc<AtomicBool>,
    size: usize,
) -> PropertyResult {
    while !done.load(Ordering::SeqCst) {
        let get = Call::get(&key);
        let found = storage.get(&key).await?;
        let gap =
            || Stop::failed(format_args!("{get} is None, although the record is only replaced and never deleted"));
        let found = found.ok_or_else(gap)?.value;
        let number = found.expires_at.map_or(0, Timestamp::as_unix_seconds);
        ensure!(
            found == generation(number, size),
            "{get} returned parts of several writes: the payload begins with write {} and ends with write {}, and the \
             hints are of write {number} and {}",
            part(found.payload.first_chunk()),
            part(found.payload.rchunks(8).nth(1).and_then(<[u8]>::first_chunk)),
            found.key_id.show()
        );
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The number of a write, read from a part of its payload.
fn part(bytes: Option<&[u8; 8]>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| u64::from_be_bytes(*bytes).to_string())
}
