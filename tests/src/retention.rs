//! A record is stored until its retention ends, whether or not its access token has expired.
//!
//! A record has two times that are easily confused. `expires_at` describes the access token: a refresh replaces it, so the
//! record is needed more than ever. `retain_for` limits the record itself: when it ends, every operation has to treat the key
//! as absent, even if the bytes are still on the medium. A retention is a duration and not an instant, so that no two machines
//! need to agree on the time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, Timestamp, TokenKey, Versioned};

use crate::calls::{Call, pages};
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, retained_for, rich};

/// A record whose access token has expired is still read, listed and replaced, and is not purged.
///
/// `expires_at` describes the access token. The record also contains the refresh token, which is needed exactly then.
/// Only the retention limits how long a record is stored.
pub async fn an_expired_access_token_is_not_missing(on: Arc<TestedStorage>) -> PropertyResult {
    on.units(1).await?;
    let (old, soon) = (key("old")?, key("soon")?);
    let record = Record::new("refresh me").with_expires_at(Some(Timestamp::from_unix_seconds(1)));
    let version = on.storage().put(&old, &record, Precondition::Always).await?;
    let in_a_second = oauth_dance_core::Clock::system().now().saturating_add(Duration::from_secs(1));
    let expiring = record.clone().with_expires_at(Some(in_a_second));
    on.storage().put(&soon, &expiring, Precondition::Always).await?;
    on.pass(25).await?;
    on.storage().purge(100).await?;
    let found = on.storage().get(&old).await?;
    let wanted = Some(Versioned::new(record.clone(), version));
    ensure_eq!(found, wanted, "{}, whose access token expired in 1970, after a purge", Call::get(&old));
    let found = on.storage().get(&soon).await?;
    ensure!(found.is_some(), "{}, whose access token has just expired, is None", Call::get(&soon));
    if on.capabilities().listable {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), 10).await?;
        ensure_eq!(listed.len(), 2, "list of 2 records whose access tokens have expired: the number of entries");
    }
    let put = Call::put(&old, &record, Precondition::Absent);
    let written = on.storage().put(&old, &record, Precondition::Absent).await;
    ensure_error!(written, StorageError::Conflict, "{put} over a record whose access token has expired");
    on.storage().put(&old, &record, Precondition::Version(version)).await?;
    let delete = Call::delete(&soon, None);
    ensure_eq!(on.storage().delete(&soon, None).await?, true, "{delete} of a record whose access token has expired");
    Ok(())
}

/// `get` and `list` do not return a record whose retention has ended, whether or not it was purged.
///
/// The statement that reads has to compare the end of the retention with the clock. A background job, or the server's
/// own expiry, may be late.
pub async fn records_are_hidden_after_their_retention(on: Arc<TestedStorage>) -> PropertyResult {
    let (short, long) = (key("short")?, key("long")?);
    let (one, many) = (on.units(1).await?, on.units(600).await?);
    on.storage().put(&short, &retained_for("x", one), Precondition::Always).await?;
    on.storage().put(&long, &retained_for("x", many), Precondition::Always).await?;
    // Empty and large payloads may be stored in another way.
    let mut others = Vec::new();
    let sizes = if on.capabilities().request_bound { [0; 4] } else { [0, 5_000, 70_000, 300_000] };
    for size in BTreeSet::from(sizes.map(|size| on.accepted_length(size))) {
        let (key, record) = (key(&format!("short {size}"))?, rich(vec![b'x'; size]).with_retain_for(Some(one)));
        on.storage().put(&key, &record, Precondition::Always).await?;
        others.push(key);
    }
    on.pass(13).await?;
    for key in others.iter().chain([&short]) {
        let get = Call::get(key);
        ensure_eq!(on.storage().get(key).await?, None, "{get}, whose retention of {one:?} has ended");
    }
    let found = on.storage().get(&long).await?;
    ensure!(found.is_some(), "{} is None, although its retention of {many:?} has just begun", Call::get(&long));
    if on.capabilities().listable {
        for filter in [Filter::everything(), Filter::everything().tenant(None).user("short")] {
            let listed = list_all(on.storage().as_ref(), &filter, 10).await?;
            let past: Vec<_> = listed.into_iter().filter(|entry| entry.key != long).collect();
            ensure_eq!(past, vec![], "{}: records whose retention has ended", pages(&filter, 10));
        }
    }
    Ok(())
}

