//! The stored data and the round trips on one server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use oauth_dance_core::{
    Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Version,
};
use oauth_dance_redis::{MAX_PAYLOAD, RedisStorage};
use support::{Proxy, Server, eventually};
use tokio::time::sleep;

fn user(name: impl Into<String>) -> TokenKey {
    TokenKey::new("github", name).unwrap()
}

async fn list(storage: &RedisStorage, filter: &Filter, limit: usize) -> Vec<TokenKey> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = storage.list(filter, PageRequest { after, limit }).await.unwrap();
        assert!(page.entries.len() <= limit);
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        let Some(next) = page.next else { return keys };
        after = Some(next);
    }
}

#[tokio::test]
async fn record_is_readable_in_the_servers_client() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let key = user("alice@example.com").with_tenant("a:b").unwrap();
    let record = Record::new("payload")
        .with_expires_at(Some(Timestamp::from_unix_seconds(1_767_225_600)))
        .with_key_id(Some("k1".to_owned()));
    let version = storage.put(&key, &record, Precondition::Always).await.unwrap();

    let keys: BTreeSet<String> = server.command(&["KEYS", "*"]);
    let name = keys.iter().find(|name| name.ends_with("}:a%3Ab:alice@example.com:github:")).unwrap();
    let tag = name.split_once('}').unwrap().0;
    assert!(keys.iter().all(|key| key.starts_with(tag)) && tag.starts_with("{oauth-dance:"), "{keys:?}");
    let stored: String = server.command(&["GET", name]);
    let hexadecimal = format!("{version:?}");
    let hexadecimal = hexadecimal.trim_start_matches("Version(").trim_end_matches(')');
    assert_eq!(stored, format!("v1 {hexadecimal} 1767225600 - =k1\npayload"));
}

#[tokio::test]
async fn keys_and_payloads_are_bytes() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let odd = ["{}", "a}b{c", "*", "[a-z]?", "\0", "\r\n", "é", "%00", "'\"\\ $", "/index", "/deadlines", ":"];
    let large: Vec<u8> = (0..1 << 20).map(|index: u32| (index % 251) as u8).collect();
    for (index, name) in odd.iter().enumerate() {
        let key = TokenKey::from_parts(*name, *name, *name, *name).unwrap();
        storage.put(&key, &Record::new(format!("{index}\n\0\r\n")), Precondition::Absent).await.unwrap();
    }
    for (index, name) in odd.iter().enumerate() {
        let key = TokenKey::from_parts(*name, *name, *name, *name).unwrap();
        let found = storage.get(&key).await.unwrap().unwrap();
        assert_eq!(found.value.payload, format!("{index}\n\0\r\n").into_bytes(), "{name:?}");
        let filter = Filter::everything().tenant(Some(name)).user(*name);
        assert_eq!(list(&storage, &filter, 10).await, [key], "{name:?}");
    }
    assert_eq!(list(&storage, &Filter::everything(), 5).await.len(), odd.len());

    storage.put(&user("large"), &Record::new(large.clone()), Precondition::Absent).await.unwrap();
    assert_eq!(storage.get(&user("large")).await.unwrap().unwrap().value.payload, large);
    let whole = Record::new(vec![b'x'; MAX_PAYLOAD]);
    storage.put(&user("large"), &whole, Precondition::Always).await.unwrap();
    assert_eq!(storage.get(&user("large")).await.unwrap().unwrap().value, whole);
    let larger = storage.put(&user("large"), &Record::new(vec![0; MAX_PAYLOAD + 1]), Precondition::Always).await;
    assert!(matches!(larger, Err(StorageError::TooLarge { .. })), "{larger:?}");
    let longer = storage.get(&user("x".repeat(17_000))).await;
    assert!(matches!(longer, Err(StorageError::KeyTooLong { part: "user", length: 17_000, .. })), "{longer:?}");
}

