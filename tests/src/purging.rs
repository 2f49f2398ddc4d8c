//! `purge` removes the records whose retention has ended, and nothing else.
//!
//! Expired records are invisible without it; it only frees their space. Operators run it regularly, on several machines at
//! the same time and on live data, so most of these properties are about what it must *not* remove.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, TokenKey, TokenStorage};

use crate::calls::Call;
use crate::cancellation::drop_in_flight;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::retention::is_there;
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, retained_for, rich};

/// A retention that ends immediately.
const ZERO: Duration = Duration::ZERO;
/// How often a purge is tried if something else may have removed the records first.
const TRIES: usize = 4;

/// `purge` removes only records whose retention has ended, at most `limit` of them, and returns 0 once none is left.
///
/// A storage whose server removes expired records by itself may return 0 every time.
pub async fn purge_removes_only_expired_records(on: Arc<TestedStorage>) -> PropertyResult {
    let long = on.units(600).await?;
    // The same users have live records too: with another provider, and with another account.
    let past = |index: usize| key(&format!("user{index}"));
    let live = |index: usize| PropertyResult::Ok(TokenKey::new("google", format!("user{index}"))?);
    let plain = |index: usize| PropertyResult::Ok(past(index)?.with_account("work")?);
    for index in 0..12 {
        on.storage().put(&past(index)?, &retained_for("x", ZERO), Precondition::Always).await?;
        on.storage().put(&live(index)?, &retained_for("x", long), Precondition::Always).await?;
        on.storage().put(&plain(index)?, &Record::new("x"), Precondition::Always).await?;
    }
    let mut purged = 0;
    for limit in [5, 1, 5, 5, 100, 100] {
        let count = on.storage().purge(limit).await?;
        ensure!(count <= limit as u64, "purge({limit}) returned {count}, more than its limit");
        purged += count;
    }
    // A storage that removes expired records by itself may have done so before.
    ensure!(purged <= 12, "all calls of purge together returned {purged}, but only 12 records had expired");
    ensure_eq!(on.storage().purge(100).await?, 0, "purge(100) while no record has expired");
    for index in 0..12 {
        for (key, why) in [(plain(index)?, "has no retention"), (live(index)?, "is far from the end of its retention")]
        {
            ensure!(is_there(&on, &key).await?, "{} after a purge is None, but the record {why}", Call::get(&key));
        }
        let past = past(index)?;
        ensure!(
            !is_there(&on, &past).await?,
            "{} after a purge returns a record with a retention of zero",
            Call::get(&past)
        );
    }
    Ok(())
}

/// `purge(0)` removes nothing, and every limit up to `usize::MAX` is accepted.
///
/// `LIMIT` in SQL is a signed number. Clamp the limit to its range instead of casting it.
pub async fn purge_accepts_every_limit(on: Arc<TestedStorage>) -> PropertyResult {
    let plain = key("plain")?;
    on.storage().put(&plain, &Record::new("x"), Precondition::Always).await?;
    ensure_eq!(on.storage().purge(0).await?, 0, "purge(0) while no record has expired");
    let (two, three) = (1 << 32, 1 << 31);
    for limit in [usize::MAX, i64::MAX as usize, two, two - 1, three, three - 1, 1_001, 2] {
        for index in 0..3 {
            on.storage().put(&key(&format!("past{index}"))?, &retained_for("x", ZERO), Precondition::Always).await?;
        }
        ensure_eq!(on.storage().purge(0).await?, 0, "purge(0) while 3 records have expired");
        let removed = on.storage().purge(limit).await?;
        ensure!(removed <= 3, "purge({limit}) returned {removed}, but only 3 records had expired");
        let rest = on.storage().purge(usize::MAX).await?;
        ensure!(
            removed + rest <= 3,
            "purge({limit}) and the next one returned {} together, but only 3 records had expired",
            removed + rest
        );
        let get = Call::get(&plain);
        ensure!(is_there(&on, &plain).await?, "{get} after purge({limit}) is None, but the record has no retention");
    }
    Ok(())
}

/// `purge` removes no live record, however short its retention is and however soon it ends.
///
/// Purges right after the write and, if the clock can be moved, two seconds before the retention ends. Both are wrong
/// if the clock of the process is compared with the clock of the server.
pub async fn purge_spares_live_records_of_any_retention(on: Arc<TestedStorage>) -> PropertyResult {
    let can_move_time = on.can_move_time().await?;
    let retentions = [3, 4, 5, 10, 30, 59, 60, 61, 300, 3_600, 86_400];
    for (seconds, limit) in retentions.into_iter().zip([usize::MAX, 100, 1].into_iter().cycle()) {
        let key = key(&format!("{seconds} s"))?;
        let begun = on.now();
        let retention = Duration::from_secs(seconds);
        on.storage().put(&key, &retained_for("x", retention), Precondition::Always).await?;
        on.storage().purge(limit).await?;
        lives(&on, &key, begun, retention).await?;
        if can_move_time {
            // Two seconds before the end, because clocks may count whole seconds.
            on.advance(retention - Duration::from_secs(2)).await?;
            on.storage().purge(limit).await?;
            lives(&on, &key, begun, retention).await?;
        }
    }
    Ok(())
}

