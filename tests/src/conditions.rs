//! Preconditions and versions, tested with one call at a time.
//!
//! Everything else in this library rests on them: a refresh claims a record with a conditional write, a logout deletes the
//! version that it read, and a login replaces whatever is there. A storage that gets one of these properties wrong loses
//! tokens without an error. Concurrent calls are tested by [`races`](crate::races) and [`duels`](crate::duels).

use std::collections::HashSet;
use std::sync::Arc;

use oauth_dance_core::{Precondition, Record, StorageError, Version, Versioned};

use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, rich};

/// `put` with `Absent` writes if the key has no record. If it has one, the result is `Conflict`, and nothing changes.
///
/// After the rejected call, payload, version, hints and remaining retention have to be the same. An upsert fails this:
/// use an insert that does nothing if the key exists, and count the rows.
pub async fn put_absent_conflicts_where_a_record_is_stored(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Absent).await?;
    let second = Record::new("second");
    let put = Call::put(&key, &second, Precondition::Absent);
    let written = on.storage().put(&key, &second, Precondition::Absent).await;
    ensure_error!(written, StorageError::Conflict, "{put} over a record");
    is_unchanged(&on, version, &put).await
}

/// `put` with a version writes over exactly that version. Over any other one it is a `Conflict`, and nothing changes.
///
/// Tries an earlier version of the key, the current version of another key, and versions that never existed. The
/// comparison has to be part of the statement that writes.
pub async fn stale_versions_conflict_and_change_nothing(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let stale = on.storage().put(&key, &Record::new("before"), Precondition::Always).await?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Version(stale)).await?;
    let others = on.storage().put(&crate::tested_storage::key("bob")?, &rich("bob's"), Precondition::Always).await?;
    for wrong in [stale, others, Version::random(), Version::from_bytes([0; 16]), Version::from_bytes([0xff; 16])] {
        let (second, when) = (Record::new("second"), Precondition::Version(wrong));
        let put = Call::put(&key, &second, when);
        let written = on.storage().put(&key, &second, when).await;
        ensure_error!(written, StorageError::Conflict, "{put} while {version:?} is stored");
        is_unchanged(&on, version, &put).await?;
    }
    Ok(())
}

/// `put` with a version, for a key without a record, is a `Conflict` and creates nothing.
///
/// An upsert fails this. Use an update whose condition contains the version.
pub async fn put_version_conflicts_where_nothing_is_stored(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    for wrong in [Version::random(), Version::from_bytes([0; 16])] {
        let (record, when) = (rich("x"), Precondition::Version(wrong));
        let put = Call::put(&key, &record, when);
        let written = on.storage().put(&key, &record, when).await;
        ensure_error!(written, StorageError::Conflict, "{put} while nothing is stored");
        ensure_eq!(on.storage().get(&key).await?, None, "get after {put}, which was rejected");
    }
    Ok(())
}

/// `delete` with a version removes exactly that version. For any other one it returns `Ok(false)`, and nothing changes.
///
/// A logout that follows a new login must not remove the token of that login, so the condition has to be part of the
/// delete statement.
pub async fn delete_of_another_version_removes_nothing(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let random = Version::random();
    let delete = Call::delete(&key, Some(random));
    ensure_eq!(on.storage().delete(&key, Some(random)).await?, false, "{delete} while nothing is stored");
    let stale = on.storage().put(&key, &Record::new("before"), Precondition::Always).await?;
    let version = on.storage().put(&key, &rich("first"), Precondition::Always).await?;
    for wrong in [stale, Version::random(), Version::from_bytes([0; 16])] {
        let delete = Call::delete(&key, Some(wrong));
        let removed = on.storage().delete(&key, Some(wrong)).await?;
        ensure_eq!(removed, false, "{delete} while {version:?} is stored");
        is_unchanged(&on, version, &delete).await?;
    }
    removes(&on, version).await?;
    ensure_eq!(on.storage().get(&key).await?, None, "get after {}", Call::delete(&key, Some(version)));
    Ok(())
}

