//! SQLite files with unusual paths, and pools of applications with unusual settings.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, unused_imports, unused_macros, unreachable_pub)]
mod cases;

use std::time::Duration;

use cases::key;
use futures_util::future::join_all;
use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenStorage};
use oauth_dance_sqlx::SqliteStorage;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

/// Runs every operation, several of them at the same time.
async fn works(storage: &SqliteStorage) {
    storage.migrate().await.unwrap();
    storage.migrate().await.unwrap();
    let record = Record::new((0..=255).collect::<Vec<u8>>()).with_key_id(Some("k'\\".into()));
    let users: Vec<_> = (0..20).map(|user| key(&format!("user{user}"))).collect();
    let puts = join_all(users.iter().map(|user| storage.put(user, &record, Precondition::Absent))).await;
    for (user, first) in users.iter().zip(puts) {
        let first = first.unwrap();
        assert!(matches!(storage.put(user, &record, Precondition::Absent).await, Err(StorageError::Conflict)));
        storage.put(user, &record, Precondition::Version(first)).await.unwrap();
        assert!(matches!(storage.put(user, &record, Precondition::Version(first)).await, Err(StorageError::Conflict)));
    }
    let found = join_all(users.iter().map(|user| storage.get(user))).await;
    assert!(found.into_iter().all(|found| found.unwrap().unwrap().value == record));
    let list = storage.list(&Filter::everything(), PageRequest { after: None, limit: 15 }).await.unwrap();
    assert_eq!(list.entries.len(), 15);
    let rest = storage.list(&Filter::everything(), PageRequest { after: list.next, limit: 15 }).await.unwrap();
    assert_eq!((rest.entries.len(), rest.next), (5, None));
    storage.put(&users[0], &cases::retained_for(60), Precondition::Always).await.unwrap();
    assert_eq!(storage.purge(10).await.unwrap(), 0);
    let deleted = join_all(users.iter().map(|user| storage.delete(user, None))).await;
    assert!(deleted.into_iter().all(Result::unwrap));
}

#[tokio::test]
async fn special_characters_in_a_path_are_part_of_it() {
    for (name, in_url) in [
        ("with spaces.db", "with spaces.db"),
        ("100%25.db", "100%2525.db"),
        ("a?b#c.db", "a%3Fb%23c.db"),
        ("tökens-\u{1F511}.db", "tökens-\u{1F511}.db"),
        ("quote'\"\\.db", "quote'\"\\.db"),
        ("line\nbreak.db", "line%0Abreak.db"),
        ("file:tokens.db", "file:tokens.db"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/{in_url}", folder.path().display());
        let storage = SqliteStorage::connect(&url).await.unwrap();
        works(&storage).await;
        assert!(folder.path().join(name).exists(), "{name}");
        storage.close().await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
    }
}

#[tokio::test]
async fn settings_of_the_application_have_no_effect() {
    for pragmas in [
        "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON; PRAGMA secure_delete = ON",
        "PRAGMA case_sensitive_like = ON; PRAGMA reverse_unordered_selects = ON; PRAGMA count_changes = ON",
        "PRAGMA full_column_names = ON; PRAGMA short_column_names = OFF; PRAGMA empty_result_callbacks = ON",
        "PRAGMA journal_mode = PERSIST; PRAGMA synchronous = EXTRA; PRAGMA fullfsync = ON",
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA mmap_size = 268435456",
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA automatic_index = OFF",
        "PRAGMA encoding = 'UTF-16le'; PRAGMA auto_vacuum = FULL; PRAGMA page_size = 512",
        "ATTACH ':memory:' AS other; CREATE TABLE other.oauth_dance_tokens (id INTEGER)",
        "PRAGMA busy_timeout = 0; PRAGMA cache_size = 1; PRAGMA temp_store = MEMORY; PRAGMA threads = 4",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("app.db")).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(3).after_connect(move |connection, _| {
            Box::pin(async move { sqlx::raw_sql(pragmas).execute(connection).await.map(drop) })
        });
        let storage = SqliteStorage::from_pool(pool.connect_with(options).await.unwrap()).await.unwrap();
        works(&storage).await;
        let own = SqliteStorage::connect(&format!("sqlite:{}", folder.path().join("app.db").display())).await;
        works(&own.unwrap()).await;
    }
}

#[tokio::test]
async fn exclusive_locking_mode_is_an_error_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tokens.db").display());
    let mut other = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
    let lock = "PRAGMA locking_mode = EXCLUSIVE; CREATE TABLE x (id INTEGER)";
    sqlx::raw_sql(AssertSqlSafe(lock.to_owned())).execute(&mut other).await.unwrap();
    let start = std::time::Instant::now();
    let refused = SqliteStorage::connect(&url).await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    other.close().await.unwrap();
    works(&SqliteStorage::connect(&url).await.unwrap()).await;
}
