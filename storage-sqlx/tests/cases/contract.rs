use std::collections::HashSet;
use std::time::Duration;

use oauth_dance_core::{
    Clock, Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Version,
    Versioned,
};

use super::{Database, key, ready, retained_for};

pub async fn every_field_round_trips<D: Database>(database: &D) {
    let storage = ready(database).await;
    let key = key("alice");
    assert_eq!(storage.get(&key).await.unwrap(), None);

    let every_byte: Vec<u8> = (0..=255).collect();
    let mut payloads = vec![vec![], vec![0], every_byte, b"\\x00'\"\r\n".to_vec()];
    payloads.extend([4095, 4096, 16_384, 65_535, 65_536, 1_048_576, 8 * 1024 * 1024].map(|size| vec![0x5c; size]));
    for payload in payloads {
        let record = Record::new(payload);
        let version = storage.put(&key, &record, Precondition::Always).await.unwrap();
        assert_eq!(storage.get(&key).await.unwrap(), Some(Versioned::new(record, version)));
    }

    let now = Clock::system().now().as_unix_seconds();
    let noted = format!("created_at BETWEEN {0} - 60 AND {0} + 60 AND updated_at BETWEEN {0} - 60 AND {0} + 60", now);
    let untouched = format!("UPDATE oauth_dance_tokens SET created_at = created_at WHERE {noted}");
    assert_eq!(database.execute(&untouched).await, 1, "the database's clock is in UTC, in seconds");

    let (first, last) = (Timestamp::from_unix_seconds(0), Timestamp::from_unix_seconds(u64::MAX));
    for expires_at in [None, Some(first), Some(Timestamp::from_unix_seconds(1 << 33)), Some(last)] {
        for key_id in [None, Some(String::new()), Some("00ff".to_owned()), Some("\0é🔑".to_owned())] {
            for retain_for in [None, Some(Duration::from_secs(3600)), Some(Duration::MAX)] {
                let record = Record::new("x").with_expires_at(expires_at).with_key_id(key_id.clone());
                let record = record.with_retain_for(retain_for);
                storage.put(&key, &record, Precondition::Always).await.unwrap();

                let found = storage.get(&key).await.unwrap().unwrap().value;
                assert_eq!((found.expires_at, &found.key_id), (expires_at, &key_id));
                match retain_for {
                    None => assert_eq!(found.retain_for, None),
                    Some(Duration::MAX) => assert!(found.retain_for.unwrap().as_secs() > 250_000_000_000),
                    Some(time) => assert!((3590..=time.as_secs()).contains(&found.retain_for.unwrap().as_secs())),
                }
            }
        }
    }
}

pub async fn preconditions_apply_to_every_write<D: Database>(database: &D) {
    let storage = ready(database).await;
    let key = key("alice");
    let (one, two) = (Record::new("one"), Record::new("two").with_key_id(Some("2".into())));

    let missing = storage.put(&key, &one, Precondition::Version(Version::random())).await;
    assert!(matches!(missing, Err(StorageError::Conflict)), "{missing:?}");
    assert_eq!(storage.get(&key).await.unwrap(), None);

    let first = storage.put(&key, &one, Precondition::Absent).await.unwrap();
    let again = storage.put(&key, &two, Precondition::Absent).await;
    assert!(matches!(again, Err(StorageError::Conflict)), "{again:?}");
    assert_eq!(storage.get(&key).await.unwrap(), Some(Versioned::new(one.clone(), first)));

    let second = storage.put(&key, &two, Precondition::Version(first)).await.unwrap();
    let stale = storage.put(&key, &retained_for(5), Precondition::Version(first)).await;
    assert!(matches!(stale, Err(StorageError::Conflict)), "{stale:?}");
    assert_eq!(storage.get(&key).await.unwrap(), Some(Versioned::new(two.clone(), second)));
    let third = storage.put(&key, &two, Precondition::Version(second)).await.unwrap();
    assert_ne!(second, third, "the same record again is another write");

    assert!(!storage.delete(&key, Some(first)).await.unwrap());
    assert!(storage.get(&key).await.unwrap().is_some());
    assert!(storage.delete(&key, Some(third)).await.unwrap());
    assert!(!storage.delete(&key, Some(third)).await.unwrap());
    assert!(!storage.delete(&key, None).await.unwrap());
    assert_eq!(storage.get(&key).await.unwrap(), None);

    storage.put(&key, &one, Precondition::Absent).await.unwrap();
    assert!(storage.delete(&key, None).await.unwrap());
}