/// Every write has a version of its own, which is never used again for the key: not for the same bytes, not after a
/// delete, not after a restart.
///
/// Collects the versions of 60 writes through two handles. Random versions pass. A counter passes only if it does not
/// start again with a new row or process.
pub async fn versions_are_never_used_again(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let handles = on.recorded_handles(2).await?;
    let mut seen = HashSet::new();
    for round in 0..30 {
        let storage = &handles[round % 2];
        let when = [Precondition::Always, Precondition::Absent][usize::from(round % 3 == 0)];
        let version = storage.put(&key, &rich("the same"), when).await?;
        ensure!(
            seen.insert(version),
            "put({}), round {round}: it returned the version of an earlier write, {version:?}",
            key.show()
        );
        let again = storage.put(&key, &rich("the same"), Precondition::Version(version)).await?;
        ensure!(
            seen.insert(again),
            "put({}), round {round}: it returned the version of an earlier write, {again:?}",
            key.show()
        );
        if round % 3 == 2 {
            storage.delete(&key, None).await?;
        }
    }
    Ok(())
}

/// A write of the same bytes creates a new version, and the previous one no longer matches.
///
/// A version that is derived from the content, such as a hash, fails this. So does a storage that skips a write which
/// changes nothing.
pub async fn writing_the_same_bytes_makes_a_new_version(on: Arc<TestedStorage>) -> PropertyResult {
    let plain = [Record::new("first"), rich("first").with_retain_for(None), Record::new(""), rich("first")];
    for (index, record) in plain.into_iter().enumerate() {
        let key = key(&format!("user{index}"))?;
        let mut before = on.storage().put(&key, &record, Precondition::Absent).await?;
        for round in 0..6 {
            let when = if round % 2 == 0 { Precondition::Always } else { Precondition::Version(before) };
            let version = on.storage().put(&key, &record, when).await?;
            let put = format!("{} over the same record", Call::put(&key, &record, when));
            ensure!(version != before, "{put}: it returned the version of the previous write");
            let stale = on.storage().put(&key, &Record::new("late"), Precondition::Version(before)).await;
            ensure_error!(stale, StorageError::Conflict, "put over the version from before {put}");
            let removed = on.storage().delete(&key, Some(before)).await?;
            ensure_eq!(removed, false, "delete of the version from before {put}");
            before = version;
        }
        let found = on.storage().get(&key).await?.map(|found| (found.value.payload, found.version));
        ensure_eq!(found, Some((record.payload, before)), "{} after writes of the same record", Call::get(&key));
    }
    Ok(())
}

/// All 16 bytes of a version are compared, in `put` and in `delete`: versions that differ in one bit are different.
///
/// Changes, clears, reverses and rotates the bytes of the stored version. Compare all of it: a prefix, a shorter
/// number, or a text without regard to case is not enough.
pub async fn every_byte_of_a_version_counts(on: Arc<TestedStorage>) -> PropertyResult {
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
        let (mut beginning, mut end) = ([0; 16], [0; 16]);
        beginning[..index].copy_from_slice(&bytes[..index]);
        end[index + 1..].copy_from_slice(&bytes[index + 1..]);
        wrong.extend([beginning, end]);
    }
    let (mut reversed, mut rotated) = (bytes, bytes);
    reversed.reverse();
    rotated.rotate_left(8);
    wrong.extend([reversed, rotated, [b'*'; 16], [b'0'; 16], [b' '; 16], 1_u128.to_be_bytes(), [0xff; 16]]);
    wrong.retain(|other| *other != bytes);
    for other in wrong.into_iter().map(Version::from_bytes) {
        let (second, when) = (Record::new("second"), Precondition::Version(other));
        let put = Call::put(&key, &second, when);
        let written = on.storage().put(&key, &second, when).await;
        ensure_error!(written, StorageError::Conflict, "{put} while {version:?} is stored");
        let delete = Call::delete(&key, Some(other));
        let removed = on.storage().delete(&key, Some(other)).await?;
        ensure_eq!(removed, false, "{delete} while {version:?} is stored");
    }
    is_unchanged(&on, version, "calls with other versions").await?;
    removes(&on, version).await
}

