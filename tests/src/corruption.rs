//! A record that cannot be read is reported, and can be removed and replaced.

use std::sync::Arc;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, TokenKey, Version, Versioned};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::subject::{Subject, key, list_all, rich};

/// A record that cannot be read is `Corrupt`: not missing, not removed by being read, and in nobody else's way.
pub async fn a_corrupt_record_is_told_as_such(on: Arc<Subject>) -> Outcome {
    damage(&on, &key("alice")?).await?;
    for _ in 0..2 {
        is_corrupt(&on, &key("alice")?).await?;
    }
    let bob = on.storage().get(&key("bob")?).await?.map(|found| found.value.payload);
    ensure_eq!(bob, Some(b"bob's".to_vec()), "get of the record beside a corrupt one");
    Ok(())
}

/// `put Always` replaces a corrupt record, and `delete` removes it: `Ok(true)`.
pub async fn a_corrupt_record_can_be_replaced_and_removed(on: Arc<Subject>) -> Outcome {
    let (alice, carol) = (key("alice")?, key("carol")?);
    damage(&on, &alice).await?;
    let version = on.storage().put(&alice, &Record::new("new"), Precondition::Always).await?;
    let wanted = Versioned::new(Record::new("new"), version);
    ensure_eq!(on.storage().get(&alice).await?, Some(wanted), "get after put Always over a corrupt record");
    on.storage().put(&alice, &rich("again"), Precondition::Version(version)).await?;

    damage(&on, &carol).await?;
    ensure!(on.storage().delete(&carol, None).await?, "delete of a corrupt record says that nothing was there");
    ensure_eq!(on.storage().get(&carol).await?, None, "get after delete of a corrupt record");
    ensure!(!on.storage().delete(&carol, None).await?, "delete finds a corrupt record that was deleted");
    on.storage().put(&carol, &Record::new("new"), Precondition::Absent).await?;
    Ok(())
}

/// A condition that cannot be seen to hold for a corrupt record refuses the call, and nothing changes.
pub async fn conditions_do_not_hold_for_a_corrupt_record(on: Arc<Subject>) -> Outcome {
    let alice = key("alice")?;
    let before = damage(&on, &alice).await?;
    for when in [
        Precondition::Absent,
        Precondition::Version(Version::random()),
        Precondition::Version(Version::from_bytes([0; 16])),
    ] {
        let written = on.storage().put(&alice, &rich("new"), when).await;
        let refused = matches!(written, Err(StorageError::Conflict | StorageError::Corrupt { .. }));
        ensure!(refused, "put {when:?} over a corrupt record is {}", written.show());
        is_corrupt(&on, &alice).await?;
    }
    for only in [Version::random(), Version::from_bytes([0; 16])] {
        let removed = on.storage().delete(&alice, Some(only)).await;
        let refused = matches!(removed, Ok(false) | Err(StorageError::Corrupt { .. }));
        ensure!(refused, "delete of another version over a corrupt record is {}", removed.show());
        is_corrupt(&on, &alice).await?;
    }
    // Its own version may still be read, or not.
    match on.storage().delete(&alice, Some(before)).await {
        Ok(true) => ensure_eq!(on.storage().get(&alice).await?, None, "get after delete of a corrupt record's version"),
        Ok(false) | Err(StorageError::Corrupt { .. }) => is_corrupt(&on, &alice).await?,
        other => return Err(Stop::failed(format_args!("delete of a corrupt record's version is {}", other.show()))),
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
        let mut listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
        listed.sort();
        ensure_eq!(listed, wanted, "list in pages of {limit}: the keys, of which one has a corrupt record");
    }
    let mine = list_all(on.storage().as_ref(), &Filter::everything().tenant(None).user("carol"), 10).await?;
    ensure_eq!(mine.len(), 1, "list: records of the user whose record is corrupt");
    ensure!(
        on.storage().delete(&key("carol")?, None).await?,
        "delete of a listed corrupt record says that nothing was there"
    );
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
            ensure_eq!(*key, *target, "get of a corrupt record: the key that the error names");
            Ok(())
        }
        other => Err(Stop::failed(format_args!("get of a corrupt record is {}", other.show()))),
    }
}
