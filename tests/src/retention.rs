//! A record is kept as long as it asked for, and whether its access token has expired does not matter.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, Timestamp, TokenKey, Versioned};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::subject::{Subject, kept_for, key, list_all, rich};

/// A record whose access token has expired is read, listed, written over and not purged.
pub async fn an_expired_access_token_is_not_missing(on: Arc<Subject>) -> Outcome {
    on.units(1).await?;
    let (old, soon) = (key("old")?, key("soon")?);
    let record = Record::new("refresh me").with_expires_at(Some(Timestamp::from_unix_seconds(1)));
    let version = on.storage().put(&old, &record, Precondition::Always).await?;
    let in_a_second = oauth_dance_core::Clock::system().now().saturating_add(Duration::from_secs(1));
    let expiring = record.clone().with_expires_at(Some(in_a_second));
    on.storage().put(&soon, &expiring, Precondition::Always).await?;
    on.pass(25).await?;
    on.storage().purge(100).await?;
    ensure_eq!(
        on.storage().get(&old).await?,
        Some(Versioned::new(record.clone(), version)),
        "get of a record whose access token expired long ago"
    );
    ensure!(on.storage().get(&soon).await?.is_some(), "get: a record is gone since its access token expired");
    if on.capabilities().listable {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), 10).await?;
        ensure_eq!(listed.len(), 2, "list: records whose access tokens have expired");
    }
    ensure_error!(on.storage().put(&old, &record, Precondition::Absent).await, StorageError::Conflict, "put Absent");
    on.storage().put(&old, &record, Precondition::Version(version)).await?;
    ensure!(on.storage().delete(&soon, None).await?, "delete does not find a record whose access token expired");
    Ok(())
}

/// A record past its retention is hidden from `get` and `list` at once, purged or not.
pub async fn retention_hides(on: Arc<Subject>) -> Outcome {
    let (short, long) = (key("short")?, key("long")?);
    let (one, many) = (on.units(1).await?, on.units(600).await?);
    on.storage().put(&short, &kept_for("x", one), Precondition::Always).await?;
    on.storage().put(&long, &kept_for("x", many), Precondition::Always).await?;
    on.pass(13).await?;
    ensure_eq!(on.storage().get(&short).await?, None, "get of a record past its retention");
    ensure!(on.storage().get(&long).await?.is_some(), "get: a record is gone long before its retention ends");
    if on.capabilities().listable {
        for filter in [Filter::everything(), Filter::everything().tenant(None).user("short")] {
            let listed = list_all(on.storage().as_ref(), &filter, 10).await?;
            let past: Vec<_> = listed.into_iter().filter(|entry| entry.key == short).collect();
            ensure_eq!(past, vec![], "list: records past their retention");
        }
    }
    Ok(())
}

/// A record past its retention counts as absent: it can be created again, its version is void, and there is nothing to
/// delete.
pub async fn past_retention_counts_as_absent(on: Arc<Subject>) -> Outcome {
    let one = on.units(1).await?;
    let keys = [key("a")?, key("b")?, key("c")?, key("d")?];
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(on.storage().put(key, &kept_for("old", one), Precondition::Always).await?);
    }
    on.pass(13).await?;
    let stale = on.storage().put(&keys[0], &Record::new("new"), Precondition::Version(versions[0])).await;
    ensure_error!(stale, StorageError::Conflict, "put over the version of a record past its retention");
    ensure_eq!(on.storage().get(&keys[0]).await?, None, "get after that put");
    ensure!(!on.storage().delete(&keys[1], None).await?, "delete says that it removed a record past its retention");
    ensure!(
        !on.storage().delete(&keys[2], Some(versions[2])).await?,
        "delete of the version of a record past its retention says that it removed something"
    );
    let version = on.storage().put(&keys[3], &Record::new("new"), Precondition::Absent).await?;
    let found = on.storage().get(&keys[3]).await?;
    ensure_eq!(found, Some(Versioned::new(Record::new("new"), version)), "get of a record created after a retention");
    Ok(())
}

