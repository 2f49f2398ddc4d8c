//! If the server fails, the storage returns errors, loses nothing, and works again afterwards.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenStorage, Version, Versioned,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::calls::Call;
use crate::harness::Fault;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::{Show as _, error_name};
use crate::tested_storage::{TestedStorage, key, rich};

/// While the server is down every call returns an error soon: never `Ok(None)`, `Ok(false)`, an empty page or a conflict.
pub async fn an_outage_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    every_call_fails(on, Fault::Down).await
}

/// If the server's replies are cut off, every call returns an error, also a `list` of a later page.
pub async fn a_cut_reply_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    every_call_fails(on, Fault::CutReply).await
}

/// A server that does not answer makes every call an error within a bounded time.
pub async fn a_silent_server_is_an_error_in_time(on: Arc<TestedStorage>) -> PropertyResult {
    every_call_fails(on, Fault::Silent).await
}

/// After an outage the same storage works again, without a restart.
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
        let reads = in_time(&on, failing.join_all()).await?;
        let get = Call::get(&key);
        let answered = reads.iter().find(|read| read.is_ok());
        ensure!(answered.is_none(), "{fault:?}: {get} during the fault is {}", answered.show());
        heal(&on).await?;
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, Some(version), "{fault:?}: {get} after it ended: the version");
        works(&on).await?;
    }
    Ok(())
}

/// After a failed call the record is the old or the new one, and only an `Ambiguous` call may have changed it, now or
/// later.
pub async fn an_error_means_old_or_new(on: Arc<TestedStorage>) -> PropertyResult {
    let mut untouched = Vec::new();
    for fault in [Fault::CutReply, Fault::Down, Fault::Silent] {
        reads_fail(&on, fault).await?;
        for (name, when) in [("always", Some(false)), ("version", Some(true)), ("absent", None)] {
            let key = key(&format!("{fault:?} {name}"))?;
            let before = match when {
                Some(_) => Some(on.storage().put(&key, &Record::new("old"), Precondition::Always).await?),
                None => None,
            };
            let when = match (when, before) {
                (Some(true), Some(version)) => Precondition::Version(version),
                (Some(_), _) => Precondition::Always,
                (None, _) => Precondition::Absent,
            };
            on.harness().inject(fault).await?;
            let written = in_time(&on, on.storage().put(&key, &rich("new"), when)).await;
            heal(&on).await?;
            let found = on.storage().get(&key).await?;
            let changed = found.as_ref().map(|found| found.version) != before;
            let wanted = if changed { "new" } else { "old" }.as_bytes();
            let whole = found.as_ref().is_none_or(|found| found.value.payload == wanted);
            let put = Call::put(&key, &rich("new"), when);
            ensure!(whole, "{fault:?}: get after {put} is neither the old nor the new record: {}", found.show());
            let written = written?.map(|_| true);
            is_honest(&written, changed, &format!("{fault:?}: {put}"))?;
            if !changed && !matches!(written, Err(StorageError::Ambiguous { .. })) {
                untouched.push((key, before));
            }
        }
        let key = key(&format!("{fault:?} delete"))?;
        let before = on.storage().put(&key, &Record::new("old"), Precondition::Always).await?;
        on.harness().inject(fault).await?;
        let deleted = in_time(&on, on.storage().delete(&key, None)).await;
        heal(&on).await?;
        let changed = on.storage().get(&key).await?.is_none();
        let deleted = deleted?;
        is_honest(&deleted, changed, &format!("{fault:?}: {}", Call::delete(&key, None)))?;
        if !changed && !matches!(deleted, Err(StorageError::Ambiguous { .. })) {
            untouched.push((key, Some(before)));
        }
    }
    on.take_turn(None);
    sleep(Duration::from_millis(1_200)).await;
    for (key, before) in untouched {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, before, "{} a while after a put or delete returned an error: the version", Call::get(&key));
    }
    Ok(())
}

/// A read whose answer is cut off is an error.
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

/// If the server is read-only, every write returns an error, and nothing is lost.
pub async fn read_only_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    refuses_writes(&on, Fault::ReadOnly).await
}

/// If the medium is full, every write returns an error, and nothing is lost.
pub async fn a_full_medium_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    refuses_writes(&on, Fault::Full).await
}