pub async fn write_replaces_the_whole_record<D: Database>(database: &D) {
    let storage = ready(database).await;
    let rich = Record::new("a long payload")
        .with_expires_at(Some(Timestamp::from_unix_seconds(1)))
        .with_retain_for(Some(Duration::from_secs(1000)))
        .with_key_id(Some("key".into()));
    let plain = Record::new("p");
    for way in ["always", "version"] {
        let key = key(way);
        let version = storage.put(&key, &rich, Precondition::Always).await.unwrap();
        let when = if way == "always" { Precondition::Always } else { Precondition::Version(version) };
        storage.put(&key, &plain, when).await.unwrap();
        assert_eq!(storage.get(&key).await.unwrap().unwrap().value, plain, "{way}");
    }
}

/// A write updates the row in place: its creation time and columns that an operator added are retained.
pub async fn write_updates_the_row_in_place<D: Database>(database: &D) {
    let storage = ready(database).await;
    let key = key("alice");
    let first = storage.put(&key, &Record::new("1"), Precondition::Absent).await.unwrap();
    database.execute("ALTER TABLE oauth_dance_tokens ADD COLUMN note integer").await;
    assert_eq!(database.execute("UPDATE oauth_dance_tokens SET created_at = 7, note = 7").await, 1);
    storage.put(&key, &Record::new("2"), Precondition::Version(first)).await.unwrap();
    storage.put(&key, &Record::new("3"), Precondition::Always).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap().unwrap().value.payload, b"3");
    let kept = "DELETE FROM oauth_dance_tokens WHERE created_at = 7 AND note = 7 AND updated_at > 7";
    assert_eq!(database.execute(kept).await, 1);
}

pub async fn versions_are_never_reused<D: Database>(database: &D) {
    let storage = ready(database).await;
    let (key, record) = (key("alice"), Record::new("same"));
    let mut seen = HashSet::new();
    for _ in 0..20 {
        for when in [Precondition::Absent, Precondition::Always] {
            let version = storage.put(&key, &record, when).await.unwrap();
            assert!(seen.insert(version), "a version was used twice");
        }
        storage.delete(&key, None).await.unwrap();
    }
}

pub async fn retention_hides_and_purge_removes_records<D: Database>(database: &D) {
    let storage = ready(database).await;
    let key = key("alice");
    let version = storage.put(&key, &retained_for(60), Precondition::Always).await.unwrap();
    let left = storage.get(&key).await.unwrap().unwrap().value.retain_for.unwrap();
    assert!((58..=60).contains(&left.as_secs()), "{left:?}");
    assert_eq!(storage.purge(10).await.unwrap(), 0);

    let pass = "UPDATE oauth_dance_tokens SET retain_until = retain_until - 60";
    assert_eq!(database.execute(pass).await, 1);
    assert_eq!(storage.get(&key).await.unwrap(), None);
    assert!(storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries.is_empty());
    assert!(!storage.delete(&key, None).await.unwrap());
    assert!(!storage.delete(&key, Some(version)).await.unwrap());
    let late = storage.put(&key, &retained_for(60), Precondition::Version(version)).await;
    assert!(matches!(late, Err(StorageError::Conflict)), "{late:?}");
    assert_eq!(storage.purge(0).await.unwrap(), 0);
    assert_eq!(storage.purge(10).await.unwrap(), 1);
    assert_eq!(storage.purge(10).await.unwrap(), 0);

    // Each way to replace a record that is past its retention.
    for when in [Precondition::Absent, Precondition::Always] {
        storage.put(&key, &retained_for(60), Precondition::Always).await.unwrap();
        database.execute(pass).await;
        let new = Record::new("new").with_key_id(Some("k".into()));
        let version = storage.put(&key, &new, when).await.unwrap();
        assert_eq!(storage.get(&key).await.unwrap(), Some(Versioned::new(new, version)), "{when:?}");
        let taken = storage.put(&key, &Record::new("late"), Precondition::Absent).await;
        assert!(matches!(taken, Err(StorageError::Conflict)), "{taken:?}");
    }

    storage.put(&key, &retained_for(0), Precondition::Always).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap(), None, "a retention of zero ends immediately");
}

pub async fn purge_is_bounded_and_exact<D: Database>(database: &D) {
    let storage = ready(database).await;
    for user in 0..30 {
        let record = if user < 25 { retained_for(60) } else { Record::new("for good") };
        storage.put(&key(&format!("u{user}")), &record, Precondition::Always).await.unwrap();
    }
    storage.put(&key("later"), &retained_for(7200), Precondition::Always).await.unwrap();
    database.execute("UPDATE oauth_dance_tokens SET retain_until = retain_until - 3600").await;

    let mut purged = Vec::new();
    for _ in 0..4 {
        purged.push(storage.purge(10).await.unwrap());
    }
    assert_eq!(purged, [10, 10, 5, 0]);
    let left = storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
    assert_eq!(left.len(), 6);
}

