//! Whoever drops a call, as a web server does when its client hangs up, does no harm.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, TokenStorage};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::subject::{Subject, key};

/// How many drops one property tries. More than any pool has connections.
const DROPS: usize = 120;

/// A `put` that is dropped at any point leaves the old or the new record, whole.
pub async fn a_dropped_write_leaves_old_or_new(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    for turn in 0..DROPS {
        let old = on.storage().put(&key, &Record::new("old"), Precondition::Always).await?;
        let new = Record::new(vec![b'n'; 5_000]);
        cut(turn, on.storage().put(&key, &new, Precondition::Version(old))).await;
        let found =
            on.storage().get(&key).await?.ok_or_else(|| Stop::failed("the record is gone after a dropped put"))?;
        let is_old = found.version == old && found.value == Record::new("old");
        let is_new = found.version != old && found.value == new;
        ensure!(is_old || is_new, "turn {turn}: neither the old nor the new record: {found:?}");
        // What was dropped may still arrive, but not over a write that came after it.
        let last = on.storage().put(&key, &Record::new("last"), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, Some(last), "turn {turn}: the version after the next write");
    }
    Ok(())
}

/// A `delete` that is dropped at any point leaves the record or nothing.
pub async fn a_dropped_delete_leaves_the_record_or_nothing(on: Arc<Subject>) -> Outcome {
    for turn in 0..DROPS / 2 {
        let key = key(&format!("user{turn}"))?;
        let version = on.storage().put(&key, &Record::new("x"), Precondition::Absent).await?;
        cut(turn, on.storage().delete(&key, Some(version))).await;
        let found = on.storage().get(&key).await?;
        let whole = found.as_ref().is_none_or(|found| found.version == version && found.value == Record::new("x"));
        ensure!(whole, "turn {turn}: the record after a dropped delete is {found:?}");
        on.storage().put(&key, &Record::new("y"), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.map(|found| found.value.payload);
        ensure_eq!(found, Some(b"y".to_vec()), "turn {turn}: the record written after a dropped delete");
    }
    Ok(())
}

/// However many calls of any kind were dropped, the storage works: no connection, lock or transaction is left behind.
pub async fn dropped_calls_leave_the_storage_usable(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let listable = on.capabilities().listable;
    for turn in 0..DROPS {
        cut(turn, on.storage().get(&key)).await;
        cut(turn, on.storage().put(&key, &Record::new("x"), Precondition::Always)).await;
        cut(turn, on.storage().delete(&key, None)).await;
        cut(turn, on.storage().purge(10)).await;
        if listable {
            cut(turn, on.storage().list(&Filter::everything(), PageRequest::default())).await;
        }
    }
    for user in 0..5 {
        let key = crate::subject::key(&format!("user{user}"))?;
        let usable = tokio::time::timeout(on.harness().patience() / 3, use_once(on.storage().as_ref(), &key)).await;
        usable.map_err(|_| Stop::failed(format_args!("a call hangs after {DROPS} dropped calls of each kind")))??;
    }
    Ok(())
}

async fn use_once(storage: &dyn TokenStorage, key: &oauth_dance_core::TokenKey) -> Outcome {
    let version = storage.put(key, &Record::new("x"), Precondition::Absent).await?;
    ensure!(storage.get(key).await?.is_some(), "the record is missing");
    ensure!(storage.delete(key, Some(version)).await?, "the record cannot be deleted");
    Ok(())
}

/// Drops a call early on: mostly in its first awaits, where it waits for a connection or an answer, and over the turns in
/// every later one too.
async fn cut<T>(turn: usize, call: impl Future<Output = T>) {
    match turn % 4 {
        0 => drop_after_polls(1, call).await,
        1 => drop_after_polls(2, call).await,
        2 => drop_after_polls(turn / 4 % 12, call).await,
        _ => drop(tokio::time::timeout(Duration::from_micros(100 * (turn as u64 % 40)), call).await),
    }
}

async fn drop_after_polls<T>(polls: usize, call: impl Future<Output = T>) {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        call.as_mut().poll(context).map(drop)
    })
    .await;
}
