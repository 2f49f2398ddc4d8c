//! Preconditions and versions, one call after the other.

use std::collections::HashSet;
use std::sync::Arc;

use oauth_dance_core::{Precondition, Record, StorageError, Version, Versioned};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::subject::{Subject, key, rich};

/// `put Absent` writes where nothing is, and is a `Conflict` that changes nothing where something is.
pub async fn absent_writes_only_where_nothing_is(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Absent).await?;
    let second = on.storage().put(&key, &Record::new("second"), Precondition::Absent).await;
    ensure_error!(second, StorageError::Conflict, "put Absent over a record");
    is_unchanged(&on, version).await
}

/// `put Version` writes over that version, and is a `Conflict` that changes nothing over any other.
pub async fn stale_versions_conflict_and_change_nothing(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let stale = on.storage().put(&key, &Record::new("before"), Precondition::Always).await?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Version(stale)).await?;
    let others = on.storage().put(&crate::subject::key("bob")?, &rich("bob's"), Precondition::Always).await?;
    for wrong in [stale, others, Version::random(), Version::from_bytes([0; 16]), Version::from_bytes([0xff; 16])] {
        let written = on.storage().put(&key, &Record::new("second"), Precondition::Version(wrong)).await;
        ensure_error!(written, StorageError::Conflict, "put over a version that is not there");
        is_unchanged(&on, version).await?;
    }
    Ok(())
}

/// `put Version` where nothing is is a `Conflict`, and creates nothing.
pub async fn a_version_of_nothing_conflicts(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    for wrong in [Version::random(), Version::from_bytes([0; 16])] {
        let written = on.storage().put(&key, &rich("x"), Precondition::Version(wrong)).await;
        ensure_error!(written, StorageError::Conflict, "put Version on a missing key");
        ensure_eq!(on.storage().get(&key).await?, None, "the record after that");
    }
    Ok(())
}

/// `put Always` never conflicts, whatever is there.
pub async fn always_never_conflicts(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    for payload in ["one", "two", "two", "three"] {
        let version = on.storage().put(&key, &Record::new(payload), Precondition::Always).await?;
        ensure_eq!(on.storage().get(&key).await?, Some(Versioned::new(Record::new(payload), version)), "the record");
    }
    Ok(())
}

/// `delete` of a version removes that version, and is `Ok(false)` and changes nothing for any other.
pub async fn delete_of_a_version_spares_others(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    ensure!(!on.storage().delete(&key, Some(Version::random())).await?, "delete of a version of nothing");
    let stale = on.storage().put(&key, &Record::new("before"), Precondition::Always).await?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Always).await?;
    for wrong in [stale, Version::random(), Version::from_bytes([0; 16])] {
        ensure!(
            !on.storage().delete(&key, Some(wrong)).await?,
            "delete of another version says that it removed something"
        );
        is_unchanged(&on, version).await?;
    }
    ensure!(on.storage().delete(&key, Some(version)).await?, "delete of the stored version removed nothing");
    ensure_eq!(on.storage().get(&key).await?, None, "the record after its version was deleted");
    Ok(())
}

/// Every write has a version of its own that is never used again for the key: not for the same bytes, not after a delete,
/// not after a restart.
pub async fn versions_are_never_used_again(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let handles = on.recorded_handles(2).await?;
    let mut seen = HashSet::new();
    for round in 0..30 {
        let storage = &handles[round % 2];
        let when = [Precondition::Always, Precondition::Absent][usize::from(round % 3 == 0)];
        let version = storage.put(&key, &rich("the same"), when).await?;
        ensure!(seen.insert(version), "round {round}: {version:?} was handed out before");
        let again = storage.put(&key, &rich("the same"), Precondition::Version(version)).await?;
        ensure!(seen.insert(again), "round {round}: {again:?} was handed out before");
        if round % 3 == 2 {
            storage.delete(&key, None).await?;
        }
    }
    Ok(())
}

/// A write of the same bytes is a write: it has a version of its own, and the one before is void.
pub async fn writing_the_same_bytes_is_a_write(on: Arc<Subject>) -> Outcome {
    let plain = [Record::new("first"), rich("first").with_retain_for(None), Record::new("")];
    for (index, record) in plain.into_iter().enumerate() {
        let key = key(&format!("user{index}"))?;
        let mut before = on.storage().put(&key, &record, Precondition::Always).await?;
        for is_conditional in [false, true, false] {
            let when = if is_conditional { Precondition::Version(before) } else { Precondition::Always };
            let version = on.storage().put(&key, &record, when).await?;
            ensure!(version != before, "put({}) of the record that is stored returned its version", key.show());
            let stale = on.storage().put(&key, &Record::new("late"), Precondition::Version(before)).await;
            ensure_error!(stale, StorageError::Conflict, "put over the version from before a write of the same record");
            before = version;
        }
        let found = on.storage().get(&key).await?;
        ensure_eq!(found, Some(Versioned::new(record, before)), "get({}) after writes of the same record", key.show());
    }
    let key = key("alice")?;
    let record = rich("first");
    let mut before = on.storage().put(&key, &record, Precondition::Absent).await?;
    for round in 0..6 {
        let when = if round % 2 == 0 { Precondition::Always } else { Precondition::Version(before) };
        let version = on.storage().put(&key, &record, when).await?;
        ensure!(version != before, "put of the same bytes returned the version of the write before");
        let stale = on.storage().put(&key, &Record::new("late"), Precondition::Version(before)).await;
        ensure_error!(stale, StorageError::Conflict, "put over the version from before a write of the same bytes");
        ensure!(!on.storage().delete(&key, Some(before)).await?, "delete of the version from before such a write");
        before = version;
    }
    is_unchanged(&on, before).await
}