/// A record whose retention has ended counts as absent: `Absent` succeeds, its version no longer matches, and `delete`
/// returns `Ok(false)`.
///
/// Every statement needs the condition on the retention, not only the one that reads.
pub async fn an_expired_record_counts_as_absent(on: Arc<TestedStorage>) -> PropertyResult {
    let one = on.units(1).await?;
    let keys = [key("a")?, key("b")?, key("c")?, key("d")?];
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(on.storage().put(key, &retained_for("old", one), Precondition::Always).await?);
    }
    on.pass(13).await?;
    let (new, when) = (Record::new("new"), Precondition::Version(versions[0]));
    let put = Call::put(&keys[0], &new, when);
    let stale = on.storage().put(&keys[0], &new, when).await;
    ensure_error!(stale, StorageError::Conflict, "{put}, the version of a record whose retention has ended");
    ensure_eq!(on.storage().get(&keys[0]).await?, None, "get after {put}, which was rejected");
    for (key, only) in [(&keys[1], None), (&keys[2], Some(versions[2]))] {
        let delete = Call::delete(key, only);
        ensure_eq!(on.storage().delete(key, only).await?, false, "{delete} of a record whose retention has ended");
    }
    let put = Call::put(&keys[3], &new, Precondition::Absent);
    let written = on.storage().put(&keys[3], &new, Precondition::Absent).await;
    let is_conflict = matches!(written, Err(StorageError::Conflict));
    ensure!(!is_conflict, "{put} is a Conflict, although the retention of the record has ended");
    let found = on.storage().get(&keys[3]).await?;
    ensure_eq!(found, Some(Versioned::new(new, written?)), "get after {put} over a record whose retention has ended");
    Ok(())
}

/// `get` returns the remaining retention, and does not extend it.
///
/// Reads several times, through two handles. A cache has to count down as well.
pub async fn get_returns_the_remaining_retention(on: Arc<TestedStorage>) -> PropertyResult {
    let long = on.units(600).await?;
    let (alice, bob) = (key("alice")?, key("bob")?);
    on.storage().put(&bob, &Record::new("x"), Precondition::Always).await?;
    let begun = on.now();
    on.storage().put(&alice, &retained_for("x", long), Precondition::Always).await?;
    let written = on.now();
    for handle in on.recorded_handles(2).await? {
        for _ in 0..2 {
            let called = on.now();
            let get = Call::get(&alice);
            let found = handle.get(&alice).await?;
            let left = found.as_ref().and_then(|found| found.value.retain_for);
            let left = left.ok_or_else(|| {
                let found = found.show();
                Stop::failed(format_args!(
                    "{get} after put with a retention of {long:?}: retain_for is missing: {found}"
                ))
            })?;
            let (most, least) = (long.saturating_sub(called - written), long.saturating_sub(on.now() - begun));
            // A clock that counts whole seconds is off by less than a second in total, because it rounds the write and the
            // read in the same way. A truncated remainder loses another second.
            let (most, least) =
                (most + Duration::from_millis(1_100), least.saturating_sub(Duration::from_millis(2_100)));
            ensure!(
                (least..=most.min(long)).contains(&left),
                "{get}: retain_for is {left:?} of {long:?}, {:?} after put",
                on.now() - begun
            );
            let unlimited = handle.get(&bob).await?.and_then(|found| found.value.retain_for);
            ensure_eq!(unlimited, None, "{} after put without a retention: retain_for", Call::get(&bob));
            on.pass(6).await?;
        }
    }
    Ok(())
}

/// A fraction of a second counts as a whole second: no such retention ends immediately, and none is unlimited.
///
/// Rounding down turns a retention of 0.9 seconds into zero.
pub async fn fractional_retentions_round_up(on: Arc<TestedStorage>) -> PropertyResult {
    let fraction = key("fraction")?;
    let record = retained_for("x", Duration::from_millis(60_001));
    on.storage().put(&fraction, &record, Precondition::Always).await?;
    let found = on.storage().get(&fraction).await?.and_then(|found| found.value.retain_for);
    let whole = found.is_some_and(|left| (Duration::from_secs(50)..=Duration::from_secs(61)).contains(&left));
    let get = Call::get(&fraction);
    ensure!(whole, "{get} right after put with a retention of 60.001 s: retain_for is {}", found.show());

    for nanos in [900_000_000, 1, 1_000_000, 499_000_000, 999_999_999] {
        let (record, mut seen) = (retained_for("x", Duration::from_nanos(nanos)), false);
        let key = key(&format!("{nanos} ns"))?;
        let mut quick = 0;
        // A second of the clock may end between two calls, but not between most of them.
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
            "{} right after put with a retention of {nanos} ns is None, in {quick} of {quick} attempts",
            Call::get(&key)
        );
    }
    Ok(())
}