#[tokio::test]
async fn retention_ends_on_the_server_without_remains() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let retained_for = |seconds| Record::new("x").with_retain_for(Some(Duration::from_secs(seconds)));
    for index in 0..20 {
        storage.put(&user(format!("short{index}")), &retained_for(1), Precondition::Absent).await.unwrap();
    }
    storage.put(&user("long"), &retained_for(100), Precondition::Absent).await.unwrap();
    storage.put(&user("short0"), &Record::new("for good"), Precondition::Always).await.unwrap();
    let left = storage.get(&user("long")).await.unwrap().unwrap().value.retain_for.unwrap();
    assert!((Duration::from_secs(98)..=Duration::from_secs(100)).contains(&left), "{left:?}");
    assert_eq!(storage.purge(100).await.unwrap(), 0);

    eventually("short1 is gone", async || storage.get(&user("short1")).await.unwrap().is_none()).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(storage.get(&user("short0")).await.unwrap().unwrap().value.retain_for, None);
    let names: BTreeSet<_> =
        list(&storage, &Filter::everything(), 7).await.iter().map(|key| key.user().to_owned()).collect();
    assert_eq!(names, BTreeSet::from(["long".to_owned(), "short0".to_owned()]));
    storage.put(&user("short2"), &retained_for(100), Precondition::Absent).await.unwrap();
    assert!(!storage.delete(&user("short3"), None).await.unwrap());

    let mut purged = storage.purge(5).await.unwrap();
    assert_eq!(purged, 5, "no more than its limit");
    purged += storage.purge(100).await.unwrap();
    // short2 was written again, short3 was deleted, and writes to a bucket remove expired names as well.
    assert!((15..=17).contains(&purged), "{purged}");
    assert_eq!(storage.purge(100).await.unwrap(), 0);
    for key in ["short0", "long", "short2"] {
        storage.delete(&user(key), None).await.unwrap();
    }
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new(), "keys remain");
}

