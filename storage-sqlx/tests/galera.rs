//! A Galera cluster of three nodes, started by the project's own script: `tests/servers/start galera`.
#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[allow(dead_code, unused_imports, unused_macros, unreachable_pub)]
mod cases;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cases::{hex, key};
use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version};
use oauth_dance_sqlx::MySqlStorage;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool};
use tokio::task::JoinSet;

/// A database for one test.
struct Cluster {
    nodes: Vec<String>,
    proxy: String,
    database: String,
}

impl Cluster {
    async fn empty() -> Option<Self> {
        let variable = "GALERA_NODE_URLS";
        let Ok(nodes) = std::env::var(variable) else { return skip(variable) };
        let database = format!("test_{}", hex(&oauth_dance_core::random_bytes::<6>()));
        let own = |url: &str| url.replace("/oauth_dance?", &format!("/{database}?"));
        let cluster = Self {
            nodes: nodes.split(' ').map(own).collect(),
            proxy: own(&std::env::var("GALERA_URL").unwrap()),
            database: database.clone(),
        };
        let mut first = MySqlConnection::connect(nodes.split(' ').next().unwrap()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut first).await.unwrap();
        for node in &cluster.nodes {
            // A table or database that one node creates appears on other nodes with a delay.
            until(async || MySqlConnection::connect(node).await.is_ok()).await;
        }
        Some(cluster)
    }

    async fn storages(&self) -> Vec<MySqlStorage> {
        let mut storages = Vec::new();
        for node in &self.nodes {
            storages.push(MySqlStorage::connect(node).await.unwrap());
        }
        storages
    }

    async fn remove(self) {
        let mut first = MySqlConnection::connect(&self.nodes[0]).await.unwrap();
        let sql = format!("DROP DATABASE {}", self.database);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut first).await.unwrap();
    }
}

/// Unlike other servers, these are only started on request.
fn skip<T>(variable: &str) -> Option<T> {
    assert!(std::env::var_os("REQUIRE_GALERA").is_none(), "{variable} is not set; see tests/servers/start");
    println!("SKIPPED: {variable} is not set; run: eval \"$(tests/servers/start galera)\"");
    None
}

async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !reached().await {
        assert!(start.elapsed() < Duration::from_secs(60), "the condition is not met after a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_can_migrate_concurrently() {
    for _ in 0..10 {
        let Some(cluster) = Cluster::empty().await else { return };
        let mut tasks = JoinSet::new();
        for storage in [cluster.storages().await, cluster.storages().await].concat() {
            tasks.spawn(async move { storage.migrate().await });
        }
        for result in tasks.join_all().await {
            result.unwrap();
        }
        for storage in cluster.storages().await {
            let statuses = storage.migrations().await.unwrap();
            assert!(
                statuses.iter().all(|found| found.state == oauth_dance_sqlx::MigrationState::Applied),
                "{statuses:?}"
            );
            storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
        }
        cluster.remove().await;
    }
}

/// All nodes see the writes that one node acknowledged, in reads and conditions.
async fn nodes_agree(storages: &[MySqlStorage]) {
    for round in 0..100 {
        let [here, there, elsewhere] = storages else { panic!("three nodes") };
        let user = key(&format!("user{round}"));
        let first = here.put(&user, &Record::new("1"), Precondition::Absent).await.unwrap();
        let found = there.get(&user).await.unwrap().expect("a record that another node acknowledged is missing");
        assert_eq!(found.version, first);
        let again = elsewhere.put(&user, &Record::new("2"), Precondition::Absent).await;
        assert!(matches!(again, Err(StorageError::Conflict)), "{again:?}");
        let second = there.put(&user, &Record::new("2"), Precondition::Version(first)).await.unwrap();
        let third = elsewhere.put(&user, &Record::new("3"), Precondition::Version(second)).await.unwrap();
        let old = here.put(&user, &Record::new("4"), Precondition::Version(second)).await;
        assert!(matches!(old, Err(StorageError::Conflict)), "{old:?}");
        assert!(
            here.delete(&user, Some(third)).await.unwrap(),
            "the version that another node acknowledged is missing"
        );
        there.put(&user, &Record::new("5"), Precondition::Absent).await.unwrap();
        assert!(elsewhere.delete(&user, None).await.unwrap(), "a record that another node acknowledged is missing");
        assert_eq!(here.get(&user).await.unwrap(), None);
    }
}

/// Gives the appliers of every node work, so that the nodes are behind.
fn keep_busy(cluster: &Cluster) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for (number, node) in cluster.nodes.clone().into_iter().enumerate() {
        load.spawn(async move {
            let storage = MySqlStorage::connect(&node).await.unwrap();
            for user in 0_u64.. {
                let record = Record::new(vec![7; 20_000]);
                let _ = storage.put(&key(&format!("load{number}-{}", user % 50)), &record, Precondition::Always).await;
            }
        });
    }
    load
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_see_writes_that_another_acknowledged() {
    let Some(cluster) = Cluster::empty().await else { return };
    let storages = cluster.storages().await;
    storages[0].migrate().await.unwrap();
    let load = keep_busy(&cluster);
    nodes_agree(&storages).await;
    drop(load);
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn application_pools_see_writes_of_other_nodes() {
    let Some(cluster) = Cluster::empty().await else { return };
    let pools = cluster.nodes.iter().map(|node| MySqlPool::connect_lazy(node).unwrap());
    let storages: Vec<_> = pools.map(MySqlStorage::from_pool).collect();
    storages[0].migrate().await.unwrap();
    let load = keep_busy(&cluster);
    nodes_agree(&storages).await;
    let renamed: Vec<_> = storages.into_iter().map(|storage| storage.with_table("others").unwrap()).collect();
    renamed[1].migrate().await.unwrap();
    nodes_agree(&renamed).await;
    drop(load);
    cluster.remove().await;
}

/// Concurrent increments of one counter through all nodes conflict in certification, and are exact.
#[tokio::test(flavor = "multi_thread")]
async fn certification_failures_are_conflicts() {
    let Some(cluster) = Cluster::empty().await else { return };
    let storages = cluster.storages().await;
    storages[0].migrate().await.unwrap();
    storages[0].put(&key("counter"), &Record::new("0"), Precondition::Absent).await.unwrap();
    let mut tasks = JoinSet::new();
    for storage in [storages.clone(), storages.clone()].concat() {
        tasks.spawn(async move {
            for _ in 0..20 {
                cases::increment(&storage).await;
            }
        });
    }
    tasks.join_all().await;
    let total = storages[1].get(&key("counter")).await.unwrap().unwrap().value.payload;
    assert_eq!(String::from_utf8(total).unwrap(), "120");
    cluster.remove().await;
}

/// Kills one node after the other during writes through the proxy: no acknowledged write is lost.
#[tokio::test(flavor = "multi_thread")]
async fn killed_node_loses_no_acknowledged_write() {
    let Some(cluster) = Cluster::empty().await else { return };
    MySqlStorage::connect(&cluster.nodes[0]).await.unwrap().migrate().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU32::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let storage = MySqlStorage::connect(&cluster.proxy).await.unwrap();
        writers.spawn(write_on(storage, writer, Arc::clone(&stop), Arc::clone(&written)));
    }
    for node in 1..=3_u32 {
        let before = written.load(Ordering::SeqCst);
        until(async || written.load(Ordering::SeqCst) > before + 200).await;
        restart(node).await;
        let back = &cluster.nodes[node as usize - 1];
        until(async || is_ready(back).await).await;
    }
    stop.store(true, Ordering::SeqCst);
    for (user, version) in writers.join_all().await {
        for node in &cluster.nodes {
            let found = MySqlStorage::connect(node).await.unwrap().get(&user).await.unwrap().unwrap();
            assert_eq!(found.version, version, "an acknowledged write is missing, or the stored write is unknown");
        }
    }
    println!("{} writes", written.load(Ordering::SeqCst));
    cluster.remove().await;
}

async fn is_ready(node: &str) -> bool {
    let Ok(storage) = MySqlStorage::connect(node).await else { return false };
    storage.get(&key("nobody")).await.is_ok()
}

/// Kills a node, and restarts it after two seconds.
async fn restart(number: u32) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/restart");
    let mut restart = Command::new(script);
    restart.args(["galera", "2", &number.to_string()]);
    let status = tokio::task::spawn_blocking(move || restart.status()).await.unwrap();
    assert!(status.unwrap().success());
}

