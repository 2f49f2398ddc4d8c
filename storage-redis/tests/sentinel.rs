//! A primary that Sentinels replace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage};
use oauth_dance_redis::RedisStorage;
use support::{Pair, eventually};

fn user(name: &str) -> TokenKey {
    TokenKey::new("github", name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_continue_after_a_failover() {
    let mut pair = server_or_skip!(Pair::start());
    let storage = RedisStorage::connect(&pair.url()).await.unwrap();
    assert!(!storage.capabilities().durable, "the last writes before a failover may be lost");
    let key = user("counter");
    storage.put(&key, &Record::new("0"), Precondition::Absent).await.unwrap();
    let counting = storage.clone();
    let counter = tokio::spawn(async move {
        let (start, mut counted, mut errors) = (Instant::now(), 0, 0);
        let mut gap = Duration::ZERO;
        let mut last = Instant::now();
        while start.elapsed() < Duration::from_secs(10) && (errors == 0 || counted < errors + 500) {
            let key = user("counter");
            let next = async {
                let found = counting.get(&key).await?.expect("a record is missing");
                counting.put(&key, &found.value, Precondition::Version(found.version)).await
            };
            match next.await {
                Ok(_) => {
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                    counted += 1;
                }
                Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => errors += 1,
                // A write without a response took effect, or the new primary had not received it.
                Err(StorageError::Conflict) => {}
                Err(other) => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (counted, errors, gap)
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    pair.servers[0].kill();
    eventually("the replica is the primary", async || {
        let info = pair.servers[1].try_command::<String>(&["INFO", "replication"]);
        info.is_some_and(|info| info.contains("role:master"))
    })
    .await;
    let (counted, errors, gap) = counter.await.unwrap();
    let seen = format!("{counted} writes, {errors} errors, no write for {gap:?}");
    assert!(errors > 0 && counted > 100 && gap < Duration::from_secs(8), "{seen}");
    let found: Option<String> = pair.servers[1].command::<Vec<String>>(&["KEYS", "*:counter:*"]).pop();
    assert!(found.is_some(), "the writes are not on the new primary");

    // The old primary returns, and becomes a replica.
    pair.servers[0].start_again();
    pair.servers[0].wait_until_it_responds();
    eventually("the old primary is a replica", async || {
        let info = pair.servers[0].try_command::<String>(&["INFO", "replication"]);
        info.is_some_and(|info| info.contains("role:slave"))
    })
    .await;
    storage.put(&user("after"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert!(storage.get(&user("after")).await.unwrap().is_some());
}

/// A manual failover: the old primary still runs, and returns READONLY.
#[tokio::test(flavor = "multi_thread")]
async fn manual_failover_is_followed() {
    let pair = server_or_skip!(Pair::start());
    let storage = RedisStorage::connect(&pair.url()).await.unwrap();
    storage.put(&user("before"), &Record::new("x"), Precondition::Absent).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    pair.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", "tokens"]);
    eventually("the replica is the primary", async || {
        let info = pair.servers[1].try_command::<String>(&["INFO", "replication"]);
        info.is_some_and(|info| info.contains("role:master"))
    })
    .await;
    eventually("it is written to", async || {
        storage.put(&user("after"), &Record::new("x"), Precondition::Always).await.is_ok()
            && !pair.servers[1].command::<Vec<String>>(&["KEYS", "*:after:*"]).is_empty()
    })
    .await;
    assert!(storage.get(&user("before")).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_sentinel_works_and_wrong_name_is_an_error() {
    let mut pair = server_or_skip!(Pair::start());
    pair.sentinels[0].kill();
    let storage = RedisStorage::connect(&pair.url()).await.unwrap();
    storage.put(&user("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    let wrong = RedisStorage::connect(&pair.url().replace("/tokens", "/others")).await;
    assert!(matches!(wrong, Err(StorageError::Misconfigured { .. })), "{wrong:?}");
    pair.sentinels.iter_mut().for_each(support::Server::kill);
    storage.put(&user("alice"), &Record::new("y"), Precondition::Always).await.unwrap();
    let none = RedisStorage::connect(&pair.url()).await;
    assert!(matches!(none, Err(StorageError::Unavailable { .. })), "{none:?}");
}
