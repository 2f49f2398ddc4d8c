//! A record is kept as long as it asked for, and whether its access token has expired does not matter.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, Timestamp, TokenStorage, Versioned};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq, ensure_error};
use crate::subject::{Subject, kept_for, key, list_all, rich};

/// A record whose access token has expired is read, listed, written over and not purged.
pub async fn an_expired_access_token_is_not_missing(on: Arc<Subject>) -> Outcome {
    let (old, soon) = (key("old")?, key("soon")?);
    let record = Record::new("refresh me").with_expires_at(Some(Timestamp::from_unix_seconds(1)));
    let version = on.storage().put(&old, &record, Precondition::Always).await?;
    let in_a_second = oauth_dance_core::Clock::system().now().saturating_add(Duration::from_secs(1));
    let expiring = record.clone().with_expires_at(Some(in_a_second));
    on.storage().put(&soon, &expiring, Precondition::Always).await?;
    on.advance(3).await?;
    on.storage().purge(100).await?;
    ensure_eq!(
        on.storage().get(&old).await?,
        Some(Versioned::new(record.clone(), version)),
        "a record that expired long ago"
    );
    ensure!(on.storage().get(&soon).await?.is_some(), "a record is gone since its access token expired");
    if on.capabilities().listable {
        ensure_eq!(list_all(on.storage().as_ref(), &Filter::everything(), 10).await?.len(), 2, "records in the list");
    }
    ensure_error!(on.storage().put(&old, &record, Precondition::Absent).await, StorageError::Conflict, "put Absent");
    on.storage().put(&old, &record, Precondition::Version(version)).await?;
    ensure!(on.storage().delete(&soon, None).await?, "delete does not find a record whose access token expired");
    Ok(())
}

/// A record past its retention is hidden from `get` and `list` at once, purged or not.
pub async fn retention_hides(on: Arc<Subject>) -> Outcome {
    let (short, long) = (key("short")?, key("long")?);
    on.storage().put(&short, &kept_for("x", 1), Precondition::Always).await?;
    on.storage().put(&long, &kept_for("x", 600), Precondition::Always).await?;
    on.advance(3).await?;
    ensure_eq!(on.storage().get(&short).await?, None, "get of a record past its retention");
    ensure!(on.storage().get(&long).await?.is_some(), "a record is gone long before its retention ends");
    if on.capabilities().listable {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), 10).await?;
        ensure_eq!(listed.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), vec![long], "the list");
    }
    Ok(())
}

/// A record past its retention counts as absent: it can be created anew, its version is void, and there is nothing to delete.
pub async fn past_retention_counts_as_absent(on: Arc<Subject>) -> Outcome {
    let keys = [key("a")?, key("b")?, key("c")?, key("d")?];
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(on.storage().put(key, &kept_for("old", 1), Precondition::Always).await?);
    }
    on.advance(3).await?;
    let stale = on.storage().put(&keys[0], &Record::new("new"), Precondition::Version(versions[0])).await;
    ensure_error!(stale, StorageError::Conflict, "a write over the version of a record past its retention");
    ensure_eq!(on.storage().get(&keys[0]).await?, None, "the record after that write");
    ensure!(!on.storage().delete(&keys[1], None).await?, "delete says that it removed a record past its retention");
    ensure!(
        !on.storage().delete(&keys[2], Some(versions[2])).await?,
        "delete of the version of a record past its retention"
    );
    let version = on.storage().put(&keys[3], &Record::new("new"), Precondition::Absent).await?;
    ensure_eq!(
        on.storage().get(&keys[3]).await?,
        Some(Versioned::new(Record::new("new"), version)),
        "the record created anew"
    );
    Ok(())
}

/// Every write sets the retention anew: none, longer and shorter all take effect, and nothing is inherited.
pub async fn every_write_sets_the_retention(on: Arc<Subject>) -> Outcome {
    // Whole seconds on the storage's clock: what is kept for one may end at once, and here it must last for a few calls.
    let forever = Record::new("x");
    let cases = [
        ("short to none", kept_for("x", 3), forever.clone(), true),
        ("short to long", kept_for("x", 3), kept_for("x", 600), true),
        ("long to short", kept_for("x", 600), kept_for("x", 3), false),
        ("none to short", forever, kept_for("x", 3), false),
    ];
    for conditional in [false, true] {
        for (name, first, second, _) in &cases {
            let key = key(&format!("{name} {conditional}"))?;
            let version = on.storage().put(&key, first, Precondition::Always).await?;
            let when = if conditional { Precondition::Version(version) } else { Precondition::Always };
            on.storage().put(&key, second, when).await?;
        }
    }
    on.advance(5).await?;
    for conditional in [false, true] {
        for (name, _, _, stays) in &cases {
            let found = on.storage().get(&key(&format!("{name} {conditional}"))?).await?;
            ensure_eq!(found.is_some(), *stays, "{name}, conditional {conditional}: whether the record is there");
        }
    }
    Ok(())
}

