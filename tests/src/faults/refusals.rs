//! A medium that accepts no writes.

use std::sync::Arc;

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenStorage, Version};

use super::{heal, in_time, works};
use crate::calls::Call;
use crate::harness::Fault;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, rich};

/// If the server is read-only, every write returns an error, and nothing is lost.
///
/// A primary that has become a replica is in this state after a failover. Reads may succeed.
pub async fn read_only_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    refuses_writes(&on, Fault::ReadOnly).await
}

/// If the medium is full, every write returns an error, and nothing is lost.
///
/// A delete may succeed, because it needs no space on some media. A record must not be truncated to what fits.
pub async fn a_full_medium_is_an_error(on: Arc<TestedStorage>) -> PropertyResult {
    refuses_writes(&on, Fault::Full).await
}

/// During the fault, every write returns an error. Afterwards, nothing has changed.
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
        true => in_time(on, first_entries(on)).await?,
        false => Ok(1),
    };
    heal(on).await?;
    let puts = [
        (Call::put(&alice, &large, Precondition::Version(version)), written),
        (Call::put(&bob, &large, Precondition::Absent), created),
        (Call::put(&alice, &large, Precondition::Always), replaced),
    ];
    for (put, result) in puts {
        match result {
            Err(StorageError::Unavailable { .. } | StorageError::Misconfigured { .. }) => {}
            other => return Err(Stop::failed(format_args!("{fault:?}: {put} is {}", other.show()))),
        }
    }
    ensure!(!matches!(read, Ok(None)), "{fault:?}: {} of a stored record is None", Call::get(&alice));
    ensure!(!matches!(listed, Ok(0)), "{fault:?}: list is empty, although 2 records are stored");
    let left = on.storage().get(&carol).await?.map(|found| found.version);
    match (&deleted, left) {
        (Err(StorageError::Unavailable { .. } | StorageError::Misconfigured { .. }), Some(found))
            if found == carols => {}
        (Ok(true), None) if fault == Fault::Full => {}
        _ => {
            let left = if left.is_some() { "still stored" } else { "deleted" };
            let delete = Call::delete(&carol, None);
            return Err(Stop::failed(format_args!(
                "{fault:?}: {delete} is {}, and the record is {left}",
                deleted.show()
            )));
        }
    }
    for (delete, result) in [(Call::delete(&missing, None), nothing), (Call::delete(&alice, Some(stale)), other)] {
        let right =
            matches!(result, Ok(false) | Err(StorageError::Unavailable { .. } | StorageError::Misconfigured { .. }));
        ensure!(right, "{fault:?}: {delete}, which has nothing to delete, is {}", result.show());
    }
    let found = on.storage().get(&alice).await?.map(|found| (found.version, found.value.payload));
    ensure_eq!(found, Some((version, b"before".to_vec())), "{} after the fault {fault:?}", Call::get(&alice));
    let get = Call::get(&bob);
    ensure_eq!(
        on.storage().get(&bob).await?,
        None,
        "{get} after the fault {fault:?}, during which its put was rejected"
    );
    works(on).await
}

/// The number of entries on the first page that has any.
async fn first_entries(on: &TestedStorage) -> Result<usize, StorageError> {
    let mut after = None;
    loop {
        let page = on.storage().list(&Filter::everything(), PageRequest { after, limit: 100 }).await?;
        if !page.entries.is_empty() || page.next.is_none() {
            return Ok(page.entries.len());
        }
        after = page.next;
    }
}