/// All 16 bytes of a version count, in `put` and in `delete`: what differs in one bit is another version.
pub async fn every_byte_of_a_version_counts(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Always).await?;
    let bytes = *version.as_bytes();
    let mut wrong: Vec<[u8; 16]> = Vec::new();
    for index in 0..16 {
        for change in [1, 0x20, 0x80, 0xff] {
            let mut other = bytes;
            other[index] ^= change;
            wrong.push(other);
        }
        let (mut started, mut ended) = ([0; 16], [0; 16]);
        started[..index].copy_from_slice(&bytes[..index]);
        ended[index + 1..].copy_from_slice(&bytes[index + 1..]);
        wrong.extend([started, ended]);
    }
    let (mut reversed, mut turned) = (bytes, bytes);
    reversed.reverse();
    turned.rotate_left(8);
    wrong.extend([reversed, turned, [b'*'; 16], [b'0'; 16], [b' '; 16], 1_u128.to_be_bytes(), [0xff; 16]]);
    wrong.retain(|other| *other != bytes);
    for other in wrong.into_iter().map(Version::from_bytes) {
        let written = on.storage().put(&key, &Record::new("second"), Precondition::Version(other)).await;
        ensure_error!(written, StorageError::Conflict, "put over {other:?} where {version:?} is stored");
        let removed = on.storage().delete(&key, Some(other)).await?;
        ensure!(!removed, "delete of {other:?} removed {version:?}");
    }
    is_unchanged(&on, version).await?;
    ensure!(on.storage().delete(&key, Some(version)).await?, "delete of the stored version removed nothing");
    Ok(())
}

/// A version from before a delete stays void after the key is written again, also with the same bytes.
pub async fn a_version_dies_with_its_record(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let mut dead = Vec::new();
    for _ in 0..4 {
        dead.push(on.storage().put(&key, &rich("first"), Precondition::Absent).await?);
        on.storage().delete(&key, None).await?;
        let gone = *dead.last().unwrap_or(&Version::random());
        let written = on.storage().put(&key, &Record::new("late"), Precondition::Version(gone)).await;
        ensure_error!(written, StorageError::Conflict, "put over the version of a deleted record");
    }
    let version = on.storage().put(&key, &rich("first"), Precondition::Absent).await?;
    all_void(&on, &dead, "a delete").await?;
    is_unchanged(&on, version).await
}

/// A version from before the end of a retention, a purge or a new handle never holds again.
pub async fn a_version_never_holds_again(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let handles = on.recorded_handles(2).await?;
    let mut dead = Vec::new();
    for round in 0..6 {
        let storage = &handles[round % 2];
        dead.push(storage.put(&key, &rich("first"), Precondition::Absent).await?);
        let zero = rich("first").with_retain_for(Some(std::time::Duration::ZERO));
        dead.push(storage.put(&key, &zero, Precondition::Always).await?);
        if round % 3 > 0 {
            storage.purge(usize::MAX).await?;
        }
        all_void(&on, &dead, "the end of its retention, with nothing there").await?;
        let when = if round % 2 == 0 { Precondition::Absent } else { Precondition::Always };
        let fresh = on.handles(2).await?.pop().unwrap_or_else(|| Arc::clone(storage));
        let version = fresh.put(&key, &rich("first"), when).await?;
        ensure!(!dead.contains(&version), "put handed out {version:?} twice");
        all_void(&on, &dead, "the end of its retention").await?;
        is_unchanged(&on, version).await?;
        ensure!(storage.delete(&key, Some(version)).await?, "delete of the stored version removed nothing");
        dead.push(version);
    }
    Ok(())
}

async fn all_void(on: &Subject, dead: &[Version], since: &str) -> Outcome {
    let key = key("alice")?;
    for old in dead {
        let written = on.storage().put(&key, &Record::new("late"), Precondition::Version(*old)).await;
        ensure_error!(written, StorageError::Conflict, "put over a version from before {since}");
        ensure!(!on.storage().delete(&key, Some(*old)).await?, "delete of a version from before {since}");
    }
    Ok(())
}

/// The record is still `rich("first")` at this version.
async fn is_unchanged(on: &Subject, version: Version) -> Outcome {
    let mut found = on.storage().get(&key("alice")?).await?.ok_or_else(|| Stop::failed("the record is gone"))?;
    let wanted = rich("first");
    let left = found.value.retain_for.take();
    ensure!(left.is_some_and(|left| left.as_secs() > 86_000), "the refused call changed the retention to {left:?}");
    ensure_eq!(found, Versioned::new(wanted.with_retain_for(None), version), "the record after a refused call");
    Ok(())
}