async fn every_call_fails(on: Arc<TestedStorage>, fault: Fault) -> PropertyResult {
    let (alice, nobody, bob, carol) = (key("alice")?, key("nobody")?, key("bob")?, key("carol")?);
    let version = on.storage().put(&alice, &rich("x"), Precondition::Always).await?;
    let bobs = on.storage().put(&bob, &rich("x"), Precondition::Always).await?;
    // Read before, for a storage that would answer from its memory.
    on.storage().get(&alice).await?;
    on.storage().get(&nobody).await?;
    let (purges, requests) = (purges(&on).await?, requests(&on).await?);
    on.harness().inject(fault).await?;
    let storage = on.storage();
    let (everything, record) = (rich("y"), rich("z"));
    let purge = async { if purges { storage.purge(10).await.map(|removed| removed.show()) } else { down() } };
    let (get, put) = (|found: Option<Versioned<Record>>| found.show(), |version: Version| version.show());
    let delete = |removed: bool| removed.show();
    let others = async {
        tokio::join!(
            async { ("get", &alice, storage.get(&alice).await.map(get)) },
            async { ("get of nothing", &nobody, storage.get(&nobody).await.map(get)) },
            async { ("put Always", &nobody, storage.put(&nobody, &everything, Precondition::Always).await.map(put)) },
            async {
                let when = Precondition::Version(version);
                ("put Version", &alice, storage.put(&alice, &record, when).await.map(put))
            },
            async { ("delete", &nobody, storage.delete(&nobody, Some(version)).await.map(delete)) },
            async { ("purge", &alice, purge.await) },
            async { ("put Absent", &carol, storage.put(&carol, &rich("a"), Precondition::Absent).await.map(put)) },
            async { ("delete of a record", &bob, storage.delete(&bob, None).await.map(delete)) },
            async { ("delete of a version", &bob, storage.delete(&bob, Some(bobs)).await.map(delete)) },
        )
    };
    let lists = list_each(storage, requests);
    let (pages, others) = in_time(&on, async { tokio::join!(lists, others) }).await?;
    heal(&on).await?;
    for (list, page) in pages? {
        let fails = matches!(page, Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }));
        ensure!(fails, "{fault:?}: {list} is {}", page.show());
    }
    let (one, two, three, four, five, six, seven, eight, nine) = others;
    for (name, key, answer) in [one, two, three, four, five, six, seven, eight, nine] {
        let writes = !name.starts_with("get");
        match answer {
            Err(StorageError::Unavailable { .. }) => {}
            Err(StorageError::Ambiguous { .. }) if writes || fault == Fault::CutReply => {}
            other => {
                let of = if name == "purge" { String::new() } else { format!(" of ({})", key.show()) };
                let answer = other.map_or_else(|error| Err::<(), _>(error).show(), |answer| format!("Ok({answer})"));
                return Err(Stop::failed(format_args!("{fault:?}: {name}{of} is {answer}")));
            }
        }
    }
    Ok(())
}

/// First and later pages, with and without conditions.
async fn requests(on: &TestedStorage) -> PropertyResult<Vec<(Filter, PageRequest)>> {
    if !on.capabilities().listable {
        return Ok(Vec::new());
    }
    let first = on.storage().list(&Filter::everything(), PageRequest { after: None, limit: 1 }).await?;
    let mut requests = Vec::new();
    for filter in [
        Filter::everything(),
        Filter::everything().tenant(None).user("alice"),
        Filter::everything().tenant(None).user("nobody"),
        Filter::everything().provider("github"),
    ] {
        for after in [None, first.next.clone()] {
            requests.push((filter.clone(), PageRequest { after, limit: 100 }));
        }
    }
    Ok(requests)
}

/// What became of each request, all of them at once.
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

/// Whether the storage has records to remove that are past their retention, and a call that does.
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