/// A record created after a delete does not inherit the retention of the one before.
pub async fn retention_ends_with_the_record(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    on.storage().put(&key, &kept_for("old", 1), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    on.storage().put(&key, &Record::new("new"), Precondition::Absent).await?;
    on.advance(3).await?;
    ensure!(on.storage().get(&key).await?.is_some(), "the retention of a deleted record took the next one away");
    Ok(())
}

/// A refused write does not touch the retention of what is there.
pub async fn a_refused_write_leaves_the_retention(on: Arc<Subject>) -> Outcome {
    let (short, long) = (key("short")?, key("long")?);
    let version = on.storage().put(&short, &kept_for("x", 3), Precondition::Always).await?;
    on.storage().put(&long, &kept_for("x", 600), Precondition::Always).await?;
    let absent = on.storage().put(&short, &kept_for("y", 600), Precondition::Absent).await;
    ensure_error!(absent, StorageError::Conflict, "put Absent over a record");
    let stale = on.storage().put(&long, &kept_for("y", 3), Precondition::Version(version)).await;
    ensure_error!(stale, StorageError::Conflict, "put over another key's version");
    on.advance(5).await?;
    ensure_eq!(on.storage().get(&short).await?, None, "a record whose retention a refused write asked to prolong");
    ensure!(on.storage().get(&long).await?.is_some(), "a refused write shortened the retention");
    Ok(())
}

/// A record that is read carries the time it has left, which reading does not prolong.
pub async fn reading_tells_the_time_left(on: Arc<Subject>) -> Outcome {
    let (brief, key) = (key("brief")?, key("alice")?);
    on.storage().put(&key, &kept_for("x", 600), Precondition::Always).await?;
    on.storage().put(&brief, &kept_for("x", 5), Precondition::Always).await?;
    let left = time_left(&on, &key).await?;
    ensure!((595..=600).contains(&left.as_secs()), "{left:?} left of 600 s just written");
    on.advance(3).await?;
    let later = time_left(&on, &key).await?;
    ensure!(later <= left.saturating_sub(Duration::from_secs(2)), "{later:?} left 3 s after there were {left:?}");
    ensure!(later >= Duration::from_secs(550), "{later:?} left of 600 s after 3 s");
    on.storage().get(&brief).await?;
    on.advance(3).await?;
    ensure_eq!(on.storage().get(&brief).await?, None, "a record that was read on its way");
    Ok(())
}

/// A fraction of a second counts as a second, and a retention of centuries neither overflows nor ends.
pub async fn extreme_retentions_are_kept(on: Arc<Subject>) -> Outcome {
    let fraction = key("fraction")?;
    let record = Record::new("x").with_retain_for(Some(Duration::from_millis(60_001)));
    on.storage().put(&fraction, &record, Precondition::Always).await?;
    let left = time_left(&on, &fraction).await?;
    ensure!((56_000..=61_000).contains(&left.as_millis()), "{left:?} left of 60.001 s just written");

    let seconds = [u64::from(u32::MAX), 10_000 * 31_557_600, i64::MAX as u64 / 1_000, i64::MAX as u64, u64::MAX];
    for seconds in seconds {
        let key = key(&format!("{seconds} s"))?;
        on.storage().put(&key, &kept_for("x", seconds), Precondition::Always).await?;
        let found = on.storage().get(&key).await?;
        ensure!(found.is_some(), "a record to be kept for {seconds} s is gone at once");
    }
    on.storage().purge(100).await?;
    ensure!(on.storage().get(&key(&format!("{} s", u64::MAX))?).await?.is_some(), "it was purged");
    Ok(())
}

/// `purge` removes nothing that is kept, at most as many as it may, and ends at 0.
pub async fn purge_takes_only_what_is_past(on: Arc<Subject>) -> Outcome {
    for index in 0..12 {
        on.storage().put(&key(&format!("past{index}"))?, &kept_for("x", 1), Precondition::Always).await?;
        on.storage().put(&key(&format!("kept{index}"))?, &kept_for("x", 600), Precondition::Always).await?;
        on.storage().put(&key(&format!("plain{index}"))?, &Record::new("x"), Precondition::Always).await?;
    }
    on.advance(3).await?;
    let mut purged = 0;
    for limit in [5, 5, 5, 5, 100, 100] {
        let count = on.storage().purge(limit).await?;
        ensure!(count <= limit as u64, "purge({limit}) freed {count}");
        purged += count;
    }
    // A storage that frees by itself may have done so at any time before.
    ensure!(purged <= 12, "{purged} records were purged, and 12 were past their retention");
    ensure_eq!(on.storage().purge(100).await?, 0, "purged although nothing is left to purge");
    for index in 0..12 {
        for user in ["kept", "plain"] {
            let found = on.storage().get(&key(&format!("{user}{index}"))?).await?;
            ensure!(found.is_some(), "purge removed {user}{index}, which is not past its retention");
        }
    }
    Ok(())
}

/// A purge does not take a record that is written again at the same time.
pub async fn purge_spares_what_is_written_meanwhile(on: Arc<Subject>) -> Outcome {
    let keys = (0..24).map(|index| key(&format!("user{index}"))).collect::<Outcome<Vec<_>>>()?;
    for round in 0..3 {
        for key in &keys {
            on.storage().put(key, &kept_for("old", 1), Precondition::Always).await?;
        }
        on.advance(3).await?;
        let purging = tokio::spawn(purge_all(Arc::clone(on.storage())));
        for key in &keys {
            on.storage().put(key, &rich("new"), Precondition::Always).await?;
        }
        purging.await??;
        for key in &keys {
            let found = on.storage().get(key).await?;
            ensure!(found.is_some(), "round {round}: purge took a record that was written while it ran");
        }
    }
    Ok(())
}

async fn purge_all(storage: Arc<dyn TokenStorage>) -> Outcome {
    for _ in 0..30 {
        storage.purge(2).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn time_left(on: &Subject, key: &oauth_dance_core::TokenKey) -> Outcome<Duration> {
    let found = on.storage().get(key).await?.ok_or_else(|| Stop::failed("the record is missing"))?;
    found.value.retain_for.ok_or_else(|| Stop::failed("the record has lost its retention"))
}
