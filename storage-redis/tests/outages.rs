//! A server that is killed, suspended, disconnected or still loading.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version};
use oauth_dance_redis::RedisStorage;
use support::{Proxy, Server, eventually};
use tokio::task::JoinSet;

fn user(name: impl Into<String>) -> TokenKey {
    TokenKey::new("github", name).unwrap()
}

async fn write(storage: &RedisStorage, name: &str) -> Result<Version, StorageError> {
    storage.put(&user(name), &Record::new("x"), Precondition::Always).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_loses_no_acknowledged_write() {
    let mut server = server_or_skip!(Server::start_durable());
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    assert!(storage.capabilities().durable);
    for round in 0..3 {
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            let storage = storage.clone();
            writers.spawn(async move {
                let key = user(format!("{round}-{writer}"));
                let (mut acknowledged, mut number) = (None, 0);
                loop {
                    match storage.put(&key, &Record::new(format!("{number}")), Precondition::Always).await {
                        Ok(_) => acknowledged = Some(number),
                        Err(StorageError::Ambiguous { .. }) => return (key, acknowledged, Some(number)),
                        Err(StorageError::Unavailable { .. }) => return (key, acknowledged, None),
                        Err(other) => panic!("{other:?}"),
                    }
                    number += 1;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        let written = writers.join_all().await;
        let start = Instant::now();
        assert!(matches!(storage.get(&user("x")).await, Err(StorageError::Unavailable { .. })));
        assert!(start.elapsed() < Duration::from_secs(2), "a refused connection took {:?}", start.elapsed());

        server.start_again();
        server.wait_until_it_responds();
        for (key, acknowledged, maybe) in written {
            let found: Option<i32> = storage
                .get(&key)
                .await
                .unwrap()
                .map(|found| String::from_utf8(found.value.payload).unwrap().parse().unwrap());
            assert!(acknowledged.is_some(), "nothing was written before the server was killed");
            assert!(found == acknowledged || found == maybe, "{acknowledged:?}, maybe {maybe:?}: {found:?}");
        }
        write(&storage, "after").await.unwrap();
    }
}

/// A write on a connection that broke while idle was certainly not sent.
#[tokio::test(flavor = "multi_thread")]
async fn first_write_after_a_restart_succeeds() {
    let mut server = server_or_skip!(Server::start_durable());
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    for _ in 0..5 {
        write(&storage, "alice").await.unwrap();
        server.restart();
        write(&storage, "alice").await.unwrap();
        server.restart();
        assert!(storage.get(&user("alice")).await.unwrap().is_some());
        server.restart();
        storage.list(&Filter::everything(), PageRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn unreachable_server_is_an_immediate_error() {
    let mut server = server_or_skip!(Server::start(&[]));
    server.kill();
    let start = Instant::now();
    let connected = RedisStorage::connect(&server.url()).await;
    assert!(matches!(connected, Err(StorageError::Unavailable { .. })), "{connected:?}");
    let storage = RedisStorage::lazy(&server.url()).unwrap();
    for _ in 0..20 {
        assert!(matches!(storage.get(&user("a")).await, Err(StorageError::Unavailable { .. })));
        assert!(matches!(write(&storage, "a").await, Err(StorageError::Unavailable { .. })), "it was not sent");
        assert!(matches!(storage.delete(&user("a"), None).await, Err(StorageError::Unavailable { .. })));
        assert!(storage.list(&Filter::everything(), PageRequest::default()).await.is_err());
        assert!(storage.purge(10).await.is_err());
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!storage.capabilities().durable);
    server.start_again();
    eventually("the storage works", async || write(&storage, "a").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_server_is_an_error_within_the_timeout() {
    let server = server_or_skip!(Server::start(&[]));
    let timeout = Duration::from_millis(600);
    let storage = RedisStorage::connect(&server.url()).await.unwrap().with_timeout(timeout);
    write(&storage, "alice").await.unwrap();
    server.signal("STOP");
    let (start, alice, everything) = (Instant::now(), user("alice"), Filter::everything());
    let (read, written, listed) =
        tokio::join!(storage.get(&alice), write(&storage, "alice"), storage.list(&everything, PageRequest::default()));
    let took = start.elapsed();
    assert!(matches!(read, Err(StorageError::Unavailable { .. })), "{read:?}");
    assert!(matches!(written, Err(StorageError::Ambiguous { .. })), "{written:?}");
    assert!(matches!(listed, Err(StorageError::Unavailable { .. })), "{listed:?}");
    assert!((timeout..timeout * 4).contains(&took), "{took:?}");

    // The operating system accepts the new connection, but the server does not.
    let start = Instant::now();
    let written = write(&storage, "alice").await;
    assert!(matches!(written, Err(StorageError::Unavailable { .. })), "it was not sent: {written:?}");
    assert!(start.elapsed() < timeout * 4, "{:?}", start.elapsed());
    server.signal("CONT");
    write(&storage, "alice").await.unwrap();
}

#[tokio::test]
async fn write_without_a_response_is_ambiguous_and_not_resent() {
    let server = server_or_skip!(Server::start(&[]));
    let proxy = Proxy::before(server.port).await;
    let storage = RedisStorage::connect(&proxy.url()).await.unwrap();
    // The server gets the scripts.
    storage.delete(&user("alice"), None).await.unwrap();
    let version = write(&storage, "alice").await.unwrap();

    proxy.cut_replies(true);
    let cut = storage.put(&user("alice"), &Record::new("y"), Precondition::Version(version)).await;
    assert!(matches!(cut, Err(StorageError::Ambiguous { .. })), "{cut:?}");
    proxy.cut_replies(false);
    assert_eq!(
        storage.get(&user("alice")).await.unwrap().unwrap().value.payload,
        b"y",
        "the server executed the write"
    );

    proxy.cut_replies(true);
    let cut = storage.delete(&user("alice"), None).await;
    assert!(matches!(cut, Err(StorageError::Ambiguous { .. })), "{cut:?}");
    let read = storage.get(&user("alice")).await;
    assert!(matches!(read, Err(StorageError::Unavailable { .. })), "{read:?}");
    proxy.cut_replies(false);
    assert_eq!(storage.get(&user("alice")).await.unwrap(), None);
}

#[tokio::test]
async fn loading_server_is_unavailable() {
    let mut server = server_or_skip!(Server::start(&["--appendonly", "yes", "--key-load-delay", "200"]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let record = Record::new(vec![b'x'; 4096]);
    for index in 0..2000 {
        storage.put(&user(format!("{index}")), &record, Precondition::Absent).await.unwrap();
    }
    server.kill();
    server.start_again();
    let mut loading = 0;
    eventually("the server has loaded", async || match storage.get(&user("7")).await {
        Ok(found) => {
            assert_eq!(found.unwrap().value, record);
            true
        }
        Err(error @ StorageError::Unavailable { .. }) => {
            loading += usize::from(format!("{error:?}").contains("LOADING"));
            false
        }
        Err(other) => panic!("{other:?}"),
    })
    .await;
    assert!(loading > 0, "the server was never seen loading");
}

#[tokio::test]
async fn dropped_calls_leave_the_storage_usable() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    for turn in 0..500 {
        let record = Record::new(vec![b'x'; 10_000]);
        let (key, patience) = (user("alice"), Duration::from_micros(turn * 2));
        let put = storage.put(&key, &record, Precondition::Always);
        let _ = tokio::time::timeout(patience, put).await;
        let _ = tokio::time::timeout(patience, storage.list(&Filter::everything(), PageRequest::default())).await;
    }
    let version = write(&storage, "alice").await.unwrap();
    assert_eq!(storage.get(&user("alice")).await.unwrap().unwrap().version, version);
    let clients: String = server.command(&["CLIENT", "LIST"]);
    assert!(clients.lines().count() <= 2, "connections are leaked: {clients}");
}

/// An application may use one storage from several runtimes in sequence.
#[test]
fn storage_works_after_its_first_runtime_has_ended() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::lazy(&server.url()).unwrap();
    for _ in 0..3 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { write(&storage, "alice").await.unwrap() });
        runtime.shutdown_background();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A runtime that is no longer driven must not stop the others.
#[test]
fn idle_runtime_does_not_block_others() {
    let server = server_or_skip!(Server::start(&[]));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for is_open in [false, true] {
        let storage = RedisStorage::lazy(&server.url()).unwrap().with_timeout(Duration::from_secs(4));
        let (idle, driven) = (runtime(), runtime());
        let alice = user("alice");
        idle.block_on(async {
            let mut read = std::pin::pin!(storage.get(&alice));
            // It starts to connect.
            assert!(futures_util::poll!(&mut read).is_pending());
            if is_open {
                read.await.unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(600));
        driven.block_on(async {
            if is_open {
                storage.get(&user("alice")).await.unwrap();
            }
            write(&storage, "alice").await.unwrap();
            assert!(storage.get(&user("alice")).await.unwrap().is_some());
        });
        drop(idle);
        driven.block_on(write(&storage, "alice")).unwrap();
    }
}
