//! A storage is a map from keys to records.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{Filter, Precondition, Record, TokenKey, Version, Versioned};

use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// How long [`no_acknowledged_write_is_lost`] looks for a lost write.
const TIME: Duration = Duration::from_millis(1_500);

/// `capabilities` has a name and a `max_payload` of at least 1 KiB, and always returns the same values.
///
/// The suite and the refresh protocol read the capabilities once and rely on them. A storage whose capabilities depend
/// on the server, such as whether it persists data, has to determine them before the first call.
pub async fn capabilities_do_not_change(on: Arc<TestedStorage>) -> PropertyResult {
    let first = on.capabilities();
    ensure!(!first.name.is_empty(), "capabilities(): the name is empty");
    let limit = first.max_payload.unwrap_or(usize::MAX);
    ensure!(limit >= 1_024, "capabilities(): max_payload is {limit}, but must be at least 1,024");
    on.storage().put(&key("alice")?, &Record::new("x"), Precondition::Always).await?;
    ensure_eq!(on.capabilities(), first, "capabilities() after a put");
    Ok(())
}

/// `get` of a key that was never written returns `Ok(None)`.
///
/// Tried on an empty storage, and again while another user's record is stored. An error instead of `None` would make
/// every new user look like an outage.
pub async fn missing_is_none(on: Arc<TestedStorage>) -> PropertyResult {
    let (missing, alice) = (key("missing")?, key("alice")?);
    let get = Call::get(&missing);
    ensure_eq!(on.storage().get(&missing).await?, None, "{get} of a new storage");
    on.storage().put(&alice, &rich("written for alice"), Precondition::Always).await?;
    ensure_eq!(on.storage().get(&missing).await?, None, "{get} while only the record of ({}) is stored", alice.show());
    Ok(())
}

/// After a `put`, every `get` returns its record. After a `delete`, every `get` returns `None`.
///
/// Each state is read three times, because a cache may answer the first read correctly and later ones from an older
/// copy.
pub async fn a_read_shows_the_last_write(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    for round in 0..8 {
        let payload = format!("write {round}").into_bytes();
        on.storage().put(&key, &Record::new(payload.clone()), Precondition::Always).await?;
        for read in 1..=3 {
            let found = on.storage().get(&key).await?.map(|found| found.value.payload);
            let wanted = Some(payload.clone());
            ensure_eq!(found, wanted, "{}, read {read} after the put of write {round}", Call::get(&key));
        }
        if round % 3 == 2 {
            on.storage().delete(&key, None).await?;
            for read in 1..=3 {
                let found = on.storage().get(&key).await?;
                ensure_eq!(found, None, "{}, read {read} after a delete", Call::get(&key));
            }
        }
    }
    Ok(())
}

/// A hint that was not written is absent when the record is read.
///
/// Tries all eight combinations of `expires_at`, `key_id` and a retention. A column with a default value, or an absent
/// hint that is stored as 0 or as an empty text, fails this.
pub async fn absent_hints_stay_absent(on: Arc<TestedStorage>) -> PropertyResult {
    for chosen in 0..8 {
        let key = key(&format!("user{chosen}"))?;
        let full = rich("payload");
        let record = Record::new("payload")
            .with_expires_at(full.expires_at.filter(|_| chosen & 1 != 0))
            .with_key_id(full.key_id.filter(|_| chosen & 2 != 0))
            .with_retain_for(full.retain_for.filter(|_| chosen & 4 != 0));
        on.storage().put(&key, &record, Precondition::Always).await?;
        let what = format!("{} after put of {}", Call::get(&key), record.show());
        let found = on.storage().get(&key).await?;
        let found = found.ok_or_else(|| Stop::failed(format_args!("{what} is None")))?.value;
        ensure_eq!(found.expires_at, record.expires_at, "{what}: expires_at");
        ensure_eq!(found.key_id, record.key_id, "{what}: key_id");
        let (left, wanted) = (found.retain_for, record.retain_for);
        ensure!(
            left.is_some() == wanted.is_some(),
            "{what}: retain_for: expected {}, found {}",
            wanted.show(),
            left.show()
        );
    }
    Ok(())
}