pub async fn similar_keys_are_separate<D: Database>(database: &D) {
    let storage = ready(database).await;
    let parts = [
        "alice",
        "Alice",
        "alice ",
        " alice",
        "álice",
        "a\u{301}lice",
        "alice\0",
        "alice\n",
        "%",
        "_",
        "alic_",
        "*",
        "' OR 1=1 --",
        "\\",
        "\\'",
        "?",
        "$1",
        "{table}",
        "{now}",
        "🔑",
        "\u{200d}",
        "\u{202e}alice",
        "ß",
        "ss",
        "ı",
        "i",
    ];
    let mut keys = Vec::new();
    for part in parts {
        keys.push(TokenKey::new("github", part).unwrap());
        keys.push(TokenKey::new(part, "bob").unwrap());
        keys.push(TokenKey::new("github", "bob").unwrap().with_tenant(part).unwrap());
        keys.push(TokenKey::new("github", "bob").unwrap().with_account(part).unwrap());
    }
    for (first, second) in [("a", "b:c"), ("a:b", "c"), ("a", "b"), ("ab", "c"), ("b", "a")] {
        keys.push(TokenKey::new(first, second).unwrap());
        keys.push(TokenKey::new("x", first).unwrap().with_tenant(second).unwrap());
        keys.push(TokenKey::new("x", first).unwrap().with_account(second).unwrap());
    }
    for (index, key) in keys.iter().enumerate() {
        storage.put(key, &Record::new(index.to_string()), Precondition::Absent).await.unwrap();
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(storage.get(key).await.unwrap().unwrap().value, Record::new(index.to_string()), "{key}");
    }
    for part in parts {
        let filter = Filter::everything().tenant(None).user(part).provider("github");
        let found = storage.list(&filter, PageRequest::default()).await.unwrap().entries;
        assert_eq!(found.len(), 1, "{part:?}");
        assert_eq!(found[0].key.user(), part);
    }
    let mut left = keys.len();
    for key in &keys {
        assert!(storage.delete(key, None).await.unwrap(), "{key}");
        left -= 1;
        let page = PageRequest { after: None, limit: 500 };
        assert_eq!(storage.list(&Filter::everything(), page).await.unwrap().entries.len(), left, "{key}");
    }
}

pub async fn long_keys_are_rejected_and_not_truncated<D: Database>(database: &D) {
    let storage = ready(database).await;
    let with = |tenant: usize, user: usize, provider: usize, account: usize| {
        TokenKey::from_parts("t".repeat(tenant), "u".repeat(user), "p".repeat(provider), "a".repeat(account)).unwrap()
    };
    let longest = with(255, 1023, 255, 255);
    let lengths = [with(255, 1022, 255, 255), with(254, 1023, 255, 255), with(255, 1023, 255, 254), longest];
    for (index, key) in lengths.iter().enumerate() {
        storage.put(key, &Record::new([index as u8]), Precondition::Absent).await.unwrap();
    }
    for (index, key) in lengths.iter().enumerate() {
        assert_eq!(storage.get(key).await.unwrap().unwrap().value.payload, [index as u8]);
    }

    let too_long = [
        (with(256, 1, 1, 0), "tenant", 256, 255),
        (with(0, 1024, 1, 0), "user", 1024, 1023),
        (with(0, 8192, 1, 0), "user", 8192, 1023),
        (with(0, 1, 256, 0), "provider", 256, 255),
        (with(0, 1, 1, 256), "account", 256, 255),
    ];
    for (key, name, bytes, most) in too_long {
        let refused = |error: StorageError| match error {
            StorageError::KeyTooLong { part, length, limit } => assert_eq!((part, length, limit), (name, bytes, most)),
            other => panic!("{other:?}"),
        };
        refused(storage.get(&key).await.unwrap_err());
        refused(storage.put(&key, &Record::new("x"), Precondition::Always).await.unwrap_err());
        refused(storage.delete(&key, None).await.unwrap_err());
    }
}

pub async fn large_payloads_are_rejected<D: Database>(database: &D) {
    let storage = ready(database).await;
    let (key, limit) = (key("alice"), storage.capabilities().max_payload.unwrap());
    let old = Record::new("old");
    let version = storage.put(&key, &old, Precondition::Always).await.unwrap();
    let error = storage.put(&key, &Record::new(vec![7; limit + 1]), Precondition::Always).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { size, limit: most } if size == limit + 1 && most == limit));
    let long_id = Record::new("x").with_key_id(Some("k".repeat(256)));
    let error = storage.put(&key, &long_id, Precondition::Always).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { size: 256, limit: 255 }), "{error:?}");
    assert_eq!(storage.get(&key).await.unwrap(), Some(Versioned::new(old, version)));
}
