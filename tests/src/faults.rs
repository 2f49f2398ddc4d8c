//! If the server fails, the storage returns errors, loses nothing, and works again afterwards.
//!
//! The kind of an error decides what happens next. After `Unavailable` nothing has changed, so a refresh can be tried again.
//! After `Ambiguous` the record has to be read again, because the write may have happened. A wrong kind, or a result such as
//! `Ok(None)`, turns an outage of seconds into lost tokens or into a login for every user.

mod refusals;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version, Versioned,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use self::refusals::{a_full_medium_is_an_error, read_only_is_an_error};
use crate::calls::Call;
use crate::cancellation::list_will_agree;
use crate::harness::Fault;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::{Show as _, error_name};
use crate::tested_storage::{TestedStorage, key, rich};

/// While the server is down, every call returns an error soon: never `Ok(None)`, `Ok(false)`, an empty page or a
/// conflict.
///
/// `Ok(None)` would send every user to the login during an outage. A call counts as soon enough if it takes less than three
/// quarters of [`Harness::time_limit`](crate::Harness::time_limit), or if calls wait for each other, from the end of the last one.
pub async fn an_outage_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    every_call_fails(Arc::clone(&on), Fault::Down).await?;
    match every_call_fails(on, Fault::Crash).await {
        // Not every harness can crash its server.
        Err(Stop::NotApplicable(_)) => Ok(()),
        outcome => outcome,
    }
}

/// If the server's replies are cut off, every call returns an error, including a `list` of a later page.
///
/// A write may then have taken effect, and returns `Ambiguous`.
pub async fn a_cut_reply_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    every_call_fails(on, Fault::CutReply).await
}

/// If the server accepts requests but does not reply, every call returns an error within a bounded time.
///
/// Set a timeout for every call, not only for connecting. TCP keep-alive does not help: the system of a suspended
/// server still acknowledges packets.
pub async fn a_silent_server_is_an_error_in_time(on: Arc<TestedStorage>) -> PropertyResult {
    every_call_fails(on, Fault::Silent).await
}

/// After an outage the same storage works again, without a restart.
///
/// The pool has to detect and replace the connections that broke during the outage.
pub async fn the_storage_recovers(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    for fault in [Fault::Down, Fault::Silent] {
        let version = on.storage().put(&key, &rich("before"), Precondition::Always).await?;
        on.harness().inject(fault).await?;
        let mut failing = JoinSet::new();
        for _ in 0..20 {
            let (storage, key) = (Arc::clone(on.storage()), key.clone());
            failing.spawn(async move { storage.get(&key).await });
        }
        let (everything, page) = (Filter::everything(), PageRequest::default());
        let calls = async {
            tokio::join!(
                failing.join_all(),
                // Reads and writes may have pools of their own, which have to recover as well.
                on.storage().list(&everything, page),
                on.storage().delete(&key, Some(Version::from_bytes([0; 16]))),
                on.storage().purge(1),
            )
            .0
        };
        let reads = in_time(&on, calls).await?;
        let get = Call::get(&key);
        let succeeded = reads.iter().find(|read| read.is_ok());
        ensure!(succeeded.is_none(), "{fault:?}: {get} during the fault is {}", succeeded.show());
        heal(&on).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, Some(version), "{get} after the fault {fault:?}: the version");
        works(&on).await?;
    }
    Ok(())
}

/// After a failed call the record is the old or the new one. Only an `Ambiguous` call may have changed it, then or
/// later.
///
/// Classify an error by what was sent before it: if the statement was not sent, nothing has changed
/// (`Unavailable`). If its reply was lost, the effect is unknown (`Ambiguous`).
pub async fn an_error_means_old_or_new(on: Arc<TestedStorage>) -> PropertyResult {
    let mut untouched = Vec::new();
    for fault in [Fault::CutReply, Fault::Down, Fault::Silent] {
        reads_fail(&on, fault).await?;
        untouched.extend(changes_are_honest(&on, fault).await?);
    }
    // A write may consist of several requests, of which any may lose its reply.
    for replies in 1..=3 {
        match changes_are_honest(&on, Fault::CutReplyAfter(replies)).await {
            Err(Stop::NotApplicable(_)) => break,
            unchanged => untouched.extend(unchanged?),
        }
    }
    on.set_permit(None);
    sleep(Duration::from_millis(1_200)).await;
    for (key, before) in untouched {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(
            found,
            before,
            "{} more than a second after a put or delete returned an error: the version",
            Call::get(&key)
        );
    }
    Ok(())
}

