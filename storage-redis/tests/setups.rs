//! Servers with other configurations, in which everything has to work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage};
use oauth_dance_redis::RedisStorage;
use support::{Cluster, Server};

fn user(name: &str) -> TokenKey {
    TokenKey::new("github", name).unwrap()
}

async fn works(storage: &RedisStorage) {
    storage.check().await.unwrap();
    for number in 0..20 {
        let key = user(&format!("user{number}"));
        let version = storage.put(&key, &Record::new("x"), Precondition::Absent).await.unwrap();
        assert_eq!(storage.get(&key).await.unwrap().unwrap().version, version);
        assert!(storage.delete(&key, Some(version)).await.unwrap());
    }
}

/// `timeout 1` in the configuration of a server. The connection is closed while the only thread of the test sleeps,
/// so the closed connection is not noticed before the write.
#[tokio::test]
async fn writes_succeed_after_the_server_closed_idle_connections() {
    let server = server_or_skip!(Server::start(&["--timeout", "1"]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    for round in 0..3 {
        storage.put(&user("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
        let mut looker = server.try_connect().unwrap();
        let clients =
            |looker: &mut redis::Connection| -> String { redis::cmd("CLIENT").arg("LIST").query(looker).unwrap() };
        let start = std::time::Instant::now();
        while clients(&mut looker).lines().count() > 1 {
            assert!(start.elapsed().as_secs() < 20, "the server does not close the idle connection");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let written = storage.put(&user("alice"), &Record::new("x"), Precondition::Always).await;
        assert!(written.is_ok(), "round {round}: {written:?}");
    }
}

#[tokio::test]
async fn ipv6_addresses_are_accepted() {
    let server = server_or_skip!(Server::start(&["--bind", "127.0.0.1", "::1"]));
    works(&RedisStorage::connect(&format!("redis://[::1]:{}/", server.port)).await.unwrap()).await;
    let refused = RedisStorage::connect("redis://[::1]:1/").await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn cluster_with_ipv6_addresses_works() {
    let cluster = server_or_skip!(Cluster::start(&["--bind", "127.0.0.1", "::1", "--cluster-announce-ip", "::1"]));
    let slots: redis::Value = cluster.servers[0].command(&["CLUSTER", "SLOTS"]);
    assert!(format!("{slots:?}").contains("::1"), "{slots:?}");
    works(&RedisStorage::connect(&format!("redis+cluster://[::1]:{}", cluster.servers[0].port)).await.unwrap()).await;
}

#[tokio::test]
async fn databases_are_separate_and_must_exist() {
    let server = server_or_skip!(Server::start(&["--databases", "4"]));
    let [one, three] = [1, 3].map(|database| format!("{}{database}", server.url()));
    let one = RedisStorage::connect(&one).await.unwrap();
    let three = RedisStorage::connect(&three).await.unwrap();
    works(&one).await;
    one.put(&user("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert_eq!(three.get(&user("alice")).await.unwrap(), None);
    let missing = RedisStorage::connect(&format!("{}9", server.url())).await;
    assert!(matches!(missing, Err(StorageError::Misconfigured { .. })), "{missing:?}");
}

#[tokio::test]
async fn server_without_resp3_is_rejected() {
    let server = server_or_skip!(Server::start(&["--rename-command", "HELLO", ""]));
    let refused = RedisStorage::connect(&server.url()).await;
    let Err(StorageError::Misconfigured { advice, .. }) = refused else { panic!("{refused:?}") };
    assert!(advice.contains("RESP3"), "{advice}");
}
