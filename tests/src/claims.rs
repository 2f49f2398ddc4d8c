//! What a refresh needs from a storage: a claim is a version of the record, and only its holder can commit.
//!
//! A refresh *claims* the record with a conditional write, redeems the refresh token at the provider, and *commits* the new
//! token with a conditional write over its claim. A logout, a new login or another claim in between changes the version, so
//! the commit fails. Nothing here is new to a storage that has the properties of [`conditions`](crate::conditions); a failure
//! shows what a mistake there would cost.

use std::sync::Arc;

use oauth_dance_core::{Precondition, Record, StorageError, Version, Versioned};
use tokio::task::JoinSet;

use crate::calls::Call;
use crate::outcome::{PropertyResult, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, rich};

/// Of several concurrent claims of the same version, through any handle, one succeeds, and the others return `Conflict`
/// without waiting.
///
/// A claim is a conditional `put` that marks the record as being refreshed. Two winners would send the same refresh
/// token twice, and the provider would revoke the grant.
pub async fn one_claim_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let key = key("alice")?;
    let handles = on.patient_handles(4).await?;
    for round in 0..15 {
        let version = on.storage().put(&key, &rich("token"), Precondition::Always).await?;
        let mut claims = JoinSet::new();
        for index in 0..8 {
            let (storage, key) = (Arc::clone(&handles[index % handles.len()]), key.clone());
            claims.spawn(async move {
                let claim = Record::new(format!("claimed by {index}"));
                (index, storage.put(&key, &claim, Precondition::Version(version)).await)
            });
        }
        let mut won = Vec::new();
        for (index, claimed) in claims.join_all().await {
            match claimed {
                Ok(version) => won.push((index, version)),
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let what = format!("round {round}: 8 concurrent put({}, {version:?})", key.show());
        ensure_eq!(won.len(), 1, "{what}: the number of successes");
        let (index, version) = won[0];
        let found = on.storage().get(&key).await?;
        let claim = Record::new(format!("claimed by {index}"));
        ensure_eq!(found, Some(Versioned::new(claim, version)), "get after {what}: the claim of the winner");
    }
    Ok(())
}

/// After a claim was taken over, its first holder can neither commit nor release it, even before the second holder has
/// committed.
///
/// The first holder may be a process that was suspended. Its version is fenced off by the claim that followed.
pub async fn a_lost_claim_cannot_commit(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let token = on.storage().put(&key, &rich("token"), Precondition::Always).await?;
    let first = claim(&on, token).await?;
    let second = claim(&on, first).await?;
    let late = on.storage().put(&key, &rich("late"), Precondition::Version(first)).await;
    let commit = Call::put(&key, &rich("late"), Precondition::Version(first));
    ensure_error!(late, StorageError::Conflict, "{commit}, a claim that {second:?} has taken over");
    let delete = Call::delete(&key, Some(first));
    ensure_eq!(on.storage().delete(&key, Some(first)).await?, false, "{delete}, a claim that was taken over");
    on.storage().put(&key, &rich("committed"), Precondition::Version(second)).await?;
    let found = on.storage().get(&key).await?.map(|found| found.value.payload);
    ensure_eq!(found, Some(b"committed".to_vec()), "{} after the second holder's commit", Call::get(&key));
    Ok(())
}

/// A delete takes precedence over a claim: the commit is a `Conflict`, and the record stays deleted.
///
/// The commit is a `put` with the version of the claim, so it must not create a record.
pub async fn a_logout_beats_a_claim(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let token = on.storage().put(&key, &rich("token"), Precondition::Always).await?;
    let claim = claim(&on, token).await?;
    let delete = Call::delete(&key, None);
    ensure_eq!(on.storage().delete(&key, None).await?, true, "{delete} of a claimed record");
    let commit = Call::put(&key, &rich("refreshed"), Precondition::Version(claim));
    let late = on.storage().put(&key, &rich("refreshed"), Precondition::Version(claim)).await;
    ensure_error!(late, StorageError::Conflict, "{commit} after {delete}");
    ensure_eq!(on.storage().get(&key).await?, None, "get after {commit}, which was rejected");
    Ok(())
}

/// A new login takes precedence over a claim: the commit is a `Conflict`, and the token of the login stays stored.
///
/// Tried with a login that overwrites the claim, and with one that follows a delete.
pub async fn a_new_login_beats_a_claim(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    for by_delete in [false, true] {
        let token = on.storage().put(&key, &rich("token"), Precondition::Always).await?;
        let claim = claim(&on, token).await?;
        if by_delete {
            on.storage().delete(&key, None).await?;
        }
        let login = on.storage().put(&key, &Record::new("new login"), Precondition::Always).await?;
        let commit = Call::put(&key, &rich("refreshed"), Precondition::Version(claim));
        let late = on.storage().put(&key, &rich("refreshed"), Precondition::Version(claim)).await;
        ensure_error!(late, StorageError::Conflict, "{commit} after another put, {login:?}");
        let wanted = Some(Versioned::new(Record::new("new login"), login));
        ensure_eq!(on.storage().get(&key).await?, wanted, "get after {commit}, which was rejected");
    }
    Ok(())
}

/// Claims block no other key: while 50 claims are in progress, other keys are read and written as usual.
///
/// A claim lasts as long as a call of the provider. It has to be a stored fact, not a lock, a transaction or a
/// connection that stays occupied.
pub async fn held_claims_do_not_block_other_keys(on: Arc<TestedStorage>) -> PropertyResult {
    for index in 0..50 {
        let key = key(&format!("user{index}"))?;
        let token = on.storage().put(&key, &rich("token"), Precondition::Absent).await?;
        on.storage().put(&key, &rich("claimed"), Precondition::Version(token)).await?;
    }
    let bob = key("bob")?;
    let version = on.storage().put(&bob, &rich("x"), Precondition::Absent).await?;
    let get = Call::get(&bob);
    ensure!(on.storage().get(&bob).await?.is_some(), "{get} after put is None, while 50 other records are claimed");
    let delete = Call::delete(&bob, Some(version));
    ensure_eq!(on.storage().delete(&bob, Some(version)).await?, true, "{delete} while 50 other records are claimed");
    Ok(())
}

/// The first read, through any handle, that no longer returns the claim returns what its holder committed.
///
/// Requests that wait for a refresh read the record until the claim is gone. `None` or an older token in between would
/// end their wait with the wrong result.
pub async fn the_next_read_after_a_claim_sees_the_commit(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let handles = on.patient_handles(2).await?;
    for round in 0..10 {
        let token = on.storage().put(&key, &rich("token"), Precondition::Always).await?;
        let claim = claim(&on, token).await?;
        let (waiter, waited) = (Arc::clone(&handles[1]), key.clone());
        let waiting = tokio::spawn(async move {
            loop {
                match waiter.get(&waited).await? {
                    Some(found) if found.version == claim => tokio::task::yield_now().await,
                    other => return PropertyResult::Ok(other.map(|found| found.value.payload)),
                }
            }
        });
        let result = format!("refreshed {round}").into_bytes();
        on.storage().put(&key, &Record::new(result.clone()), Precondition::Version(claim)).await?;
        ensure_eq!(
            waiting.await??,
            Some(result),
            "{} through another handle, the first read after the claim",
            Call::get(&key)
        );
    }
    Ok(())
}

/// Claims the record over this version, and returns the version of the claim.
async fn claim(on: &TestedStorage, version: Version) -> PropertyResult<Version> {
    let claim = rich("token, claimed");
    Ok(on.storage().put(&key("alice")?, &claim, Precondition::Version(version)).await?)
}