/// A retention ends in its second: at most one second early, because clocks may count whole seconds, and not late.
///
/// Moves the clock to two seconds before the end and then to the end, for retentions between two seconds and a day.
pub async fn retention_is_exact_to_the_second(on: Arc<TestedStorage>) -> PropertyResult {
    if !on.can_move_time().await? {
        return Err(Stop::not_applicable("the harness cannot move the clock"));
    }
    for seconds in [2, 3, 10, 59, 60, 61, 90, 600, 3_599, 3_601, 86_401] {
        let key = key(&format!("{seconds} s"))?;
        let retention = Duration::from_secs(seconds);
        let begun = on.now();
        on.storage().put(&key, &retained_for("x", retention), Precondition::Always).await?;
        on.advance(retention - Duration::from_secs(2)).await?;
        let found = on.storage().get(&key).await?;
        let passed = on.now() - begun;
        let early = found.is_none() && passed + Duration::from_secs(1) < retention;
        ensure!(!early, "{} is None {passed:?} after put with a retention of {seconds} s", Call::get(&key));
        on.advance(Duration::from_secs(2)).await?;
        let mut found = on.storage().get(&key).await?;
        if found.is_some() {
            // The storage's clock may be slightly behind.
            tokio::time::sleep(Duration::from_millis(300)).await;
            found = on.storage().get(&key).await?;
        }
        let (passed, late) = (on.now() - begun, found.is_some());
        ensure!(!late, "{} returns the record {passed:?} after put with a retention of {seconds} s", Call::get(&key));
    }
    Ok(())
}

/// A retention of zero ends immediately: the write replaces the stored record, and the key is then absent.
///
/// Redis rejects an expiry of zero, and a comparison with `<` shows the record until its second ends. Such a write
/// still returns a version, which never matches. If its condition is not met, it changes nothing.
pub async fn zero_retention_is_over_at_once(on: Arc<TestedStorage>) -> PropertyResult {
    let zero = retained_for("gone", Duration::ZERO);
    for (name, conditional) in [("Always", false), ("Version", true)] {
        let key = key(name)?;
        let stale = on.storage().put(&key, &Record::new("stale"), Precondition::Always).await?;
        let before = on.storage().put(&key, &Record::new("before"), Precondition::Always).await?;
        for when in [Precondition::Absent, Precondition::Version(stale)] {
            let put = Call::put(&key, &zero, when);
            let written = on.storage().put(&key, &zero, when).await;
            ensure_error!(written, StorageError::Conflict, "{put} while {before:?} is stored");
            let found = on.storage().get(&key).await?.map(|found| found.version);
            ensure_eq!(found, Some(before), "get after {put}, which was rejected: the version");
        }
        let when = if conditional { Precondition::Version(before) } else { Precondition::Always };
        let version = on.storage().put(&key, &zero, when).await?;
        let put = Call::put(&key, &zero, when);
        ensure_eq!(on.storage().get(&key).await?, None, "get after {put}");
        for old in [before, version] {
            let late = on.storage().put(&key, &rich("late"), Precondition::Version(old)).await;
            ensure_error!(late, StorageError::Conflict, "put over {old:?} after {put}");
        }
        for only in [Some(before), Some(version), None] {
            let delete = Call::delete(&key, only);
            let removed = on.storage().delete(&key, only).await?;
            ensure_eq!(removed, false, "{delete} after put {name} with a retention of zero");
        }
        if on.capabilities().listable {
            let listed = list_all(on.storage().as_ref(), &Filter::everything(), 10).await?;
            ensure_eq!(listed, vec![], "list after {put}");
        }
        on.storage().put(&key, &zero, Precondition::Absent).await?;
        let version = on.storage().put(&key, &Record::new("new"), Precondition::Absent).await?;
        let wanted = Versioned::new(Record::new("new"), version);
        let found = on.storage().get(&key).await?;
        ensure_eq!(found, Some(wanted), "{} after put Absent over a record with a retention of zero", Call::get(&key));
        on.storage().delete(&key, None).await?;
    }
    Ok(())
}

