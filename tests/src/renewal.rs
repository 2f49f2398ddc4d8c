//! Every write starts a new retention, and no other call starts or extends one.
//!
//! An application relies on both directions. A token that is refreshed must not disappear because of the retention of an
//! earlier write, and a token that is only read must not be stored longer than the application has promised its users.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, Versioned};

use crate::calls::Call;
use crate::outcome::{PropertyResult, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, retained_for, rich};

/// Every write sets the retention: none, a longer and a shorter one all take effect, and nothing is inherited.
///
/// A write without a retention has to clear the previous one: the SQL column has to be set to
/// `NULL`, and a Redis hash needs `PERSIST`.
pub async fn every_write_sets_the_retention(on: Arc<TestedStorage>) -> PropertyResult {
    let (short, long) = (on.units(2).await?, on.units(600).await?);
    let unlimited = Record::new("x");
    let cases = [
        ("short to none", retained_for("x", short), unlimited.clone(), true),
        ("short to long", retained_for("x", short), retained_for("x", long), true),
        ("long to short", retained_for("x", long), retained_for("x", short), false),
        ("none to short", unlimited, retained_for("x", short), false),
    ];
    for conditional in [false, true] {
        for (name, first, second, _) in &cases {
            let key = key(&format!("{name} {conditional}"))?;
            let version = on.storage().put(&key, first, Precondition::Always).await?;
            let when = if conditional { Precondition::Version(version) } else { Precondition::Always };
            match on.storage().put(&key, second, when).await {
                // A retention of two seconds may have ended if the calls took longer than one.
                Err(StorageError::Conflict) if *first == retained_for("x", short) => {
                    on.storage().put(&key, second, Precondition::Always).await?;
                }
                written => drop(written?),
            }
        }
    }
    on.pass(24).await?;
    for conditional in [false, true] {
        for (name, _, _, stays) in &cases {
            let key = key(&format!("{name} {conditional}"))?;
            let is_there = on.storage().get(&key).await?.is_some();
            let is = if is_there { "still returns the record" } else { "is None" };
            let when = if conditional { "Version" } else { "Always" };
            ensure!(
                is_there == *stays,
                "{} {is}, although put {when} changed the retention from {name}",
                Call::get(&key)
            );
        }
    }
    Ok(())
}

/// The retention counts from the last write, even if that write had a condition or wrote the same bytes.
///
/// A storage fails this if it skips the update of an unchanged row, or computes the end only when it creates the
/// record.
pub async fn retention_counts_from_the_last_write(on: Arc<TestedStorage>) -> PropertyResult {
    let (two, most) = (on.units(2).await?, on.units(2).await? - Duration::from_secs(1));
    let cases = ["the same bytes", "other bytes", "a version", "after a delete"];
    for name in cases {
        on.storage().put(&key(name)?, &retained_for("x", two), Precondition::Always).await?;
    }
    // After both waits together the first retention has ended, but not the second.
    on.pass(12).await?;
    let (written, mut versions) = (on.now(), Vec::new());
    for name in cases {
        let key = key(name)?;
        let when = match (name, on.storage().get(&key).await?) {
            ("a version", Some(found)) => Precondition::Version(found.version),
            ("after a delete", _) => {
                on.storage().delete(&key, None).await?;
                Precondition::Absent
            }
            _ => Precondition::Always,
        };
        let record = retained_for(if name == "the same bytes" { "x" } else { "y" }, two);
        let put = match on.storage().put(&key, &record, when).await {
            // The first retention may end between the read and the write.
            Err(StorageError::Conflict) if name == "a version" => {
                on.storage().put(&key, &record, Precondition::Always).await
            }
            put => put,
        };
        versions.push(put?);
    }
    on.pass(9).await?;
    for (name, version) in cases.into_iter().zip(versions) {
        let get = Call::get(&key(name)?);
        let found = on.storage().get(&key(name)?).await?.map(|found| found.version);
        // On a busy machine the second retention may have ended as well.
        if on.now() - written < most {
            ensure_eq!(found, Some(version), "{get} within the retention of the last put: the version");
        }
    }
    Ok(())
}