/// A record without a retention needs no time, so it is read by GET alone.
#[tokio::test]
async fn time_is_read_only_for_a_retention() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let times = || {
        let statistics: String = server.command(&["INFO", "commandstats"]);
        let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_time:calls="));
        calls.map_or(0, |rest| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    storage.put(&user("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let before = times();
    for round in 0..5 {
        storage.put(&user("alice"), &Record::new(format!("{round}")), Precondition::Always).await.unwrap();
        assert_eq!(storage.get(&user("alice")).await.unwrap().unwrap().value.payload, format!("{round}").into_bytes());
    }
    assert_eq!(times(), before, "neither get nor put requests the time");

    let brief = Record::new("y").with_retain_for(Some(Duration::from_secs(100)));
    storage.put(&user("alice"), &brief, Precondition::Always).await.unwrap();
    let left = storage.get(&user("alice")).await.unwrap().unwrap().value.retain_for.unwrap();
    assert!((Duration::from_secs(98)..=Duration::from_secs(100)).contains(&left), "{left:?}");
    storage.put(&user("alice"), &Record::new("z"), Precondition::Always).await.unwrap();
    for round in 0..2 {
        let found = storage.get(&user("alice")).await.unwrap().unwrap().value;
        assert_eq!(found, Record::new("z"), "round {round}");
    }
    let keys: Vec<String> = server.command(&["KEYS", "*/deadlines"]);
    assert!(keys.is_empty(), "a record without a retention has no deadline: {keys:?}");
}

/// Even without a purge: every write to a bucket removes some expired names.
#[tokio::test]
async fn expired_attempts_do_not_accumulate() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let kept = Record::new("x").with_retain_for(Some(Duration::from_secs(1)));
    let account = |index| user("alice").with_account(format!("{index}")).unwrap();
    for index in 0..40 {
        storage.put(&account(index), &kept, Precondition::Absent).await.unwrap();
    }
    eventually("all are gone", async || storage.get(&account(39)).await.unwrap().is_none()).await;
    for _ in 0..10 {
        storage.put(&user("alice"), &Record::new("y"), Precondition::Always).await.unwrap();
    }
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    keys.sort();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(server.command::<usize>(&["ZCARD", &keys[0]]), 1);
}

#[tokio::test]
async fn operations_take_the_documented_round_trips() {
    let server = server_or_skip!(Server::start(&[]));
    let proxy = Proxy::before(server.port).await;
    let storage = RedisStorage::connect(&proxy.url()).await.unwrap();
    let record = Record::new("x").with_retain_for(Some(Duration::from_secs(100)));
    // The server gets the scripts.
    let first = storage.put(&user("alice"), &record, Precondition::Always).await.unwrap();
    storage.put(&user("carol"), &Record::new("x"), Precondition::Always).await.unwrap();
    storage.delete(&user("nobody"), None).await.unwrap();
    proxy.round_trips();

    let trips = [("carol", 1), ("alice", 2), ("alice", 1), ("nobody", 1), ("carol", 1), ("carol", 1)];
    for (index, (name, count)) in trips.into_iter().enumerate() {
        storage.get(&user(name)).await.unwrap();
        assert_eq!(proxy.round_trips(), count, "get {index}, of {name}");
    }
    storage.put(&user("carol"), &Record::new("y"), Precondition::Always).await.unwrap();
    assert_eq!(proxy.round_trips(), 1, "put without a retention");
    storage.get(&user("nobody")).await.unwrap();
    assert_eq!(proxy.round_trips(), 1, "get of a missing key");
    let second = storage.put(&user("alice"), &record, Precondition::Version(first)).await.unwrap();
    assert_eq!(proxy.round_trips(), 1, "put Version");
    storage.put(&user("alice"), &record, Precondition::Version(first)).await.unwrap_err();
    assert_eq!(proxy.round_trips(), 1, "put of a stale version");
    storage.put(&user("bob"), &record, Precondition::Absent).await.unwrap();
    assert_eq!(proxy.round_trips(), 1, "put Absent");
    storage.delete(&user("alice"), Some(second)).await.unwrap();
    assert_eq!(proxy.round_trips(), 1, "delete");

    for index in 0..300 {
        storage.put(&user(format!("user{index}")), &record, Precondition::Always).await.unwrap();
    }
    proxy.round_trips();
    let page = storage.list(&Filter::everything(), PageRequest::default()).await.unwrap();
    assert_eq!(page.entries.len(), 100);
    // Large replies may arrive in parts.
    assert!((3..=8).contains(&proxy.round_trips()), "list");
    storage.list(&Filter::everything().tenant(None).user("bob"), PageRequest::default()).await.unwrap();
    assert_eq!(proxy.round_trips(), 2, "list of one user");
}

#[tokio::test]
async fn scripts_are_resent_when_the_server_lost_them() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    for round in 0..3 {
        server.command::<()>(&["SCRIPT", "FLUSH"]);
        let version = storage.put(&user("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
        server.command::<()>(&["SCRIPT", "FLUSH"]);
        assert!(storage.delete(&user("alice"), Some(version)).await.unwrap(), "round {round}");
    }
}

#[tokio::test]
async fn unreadable_record_is_corrupt_and_remains() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let keys = ["text", "list", "good"].map(user);
    for key in &keys {
        storage.put(key, &Record::new("secret-payload"), Precondition::Absent).await.unwrap();
    }
    let name = |user: &str| {
        let names: Vec<String> = server.command(&["KEYS", &format!("*:{user}:*")]);
        names[0].clone()
    };
    server.command::<()>(&["SET", &name("text"), "secret-payload without a header"]);
    let broken = name("list");
    server.command::<()>(&["DEL", &broken]);
    server.command::<()>(&["RPUSH", &broken, "secret-payload"]);

    for key in &keys[..2] {
        let error = storage.get(key).await.unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt { key: of, .. } if **of == *key), "{error:?}");
        assert!(!format!("{error:?}").contains("secret-payload"));
        let conditional = storage.put(key, &Record::new("y"), Precondition::Version(Version::random())).await;
        assert!(matches!(conditional, Err(StorageError::Conflict | StorageError::Corrupt { .. })), "{conditional:?}");
        let absent = storage.put(key, &Record::new("y"), Precondition::Absent).await;
        assert!(matches!(absent, Err(StorageError::Conflict)), "{absent:?}");
        assert!(storage.get(key).await.is_err(), "it stays");
    }
    assert_eq!(list(&storage, &Filter::everything(), 1).await.len(), 3, "an unreadable record affects no other");
    storage.put(&keys[0], &Record::new("again"), Precondition::Always).await.unwrap();
    assert_eq!(storage.get(&keys[0]).await.unwrap().unwrap().value.payload, b"again");
    assert!(storage.delete(&keys[1], None).await.unwrap());
    assert_eq!(storage.get(&keys[1]).await.unwrap(), None);
}