/// Every write sets the retention: none, longer and shorter all take effect, and nothing is inherited.
pub async fn every_write_sets_the_retention(on: Arc<Subject>) -> Outcome {
    let (short, long) = (on.units(2).await?, on.units(600).await?);
    let unlimited = Record::new("x");
    let cases = [
        ("short to none", kept_for("x", short), unlimited.clone(), true),
        ("short to long", kept_for("x", short), kept_for("x", long), true),
        ("long to short", kept_for("x", long), kept_for("x", short), false),
        ("none to short", unlimited, kept_for("x", short), false),
    ];
    for conditional in [false, true] {
        for (name, first, second, _) in &cases {
            let key = key(&format!("{name} {conditional}"))?;
            let version = on.storage().put(&key, first, Precondition::Always).await?;
            let when = if conditional { Precondition::Version(version) } else { Precondition::Always };
            match on.storage().put(&key, second, when).await {
                // A retention of two seconds may be over if that took more than one.
                Err(StorageError::Conflict) if *first == kept_for("x", short) => {
                    on.storage().put(&key, second, Precondition::Always).await?;
                }
                written => drop(written?),
            }
        }
    }
    on.pass(24).await?;
    for conditional in [false, true] {
        for (name, _, _, stays) in &cases {
            let found = on.storage().get(&key(&format!("{name} {conditional}"))?).await?;
            ensure_eq!(
                found.is_some(),
                *stays,
                "get: whether the record is there whose retention went from {name}, conditional {conditional}"
            );
        }
    }
    Ok(())
}

/// The retention counts from the last write, also if that wrote the same bytes or had a condition.
pub async fn retention_counts_from_the_last_write(on: Arc<Subject>) -> Outcome {
    let (three, most) = (on.units(3).await?, on.units(3).await? - Duration::from_secs(1));
    let cases = ["the same bytes", "other bytes", "a version", "after a delete"];
    for name in cases {
        on.storage().put(&key(name)?, &kept_for("x", three), Precondition::Always).await?;
    }
    on.pass(17).await?;
    let (written, mut versions) = (on.now(), Vec::new());
    for name in cases {
        let key = key(name)?;
        let when = match (name, on.storage().get(&key).await?) {
            ("a version", Some(found)) => Precondition::Version(found.version),
            ("after a delete", _) => {
                on.storage().delete(&key, None).await?;
                Precondition::Absent
            }
            _ => Precondition::Always,
        };
        let record = kept_for(if name == "the same bytes" { "x" } else { "y" }, three);
        versions.push(on.storage().put(&key, &record, when).await?);
    }
    on.pass(17).await?;
    for (name, version) in cases.into_iter().zip(versions) {
        let found = on.storage().get(&key(name)?).await?.map(|found| found.version);
        // On a slow day the second retention may have ended as well.
        if on.now() - written < most {
            ensure_eq!(found, Some(version), "get: the record whose retention started again, {name}");
        }
    }
    Ok(())
}

