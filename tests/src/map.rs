//! A storage is a map from keys to records.

use std::sync::Arc;

use oauth_dance_core::{Precondition, Record, Timestamp, Versioned};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::subject::{Subject, key, rich};

/// The name that a storage declares is not empty, and what it declares does not change.
pub async fn capabilities_are_steady(on: Arc<Subject>) -> Outcome {
    let first = on.capabilities();
    ensure!(!first.name.is_empty(), "the storage has no name");
    on.storage().put(&key("alice")?, &Record::new("x"), Precondition::Always).await?;
    ensure_eq!(on.capabilities(), first, "the capabilities changed after a write");
    Ok(())
}

/// `get` of a key that was never written is `Ok(None)`.
pub async fn missing_is_none(on: Arc<Subject>) -> Outcome {
    ensure_eq!(on.storage().get(&key("nobody")?).await?, None, "an empty storage has a record");
    on.storage().put(&key("alice")?, &rich("x"), Precondition::Always).await?;
    ensure_eq!(on.storage().get(&key("nobody")?).await?, None, "a key that was never written has a record");
    Ok(())
}

/// What `put` wrote, `get` reads: the payload byte for byte, and every hint.
pub async fn records_come_back_exactly(on: Arc<Subject>) -> Outcome {
    let mut random = on.random();
    for round in 0..40 {
        let key = key(&format!("user{}", round % 4))?;
        let length = random.below(on.fitting(3_000));
        let expires_at = Timestamp::from_unix_seconds(random.next() % 253_402_300_800);
        let key_id = format!("{:016x}", random.next());
        let record = Record::new(random.bytes(length)).with_expires_at(Some(expires_at)).with_key_id(Some(key_id));
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        let found = on.storage().get(&key).await?;
        ensure!(
            found.as_ref().is_some_and(|found| found.value.payload == record.payload),
            "the payload of {length} bytes came back changed"
        );
        ensure_eq!(found, Some(Versioned::new(record, version)), "round {round}");
    }
    Ok(())
}

/// A hint that was not given is not there when the record is read.
pub async fn absent_hints_stay_absent(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    for chosen in 0..8 {
        let full = rich("payload");
        let record = Record::new("payload")
            .with_expires_at(full.expires_at.filter(|_| chosen & 1 != 0))
            .with_key_id(full.key_id.filter(|_| chosen & 2 != 0))
            .with_retain_for(full.retain_for.filter(|_| chosen & 4 != 0));
        on.storage().put(&key, &record, Precondition::Always).await?;
        let found = on.storage().get(&key).await?.ok_or_else(|| Stop::failed("the record is missing"))?.value;
        ensure_eq!(found.expires_at, record.expires_at, "expires_at");
        ensure_eq!(found.key_id, record.key_id, "key_id");
        ensure_eq!(found.retain_for.is_some(), record.retain_for.is_some(), "whether there is a retain_for");
    }
    Ok(())
}

/// `put` replaces the whole record and merges nothing: payload, hints and retention.
pub async fn a_write_replaces_the_whole_record(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let poor = Record::new("b");
    for when in 0..2 {
        let first = on.storage().put(&key, &rich("a long payload"), Precondition::Always).await?;
        let when = if when == 0 { Precondition::Always } else { Precondition::Version(first) };
        let second = on.storage().put(&key, &poor, when).await?;
        let found = on.storage().get(&key).await?;
        ensure_eq!(found, Some(Versioned::new(poor.clone(), second)), "something of the old record survived {when:?}");
    }
    Ok(())
}

/// The version that `put` returned is the one that `get` shows, and reading does not change it.
pub async fn reading_does_not_change_the_version(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    let version = on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    for _ in 0..3 {
        let found = on.storage().get(&key).await?.map(|found| found.version);
        ensure_eq!(found, Some(version), "get shows another version than put returned");
    }
    on.storage().put(&key, &rich("y"), Precondition::Version(version)).await?;
    Ok(())
}

/// `delete` of a record is `Ok(true)`, and the record is gone.
pub async fn delete_removes_the_record(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    ensure!(on.storage().delete(&key, None).await?, "delete of a record says that nothing was there");
    ensure_eq!(on.storage().get(&key).await?, None, "a deleted record is still there");
    Ok(())
}

/// `delete` where nothing is, or nothing any more, is `Ok(false)`.
pub async fn delete_of_nothing_is_false(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    ensure!(!on.storage().delete(&key, None).await?, "delete says it removed what was never there");
    on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    ensure!(!on.storage().delete(&key, None).await?, "the second delete says that it removed something");
    Ok(())
}

/// A key can be written again after a delete, and nothing of the old record comes back with it.
pub async fn a_deleted_key_can_be_written_again(on: Arc<Subject>) -> Outcome {
    let key = key("alice")?;
    on.storage().put(&key, &rich("old"), Precondition::Always).await?;
    on.storage().delete(&key, None).await?;
    let version = on.storage().put(&key, &Record::new("new"), Precondition::Absent).await?;
    let found = on.storage().get(&key).await?;
    ensure_eq!(found, Some(Versioned::new(Record::new("new"), version)), "the record written after a delete");
    Ok(())
}
