//! A record that cannot be read is reported, and can be removed and replaced.

use std::sync::Arc;

use oauth_dance_core::{Entry, Filter, Precondition, Record, StorageError, Timestamp, TokenKey, Version, Versioned};

use crate::calls::{Call, pages};
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::paging::keys_are_listed;
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// A record that cannot be read is `Corrupt`: not missing, removed neither by a read nor by a purge, and no other record
/// suffers from it.
pub async fn an_unreadable_record_is_reported_as_corrupt(on: Arc<TestedStorage>) -> PropertyResult {
    damage(&on, &key("alice")?).await?;
    let sibling = TokenKey::new("google", "alice")?;
    on.storage().put(&sibling, &Record::new("another of alice's"), Precondition::Always).await?;
    for _ in 0..2 {
        is_corrupt(&on, &key("alice")?).await?;
        on.storage().purge(usize::MAX).await?;
    }
    is_corrupt(&on, &key("alice")?).await?;
    let found = on.storage().get(&sibling).await?.map(|found| found.value.payload);
    let get = Call::get(&sibling);
    ensure_eq!(found, Some(b"another of alice's".to_vec()), "{get}, beside a corrupt record of the same user");
    let bob = on.storage().get(&key("bob")?).await?.map(|found| found.value.payload);
    ensure_eq!(bob, Some(b"bob's".to_vec()), "{} beside a corrupt record", Call::get(&key("bob")?));
    Ok(())
}

/// `put Always` replaces a corrupt record, and `delete` removes it: `Ok(true)`.
pub async fn a_corrupt_record_can_be_replaced_and_removed(on: Arc<TestedStorage>) -> PropertyResult {
    let (alice, carol) = (key("alice")?, key("carol")?);
    damage(&on, &alice).await?;
    let new = Record::new("new");
    let version = on.storage().put(&alice, &new, Precondition::Always).await?;
    let put = Call::put(&alice, &new, Precondition::Always);
    let wanted = Versioned::new(new, version);
    ensure_eq!(on.storage().get(&alice).await?, Some(wanted), "get after {put} over a corrupt record");
    on.storage().put(&alice, &rich("again"), Precondition::Version(version)).await?;

    damage(&on, &carol).await?;
    let delete = Call::delete(&carol, None);
    ensure_eq!(on.storage().delete(&carol, None).await?, true, "{delete} of a corrupt record");
    ensure_eq!(on.storage().get(&carol).await?, None, "get after {delete} of a corrupt record");
    ensure_eq!(on.storage().delete(&carol, None).await?, false, "{delete} of a corrupt record, for the second time");
    on.storage().put(&carol, &Record::new("new"), Precondition::Absent).await?;
    Ok(())
}

/// A condition that cannot be seen to hold for a corrupt record refuses the call, and nothing changes.
pub async fn conditions_fail_for_a_corrupt_record(on: Arc<TestedStorage>) -> PropertyResult {
    let alice = key("alice")?;
    let before = damage(&on, &alice).await?;
    for when in [
        Precondition::Absent,
        Precondition::Version(Version::random()),
        Precondition::Version(Version::from_bytes([0; 16])),
    ] {
        let written = on.storage().put(&alice, &rich("new"), when).await;
        let refused = matches!(written, Err(StorageError::Conflict | StorageError::Corrupt { .. }));
        let put = Call::put(&alice, &rich("x"), when);
        ensure!(refused, "{put} over a corrupt record is {}", written.show());
        is_corrupt(&on, &alice).await?;
    }
    for only in [Version::random(), Version::from_bytes([0; 16])] {
        let removed = on.storage().delete(&alice, Some(only)).await;
        let refused = matches!(removed, Ok(false) | Err(StorageError::Corrupt { .. }));
        let delete = Call::delete(&alice, Some(only));
        ensure!(refused, "{delete} of a corrupt record that had {before:?} is {}", removed.show());
        is_corrupt(&on, &alice).await?;
    }
    // Its own version may still be read, or not.
    match on.storage().delete(&alice, Some(before)).await {
        Ok(true) => {
            let get = Call::get(&alice);
            ensure_eq!(
                on.storage().get(&alice).await?,
                None,
                "{get} after delete of a corrupt record's version is Ok(true)"
            );
        }
        Ok(false) | Err(StorageError::Corrupt { .. }) => is_corrupt(&on, &alice).await?,
        other => {
            let delete = Call::delete(&alice, Some(before));
            return Err(Stop::failed(format_args!("{delete} of a corrupt record is {}", other.show())));
        }
    }
    on.storage().purge(100).await?;
    Ok(())
}

/// A corrupt record is listed with its key, once, wherever it is and by every filter that its key meets, and hides no other
/// record.
pub async fn a_corrupt_record_is_listed(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let keys = |users: &[&str]| users.iter().map(|user| key(user)).collect::<PropertyResult<Vec<_>>>();
    let mut keys = keys(&["a", "bob", "carol", "dave", "erin", "zoe"])?;
    keys.push(TokenKey::new("google", "carol")?);
    keys.sort();
    for key in &keys {
        on.storage().put(key, &rich("x"), Precondition::Always).await?;
    }
    for target in &keys {
        on.harness().corrupt(target).await?;
        let place = format!("where the record of ({}) is corrupt", target.show());
        for limit in [1, 2, 3, 100] {
            let listed = list_all(on.storage().as_ref(), &Filter::everything(), limit).await?;
            let listed = listed.into_iter().map(|entry| entry.key).collect();
            keys_are_listed(listed, &keys, &format!("{}, {place}", pages(&Filter::everything(), limit)))?;
        }
        for filter in [
            Filter::everything().tenant(None),
            Filter::everything().user(target.user()),
            Filter::everything().provider(target.provider()),
            Filter::everything().tenant(None).user(target.user()).provider(target.provider()),
        ] {
            let listed =
                list_all(on.storage().as_ref(), &filter, 2).await?.into_iter().map(|entry| entry.key).collect();
            let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &Record::new(""));
            let wanted: Vec<_> = keys.iter().filter(|key| filter.matches(&entry(key))).cloned().collect();
            keys_are_listed(listed, &wanted, &format!("{}, {place}", pages(&filter, 2)))?;
        }
        // A hint that cannot be read is absent, and one that can be read is later.
        let soon = Filter::everything().expiring_before(Timestamp::from_unix_seconds(1_000));
        let listed = list_all(on.storage().as_ref(), &soon, 10).await?;
        ensure_eq!(listed, vec![], "{}, {place}", pages(&soon, 10));
        let delete = Call::delete(target, None);
        ensure_eq!(on.storage().delete(target, None).await?, true, "{delete} of a corrupt record, which list shows");
        on.storage().put(target, &rich("x"), Precondition::Absent).await?;
    }
    Ok(())
}

/// Writes two records and damages one.
async fn damage(on: &TestedStorage, target: &TokenKey) -> PropertyResult<Version> {
    let version = on.storage().put(target, &rich("CANARY"), Precondition::Always).await?;
    on.storage().put(&key("bob")?, &rich("bob's"), Precondition::Always).await?;
    on.harness().corrupt(target).await?;
    Ok(version)
}

async fn is_corrupt(on: &TestedStorage, target: &TokenKey) -> PropertyResult {
    match on.storage().get(target).await {
        Err(StorageError::Corrupt { key, .. }) => {
            ensure_eq!(*key, *target, "{} of a corrupt record: the key in the error", Call::get(target));
            Ok(())
        }
        other => Err(Stop::failed(format_args!("{}, whose record is corrupt, is {}", Call::get(target), other.show()))),
    }
}