/// A record created after a delete does not inherit the retention of the one before.
pub async fn retention_ends_with_the_record(on: Arc<Subject>) -> Outcome {
    let one = on.units(1).await?;
    let key = key("alice")?;
    on.storage().put(&key, &kept_for("old", one), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    on.storage().put(&key, &Record::new("new"), Precondition::Absent).await?;
    on.pass(13).await?;
    on.storage().purge(100).await?;
    ensure!(on.storage().get(&key).await?.is_some(), "get: the retention of a deleted record took the next one away");
    Ok(())
}

/// Nothing of a record past its retention survives in what replaces it: neither a hint nor the retention.
pub async fn nothing_of_an_expired_record_survives(on: Arc<Subject>) -> Outcome {
    let one = on.units(1).await?;
    let poor = Record::new("b");
    let old = rich("a long payload").with_retain_for(Some(one));
    let names = ["Always", "Absent", "Always, purged", "Absent, purged"];
    for name in names {
        on.storage().put(&key(name)?, &old, Precondition::Always).await?;
    }
    on.pass(13).await?;
    for name in names {
        if name.ends_with("purged") {
            on.storage().purge(100).await?;
        }
        let when = if name.starts_with("Always") { Precondition::Always } else { Precondition::Absent };
        let version = on.storage().put(&key(name)?, &poor, when).await?;
        let wanted = Versioned::new(poor.clone(), version);
        ensure_eq!(on.storage().get(&key(name)?).await?, Some(wanted), "get after put {name} over an expired record");
        if on.capabilities().listable {
            let filter = Filter::everything().tenant(None).user(name);
            let listed = list_all(on.storage().as_ref(), &filter, 10).await?;
            let wanted = oauth_dance_core::Entry::new(key(name)?, version, &poor);
            ensure_eq!(listed, vec![wanted], "list after put {name} over an expired record");
        }
    }
    Ok(())
}

/// Calls that change nothing do not touch the retention: refused writes and deletes, reads, lists and purges.
pub async fn a_refused_write_leaves_the_retention(on: Arc<Subject>) -> Outcome {
    let (two, long) = (on.units(2).await?, on.units(600).await?);
    let cases = ["put Absent", "put Version", "delete", "get", "list", "purge", "delete of another key"];
    let (lasting, other) = (key("lasting")?, key("other")?);
    let foreign = on.storage().put(&other, &Record::new("x"), Precondition::Always).await?;
    on.storage().put(&lasting, &kept_for("x", long), Precondition::Always).await?;
    for name in cases {
        on.storage().put(&key(name)?, &kept_for("x", two), Precondition::Always).await?;
    }
    for tenths in [12, 12] {
        for name in cases {
            disturb(&on, name, foreign, long).await?;
        }
        let stale = on.storage().put(&lasting, &kept_for("y", two), Precondition::Version(foreign)).await;
        ensure_error!(stale, StorageError::Conflict, "put over another key's version");
        on.pass(tenths).await?;
    }
    for name in cases {
        ensure_eq!(on.storage().get(&key(name)?).await?, None, "get of a record past its retention, after {name}");
    }
    ensure!(on.storage().get(&lasting).await?.is_some(), "get: a refused put shortened the retention");
    Ok(())
}

/// Calls something that must not touch the retention of the record it is tried on.
async fn disturb(on: &Subject, name: &str, foreign: oauth_dance_core::Version, long: Duration) -> Outcome {
    let (storage, target, longer) = (on.storage(), key(name)?, kept_for("y", long));
    match name {
        // A retention of two seconds may be over by now, and then nothing is to be shown.
        "put Absent" if storage.get(&target).await?.is_some() => {
            drop(storage.put(&target, &longer, Precondition::Version(foreign)).await);
            if on.can_move_time().await? {
                let absent = storage.put(&target, &longer, Precondition::Absent).await;
                ensure_error!(absent, StorageError::Conflict, "put Absent over a record");
            }
        }
        "put Version" => drop(storage.put(&target, &longer, Precondition::Version(foreign)).await),
        "delete" => drop(storage.delete(&target, Some(foreign)).await?),
        "get" => drop(storage.get(&target).await?),
        "list" if on.capabilities().listable => {
            list_all(storage.as_ref(), &Filter::everything(), 3).await?;
            list_all(storage.as_ref(), &Filter::everything().tenant(None).user(name), 3).await?;
        }
        "purge" => drop(storage.purge(0).await?),
        "delete of another key" => drop(storage.delete(&key("nobody")?, None).await?),
        _ => {}
    }
    Ok(())
}

/// A record that is read carries the time it has left, which reading does not prolong.
pub async fn reading_tells_the_time_left(on: Arc<Subject>) -> Outcome {
    let long = on.units(600).await?;
    let (alice, bob) = (key("alice")?, key("bob")?);
    let begun = on.now();
    on.storage().put(&bob, &Record::new("x"), Precondition::Always).await?;
    on.storage().put(&alice, &kept_for("x", long), Precondition::Always).await?;
    for handle in on.recorded_handles(2).await? {
        for _ in 0..2 {
            let asked = on.now();
            let found = handle.get(&alice).await?.ok_or_else(|| Stop::failed("get: the record is missing"))?;
            let left = found.value.retain_for.ok_or_else(|| Stop::failed("get: the record has lost its retention"))?;
            let (most, least) = (long.saturating_sub(asked - begun), long.saturating_sub(on.now() - begun));
            // A clock of whole seconds is off by less than one, at either end.
            let (most, least) =
                (most + Duration::from_millis(2_100), least.saturating_sub(Duration::from_millis(1_100)));
            ensure!(
                (least..=most.min(long)).contains(&left),
                "get: {left:?} left of {long:?} that were written {:?} ago",
                on.now() - begun
            );
            let unlimited = handle.get(&bob).await?.and_then(|found| found.value.retain_for);
            ensure_eq!(unlimited, None, "get: the time left of a record without a retention");
            on.pass(6).await?;
        }
    }
    Ok(())
}

/// The end of a retention is seen through every handle, whichever wrote.
pub async fn retention_is_seen_through_every_handle(on: Arc<Subject>) -> Outcome {
    let two = on.units(2).await?;
    let handles = on.recorded_handles(3).await?;
    let mut versions = Vec::new();
    for (index, handle) in handles.iter().enumerate() {
        for (reader, reading) in handles.iter().enumerate() {
            let key = key(&format!("by {index} for {reader}"))?;
            versions.push(handle.put(&key, &kept_for("x", two), Precondition::Always).await?);
            let found = reading.get(&key).await?;
            let left = found.and_then(|found| found.value.retain_for);
            ensure!(
                left.is_some_and(|left| left <= two),
                "get through handle {reader}: the time left is {}",
                left.show()
            );
        }
    }
    on.pass(23).await?;
    for (index, version) in (0..handles.len() * handles.len()).zip(versions) {
        let (writer, reader) = (index / handles.len(), index % handles.len());
        let key = key(&format!("by {writer} for {reader}"))?;
        let reading = &handles[reader];
        ensure_eq!(
            reading.get(&key).await?,
            None,
            "get through handle {reader} after handle {writer}'s retention ended"
        );
        ensure!(!reading.delete(&key, Some(version)).await?, "delete removes what another handle's retention ended");
        reading.put(&key, &Record::new("new"), Precondition::Absent).await?;
        let found = handles[writer].get(&key).await?.map(|found| found.value);
        ensure_eq!(found, Some(Record::new("new")), "get through the handle that wrote the expired record");
    }
    Ok(())
}

/// A fraction of a second counts as a whole one: no record with a retention is over at once, and none is unlimited.
pub async fn fractions_count_as_seconds(on: Arc<Subject>) -> Outcome {
    let fraction = key("fraction")?;
    let record = kept_for("x", Duration::from_millis(60_001));
    on.storage().put(&fraction, &record, Precondition::Always).await?;
    let found = on.storage().get(&fraction).await?.and_then(|found| found.value.retain_for);
    let whole = found.is_some_and(|left| (Duration::from_secs(50)..=Duration::from_secs(61)).contains(&left));
    ensure!(whole, "get: the time left of 60.001 s just written is {}", found.show());

    for nanos in [900_000_000, 1, 1_000_000, 499_000_000, 999_999_999] {
        let (record, mut seen) = (kept_for("x", Duration::from_nanos(nanos)), false);
        let key = key(&format!("{nanos} ns"))?;
        let mut quick = 0;
        // The clock's second may end between two calls: but not between most of them.
        for _ in 0..40 {
            let begun = std::time::Instant::now();
            on.storage().put(&key, &record, Precondition::Always).await?;
            seen = on.storage().get(&key).await?.is_some();
            quick += usize::from(begun.elapsed() < Duration::from_millis(100));
            if seen || quick >= 6 {
                break;
            }
        }
        ensure!(
            seen || quick < 6,
            "get: a record with a retention of {nanos} ns is over at once, {quick} times of {quick}"
        );
    }
    Ok(())
}

/// A retention of zero is over at once: the write replaces what was there, and the key is absent.
pub async fn zero_retention_is_over_at_once(on: Arc<Subject>) -> Outcome {
    let zero = kept_for("gone", Duration::ZERO);
    for (name, conditional) in [("Always", false), ("Version", true)] {
        let key = key(name)?;
        let before = on.storage().put(&key, &rich("before"), Precondition::Always).await?;
        let when = if conditional { Precondition::Version(before) } else { Precondition::Always };
        let version = on.storage().put(&key, &zero, when).await?;
        ensure_eq!(on.storage().get(&key).await?, None, "get after put {name} with a retention of zero");
        for old in [before, version] {
            let late = on.storage().put(&key, &rich("late"), Precondition::Version(old)).await;
            ensure_error!(late, StorageError::Conflict, "put over a version from before a retention of zero");
            ensure!(!on.storage().delete(&key, Some(old)).await?, "delete finds a record with a retention of zero");
        }
        ensure!(!on.storage().delete(&key, None).await?, "delete finds a record with a retention of zero");
        if on.capabilities().listable {
            let listed = list_all(on.storage().as_ref(), &Filter::everything(), 10).await?;
            ensure_eq!(listed, vec![], "list after put {name} with a retention of zero");
        }
        on.storage().put(&key, &zero, Precondition::Absent).await?;
        let version = on.storage().put(&key, &Record::new("new"), Precondition::Absent).await?;
        let wanted = Versioned::new(Record::new("new"), version);
        ensure_eq!(on.storage().get(&key).await?, Some(wanted), "get after put Absent where a retention was zero");
        on.storage().delete(&key, None).await?;
    }
    Ok(())
}

/// Long retentions neither overflow nor are cut: 25, 31, 50 and 400 days, and what no clock counts to.
pub async fn extreme_retentions_are_kept(on: Arc<Subject>) -> Outcome {
    const DAY: u64 = 86_400;
    let can_move_time = on.can_move_time().await?;
    // Around what overflows as milliseconds of 32 bits, what memcached takes for an instant, and what cookies may have.
    let days = [1, 24, 25, 29, 31, 49, 50, 89, 91, 180, 365, 366, 399, 400, 401, 3_650, 24_855, 24_856, 49_710, 49_711];
    let huge = [
        u64::from(u32::MAX),
        10_000 * 31_557_600,
        i64::MAX as u64 / 1_000,
        i64::MAX as u64,
        u64::MAX / 1_000,
        u64::MAX,
    ];
    let mut retentions: Vec<u64> = days.into_iter().map(|days| days * DAY).collect();
    retentions.extend([i32::MAX as u64, u64::from(u32::MAX) / 1_000 + 1, i32::MAX as u64 / 1_000 + 1, 1_000_000_000]);
    let count = retentions.len();
    retentions.extend(huge);
    let begun = on.now();
    let mut passed = 0;
    for seconds in &retentions {
        let record = kept_for("x", Duration::from_secs(*seconds));
        on.storage().put(&key(&format!("{seconds} s"))?, &record, Precondition::Always).await?;
    }
    for advance in [0, 20 * DAY, 9 * DAY, 11 * DAY, 20 * DAY, 30 * DAY, 300 * DAY] {
        if advance > 0 && !can_move_time {
            break;
        }
        if advance > 0 {
            on.advance(Duration::from_secs(advance)).await?;
            passed += advance;
        }
        on.storage().purge(usize::MAX).await?;
        for (index, seconds) in retentions.iter().enumerate() {
            let found = on.storage().get(&key(&format!("{seconds} s"))?).await?;
            let lasts = *seconds > passed + 120;
            if lasts || seconds.saturating_add(60) < passed {
                ensure_eq!(
                    found.is_some(),
                    lasts,
                    "get: whether a record kept for {seconds} s is there after {passed} s"
                );
            }
            let Some(found) = found else { continue };
            let left = found.value.retain_for.map(|left| left.as_secs());
            let real = (on.now() - begun).as_secs().saturating_sub(passed) + 2;
            let exact = (seconds - seconds.min(&(passed + real)), seconds.saturating_sub(passed).saturating_add(2));
            let right = left.is_some_and(|left| (exact.0..=exact.1).contains(&left));
            // What ends after the year 9999 may be unlimited.
            ensure!(right || index >= count, "get: {} s left of {seconds} s after {passed} s", left.show());
        }
    }
    Ok(())
}

/// Whether a record of this key is there.
pub(crate) async fn is_there(on: &Subject, key: &TokenKey) -> Outcome<bool> {
    Ok(on.storage().get(key).await?.is_some())
}