/// Long retentions neither overflow nor are shortened: weeks, months, years, and more than any clock counts.
///
/// Tries the limits of 32-bit seconds and milliseconds, the 30 days of memcached, the 400 days of cookies, the
/// largest `Duration`, and records without a retention. Use saturating arithmetic. A retention that ends after the year
/// 9999 may be treated as unlimited.
pub async fn long_retentions_do_not_overflow(on: Arc<TestedStorage>) -> PropertyResult {
    const DAY: u64 = 86_400;
    let can_move_time = on.can_move_time().await?;
    // Around the limits of 32-bit milliseconds, of memcached (which reads a larger number as an instant), and of cookies.
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
    let unlimited = [Record::new("x"), Record::new("").with_expires_at(Some(Timestamp::from_unix_seconds(1_000)))];
    for (index, record) in unlimited.iter().enumerate() {
        on.storage().put(&key(&format!("unlimited {index}"))?, record, Precondition::Always).await?;
    }
    // The expiry of the token does not limit the retention.
    for (seconds, expires_at) in retentions.iter().zip([None, Some(Timestamp::from_unix_seconds(1_000))].iter().cycle())
    {
        let record = retained_for("x", Duration::from_secs(*seconds)).with_expires_at(*expires_at);
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
        for (index, record) in unlimited.iter().enumerate() {
            let key = key(&format!("unlimited {index}"))?;
            let found = on.storage().get(&key).await?.map(|found| found.value);
            ensure_eq!(found, Some(record.clone()), "{} {passed} s after put without a retention", Call::get(&key));
        }
        for (index, seconds) in retentions.iter().enumerate() {
            let key = key(&format!("{seconds} s"))?;
            let get = Call::get(&key);
            let found = on.storage().get(&key).await?;
            let lasts = *seconds > passed + 120;
            if lasts || seconds.saturating_add(60) < passed {
                let is = if found.is_some() { "still returns the record" } else { "is None" };
                let right = found.is_some() == lasts;
                ensure!(right, "{get} {is} {passed} s after put with a retention of {seconds} s");
            }
            let Some(found) = found else { continue };
            let left = found.value.retain_for.map(|left| left.as_secs());
            let real = (on.now() - begun).as_secs().saturating_sub(passed) + 2;
            let exact = (seconds - seconds.min(&(passed + real)), seconds.saturating_sub(passed).saturating_add(2));
            let right = left.is_some_and(|left| (exact.0..=exact.1).contains(&left));
            // A retention that ends after the year 9999 may be unlimited.
            ensure!(
                right || index >= count,
                "{get} after {passed} s: retain_for is {} of {seconds} s",
                found.value.retain_for.show()
            );
        }
    }
    Ok(())
}

/// Whether the key has a record.
pub(crate) async fn is_there(on: &TestedStorage, key: &TokenKey) -> PropertyResult<bool> {
    Ok(on.storage().get(key).await?.is_some())
}

/// Writes of other keys do not change a retention: neither when it ends nor what it replaced.
///
/// Writes up to 2,000 other records. A storage fails this if it has room for a limited number of expiry times.
pub async fn other_writes_do_not_change_a_retention(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_many_records()?;
    let (short, long) = (on.units(3).await?, on.units(600).await?);
    let keys = |name: &str| (0..8).map(|index| key(&format!("{name}{index}"))).collect::<PropertyResult<Vec<_>>>();
    let (replaced, live) = (keys("replaced")?, keys("live")?);
    let with = |keys: &[TokenKey], record: Record| keys.iter().map(|key| (key.clone(), record.clone())).collect();
    on.put_all(with(&replaced, Record::new("old"))).await?;
    on.put_all(with(&live, Record::new("old"))).await?;
    fill(&on, "first").await?;
    let begun = on.now();
    on.put_all(with(&live, retained_for("new", long))).await?;
    on.put_all(with(&replaced, retained_for("new", short))).await?;
    fill(&on, "second").await?;
    for key in replaced.iter().chain(&live) {
        let found = on.storage().get(key).await?;
        let passed = on.now() - begun;
        let is_due = !live.contains(key) && passed + Duration::from_secs(1) >= short;
        ensure!(
            found.is_some() || is_due,
            "{} after many writes of other keys is None, {passed:?} after put",
            Call::get(key)
        );
        let left = found.and_then(|found| found.value.retain_for);
        let limit = if live.contains(key) { long } else { short };
        ensure!(
            is_due || left.is_some_and(|left| left <= limit),
            "{} after many writes of other keys: retain_for is {} of {limit:?}",
            Call::get(key),
            left.show()
        );
    }
    on.advance(short + Duration::from_secs(2)).await?;
    for key in &replaced {
        let found = on.storage().get(key).await?.map(|found| found.value);
        ensure_eq!(found, None, "{} after the end of its retention and many writes of other keys", Call::get(key));
    }
    for key in &live {
        ensure!(is_there(&on, key).await?, "{} long before the end of its retention is None", Call::get(key));
    }
    Ok(())
}

/// Writes up to 1,000 records, as many as time permits.
async fn fill(on: &TestedStorage, name: &str) -> PropertyResult {
    for round in on.rounds(10, Duration::from_millis(100)).await? {
        let other = |index| Ok((key(&format!("{name} {round} {index}"))?, Record::new("x")));
        on.put_all((0..100).map(other).collect::<PropertyResult<_>>()?).await?;
    }
    Ok(())
}
