//! SQLite: every case on a real file.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]
// For servers only.
#![allow(dead_code, unused_imports, unused_macros)]

mod cases;

use std::str::FromStr as _;

use cases::run_cases;
use futures_util::future::join_all;
use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage as _};
use oauth_dance_sqlx::{MigrationStatus, SqliteStorage};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _};

struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("tokens.db").display())
    }

    async fn connection(&self) -> SqliteConnection {
        SqliteConnectOptions::from_str(&self.url()).unwrap().create_if_missing(true).connect().await.unwrap()
    }
}

impl cases::Database for File {
    type Storage = SqliteStorage;

    const REFUSE_ROWS: &str = "CREATE TRIGGER refuse BEFORE INSERT ON oauth_dance_tokens \
        BEGIN SELECT RAISE(ABORT, 'refused'); END";

    async fn empty() -> Option<Self> {
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    async fn connect(&self) -> SqliteStorage {
        SqliteStorage::connect(&self.url()).await.unwrap()
    }

    async fn migrate(storage: &SqliteStorage) -> Result<(), StorageError> {
        storage.migrate().await
    }

    async fn applied(storage: &SqliteStorage) -> Vec<MigrationStatus> {
        storage.migrations().await.unwrap()
    }

    fn with_table(storage: SqliteStorage, name: &str) -> SqliteStorage {
        storage.with_table(name).unwrap()
    }

    async fn execute(&self, sql: &str) -> u64 {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection().await).await.unwrap().rows_affected()
    }

    async fn migrate_application(&self) {
        cases::application_migrations().run(&mut self.connection().await).await.unwrap();
    }
}

run_cases!(File);

/// Writes at the same time share a transaction. One that fails must not take the others with it, even if SQLite rolls the
/// whole transaction back, and the connection must remain usable.
#[tokio::test]
async fn rejected_write_fails_alone() {
    let file = <File as cases::Database>::empty().await.unwrap();
    let storage = <File as cases::Database>::connect(&file).await;
    storage.migrate().await.unwrap();
    for (user, action) in [("fails", "FAIL"), ("aborts", "ABORT"), ("rolls-back", "ROLLBACK")] {
        let trigger = format!(
            "CREATE TRIGGER \"{user}\" BEFORE INSERT ON oauth_dance_tokens \
                WHEN NEW.user_id = CAST('{user}' AS BLOB) BEGIN SELECT RAISE({action}, 'rejected'); END"
        );
        <File as cases::Database>::execute(&file, &trigger).await;
    }
    for round in 0..10 {
        let users = ["a", "fails", "b", "c", "aborts", "d", "e", "rolls-back", "f", "g"];
        let puts = users.map(|user| {
            let (storage, record) = (storage.clone(), Record::new(format!("{user} {round}")));
            async move { storage.put(&TokenKey::new("github", user).unwrap(), &record, Precondition::Always).await }
        });
        for (user, result) in users.iter().zip(join_all(puts).await) {
            let found = storage.get(&TokenKey::new("github", *user).unwrap()).await.unwrap();
            if user.len() > 1 {
                assert!(matches!(result, Err(StorageError::Unavailable { .. })), "{user}: {result:?}");
                assert_eq!(found, None, "{user}");
                continue;
            }
            let found = found.unwrap();
            assert_eq!((found.value.payload, found.version), (format!("{user} {round}").into_bytes(), result.unwrap()));
        }
    }
}

/// The conditions of writes that share a transaction are evaluated one after the other.
#[tokio::test]
async fn writes_of_one_record_at_the_same_time_have_one_winner() {
    let file = <File as cases::Database>::empty().await.unwrap();
    let storage = <File as cases::Database>::connect(&file).await;
    storage.migrate().await.unwrap();
    let key = TokenKey::new("github", "alice").unwrap();
    let mut current = storage.put(&key, &Record::new("first"), Precondition::Absent).await.unwrap();
    for _ in 0..20 {
        let puts = (0..30).map(|writer| {
            let (storage, key) = (storage.clone(), key.clone());
            async move { storage.put(&key, &Record::new([writer]), Precondition::Version(current)).await }
        });
        let results = join_all(puts).await;
        let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let lost = |result: &Result<_, _>| matches!(result, Ok(_) | Err(StorageError::Conflict));
        assert!(results.iter().all(lost), "{results:?}");
        current = *winners[0];
        assert_eq!(storage.get(&key).await.unwrap().unwrap().version, current);
    }
}