/// A version from before a delete never matches again, even after the same bytes are written to the key.
///
/// A counter that starts at 1 for each new row fails this: a refresh that began before a logout would overwrite the
/// token of the next login.
pub async fn a_version_is_void_after_a_delete(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let mut void = Vec::new();
    for _ in 0..4 {
        void.push(on.storage().put(&key, &rich("first"), Precondition::Absent).await?);
        on.storage().delete(&key, None).await?;
        let gone = *void.last().unwrap_or(&Version::random());
        let (late, when) = (Record::new("late"), Precondition::Version(gone));
        let written = on.storage().put(&key, &late, when).await;
        ensure_error!(
            written,
            StorageError::Conflict,
            "{}, the version of a deleted record",
            Call::put(&key, &late, when)
        );
    }
    let version = on.storage().put(&key, &rich("first"), Precondition::Absent).await?;
    all_void(&on, &void, "a delete").await?;
    is_unchanged(&on, version, "calls with versions from before a delete").await
}

/// A version from before the end of a retention or a purge never matches again, through any handle.
///
/// Lets records expire, purges them in some of the rounds, writes again, and tries every earlier version.
pub async fn a_version_is_void_after_its_retention(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let handles = on.recorded_handles(2).await?;
    let mut void = Vec::new();
    for round in 0..6 {
        let storage = &handles[round % 2];
        void.push(storage.put(&key, &rich("first"), Precondition::Absent).await?);
        let zero = rich("first").with_retain_for(Some(std::time::Duration::ZERO));
        void.push(storage.put(&key, &zero, Precondition::Always).await?);
        if round % 3 > 0 {
            storage.purge(usize::MAX).await?;
        }
        let get = Call::get(&key);
        ensure_eq!(on.storage().get(&key).await?, None, "{get} after {}", Call::put(&key, &zero, Precondition::Always));
        all_void(&on, &void, "the end of its retention, while nothing is stored").await?;
        let when = if round % 2 == 0 { Precondition::Absent } else { Precondition::Always };
        let fresh = on.handles(2).await?.pop().unwrap_or_else(|| Arc::clone(storage));
        let written = fresh.put(&key, &rich("first"), when).await;
        let put = Call::put(&key, &rich("first"), when);
        let is_conflict = matches!(written, Err(StorageError::Conflict));
        ensure!(!is_conflict, "{put} is a Conflict, although the retention of the record has ended");
        let version = written?;
        ensure!(
            !void.contains(&version),
            "put({}): it returned the version of an earlier write, {version:?}",
            key.show()
        );
        all_void(&on, &void, "the end of its retention").await?;
        is_unchanged(&on, version, "calls with versions from before the end of a retention").await?;
        let delete = Call::delete(&key, Some(version));
        ensure_eq!(storage.delete(&key, Some(version)).await?, true, "{delete} while that version is stored");
        void.push(version);
    }
    Ok(())
}

/// None of these versions matches in a `put` or a `delete`.
async fn all_void(on: &TestedStorage, void: &[Version], since: &str) -> PropertyResult {
    let key = key("alice")?;
    for old in void {
        let (late, when) = (Record::new("late"), Precondition::Version(*old));
        let written = on.storage().put(&key, &late, when).await;
        let put = Call::put(&key, &late, when);
        ensure_error!(written, StorageError::Conflict, "{put}, a version from before {since}");
        let delete = Call::delete(&key, Some(*old));
        let removed = on.storage().delete(&key, Some(*old)).await?;
        ensure_eq!(removed, false, "{delete}, a version from before {since}");
    }
    Ok(())
}

/// The stored version can be deleted.
async fn removes(on: &TestedStorage, version: Version) -> PropertyResult {
    let key = key("alice")?;
    let delete = Call::delete(&key, Some(version));
    ensure_eq!(on.storage().delete(&key, Some(version)).await?, true, "{delete} while that version is stored");
    Ok(())
}

/// The record is still `rich("first")` at this version.
async fn is_unchanged(on: &TestedStorage, version: Version, after: impl std::fmt::Display) -> PropertyResult {
    let found = on.storage().get(&key("alice")?).await?;
    let mut found = found.ok_or_else(|| Stop::failed(format_args!("get after {after}: the record is gone")))?;
    let wanted = rich("first");
    let left = found.value.retain_for.take();
    let unlimited = Versioned::new(wanted.clone().with_retain_for(None), version);
    ensure_eq!(found, unlimited, "get after {after}, which must not change anything");
    let is_same = left.is_some_and(|left| left.as_secs() > 86_000);
    let (wanted, left) = (wanted.retain_for.show(), left.show());
    ensure!(is_same, "get after {after}, which must not change anything: retain_for: expected {wanted}, found {left}");
    Ok(())
}