/// Writes and deletes during the fault. Returns the keys of which a result said that nothing has changed, with the versions
/// that they have to keep.
async fn changes_are_honest(on: &TestedStorage, fault: Fault) -> PropertyResult<Vec<(TokenKey, Option<Version>)>> {
    let old = Record::new("old").with_key_id(Some("old".to_owned()));
    let mut untouched = Vec::new();
    for (name, when) in [("always", Some(false)), ("version", Some(true)), ("absent", None)] {
        let key = key(&format!("{fault:?} {name}"))?;
        let before = match when {
            Some(_) => Some(on.storage().put(&key, &old, Precondition::Always).await?),
            None => None,
        };
        let when = match (when, before) {
            (Some(true), Some(version)) => Precondition::Version(version),
            (Some(_), _) => Precondition::Always,
            (None, _) => Precondition::Absent,
        };
        on.harness().inject(fault).await?;
        let written = in_time(on, on.storage().put(&key, &rich("new"), when)).await;
        heal(on).await?;
        let found = on.storage().get(&key).await?;
        let changed = found.as_ref().map(|found| found.version) != before;
        let mut wanted = if changed { rich("new") } else { old.clone() };
        let whole = found.as_ref().is_none_or(|found| {
            let has_same_end = found.value.retain_for.is_some() == wanted.retain_for.is_some();
            wanted.retain_for = found.value.retain_for;
            has_same_end && found.value == wanted
        });
        let put = Call::put(&key, &rich("new"), when);
        ensure!(whole, "{fault:?}: get after {put} is neither the old nor the new record: {}", found.show());
        let written = written?.map(|_| true);
        is_honest(&written, changed, &format!("{fault:?}: {put}"))?;
        if on.capabilities().listable {
            list_will_agree(on, &key, &format!("{fault:?}: after {put}")).await?;
        }
        if !changed && !matches!(written, Err(StorageError::Ambiguous { .. })) {
            untouched.push((key, before));
        }
    }
    let key = key(&format!("{fault:?} delete"))?;
    let before = on.storage().put(&key, &Record::new("old"), Precondition::Always).await?;
    on.harness().inject(fault).await?;
    let deleted = in_time(on, on.storage().delete(&key, None)).await;
    heal(on).await?;
    let changed = on.storage().get(&key).await?.is_none();
    let deleted = deleted?;
    let delete = format!("{fault:?}: {}", Call::delete(&key, None));
    is_honest(&deleted, changed, &delete)?;
    if on.capabilities().listable {
        list_will_agree(on, &key, &format!("after {delete}")).await?;
    }
    if !changed && !matches!(deleted, Err(StorageError::Ambiguous { .. })) {
        untouched.push((key, Some(before)));
    }
    Ok(untouched)
}

/// A read whose reply is cut off returns an error.
async fn reads_fail(on: &TestedStorage, fault: Fault) -> PropertyResult {
    let key = key("read")?;
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    on.harness().inject(fault).await?;
    let found = in_time(on, on.storage().get(&key)).await;
    heal(on).await?;
    let found = found?;
    let fails = matches!(found, Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }));
    ensure!(fails, "{fault:?}: {} is {}", Call::get(&key), found.show());
    Ok(())
}