/// The record is stored, unless its retention may have ended.
async fn lives(on: &TestedStorage, key: &TokenKey, begun: Duration, retention: Duration) -> PropertyResult {
    let is_there = is_there(on, key).await?;
    let passed = on.now() - begun;
    let is_live = passed + Duration::from_secs(1) < retention;
    ensure!(
        is_there || !is_live,
        "{} after a purge is None, {passed:?} after put with a retention of {retention:?}",
        Call::get(key)
    );
    Ok(())
}

/// `purge` removes more than a thousand expired records if its limit permits.
///
/// A page of the server, such as one step of a scan, must not end the purge early.
pub async fn purge_removes_as_many_as_its_limit_allows(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_many_records()?;
    let keys: Vec<_> = (0..1_205).map(|index| key(&format!("past{index}"))).collect::<PropertyResult<_>>()?;
    on.put_all(keys.iter().map(|key| (key.clone(), retained_for("x", ZERO))).collect()).await?;
    for limit in [7, 26, 101, 400, 5_000] {
        let removed = on.storage().purge(limit).await?;
        ensure!(removed <= limit as u64, "purge({limit}) returned {removed}, more than its limit");
        if removed < limit as u64 {
            let rest = on.storage().purge(5_000).await?;
            ensure_eq!(rest, 0, "purge(5000) after purge({limit}) returned {removed}, fewer than its limit");
        }
    }
    Ok(())
}

/// After a `purge` that removed fewer records than its limit, no expired record is left, whatever the limit is and
/// wherever the records are.
///
/// Callers stop at the first such result. Live records are stored before, between and after the expired ones, so a scan
/// has to continue past them.
pub async fn purge_below_its_limit_leaves_nothing_expired(on: Arc<TestedStorage>) -> PropertyResult {
    for limit in [1, 2, 5, 1 << 31, 1 << 32, usize::MAX] {
        for index in 0..4 {
            // Live records before and after the expired ones.
            for (user, record) in [("a", Record::new("x")), ("m", retained_for("x", ZERO)), ("z", Record::new("x"))] {
                on.storage().put(&key(&format!("{user}{index}"))?, &record, Precondition::Always).await?;
            }
        }
        for _ in 0..10 {
            let removed = on.storage().purge(limit).await?;
            if removed < limit as u64 {
                let rest = on.storage().purge(1_000).await?;
                let what = format!("purge(1000) after purge({limit}) returned {removed}, fewer than its limit");
                ensure_eq!(rest, 0, "{what}");
                break;
            }
        }
    }
    if on.can_move_time().await? {
        on.advance(Duration::from_secs(7 * 86_400)).await?;
        let rest = on.storage().purge(1_000).await?;
        ensure_eq!(rest, 0, "purge(1000) a week after purges that had left nothing expired, and no write since");
    }
    Ok(())
}

/// `purge` removes the expired records of every tenant, provider and account.
///
/// Compares the number of removed records for each kind of key with that for a plain key. A storage whose `purge`
/// always returns 0 passes.
pub async fn purge_covers_every_kind_of_key(on: Arc<TestedStorage>) -> PropertyResult {
    let alice = key("alice")?;
    let (tenant, account) = (key("bob")?.with_tenant("acme")?, key("carol")?.with_account("work")?);
    let all = key("dan")?.with_tenant("acme")?.with_account("work")?;
    let kinds = [alice, tenant, account, all, TokenKey::new("google", "alice")?];
    let mut checked = Ok(());
    // A storage that removes expired records by itself may do so before one of the purges.
    for _ in 0..TRIES {
        checked = purges_alike(&on, &kinds).await;
        if checked.is_ok() {
            break;
        }
    }
    checked
}

/// `purge` returns the same number for an expired record of each of these keys.
async fn purges_alike(on: &TestedStorage, keys: &[TokenKey]) -> PropertyResult {
    let mut of_first = None;
    for key in keys {
        on.storage().put(key, &retained_for("x", ZERO), Precondition::Always).await?;
        let removed = on.storage().purge(100).await?;
        let what = format!("purge(100) after {}", Call::put(key, &retained_for("x", ZERO), Precondition::Always));
        ensure_eq!(removed, *of_first.get_or_insert(removed), "{what}, compared with that of ({})", keys[0].show());
    }
    Ok(())
}

