//! Records share nothing but the storage: not their payloads, not their space, and not their namespace.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Filter, Precondition, Record, StorageError};

use crate::calls::Call;
use crate::listing::all_are_listed;
use crate::outcome::{PropertyResult, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all};

/// Every key has a record of its own, however many keys there are. None is evicted for another.
///
/// Writes up to 8,192 keys, as many as time permits, and then reads and lists all of them. Half of them are accounts of one
/// user.
pub async fn no_record_is_evicted_for_another(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_many_records()?;
    let mut written = Vec::new();
    for batch in on.rounds(16, Duration::from_millis(400)).await? {
        let records: Vec<_> = (0..512)
            .map(|index| {
                let name = format!("{batch}-{index}");
                let key = if index % 2 == 0 { key("alice")?.with_account(&name)? } else { key(&name)? };
                Ok((key, Record::new(name)))
            })
            .collect::<PropertyResult<_>>()?;
        on.put_all(records.clone()).await?;
        written.extend(records);
    }
    let count = written.len();
    on.concurrently(written, move |storage, (key, record)| async move {
        let found = storage.get(&key).await?.map(|found| found.value.payload);
        let what = format!("{} after {count} keys were written", Call::get(&key));
        ensure_eq!(found, Some(record.payload), "{what}");
        Ok(())
    })
    .await?;
    if on.capabilities().listable {
        all_are_listed(&on, &Filter::everything(), usize::MAX, count).await?;
    }
    Ok(())
}

/// Two storages with different namespaces in one database do not see each other's records, even if one name is a prefix
/// of the other.
///
/// The namespaces are `a`, `ab`, `a_b` and `axb`, and the users are `alice`, `balice` and `b_alice`. Namespace and key
/// therefore need a separator that neither can contain, and no part of a namespace may be a pattern.
pub async fn namespaces_are_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let names = ["a", "ab", "a_b", "axb"];
    let name = |index: usize| if index == 0 { "the first" } else { names[index - 1] };
    let mut storages = vec![Arc::clone(on.storage())];
    for name in names {
        storages.push(on.harness().sibling(name).await?);
    }
    let users = ["alice", "balice", "b_alice"];
    for (index, storage) in storages.iter().enumerate() {
        for user in users {
            let payload = format!("{index} {user}");
            let (key, record) = (key(user)?, Record::new(payload));
            let written = storage.put(&key, &record, Precondition::Absent).await;
            let put = Call::put(&key, &record, Precondition::Absent);
            let is_conflict = matches!(written, Err(StorageError::Conflict));
            ensure!(
                !is_conflict,
                "{put} in namespace {:?} is a Conflict, although only other namespaces have a record",
                name(index)
            );
            written?;
        }
    }
    for (index, storage) in storages.iter().enumerate() {
        for user in users {
            let found = storage.get(&key(user)?).await?.map(|found| found.value.payload);
            let what = format!("{} in namespace {:?}", Call::get(&key(user)?), name(index));
            ensure_eq!(found, Some(format!("{index} {user}").into_bytes()), "{what}");
        }
        if storage.capabilities().listable {
            let listed = list_all(storage.as_ref(), &Filter::everything(), 100).await?;
            ensure_eq!(
                listed.len(),
                3,
                "list in namespace {:?}, in which 3 records were written: the number of entries",
                name(index)
            );
        }
    }
    storages[1].delete(&key("alice")?, None).await?;
    let found = storages[2].get(&key("alice")?).await?;
    let delete = Call::delete(&key("alice")?, None);
    ensure!(found.is_some(), "get in namespace \"ab\" after {delete} in namespace \"a\" is None");
    Ok(())
}

/// Keys with equal payloads share nothing: writing, deleting or expiring one record does not affect the others.
///
/// A storage fails this if it stores each payload once, under its hash, and removes it with the first key that refers
/// to it.
pub async fn equal_payloads_have_records_of_their_own(on: Arc<TestedStorage>) -> PropertyResult {
    let size = on.accepted_length(5_000);
    for (round, payload) in [b"x".to_vec(), vec![b'x'; size], vec![b'y'; size / 2]].into_iter().enumerate() {
        let keys: Vec<_> = (0..5).map(|index| key(&format!("user{index}"))).collect::<PropertyResult<_>>()?;
        for key in &keys {
            on.storage().put(key, &Record::new(payload.clone()), Precondition::Always).await?;
        }
        let expired = Record::new(payload.clone()).with_retain_for(Some(Duration::ZERO));
        for step in ["replaced", "purged", "deleted"] {
            match step {
                "replaced" => drop(on.storage().put(&keys[0], &Record::new("other"), Precondition::Always).await?),
                "purged" => {
                    on.storage().put(&keys[1], &expired, Precondition::Always).await?;
                    on.storage().purge(100).await?;
                }
                _ => drop(on.storage().delete(&keys[2], None).await?),
            }
            for key in &keys[3..] {
                let found = on.storage().get(key).await?.map(|found| found.value.payload);
                let get = Call::get(key);
                ensure_eq!(
                    found,
                    Some(payload.clone()),
                    "round {round}: {get} after another record with an equal payload was {step}"
                );
            }
        }
    }
    Ok(())
}

/// In any sequence of writes and deletes, no user reads a record that was written for another.
///
/// Random operations of seven users with similar identifiers, among them a wildcard and one that contains a separator.
pub async fn no_user_reads_another_users_record(on: Arc<TestedStorage>) -> PropertyResult {
    let users = ["alice", "Alice", "alice ", "bob", "bob:github", "%", "álice"];
    let mut random = on.random();
    let mut present = [false; 7];
    for step in 0..150 {
        let index = random.below(users.len());
        let key = key(users[index])?;
        match random.below(4) {
            0 => {
                let removed = on.storage().delete(&key, None).await?;
                ensure_eq!(removed, present[index], "step {step}: {}", Call::delete(&key, None));
                present[index] = false;
            }
            1 => {
                let payload = format!("for {:?}, step {step}", users[index]);
                on.storage().put(&key, &Record::new(payload), Precondition::Always).await?;
                present[index] = true;
            }
            _ => {
                let found = on.storage().get(&key).await?;
                let get = Call::get(&key);
                let state = if present[index] { "a record" } else { "no record" };
                ensure!(
                    found.is_some() == present[index],
                    "step {step}: {get} is {}, but this user has {state}",
                    found.show()
                );
                let mine = format!("for {:?},", users[index]);
                let is_mine = found.as_ref().is_none_or(|found| found.value.payload.starts_with(mine.as_bytes()));
                ensure!(is_mine, "step {step}: {get} returned another user's record, {}", found.show());
            }
        }
    }
    Ok(())
}
