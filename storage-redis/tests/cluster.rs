//! A Cluster of three primaries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage};
use oauth_dance_redis::RedisStorage;
use support::{Cluster, Server, eventually};
use tokio::task::JoinSet;

fn user(name: impl Into<String>) -> TokenKey {
    TokenKey::new("github", name).unwrap()
}

async fn list(storage: &RedisStorage, limit: usize) -> Vec<TokenKey> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = storage.list(&Filter::everything(), PageRequest { after, limit }).await.unwrap();
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        let Some(next) = page.next else { return keys };
        after = Some(next);
    }
}

/// The slot and the names of a user's records.
fn slot_of(cluster: &Cluster, name: &str) -> u16 {
    let found = cluster.servers.iter().find_map(|server| {
        let keys: Vec<String> = server.command(&["KEYS", &format!("*:{name}:github:")]);
        keys.first().map(|key| server.command(&["CLUSTER", "KEYSLOT", key]))
    });
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_across_the_cluster() {
    let cluster = server_or_skip!(Cluster::start(&["--appendonly", "yes", "--appendfsync", "always"]));
    let storage = RedisStorage::connect(&cluster.url()).await.unwrap();
    assert!(storage.capabilities().durable);
    for index in 0..300 {
        let key = user(format!("user{index}"));
        let first = storage.put(&key, &Record::new("one"), Precondition::Absent).await.unwrap();
        let again = storage.put(&key, &Record::new("two"), Precondition::Absent).await;
        assert!(matches!(again, Err(StorageError::Conflict)));
        storage.put(&key, &Record::new("three"), Precondition::Version(first)).await.unwrap();
        assert_eq!(storage.get(&key).await.unwrap().unwrap().value.payload, b"three");
    }
    for server in &cluster.servers {
        let keys: Vec<String> = server.command(&["KEYS", "*:github:"]);
        assert!(keys.len() > 50, "{} of 300 records are on one server", keys.len());
    }
    for limit in [1, 7, 1000] {
        let listed = list(&storage, limit).await;
        assert_eq!((listed.len(), listed.into_iter().collect::<BTreeSet<_>>().len()), (300, 300));
    }
    for index in 0..300 {
        assert!(storage.delete(&user(format!("user{index}")), None).await.unwrap());
    }
    assert!(list(&storage, 10).await.is_empty());
    assert_eq!(storage.purge(10).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_exact_during_writes() {
    let cluster = server_or_skip!(Cluster::start(&[]));
    let storage = RedisStorage::connect(&cluster.url()).await.unwrap();
    let there: BTreeSet<_> = (0..200).map(|index| user(format!("there{index}"))).collect();
    for key in &there {
        storage.put(key, &Record::new("x"), Precondition::Absent).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (storage, stop, there) = (storage.clone(), Arc::clone(&stop), there.clone());
        writers.spawn(async move {
            let mut written = 0;
            while !stop.load(Ordering::SeqCst) {
                for (index, key) in there.iter().enumerate().skip(writer * 50).take(50) {
                    let fleeting = user(format!("fleeting{writer}-{index}"));
                    storage.put(key, &Record::new("y"), Precondition::Always).await.unwrap();
                    storage.put(&fleeting, &Record::new("x"), Precondition::Always).await.unwrap();
                    if index % 3 == 0 {
                        storage.delete(&fleeting, None).await.unwrap();
                    }
                    written += 1;
                }
            }
            written
        });
    }
    for round in 0..10 {
        let listed = list(&storage, 1 + round * 7).await;
        let unique: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(unique.len(), listed.len(), "a record is listed twice");
        assert!(there.is_subset(&unique), "a record is not listed");
    }
    stop.store(true, Ordering::SeqCst);
    assert!(writers.join_all().await.into_iter().sum::<usize>() > 200);
}

/// The slot of many records is moved key by key during writes, as `redis-cli --cluster reshard` does.
#[tokio::test(flavor = "multi_thread")]
async fn writes_continue_while_a_slot_moves() {
    let cluster = server_or_skip!(Cluster::start(&[]));
    let storage = RedisStorage::connect(&cluster.url()).await.unwrap();
    let accounts: Vec<_> = (0..40).map(|index| user("alice").with_account(format!("{index}")).unwrap()).collect();
    let plain = user("alice");
    storage.put(&plain, &Record::new("x"), Precondition::Absent).await.unwrap();
    let mut versions = BTreeMap::new();
    for key in &accounts {
        versions.insert(key.clone(), storage.put(key, &Record::new("x"), Precondition::Absent).await.unwrap());
    }
    let slot = slot_of(&cluster, "alice");
    let (from, to) = cluster.owner_and_other(slot);
    let listed = list(&storage, 10).await.len();
    assert_eq!(listed, 41);

    cluster.begin_move(slot, from, to);
    for _ in 0..6 {
        cluster.move_keys(slot, from, to, 7);
        for key in &accounts {
            let found = storage.get(key).await.unwrap().expect("a record is missing while its slot moves");
            assert_eq!(Some(&found.version), versions.get(key));
        }
        assert_eq!(list(&storage, 10).await.len(), 41, "the list while a slot moves");
        for key in accounts.iter().step_by(9) {
            let version = versions[key];
            match storage
                .clone()
                .with_timeout(Duration::from_millis(200))
                .put(key, &Record::new("y"), Precondition::Version(version))
                .await
            {
                Ok(version) => drop(versions.insert(key.clone(), version)),
                // The keys of one script are on two servers.
                Err(StorageError::Unavailable { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    cluster.move_keys(slot, from, to, 1000);
    cluster.end_move(slot, to);
    for key in &accounts {
        assert_eq!(storage.get(key).await.unwrap().map(|found| found.version), versions.get(key).copied());
        storage.put(key, &Record::new("z"), Precondition::Version(versions[key])).await.unwrap();
    }
    assert_eq!(list(&storage, 10).await.len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_server_is_found() {
    let mut cluster = server_or_skip!(Cluster::start(&["--appendonly", "yes", "--appendfsync", "always"]));
    let storage = RedisStorage::connect(&cluster.url()).await.unwrap();
    let keys: Vec<_> = (0..60).map(|index| user(format!("user{index}"))).collect();
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(storage.put(key, &Record::new("x"), Precondition::Absent).await.unwrap());
    }
    cluster.servers[0].kill();
    let mut failed = 0;
    for (key, version) in keys.iter().zip(&versions) {
        match storage.get(key).await {
            Ok(found) => assert_eq!(found.map(|found| found.version), Some(*version)),
            Err(StorageError::Unavailable { .. }) => failed += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(failed > 5, "a third of the records are on the server that was killed");
    let listed = storage.list(&Filter::everything(), PageRequest::default()).await;
    assert!(matches!(listed, Err(StorageError::Unavailable { .. })), "{listed:?}");

    cluster.servers[0].start_again();
    cluster.servers[0].wait_until_it_responds();
    cluster.wait_until_it_is_whole();
    for (key, version) in keys.iter().zip(&versions) {
        assert_eq!(storage.get(key).await.unwrap().map(|found| found.version), Some(*version));
        storage.put(key, &Record::new("y"), Precondition::Version(*version)).await.unwrap();
    }
    assert_eq!(list(&storage, 50).await.len(), 60);
}

/// Adds a replica of the first server, which takes over if that server fails.
async fn replica_of_the_first(cluster: &Cluster) -> Server {
    let replica = Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]).unwrap();
    replica.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &cluster.servers[1].port.to_string()]);
    let first: String = cluster.servers[0].command(&["CLUSTER", "MYID"]);
    eventually("the replica knows its primary", async || {
        replica.command::<String>(&["CLUSTER", "NODES"]).lines().filter(|line| line.contains("connected")).count() == 4
    })
    .await;
    replica.command::<()>(&["CLUSTER", "REPLICATE", &first]);
    eventually("the replica is in step", async || {
        replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    replica
}

/// A replica takes over from its primary, which is killed or stops responding, and the storage has to discover it.
async fn takes_over(fail: fn(&mut Server)) {
    let mut cluster = server_or_skip!(Cluster::start(&["--appendonly", "yes", "--appendfsync", "always"]));
    let _replica = replica_of_the_first(&cluster).await;
    let storage = RedisStorage::connect(&cluster.url()).await.unwrap();
    assert!(!storage.capabilities().durable, "writes that the replica had not received are lost when it takes over");
    let storage = storage.with_timeout(Duration::from_secs(2));
    let keys: Vec<_> = (0..60).map(|index| user(format!("user{index}"))).collect();
    for key in &keys {
        storage.put(key, &Record::new("x"), Precondition::Absent).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    fail(&mut cluster.servers[0]);
    for key in &keys {
        eventually("the replica has taken over", async || storage.get(key).await.is_ok()).await;
        assert!(storage.get(key).await.unwrap().is_some());
        storage.put(key, &Record::new("y"), Precondition::Always).await.unwrap();
    }
    assert_eq!(list(&storage, 50).await.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_takes_over_is_used() {
    takes_over(Server::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_of_an_unresponsive_server_is_used() {
    takes_over(|server| server.signal("STOP")).await;
}