/// Concurrent purges do not count the same record twice.
///
/// Return the number of rows that the statement deleted, not the number that an earlier statement found.
pub async fn purges_at_once_count_each_record_once(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.handles(2).await?;
    for round in on.rounds(40, Duration::from_millis(300)).await? {
        for index in 0..8 {
            on.storage().put(&key(&format!("past{index}"))?, &retained_for("x", ZERO), Precondition::Always).await?;
        }
        let purge = |handle: &Arc<dyn TokenStorage>| {
            let storage = Arc::clone(handle);
            tokio::spawn(async move { storage.purge(100).await })
        };
        let (one, other) = (purge(&handles[0]), purge(&handles[1]));
        let (one, other) = (one.await??, other.await??);
        let sum = one + other;
        ensure!(
            sum <= 8,
            "round {round}: two concurrent purge(100) returned {one} and {other}, but only 8 records had expired"
        );
    }
    Ok(())
}

/// Dropping a `purge` in flight does not prevent later purges from removing expired records.
///
/// A lock, or a flag that a purge is running, has to be released when the future is dropped.
pub async fn a_dropped_purge_does_not_stop_later_ones(on: Arc<TestedStorage>) -> PropertyResult {
    let expired = |from: usize| {
        let storage = Arc::clone(on.storage());
        async move {
            for index in from..from + 3 {
                storage.put(&key(&format!("past{index}"))?, &retained_for("x", ZERO), Precondition::Always).await?;
            }
            PropertyResult::Ok(())
        }
    };
    let mut number = 0;
    let mut next = || {
        number += 3;
        number
    };
    let live = key("live")?;
    on.storage().put(&live, &rich("x"), Precondition::Always).await?;
    expired(next()).await?;
    let usual = on.storage().purge(100).await?;
    for turn in on.rounds(24, Duration::from_millis(300)).await? {
        expired(next()).await?;
        drop_in_flight(1 + turn % 8, on.storage().purge(100)).await;
        let mut removed = 0;
        // The dropped call may still reach the server, and remove the new records.
        for _ in 0..TRIES {
            expired(next()).await?;
            removed = on.storage().purge(100).await?;
            if removed >= usual {
                break;
            }
        }
        ensure!(
            removed >= usual,
            "turn {turn}: purge(100) after a dropped one removed {removed} of 3 expired records, instead of {usual}"
        );
    }
    ensure!(is_there(&on, &live).await?, "{} after dropped purges is None, but the record is live", Call::get(&live));
    Ok(())
}

/// `purge` does not remove a record that is written again while it runs.
///
/// Repeat the condition on the retention in the statement that deletes. Collecting keys first, and deleting them by key
/// alone, loses the new record.
pub async fn purge_spares_records_written_meanwhile(on: Arc<TestedStorage>) -> PropertyResult {
    let keys = (0..24).map(|index| key(&format!("user{index}"))).collect::<PropertyResult<Vec<_>>>()?;
    for round in on.rounds(40, Duration::from_millis(300)).await? {
        for key in &keys {
            on.storage().put(key, &retained_for("old", ZERO), Precondition::Always).await?;
        }
        let purging = tokio::spawn(purge_all(on.harness().storage()));
        for key in &keys {
            on.storage().put(key, &rich("new"), Precondition::Always).await?;
        }
        purging.await??;
        for key in &keys {
            let get = Call::get(key);
            ensure!(
                is_there(&on, key).await?,
                "round {round}: {get} is None: purge removed a record that was written while it ran"
            );
        }
    }
    Ok(())
}

/// An operation that finds an expired record does not remove a record that is written at the same time.
///
/// A read that cleans up has to delete the expired version, not whatever is stored under the key by then.
pub async fn clearing_an_expired_record_spares_a_new_one(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let key = key("alice")?;
    let handles = on.patient_handles(2).await?;
    let listable = on.capabilities().listable;
    for round in on.rounds(1_500, Duration::from_millis(250)).await? {
        handles[0].put(&key, &retained_for("old", ZERO), Precondition::Always).await?;
        let (other, target) = (Arc::clone(&handles[1]), key.clone());
        let reading = tokio::spawn(async move {
            for turn in 0..3 {
                match (round + turn) % 4 {
                    0 => drop(other.get(&target).await?),
                    1 => drop(other.purge(10).await?),
                    2 if listable => {
                        let page = oauth_dance_core::PageRequest::default();
                        drop(other.list(&oauth_dance_core::Filter::everything(), page).await?);
                    }
                    _ => drop(other.delete(&target, Some(oauth_dance_core::Version::random())).await?),
                }
            }
            PropertyResult::Ok(())
        });
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        let version = handles[0].put(&key, &Record::new("new"), Precondition::Absent).await?;
        reading.await??;
        let found = handles[0].get(&key).await?.map(|found| found.version);
        ensure_eq!(
            found,
            Some(version),
            "round {round}: {} after put over an expired record, concurrent with other calls: the version",
            Call::get(&key)
        );
    }
    Ok(())
}

async fn purge_all(storage: Arc<dyn TokenStorage>) -> PropertyResult {
    for _ in 0..30 {
        storage.purge(2).await.map_err(Stop::from)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}
