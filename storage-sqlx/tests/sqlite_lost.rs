//! SQLite: a file is deleted, moved, replaced or linked while the application runs.
#![cfg(all(feature = "sqlite", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage};
use oauth_dance_sqlx::SqliteStorage;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use tempfile::TempDir;

fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// A folder with an open database that has one record.
async fn open() -> (TempDir, PathBuf, SqliteStorage) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").join("tokens.db");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let storage = SqliteStorage::connect(&url(&path)).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    (folder, path, storage)
}

/// A database from another time.
async fn another(folder: &Path) -> PathBuf {
    let path = folder.join("backup.db");
    let storage = SqliteStorage::connect(&url(&path)).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("old"), Precondition::Absent).await.unwrap();
    storage.close().await;
    path
}

fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, StorageError>, names: &str) {
    let Err(StorageError::Misconfigured { advice, source }) = result else { panic!("{what}: {result:?}") };
    assert!(advice.contains("restart the application"), "{what}: {advice}");
    assert!(source.to_string().contains(names), "{what}: {source} does not name {names}");
}

/// The connections of a pool end with their runtime, and SQLite deletes the log with the last connection.
#[test]
fn storage_works_after_its_first_runtime_has_ended() {
    let in_a_runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for _ in 0..20 {
        let (_folder, _, storage) = in_a_runtime().block_on(open());
        let runtime = in_a_runtime();
        runtime.block_on(storage.put(&key("bob"), &Record::new("x"), Precondition::Absent)).unwrap();
        assert!(runtime.block_on(storage.get(&key("alice"))).unwrap().is_some());
    }
}

/// Every operation reports that the file is lost.
async fn is_lost(storage: &SqliteStorage, names: &str) {
    for when in [Precondition::Always, Precondition::Absent] {
        refused("put", storage.put(&key("bob"), &Record::new("x"), when).await, names);
    }
    refused("delete", storage.delete(&key("alice"), None).await, names);
    refused("get", storage.get(&key("alice")).await, names);
    refused("get of nothing", storage.get(&key("nobody")).await, names);
    refused("list", storage.list(&Filter::everything(), PageRequest::default()).await, names);
    refused("purge", storage.purge(10).await, names);
    refused("migrate", storage.migrate().await, names);
    refused("migrations", storage.migrations().await, names);
}

async fn works(storage: &SqliteStorage) {
    assert!(storage.get(&key("alice")).await.unwrap().is_some());
    storage.put(&key("carol"), &Record::new("x"), Precondition::Always).await.unwrap();
    assert!(storage.delete(&key("carol"), None).await.unwrap());
}

#[tokio::test]
async fn deleted_file_rejects_writes() {
    let (_folder, path, storage) = open().await;
    fs::remove_file(&path).unwrap();
    is_lost(&storage, "tokens.db was deleted").await;
}

#[tokio::test]
async fn recreated_file_rejects_writes() {
    let (_folder, path, storage) = open().await;
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
    }
    let other = SqliteStorage::connect(&url(&path)).await.unwrap();
    other.migrate().await.unwrap();
    is_lost(&storage, "tokens.db was replaced").await;
    assert_eq!(other.get(&key("bob")).await.unwrap(), None);
    // As if the application had been restarted.
    other.put(&key("bob"), &Record::new("x"), Precondition::Absent).await.unwrap();
}

#[tokio::test]
async fn restored_backup_is_detected() {
    let (folder, path, storage) = open().await;
    fs::rename(another(folder.path()).await, &path).unwrap();
    is_lost(&storage, "tokens.db was replaced").await;
}

#[tokio::test]
async fn moved_folder_works_again_when_it_is_back() {
    let (folder, path, storage) = open().await;
    let (here, there) = (path.parent().unwrap(), folder.path().join("elsewhere"));
    for _ in 0..2 {
        fs::rename(here, &there).unwrap();
        is_lost(&storage, "tokens.db was deleted or moved").await;
        fs::rename(&there, here).unwrap();
        works(&storage).await;
    }
}

#[tokio::test]
async fn removed_log_rejects_writes() {
    for suffix in ["-wal", "-shm"] {
        let (_folder, path, storage) = open().await;
        fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
        is_lost(&storage, suffix).await;
    }
}

#[tokio::test]
async fn changed_symbolic_link_is_detected() {
    let (folder, path, storage) = open().await;
    storage.close().await;
    let link = folder.path().join("current");
    symlink(path.parent().unwrap(), &link).unwrap();
    let storage = SqliteStorage::connect(&url(&link.join("tokens.db"))).await.unwrap();
    works(&storage).await;
    // The name of the file and the link identify the same database.
    let direct = SqliteStorage::connect(&url(&path)).await.unwrap();
    direct.put(&key("dave"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert!(storage.get(&key("dave")).await.unwrap().is_some());

    let next = folder.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::rename(another(folder.path()).await, next.join("tokens.db")).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&next, &link).unwrap();
    is_lost(&storage, "current/tokens.db was replaced").await;
    works(&direct).await;
}

#[tokio::test]
async fn several_hard_links_are_rejected() {
    let (folder, path, storage) = open().await;
    let other = folder.path().join("other.db");
    fs::hard_link(&path, &other).unwrap();
    for name in [&path, &other] {
        let refused = SqliteStorage::connect(&url(name)).await;
        let Err(StorageError::Misconfigured { advice, source }) = refused else { panic!("{refused:?}") };
        assert!(advice.contains("hard links") && source.to_string().contains("has 2 names"), "{advice}: {source}");
    }
    // A temporary hard link of a backup does not affect open storages.
    works(&storage).await;
    storage.close().await;
    let refused = SqliteStorage::from_pool(sqlx::SqlitePool::connect(&url(&other)).await.unwrap()).await;
    assert!(matches!(refused, Err(StorageError::Misconfigured { .. })), "{refused:?}");
    fs::remove_file(&other).unwrap();
    works(&SqliteStorage::connect(&url(&path)).await.unwrap()).await;
}

#[tokio::test]
async fn application_pool_detects_lost_files() {
    for journal in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).journal_mode(journal);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let storage = SqliteStorage::from_pool(pool).await.unwrap();
        storage.migrate().await.unwrap();
        storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
        fs::rename(&path, folder.path().join("moved.db")).unwrap();
        is_lost(&storage, "tokens.db was deleted").await;
        fs::rename(folder.path().join("moved.db"), &path).unwrap();
        works(&storage).await;
    }
}

/// Every acknowledged write is readable after the file is reopened, however the file was replaced in the meantime.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_to_a_lost_file_is_acknowledged() {
    for round in 0..20 {
        let (folder, path, storage) = open().await;
        let moved = folder.path().join("moved");
        let writer = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0_u32.. {
                let user = format!("user{number}");
                match storage.put(&key(&user), &Record::new("x"), Precondition::Absent).await {
                    Ok(_) => acknowledged.push(user),
                    Err(_) => break,
                }
            }
            acknowledged
        });
        tokio::time::sleep(std::time::Duration::from_millis(round % 7 + 3)).await;
        fs::rename(path.parent().unwrap(), &moved).unwrap();
        let acknowledged = writer.await.unwrap();
        fs::rename(&moved, path.parent().unwrap()).unwrap();
        let reopened = SqliteStorage::connect(&url(&path)).await.unwrap();
        for user in acknowledged {
            assert!(reopened.get(&key(&user)).await.unwrap().is_some(), "{user} is missing");
        }
    }
}
