//! PostgreSQL and MariaDB are killed during writes, on private servers of this test.
#![cfg(all(feature = "postgres", feature = "mysql"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[allow(dead_code, unused_imports, unused_macros, unreachable_pub)]
mod cases;
#[allow(unreachable_pub)]
mod private_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage, Version};
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage};
use private_server::PrivateServer;
use tokio::task::JoinSet;

const WRITERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_crash_loses_no_acknowledged_write() {
    let Some(server) = PrivateServer::start("postgres", "POSTGRES_URL", "POSTGRES_URL", &[]) else { return };
    let storage = PostgresStorage::connect(&server.url).await.unwrap();
    storage.migrate().await.unwrap();
    crash_while_writing(&server, storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_crash_loses_no_acknowledged_write() {
    let Some(server) = PrivateServer::start("mariadb", "MYSQL_URL", "MYSQL_URL", &[]) else { return };
    let storage = MySqlStorage::connect(&server.url).await.unwrap();
    storage.migrate().await.unwrap();
    crash_while_writing(&server, storage).await;
}

async fn crash_while_writing<S: TokenStorage + Clone>(server: &PrivateServer, storage: S) {
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU32::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_on(storage.clone(), writer, Arc::clone(&stop), Arc::clone(&written)));
    }
    for _ in 0..2 {
        let before = written.load(Ordering::SeqCst);
        until(|| written.load(Ordering::SeqCst) > before + 100).await;
        server.crash().await;
    }
    let before = written.load(Ordering::SeqCst);
    until(|| written.load(Ordering::SeqCst) > before + 100).await;
    stop.store(true, Ordering::SeqCst);

    let mut ambiguous = 0;
    for chain in writers.join_all().await {
        ambiguous += chain.ambiguous;
        let found = storage.get(&chain.key).await.unwrap().unwrap();
        assert_eq!(found.version, chain.version, "an acknowledged write is missing, or the stored write is unknown");
    }
    println!("{}: {} writes, {ambiguous} of them ambiguous", server.kind, written.load(Ordering::SeqCst));
    assert!(ambiguous > 0, "no write was cut off, so nothing was tested");
}

async fn until(mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(60), "the storage does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Chain {
    key: TokenKey,
    version: Version,
    ambiguous: u32,
}

/// Writes a chain of versions, each over the previous one, through all faults.
async fn write_on(storage: impl TokenStorage, writer: usize, stop: Arc<AtomicBool>, written: Arc<AtomicU32>) -> Chain {
    let key = TokenKey::new("github", format!("user{writer}")).unwrap();
    let mut number = 0_u32;
    let version = storage.put(&key, &Record::new("0"), Precondition::Absent).await.unwrap();
    let mut chain = Chain { key, version, ambiguous: 0 };
    while !stop.load(Ordering::SeqCst) {
        let next = Record::new((number + 1).to_string());
        match storage.put(&chain.key, &next, Precondition::Version(chain.version)).await {
            Ok(version) => {
                chain.version = version;
                number += 1;
                written.fetch_add(1, Ordering::SeqCst);
            }
            Err(StorageError::Unavailable { .. }) => {}
            Err(StorageError::Ambiguous { .. }) => {
                chain.ambiguous += 1;
                // A read returns either the old record or the new one.
                let found = loop {
                    if let Ok(found) = storage.get(&chain.key).await {
                        break found.expect("a record is missing");
                    }
                };
                if found.version != chain.version {
                    assert_eq!(found.value, next, "neither the old record nor the new one");
                    chain.version = found.version;
                    number += 1;
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    chain
}