/// During the fault, every call of every kind returns an error that fits.
async fn every_call_fails(on: Arc<TestedStorage>, fault: Fault) -> PropertyResult {
    let (alice, missing, bob, carol) = (key("alice")?, key("missing")?, key("bob")?, key("carol")?);
    let version = on.storage().put(&alice, &rich("x"), Precondition::Always).await?;
    let bobs = on.storage().put(&bob, &rich("x"), Precondition::Always).await?;
    // Read first, in case the storage has a cache.
    on.storage().get(&alice).await?;
    on.storage().get(&missing).await?;
    let (purges, requests) = (purges(&on).await?, requests(&on).await?);
    on.harness().inject(fault).await?;
    let storage = on.storage();
    // Before a call on the same key makes a storage forget what it has read.
    let first = if fault == Fault::Silent { None } else { Some(in_time(&on, storage.get(&alice)).await?) };
    let (everything, record) = (rich("y"), rich("z"));
    let purge = async { if purges { storage.purge(10).await.map(|removed| removed.show()) } else { down() } };
    let (get, put) = (|found: Option<Versioned<Record>>| found.show(), |version: Version| version.show());
    let delete = |removed: bool| removed.show();
    let others = async {
        tokio::join!(
            async { ("get", &alice, storage.get(&alice).await.map(get)) },
            async { ("get of an absent key", &missing, storage.get(&missing).await.map(get)) },
            async { ("put Always", &missing, storage.put(&missing, &everything, Precondition::Always).await.map(put)) },
            async {
                let when = Precondition::Version(version);
                ("put Version", &alice, storage.put(&alice, &record, when).await.map(put))
            },
            async { ("delete", &missing, storage.delete(&missing, Some(version)).await.map(delete)) },
            async { ("purge", &alice, purge.await) },
            async { ("put Absent", &carol, storage.put(&carol, &rich("a"), Precondition::Absent).await.map(put)) },
            async { ("delete of a record", &bob, storage.delete(&bob, None).await.map(delete)) },
            async { ("delete of a version", &bob, storage.delete(&bob, Some(bobs)).await.map(delete)) },
        )
    };
    let lists = list_each(storage, requests);
    let (pages, others) = in_time(&on, async { tokio::join!(lists, others) }).await?;
    heal(&on).await?;
    if let Some(found) = first {
        let fails = matches!(found, Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }));
        ensure!(fails, "{fault:?}: {}, which was read before, is {}", Call::get(&alice), found.show());
    }
    for (list, page) in pages? {
        let fails = matches!(page, Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }));
        ensure!(fails, "{fault:?}: {list} is {}", page.show());
    }
    let (one, two, three, four, five, six, seven, eight, nine) = others;
    for (name, key, result) in [one, two, three, four, five, six, seven, eight, nine] {
        match result {
            Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => {}
            other => {
                let of = if name == "purge" { String::new() } else { format!(" of ({})", key.show()) };
                let result = other.map_or_else(|error| Err::<(), _>(error).show(), |value| format!("Ok({value})"));
                return Err(Stop::failed(format_args!("{fault:?}: {name}{of} is {result}")));
            }
        }
    }
    works(&on).await
}

/// Requests for first and later pages, with and without filters.
async fn requests(on: &TestedStorage) -> PropertyResult<Vec<(Filter, PageRequest)>> {
    if !on.capabilities().listable {
        return Ok(Vec::new());
    }
    let first = on.storage().list(&Filter::everything(), PageRequest { after: None, limit: 1 }).await?;
    let mut requests = Vec::new();
    for filter in [
        Filter::everything(),
        Filter::everything().tenant(None).user("alice"),
        Filter::everything().tenant(None).user("missing"),
        Filter::everything().provider("github"),
    ] {
        for after in [None, first.next.clone()] {
            requests.push((filter.clone(), PageRequest { after, limit: 100 }));
        }
    }
    Ok(requests)
}

/// Sends all requests concurrently, and returns their results.
async fn list_each(
    storage: &Arc<dyn TokenStorage>,
    requests: Vec<(Filter, PageRequest)>,
) -> PropertyResult<Vec<(Call, Result<Page, StorageError>)>> {
    let mut running = JoinSet::new();
    for (filter, request) in requests {
        let (storage, call) = (Arc::clone(storage), Call::List(filter.clone(), request.limit, request.after.is_some()));
        running.spawn(async move { (call, storage.list(&filter, request).await) });
    }
    let mut pages = Vec::new();
    while let Some(page) = running.join_next().await {
        pages.push(page?);
    }
    Ok(pages)
}

