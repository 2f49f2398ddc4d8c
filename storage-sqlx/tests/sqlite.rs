//! SQLite: every case on a real file.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]
// For servers only.
#![allow(dead_code, unused_imports, unused_macros)]

mod cases;

use std::str::FromStr as _;

use cases::run_cases;
use oauth_dance_core::StorageError;
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
