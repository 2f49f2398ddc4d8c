//! A record that the storage cannot read is reported, and can be removed and replaced.
//!
//! Records become unreadable through a faulty disk, a manual change, a restored backup, or a newer release that was rolled
//! back. Treating such a record as missing hides the damage until a user complains; failing on every operation makes it
//! permanent. Both are wrong.

use std::sync::Arc;

use oauth_dance_core::{Entry, Filter, Precondition, Record, StorageError, Timestamp, TokenKey, Version, Versioned};

use crate::calls::{Call, pages};
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::paging::keys_are_listed;
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// `get` of an unreadable record returns `Corrupt`. The record is not treated as missing, neither reads nor purges
/// remove it, and other records are not affected.
///
/// `Ok(None)` would look like a user who has never connected the account, and the next login would hide the damage.
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
    ensure_eq!(found, Some(b"another of alice's".to_vec()), "{get} while another record of the user is corrupt");
    let bob = on.storage().get(&key("bob")?).await?.map(|found| found.value.payload);
    ensure_eq!(bob, Some(b"bob's".to_vec()), "{} while another user's record is corrupt", Call::get(&key("bob")?));
    // The error contains the whole key.
    let full = key("alice")?.with_tenant("acme")?.with_account("work")?;
    damage(&on, &full).await?;
    is_corrupt(&on, &full).await
}

/// `put` with `Always` replaces a corrupt record, and `delete` removes it and returns `Ok(true)`.
///
/// Otherwise the user could never connect that account again, because both a login and a logout would fail.
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
    ensure_eq!(on.storage().delete(&carol, None).await?, false, "{delete} of a corrupt record a second time");
    on.storage().put(&carol, &Record::new("new"), Precondition::Absent).await?;
    Ok(())
}

/// If a condition cannot be checked against a corrupt record, the call is rejected, and nothing changes.
///
/// `Absent` and a wrong version return `Conflict` or `Corrupt`. The record's own version may or may not match, because
/// it may still be readable.
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
    // The record's own version may or may not be readable.
    let bob = key("bob")?;
    let when = Precondition::Version(damage(&on, &bob).await?);
    let put = Call::put(&bob, &rich("new"), when);
    match on.storage().put(&bob, &rich("new"), when).await {
        Ok(version) => {
            let found = on.storage().get(&bob).await;
            let is_new =
                matches!(&found, Ok(Some(found)) if (found.version, &found.value.payload[..]) == (version, b"new"));
            ensure!(is_new, "{put} over a corrupt record is Ok({version:?}), and get is {}", found.show());
        }
        Err(StorageError::Conflict | StorageError::Corrupt { .. }) => is_corrupt(&on, &bob).await?,
        other => return Err(Stop::failed(format_args!("{put}, over a corrupt record, is {}", other.show()))),
    }
    match on.storage().delete(&alice, Some(before)).await {
        Ok(true) => {
            let get = Call::get(&alice);
            ensure_eq!(
                on.storage().get(&alice).await?,
                None,
                "{get} after delete of the version of a corrupt record returned Ok(true)"
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

/// A corrupt record is listed once, with its key, by every filter that matches the key, and hides no other record.
///
/// An operator finds corrupt records this way. Hints that cannot be read are absent in the entry.
pub async fn a_corrupt_record_is_listed(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let keys = |users: &[&str]| users.iter().map(|user| key(user)).collect::<PropertyResult<Vec<_>>>();
    let mut keys = keys(&["a", "bob", "carol", "dave", "erin", "zoe"])?;
    keys.extend([
        TokenKey::new("google", "carol")?,
        key("carol")?.with_tenant("acme")?,
        key("carol")?.with_account("x")?,
    ]);
    keys.sort();
    for key in &keys {
        on.storage().put(key, &rich("x"), Precondition::Always).await?;
    }
    for target in &keys {
        on.harness().corrupt(target).await?;
        let place = format!("while the record of ({}) is corrupt", target.show());
        for limit in [1, 2, 3, 100] {
            let listed = list_all(on.storage().as_ref(), &Filter::everything(), limit).await?;
            let listed = listed.into_iter().map(|entry| entry.key).collect();
            keys_are_listed(listed, &keys, &format!("{} {place}", pages(&Filter::everything(), limit)))?;
        }
        for filter in [
            Filter::everything().tenant(target.tenant()),
            Filter::everything().user(target.user()),
            Filter::everything().provider(target.provider()),
            Filter::everything().tenant(target.tenant()).user(target.user()),
            Filter::everything().tenant(target.tenant()).user(target.user()).provider(target.provider()),
        ] {
            let listed =
                list_all(on.storage().as_ref(), &filter, 2).await?.into_iter().map(|entry| entry.key).collect();
            let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &Record::new(""));
            let wanted: Vec<_> = keys.iter().filter(|key| filter.matches(&entry(key))).cloned().collect();
            keys_are_listed(listed, &wanted, &format!("{} {place}", pages(&filter, 2)))?;
        }
        // `expires_at` is either unreadable, and thus absent, or later than this.
        let soon = Filter::everything().expiring_before(Timestamp::from_unix_seconds(1_000));
        let listed = list_all(on.storage().as_ref(), &soon, 10).await?;
        ensure_eq!(listed, vec![], "{} {place}", pages(&soon, 10));
        let delete = Call::delete(target, None);
        ensure_eq!(on.storage().delete(target, None).await?, true, "{delete} of a corrupt record that is listed");
        on.storage().put(target, &rich("x"), Precondition::Absent).await?;
    }
    Ok(())
}

/// Writes two records and damages one.
async fn damage(on: &TestedStorage, target: &TokenKey) -> PropertyResult<Version> {
    let version = on.storage().put(target, &rich("CANARY"), Precondition::Always).await?;
    if *target != key("bob")? {
        on.storage().put(&key("bob")?, &rich("bob's"), Precondition::Always).await?;
    }
    on.harness().corrupt(target).await?;
    Ok(version)
}

/// `get` reports the record of this key as corrupt.
async fn is_corrupt(on: &TestedStorage, target: &TokenKey) -> PropertyResult {
    match on.storage().get(target).await {
        Err(StorageError::Corrupt { key, .. }) => {
            ensure_eq!(*key, *target, "{} of a corrupt record: the key in the error", Call::get(target));
            Ok(())
        }
        other => Err(Stop::failed(format_args!("{} of a corrupt record is {}", Call::get(target), other.show()))),
    }
}