/// Whether `purge` removes expired records, which a storage may also do by itself. Three expired records are left.
pub(crate) async fn purges(on: &TestedStorage) -> PropertyResult<bool> {
    let past = Record::new("x").with_retain_for(Some(Duration::ZERO));
    let mut removed = 0;
    for _ in 0..2 {
        removed = on.storage().purge(usize::MAX).await?;
        for index in 0..3 {
            on.storage().put(&key(&format!("past{index}"))?, &past, Precondition::Always).await?;
        }
    }
    Ok(removed > 0)
}

/// The result of a call agrees with whether the record has changed.
fn is_honest(result: &Result<bool, StorageError>, changed: bool, what: &str) -> PropertyResult {
    match result {
        Ok(true) => ensure!(changed, "{what} is Ok, but nothing has changed"),
        Ok(false) => return Err(Stop::failed(format_args!("{what} of a stored record is Ok(false)"))),
        Err(StorageError::Ambiguous { .. }) => {}
        Err(StorageError::Conflict) => {
            return Err(Stop::failed(format_args!("{what} is a Conflict, although its condition was met")));
        }
        Err(error) => {
            let name = error_name(error);
            ensure!(!changed, "{what} is {name}, which means that nothing has changed, but the record has changed");
        }
    }
    Ok(())
}

/// The result of calls during a fault, each of which has to return in time. Calls may wait for each other: while some of them
/// return, the others have time.
pub(crate) async fn in_time<T>(on: &TestedStorage, calls: impl Future<Output = T>) -> PropertyResult<T> {
    let (bound, begun) = (longest_call(on), Instant::now());
    let mut calls = pin!(calls);
    loop {
        let idle = on.log().since_last_end().min(begun.elapsed());
        match timeout(bound.saturating_sub(idle), calls.as_mut()).await {
            Ok(results) => return Ok(results),
            Err(_) if on.log().since_last_end() < bound => {}
            // The call is still in flight here, so the log can name it.
            Err(_) => {
                return Err(Stop::failed(format_args!(
                    "{} did not return within {bound:?}, three quarters of Harness::time_limit",
                    on.in_flight()
                )));
            }
        }
    }
}

/// How long a call may take during a fault. Many clients have a timeout of 30 seconds, which is half of the default limit.
fn longest_call(on: &TestedStorage) -> Duration {
    on.harness().time_limit() / 4 * 3
}

/// Ends the fault, and waits until the storage works again.
pub(crate) async fn heal(on: &TestedStorage) -> PropertyResult {
    on.harness().heal().await?;
    responds(on, "the fault ended").await
}

/// Waits until the storage works again. A pool may find several connections broken, one after the other.
pub(crate) async fn responds(on: &TestedStorage, since: &str) -> PropertyResult {
    let key = key("probe")?;
    let (bound, begun) = (on.harness().time_limit(), Instant::now());
    let get = Call::get(&key);
    let mut replies = 0;
    while replies < 3 {
        let found = timeout(longest_call(on), on.storage().get(&key)).await;
        let is_late = begun.elapsed() > bound;
        match found {
            Ok(Ok(_)) => replies += 1,
            Ok(found) if is_late => {
                return Err(Stop::failed(format_args!("{get} is {} {bound:?} after {since}", found.show())));
            }
            Err(_) if is_late => {
                return Err(Stop::failed(format_args!("{get} did not return {bound:?} after {since}")));
            }
            _ => {
                replies = 0;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// The storage can write, read, list, delete and purge.
pub(crate) async fn works(on: &TestedStorage) -> PropertyResult {
    let key = key("works")?;
    let version = on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    let get = Call::get(&key);
    ensure!(on.storage().get(&key).await?.is_some(), "{get} after the fault and after put is None");
    if on.capabilities().listable {
        on.storage().list(&Filter::everything(), PageRequest::default()).await?;
    }
    on.storage().purge(1).await?;
    let delete = Call::delete(&key, Some(version));
    ensure_eq!(on.storage().delete(&key, Some(version)).await?, true, "{delete} after the fault");
    Ok(())
}

fn down() -> Result<String, StorageError> {
    Err(StorageError::unavailable("not called"))
}