/// `put` replaces the whole record: payload, hints and retention. Nothing is merged.
///
/// Writes a record without hints over one that has all of them, unconditionally and on the condition of a version. An
/// update that omits the columns of absent hints leaves the old values.
pub async fn a_write_replaces_the_whole_record(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let poor = Record::new("b");
    for when in 0..2 {
        let rich = rich("a long payload");
        let first = on.storage().put(&key, &rich, Precondition::Always).await?;
        let when = if when == 0 { Precondition::Always } else { Precondition::Version(first) };
        let second = on.storage().put(&key, &poor, when).await?;
        let found = on.storage().get(&key).await?;
        let put = Call::put(&key, &poor, when);
        ensure_eq!(found, Some(Versioned::new(poor.clone(), second)), "get after {put} over {}", rich.show());
    }
    Ok(())
}

/// `get` returns the version that `put` returned, and reading does not change it.
///
/// A `put` on the condition of that version then has to succeed. A storage that updates the record when it is read, for
/// instance to extend its retention, must not create a new version.
pub async fn reading_does_not_change_the_version(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let version = on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    for read in 1..=3 {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        let what = Call::get(&key);
        ensure_eq!(found, Some(version), "{what}, read {read} after a put: version");
    }
    on.storage().put(&key, &rich("y"), Precondition::Version(version)).await?;
    Ok(())
}

/// `put` with `Always` never returns `Conflict`, whatever is stored.
///
/// Writes a new key, other bytes, equal bytes and a deleted key. A storage that counts changed rows may mistake equal
/// bytes for a conflict, because some databases do not count a row that an update leaves as it is.
pub async fn put_always_never_conflicts(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    for payload in ["one", "two", "two", "three"] {
        on.storage().put(&key, &Record::new(payload), Precondition::Always).await?;
    }
    on.storage().delete(&key, None).await?;
    on.storage().put(&key, &Record::new("four"), Precondition::Always).await?;
    Ok(())
}

/// `delete` of a stored record returns `Ok(true)`, and the next `get` returns `None`.
///
/// A record that is only marked as deleted has to be invisible to every operation from then on.
pub async fn delete_removes_the_record(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    let delete = Call::delete(&key, None);
    ensure_eq!(on.storage().delete(&key, None).await?, true, "{delete} of a record");
    ensure_eq!(on.storage().get(&key).await?, None, "get after {delete}");
    Ok(())
}

/// `delete` of a key without a record returns `Ok(false)`, whether the key was never written or its record was deleted.
///
/// Derive the result from the number of rows or keys that the server removed, not from the success of the statement.
pub async fn delete_of_nothing_is_false(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let delete = Call::delete(&key, None);
    ensure_eq!(on.storage().delete(&key, None).await?, false, "{delete} of a key that was never written");
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    ensure_eq!(on.storage().delete(&key, None).await?, false, "{delete} a second time");
    Ok(())
}