#[tokio::test]
async fn prefixes_and_databases_are_separate() {
    let server = server_or_skip!(Server::start(&[]));
    let plain = RedisStorage::connect(&server.url()).await.unwrap();
    let others = [
        plain.clone().with_prefix("a").unwrap(),
        plain.clone().with_prefix("a:0").unwrap(),
        plain.clone().with_prefix("ab").unwrap(),
        RedisStorage::connect(&format!("{}3", server.url())).await.unwrap(),
    ];
    plain.put(&user("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    for other in &others {
        assert_eq!(other.get(&user("alice")).await.unwrap(), None);
        assert!(list(other, &Filter::everything(), 10).await.is_empty());
        other.put(&user("alice"), &Record::new("y"), Precondition::Absent).await.unwrap();
    }
    assert_eq!(plain.get(&user("alice")).await.unwrap().unwrap().value.payload, b"x");
    let bad = plain.with_prefix("a}b");
    assert!(matches!(bad, Err(StorageError::Misconfigured { .. })), "{bad:?}");
}

#[tokio::test]
async fn long_list_with_few_matches_is_exact() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let soon = Timestamp::from_unix_seconds(1_000);
    for index in 0..3000 {
        let provider = if index % 300 == 0 { "rare" } else { "common" };
        let expiry = (index % 500 == 0).then_some(soon);
        let key = TokenKey::new(provider, format!("user{index}")).unwrap();
        storage.put(&key, &Record::new("x").with_expires_at(expiry), Precondition::Absent).await.unwrap();
    }
    for limit in [1, 3, 10, 100] {
        assert_eq!(list(&storage, &Filter::everything().provider("rare"), limit).await.len(), 10);
        let expiring = Filter::everything().expiring_before(Timestamp::from_unix_seconds(1_001));
        assert_eq!(list(&storage, &expiring, limit).await.len(), 6);
        assert_eq!(list(&storage, &Filter::everything().user("user7"), limit).await.len(), 1);
        assert_eq!(list(&storage, &Filter::everything().tenant(Some("none")), limit).await.len(), 0);
    }
    let all = list(&storage, &Filter::everything(), 1000).await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3000);
    assert_eq!(all.len(), 3000);
}

/// More records than one batch, all of one user and therefore in one bucket.
#[tokio::test]
async fn long_list_of_one_user_is_exact() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    for index in 0..2500 {
        let provider = if index % 500 == 499 { "rare" } else { "common" };
        let key = TokenKey::new(provider, "alice").unwrap().with_account(format!("{index}")).unwrap();
        let expiry = (index != 0).then_some(Timestamp::from_unix_seconds(1_000));
        storage.put(&key, &Record::new("x").with_expires_at(expiry), Precondition::Absent).await.unwrap();
    }
    // The first name in order does not expire, so that a page needs a second batch from the same bucket.
    let expiring = Filter::everything().tenant(None).user("alice").expiring_before(Timestamp::from_unix_seconds(1_001));
    let listed = list(&storage, &expiring, 1000).await;
    assert_eq!((listed.len(), listed.iter().collect::<BTreeSet<_>>().len()), (2499, 2499));
    for limit in [1, 4, 5, 6] {
        assert_eq!(list(&storage, &Filter::everything().user("alice").provider("rare"), limit).await.len(), 5);
    }
    let mine = Filter::everything().tenant(None).user("alice");
    for limit in [999, 1000, 2499, 2500] {
        let listed = list(&storage, &mine, limit).await;
        assert_eq!((listed.len(), listed.iter().collect::<BTreeSet<_>>().len()), (2500, 2500));
    }
}