async fn refuses_writes(on: &TestedStorage, fault: Fault) -> PropertyResult {
    let (alice, bob, carol) = (key("alice")?, key("bob")?, key("carol")?);
    let version = on.storage().put(&alice, &rich("before"), Precondition::Always).await?;
    let carols = on.storage().put(&carol, &rich("before"), Precondition::Always).await?;
    on.harness().inject(fault).await?;
    let large = Record::new(vec![b'x'; on.capabilities().max_payload.unwrap_or(100_000).min(100_000)]);
    let written = in_time(on, on.storage().put(&alice, &large, Precondition::Version(version))).await?;
    let created = in_time(on, on.storage().put(&bob, &large, Precondition::Absent)).await?;
    let replaced = in_time(on, on.storage().put(&alice, &large, Precondition::Always)).await?;
    let deleted = in_time(on, on.storage().delete(&carol, None)).await?;
    let (missing, stale) = (key("missing")?, Version::random());
    let nothing = in_time(on, on.storage().delete(&missing, None)).await?;
    let other = in_time(on, on.storage().delete(&alice, Some(stale))).await?;
    let read = in_time(on, on.storage().get(&alice)).await?;
    let listed = match on.capabilities().listable {
        true => in_time(on, on.storage().list(&Filter::everything(), PageRequest::default()))
            .await?
            .map(|page| page.entries.len()),
        false => Ok(1),
    };
    heal(on).await?;
    let puts = [
        (Call::put(&alice, &large, Precondition::Version(version)), written),
        (Call::put(&bob, &large, Precondition::Absent), created),
        (Call::put(&alice, &large, Precondition::Always), replaced),
    ];
    for (put, answer) in puts {
        match answer {
            Err(StorageError::Unavailable { .. } | StorageError::Misconfigured { .. }) => {}
            other => return Err(Stop::failed(format_args!("{fault:?}: {put} is {}", other.show()))),
        }
    }
    ensure!(!matches!(read, Ok(None)), "{fault:?}: {}, a stored record, is None", Call::get(&alice));
    ensure!(!matches!(listed, Ok(0)), "{fault:?}: list is empty, where 2 records are stored");
    let left = on.storage().get(&carol).await?.map(|found| found.version);
    match (&deleted, left) {
        (Err(StorageError::Unavailable { .. } | StorageError::Misconfigured { .. }), Some(found))
            if found == carols => {}
        (Ok(true), None) if fault == Fault::Full => {}
        _ => {
            let left = if left.is_some() { "there" } else { "gone" };
            let delete = Call::delete(&carol, None);
            return Err(Stop::failed(format_args!(
                "{fault:?}: {delete} is {}, and the record is {left}",
                deleted.show()
            )));
        }
    }
    for (delete, answer) in [(Call::delete(&missing, None), nothing), (Call::delete(&alice, Some(stale)), other)] {
        let right =
            matches!(answer, Ok(false) | Err(StorageError::Unavailable { .. } | StorageError::Misconfigured { .. }));
        ensure!(right, "{fault:?}: {delete}, where nothing is to be removed, is {}", answer.show());
    }
    let found = on.storage().get(&alice).await?.map(|found| (found.version, found.value.payload));
    ensure_eq!(found, Some((version, b"before".to_vec())), "{fault:?}: {} after it ended", Call::get(&alice));
    let get = Call::get(&bob);
    ensure_eq!(on.storage().get(&bob).await?, None, "{fault:?}: {get} after it ended, whose put was refused");
    works(on).await
}

/// Whether an answer fits to what became of the record.
fn is_honest(answer: &Result<bool, StorageError>, changed: bool, what: &str) -> PropertyResult {
    match answer {
        Ok(true) => ensure!(changed, "{what} is Ok, and nothing has changed"),
        Ok(false) => return Err(Stop::failed(format_args!("{what} of a stored record is Ok(false)"))),
        Err(StorageError::Ambiguous { .. }) => {}
        Err(StorageError::Conflict) => {
            return Err(Stop::failed(format_args!("{what} is a Conflict, although its condition held")));
        }
        Err(error) => {
            let name = error_name(error);
            ensure!(!changed, "{what} is {name}, which says that nothing has changed, and has changed the record");
        }
    }
    Ok(())
}

/// The answer of a call, if it comes within half of the harness's patience.
pub(crate) async fn in_time<T>(on: &TestedStorage, call: impl Future<Output = T>) -> PropertyResult<T> {
    let bound = on.harness().patience() / 2;
    let mut call = pin!(call);
    match timeout(bound, call.as_mut()).await {
        Ok(answer) => Ok(answer),
        // The call is in flight until it is dropped, below.
        Err(_) => Err(Stop::failed(format_args!("{} did not return within {bound:?}", on.in_flight()))),
    }
}

/// Ends the fault, and waits until the storage answers again.
pub(crate) async fn heal(on: &TestedStorage) -> PropertyResult {
    on.harness().heal().await?;
    let key = key("probe")?;
    let (bound, begun) = (on.harness().patience() / 3, Instant::now());
    let get = Call::get(&key);
    loop {
        let left = bound.saturating_sub(begun.elapsed());
        let found = timeout(left.max(Duration::from_millis(20)), on.storage().get(&key)).await;
        match found {
            Ok(Ok(_)) => return Ok(()),
            _ if !left.is_zero() => sleep(Duration::from_millis(20)).await,
            Ok(found) => {
                return Err(Stop::failed(format_args!("{get} is {} {bound:?} after the fault ended", found.show())));
            }
            Err(_) => return Err(Stop::failed(format_args!("{get} did not return {bound:?} after the fault ended"))),
        }
    }
}

pub(crate) async fn works(on: &TestedStorage) -> PropertyResult {
    let key = key("works")?;
    let version = on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    let get = Call::get(&key);
    ensure!(on.storage().get(&key).await?.is_some(), "{get} after the fault, and after put, is None");
    let delete = Call::delete(&key, Some(version));
    ensure_eq!(on.storage().delete(&key, Some(version)).await?, true, "{delete} after the fault");
    Ok(())
}

fn down() -> Result<String, StorageError> {
    Err(StorageError::unavailable("not called"))
}
