//! A record that cannot be read is reported, and can be removed and replaced.

use std::sync::Arc;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, TokenKey, Version, Versioned};

use crate::calls::{Call, pages};
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::paging::keys_are_listed;
use crate::show::Show as _;
use crate::subject::{Subject, key, list_all, rich};

/// A record that cannot be read is `Corrupt`: not missing, not removed by being read, and in nobody else's way.
pub async fn an_unreadable_record_is_reported_as_corrupt(on: Arc<Subject>) -> Outcome {
    damage(&on, &key("alice")?).await?;
    for _ in 0..2 {
        is_corrupt(&on, &key("alice")?).await?;
    }
    let bob = on.storage().get(&key("bob")?).await?.map(|found| found.value.payload);
    ensure_eq!(bob, Some(b"bob's".to_vec()), "{} beside a corrupt record", Call::get(&key("bob")?));
    Ok(())
}

/// `put Always` replaces a corrupt record, and `delete` removes it: `Ok(true)`.
pub async fn a_corrupt_record_can_be_replaced_and_removed(on: Arc<Subject>) -> Outcome {
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
pub async fn conditions_fail_for_a_corrupt_record(on: Arc<Subject>) -> Outcome {
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

/// A corrupt record is listed with its key, once, and hides no other record.
pub async fn a_corrupt_record_is_listed(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    for user in ["a", "dave", "zoe"] {
        on.storage().put(&key(user)?, &rich("x"), Precondition::Always).await?;
    }
    damage(&on, &key("carol")?).await?;
    let wanted: Vec<_> = ["a", "bob", "carol", "dave", "zoe"].into_iter().map(key).collect::<Outcome<_>>()?;
    for limit in [1, 2, 3, 100] {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), limit).await?;
        let listed = listed.into_iter().map(|entry| entry.key).collect();
        let what = format!("{}, where the record of user \"carol\" is corrupt", pages(&Filter::everything(), limit));
        keys_are_listed(listed, &wanted, &what)?;
    }
    let filter = Filter::everything().tenant(None).user("carol");
    let mine = list_all(on.storage().as_ref(), &filter, 10).await?;
    ensure_eq!(mine.len(), 1, "{}, where the one record is corrupt: how many", pages(&filter, 10));
    let delete = Call::delete(&key("carol")?, None);
    let removed = on.storage().delete(&key("carol")?, None).await?;
    ensure_eq!(removed, true, "{delete} of a corrupt record, which list shows");
    Ok(())
}

/// Writes two records and damages one.
async fn damage(on: &Subject, target: &TokenKey) -> Outcome<Version> {
    let version = on.storage().put(target, &rich("CANARY"), Precondition::Always).await?;
    on.storage().put(&key("bob")?, &rich("bob's"), Precondition::Always).await?;
    on.harness().corrupt(target).await?;
    Ok(version)
}

async fn is_corrupt(on: &Subject, target: &TokenKey) -> Outcome {
    match on.storage().get(target).await {
        Err(StorageError::Corrupt { key, .. }) => {
            ensure_eq!(*key, *target, "{} of a corrupt record: the key in the error", Call::get(target));
            Ok(())
        }
        other => Err(Stop::failed(format_args!("{}, whose record is corrupt, is {}", Call::get(target), other.show()))),
    }
}