/// A record that is created after a delete does not inherit the retention of the deleted one.
///
/// A timer or an index entry that belongs to the old record must not remove the new one.
pub async fn retention_ends_with_the_record(on: Arc<TestedStorage>) -> PropertyResult {
    let one = on.units(1).await?;
    let key = key("alice")?;
    on.storage().put(&key, &retained_for("old", one), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    on.storage().put(&key, &Record::new("new"), Precondition::Absent).await?;
    on.pass(13).await?;
    on.storage().purge(100).await?;
    let found = on.storage().get(&key).await?;
    ensure!(found.is_some(), "{} is None: it has inherited the retention of the deleted record", Call::get(&key));
    Ok(())
}

/// Nothing of an expired record remains in the record that replaces it: neither its hints nor its retention.
///
/// Replaces it with `Always` and with `Absent`, before and after a purge.
pub async fn nothing_of_an_expired_record_survives(on: Arc<TestedStorage>) -> PropertyResult {
    let one = on.units(1).await?;
    let poor = Record::new("b");
    let old = rich("a long payload").with_retain_for(Some(one));
    let names = ["Always", "Absent", "Always, purged", "Absent, purged"];
    for name in names {
        on.storage().put(&key(name)?, &old, Precondition::Always).await?;
    }
    on.pass(13).await?;
    for name in names {
        if name.ends_with("purged") {
            on.storage().purge(100).await?;
        }
        let when = if name.starts_with("Always") { Precondition::Always } else { Precondition::Absent };
        let version = on.storage().put(&key(name)?, &poor, when).await?;
        let wanted = Versioned::new(poor.clone(), version);
        let put = Call::put(&key(name)?, &poor, when);
        ensure_eq!(on.storage().get(&key(name)?).await?, Some(wanted), "get after {put} over an expired record");
        if on.capabilities().listable {
            let filter = Filter::everything().tenant(None).user(name);
            let listed = list_all(on.storage().as_ref(), &filter, 10).await?;
            let wanted = oauth_dance_core::Entry::new(key(name)?, version, &poor);
            ensure_eq!(listed, vec![wanted], "list after {put} over an expired record");
        }
    }
    Ok(())
}

/// Calls that change nothing do not change the retention: rejected writes and deletes, reads, lists and purges.
///
/// A storage fails this if it sets the expiry before it checks the condition, or extends it when the record is read.
pub async fn refused_calls_do_not_change_the_retention(on: Arc<TestedStorage>) -> PropertyResult {
    let (two, long) = (on.units(2).await?, on.units(600).await?);
    let cases = ["put Absent", "put Version", "delete", "get", "list", "purge", "delete of another key"];
    let (lasting, other) = (key("lasting")?, key("other")?);
    let foreign = on.storage().put(&other, &Record::new("x"), Precondition::Always).await?;
    on.storage().put(&lasting, &retained_for("x", long), Precondition::Always).await?;
    for name in cases {
        on.storage().put(&key(name)?, &retained_for("x", two), Precondition::Always).await?;
    }
    // Session stores extend a retention when half of it, or most of it, is over.
    for tenths in [12, 7, 6] {
        for name in cases {
            disturb(&on, name, foreign, long).await?;
        }
        let stale = on.storage().put(&lasting, &retained_for("y", two), Precondition::Version(foreign)).await;
        ensure_error!(stale, StorageError::Conflict, "put({}) over another key's version", lasting.show());
        on.pass(tenths).await?;
    }
    let mut alive = Vec::new();
    for name in cases {
        alive.extend(on.storage().get(&key(name)?).await?.map(|_| name));
    }
    let calls = if alive.len() == cases.len() { "any call".to_owned() } else { alive.join(", ") };
    let get = Call::get(&key(alive.first().unwrap_or(&cases[0]))?);
    ensure!(
        alive.is_empty(),
        "{get} still returns the record after its retention of {two:?}, which was extended by {calls}"
    );
    let found = on.storage().get(&lasting).await?;
    ensure!(found.is_some(), "{} is None: a rejected put shortened its retention of {long:?}", Call::get(&lasting));
    Ok(())
}

/// Every handle observes the end of a retention, whichever handle wrote the record.
///
/// One of the handles is opened while the retentions last. A storage whose handles remember expiry times in memory
/// fails this.
pub async fn retention_is_seen_through_every_handle(on: Arc<TestedStorage>) -> PropertyResult {
    let two = on.units(2).await?;
    let handles = on.recorded_handles(3).await?;
    for handle in &handles {
        // The first call may have to open a connection.
        handle.get(&key("absent")?).await?;
    }
    let mut versions = Vec::new();
    for (index, handle) in handles.iter().enumerate() {
        for (reader, reading) in handles.iter().enumerate() {
            let key = key(&format!("by {index} for {reader}"))?;
            let begun = on.now();
            versions.push(handle.put(&key, &retained_for("x", two), Precondition::Always).await?);
            let found = reading.get(&key).await?;
            let left = found.and_then(|found| found.value.retain_for);
            // If the calls are slow, a retention of two seconds has ended.
            let may_have_ended = left.is_none() && on.now() - begun + Duration::from_secs(1) >= two;
            ensure!(
                may_have_ended || left.is_some_and(|left| left <= two),
                "{} through handle {reader}: retain_for is {} of {two:?}",
                Call::get(&key),
                left.show()
            );
        }
    }
    on.pass(12).await?;
    // A handle that is opened while the retentions last. It must not start them again.
    let late = Arc::clone(&on.recorded_handles(2).await?[1]);
    for index in 0..handles.len() * handles.len() {
        late.get(&key(&format!("by {} for {}", index / handles.len(), index % handles.len()))?).await?;
    }
    on.pass(11).await?;
    for index in 0..handles.len() * handles.len() {
        let key = key(&format!("by {} for {}", index / handles.len(), index % handles.len()))?;
        let get = Call::get(&key);
        ensure_eq!(
            late.get(&key).await?,
            None,
            "{get} through a handle that was opened after the put, after the end of the retention"
        );
    }
    for (index, version) in (0..handles.len() * handles.len()).zip(versions) {
        let (writer, reader) = (index / handles.len(), index % handles.len());
        let key = key(&format!("by {writer} for {reader}"))?;
        let reading = &handles[reader];
        let through = format!("through handle {reader}, after the end of the retention that handle {writer} wrote");
        ensure_eq!(reading.get(&key).await?, None, "{} {through}", Call::get(&key));
        let delete = Call::delete(&key, Some(version));
        ensure_eq!(reading.delete(&key, Some(version)).await?, false, "{delete} {through}");
        reading.put(&key, &Record::new("new"), Precondition::Absent).await?;
        let found = handles[writer].get(&key).await?.map(|found| found.value);
        let get = Call::get(&key);
        ensure_eq!(
            found,
            Some(Record::new("new")),
            "{get} through handle {writer} after a put through handle {reader}"
        );
    }
    Ok(())
}

/// Makes a call that must not change the retention of its record.
async fn disturb(on: &TestedStorage, name: &str, foreign: oauth_dance_core::Version, long: Duration) -> PropertyResult {
    let (storage, target, longer) = (on.storage(), key(name)?, retained_for("y", long));
    match name {
        // A retention of two seconds may have ended by now. Then there is nothing to test.
        "put Absent" if storage.get(&target).await?.is_some() => {
            drop(storage.put(&target, &longer, Precondition::Version(foreign)).await);
            if on.can_move_time().await? {
                let absent = storage.put(&target, &longer, Precondition::Absent).await;
                ensure_error!(absent, StorageError::Conflict, "put({}) Absent over a record", target.show());
            }
        }
        "put Version" => drop(storage.put(&target, &longer, Precondition::Version(foreign)).await),
        "delete" => drop(storage.delete(&target, Some(foreign)).await?),
        "get" => drop(storage.get(&target).await?),
        "list" if on.capabilities().listable => {
            list_all(storage.as_ref(), &Filter::everything().tenant(None).user(name), 3).await?;
        }
        "purge" => drop(storage.purge(0).await?),
        "delete of another key" => drop(storage.delete(&key("missing")?, None).await?),
        _ => {}
    }
    Ok(())
}