/// A key can be written again after a delete, and nothing of the old record returns.
///
/// Writes with `Absent`, as a first login does. A tombstone that counts as a record, or hints that survive the delete,
/// fail this.
pub async fn a_deleted_key_can_be_written_again(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    on.storage().put(&key, &rich("old"), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    let new = Record::new("new");
    let version = on.storage().put(&key, &new, Precondition::Absent).await?;
    let found = on.storage().get(&key).await?;
    let put = Call::put(&key, &new, Precondition::Absent);
    ensure_eq!(found, Some(Versioned::new(new, version)), "get after a delete and {put}");
    Ok(())
}

/// As soon as `put` or `delete` has returned, every handle on the same data observes it: in `get`, in `list` and in
/// conditions.
///
/// Two handles take turns at writing. The other one reads before and after, so that anything it has cached is stale. A
/// cache without a declared `max_age` fails this, and so does a read from a replica that lags behind.
pub async fn writes_are_seen_through_every_handle(on: Arc<TestedStorage>) -> PropertyResult {
    on.harness().reopen().await?;
    if on.capabilities().max_age.is_some() {
        return Err(Stop::not_applicable("a max_age is declared"));
    }
    let handles = on.recorded_handles(2).await?;
    let key = key("alice")?;
    for round in 0..30 {
        let (writer, reader) = (round % 2, 1 - round % 2);
        let what =
            |call: &str| format!("{} through handle {reader} after {call} through handle {writer}", Call::get(&key));
        let payload = format!("round {round}").into_bytes();
        let when = if round % 5 == 0 { Precondition::Absent } else { Precondition::Always };
        // Read first, so that a cached record is stale.
        handles[reader].get(&key).await?;
        let version = handles[writer].put(&key, &Record::new(payload.clone()), when).await?;
        let found = handles[reader].get(&key).await?.map(|found| (found.value.payload, found.version));
        ensure_eq!(found, Some((payload, version)), "{}", what("put"));
        if on.capabilities().listable {
            let listed = list_all(handles[reader].as_ref(), &Filter::everything(), 100).await?;
            let listed: Vec<_> = listed.into_iter().map(|entry| entry.version).collect();
            ensure_eq!(
                listed,
                vec![version],
                "list through handle {reader} after put through handle {writer}: the versions"
            );
        }
        if round % 5 == 4 {
            handles[writer].delete(&key, None).await?;
            ensure_eq!(handles[reader].get(&key).await?, None, "{}", what("delete"));
        }
    }
    Ok(())
}

/// A storage that declares a `max_age` never returns a record that another handle replaced or deleted longer ago than
/// that, and does not cache absence.
///
/// Another handle writes, `max_age` passes while the record is read, and the new state has to be visible. A read must not
/// make a cached record younger. An absent record has to be looked up each time: otherwise a user who has just connected an
/// account appears as not connected.
pub async fn cached_records_are_no_older_than_declared(on: Arc<TestedStorage>) -> PropertyResult {
    let max_age = on.capabilities().max_age.ok_or_else(|| Stop::not_applicable("no max_age is declared"))?;
    let other = on.harness().reopen().await?;
    for round in 0..5 {
        let key = key(&format!("round {round}"))?;
        let get = Call::get(&key);
        ensure_eq!(on.storage().get(&key).await?, None, "{get} of a key that was never written");
        let version = other.put(&key, &Record::new("old"), Precondition::Absent).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, Some(version), "{get} after another handle wrote the first record");
        let version = other.put(&key, &Record::new("new"), Precondition::Always).await?;
        read_for(&on, &key, max_age).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, Some(version), "{get} {max_age:?} after another handle replaced the record");
        other.delete(&key, None).await?;
        read_for(&on, &key, max_age).await?;
        ensure_eq!(on.storage().get(&key).await?, None, "{get} {max_age:?} after another handle deleted the record");
    }
    Ok(())
}

/// Reads a record now and then, for that long.
async fn read_for(on: &TestedStorage, key: &TokenKey, time: Duration) -> PropertyResult {
    let begun = Instant::now();
    while begun.elapsed() < time {
        tokio::time::sleep(time / 5).await;
        on.storage().get(key).await?;
    }
    Ok(())
}

/// Every acknowledged write is stored, and every acknowledged delete has taken effect, over thousands of calls.
///
/// Up to eight clients write, read and delete their own keys for about 1.5 seconds. This finds writes that are lost
/// rarely: in a buffer, in a retry, or when a data structure grows.
pub async fn no_acknowledged_write_is_lost(on: Arc<TestedStorage>) -> PropertyResult {
    let clients = if on.capabilities().atomic { 8 } else { 1 };
    let end = Instant::now() + TIME;
    on.concurrently(0..clients, move |storage, client| async move {
        let (key, mut versions) = (key(&format!("user{client}"))?, HashSet::<Version>::new());
        for number in 0..900 {
            if number > 30 && Instant::now() > end {
                break;
            }
            let record = Record::new(format!("write {number} of client {client}"));
            let when = match (number % 3, storage.get(&key).await?) {
                (1, Some(found)) => Precondition::Version(found.version),
                (1, None) => Precondition::Absent,
                _ => Precondition::Always,
            };
            let version = storage.put(&key, &record, when).await?;
            let what = format!("{}, an acknowledged write", Call::put(&key, &record, when));
            ensure!(versions.insert(version), "{what}, returned the version of an earlier write, {version:?}");
            let found = storage.get(&key).await?.map(|found| (found.value, found.version));
            ensure_eq!(found, Some((record, version)), "get after {what}");
            if number % 4 == 3 {
                let only = (number % 8 == 3).then_some(version);
                let delete = Call::delete(&key, only);
                ensure_eq!(storage.delete(&key, only).await?, true, "{delete} of a record just written");
                ensure_eq!(storage.get(&key).await?, None, "get after {delete}, an acknowledged delete");
            }
        }
        Ok(())
    })
    .await?;
    Ok(())
}