/// Writes a chain of versions, each over the previous one, through all faults. Returns the last one.
async fn write_on(
    storage: MySqlStorage,
    writer: usize,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU32>,
) -> (TokenKey, Version) {
    let user = key(&format!("user{writer}"));
    let mut last = storage.put(&user, &Record::new("0"), Precondition::Absent).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        match storage.put(&user, &Record::new("x"), Precondition::Version(last)).await {
            Ok(version) => {
                last = version;
                written.fetch_add(1, Ordering::SeqCst);
            }
            // A write without an effect is retried.
            Err(StorageError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(StorageError::Ambiguous { .. }) => {
                last = loop {
                    match storage.get(&user).await {
                        Ok(found) => break found.expect("a record is missing").version,
                        Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    }
                };
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    (user, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_is_not_ready_is_unavailable() {
    let Some(cluster) = Cluster::empty().await else { return };
    let storage = MySqlStorage::connect(&cluster.nodes[0]).await.unwrap();
    storage.migrate().await.unwrap();
    let theirs = MySqlStorage::from_pool(MySqlPool::connect(&cluster.nodes[0]).await.unwrap());
    let version = theirs.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    // The node rejects reads and writes like a disconnected one (1047), but accepts administrators.
    let mut administrator = MySqlConnection::connect(&cluster.nodes[0]).await.unwrap();
    let set = async |connection: &mut MySqlConnection, reject: &str| {
        let sql = format!("SET GLOBAL wsrep_reject_queries = {reject}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
    };
    set(&mut administrator, "ALL").await;
    for storage in [&storage, &theirs] {
        let read = storage.get(&key("alice")).await;
        assert!(matches!(read, Err(StorageError::Unavailable { .. })), "{read:?}");
        for when in [Precondition::Always, Precondition::Absent, Precondition::Version(version)] {
            let write = storage.put(&key("alice"), &Record::new("y"), when).await;
            assert!(matches!(write, Err(StorageError::Unavailable { .. })), "{write:?}");
        }
        let delete = storage.delete(&key("alice"), None).await;
        assert!(matches!(delete, Err(StorageError::Unavailable { .. })), "{delete:?}");
    }
    set(&mut administrator, "NONE").await;
    assert_eq!(storage.get(&key("alice")).await.unwrap().unwrap().version, version);
    cluster.remove().await;
}
