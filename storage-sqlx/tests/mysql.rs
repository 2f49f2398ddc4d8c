//! MySQL and MariaDB: every case in a database of its own, on the server that MYSQL_URL names.
#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod cases;

use std::time::Duration;

use cases::{Database as _, Server, run_cases, run_remote_cases};
use oauth_dance_core::{StorageError, TokenKey};
use oauth_dance_sqlx::{MigrationStatus, MySqlStorage};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, SqlSafeStr as _};

struct Database(Server);

impl Database {
    async fn on_server(&self, sql: String) {
        let mut connection = MySqlConnection::connect(&self.0.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }

    async fn connection(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.0.database_url()).await.unwrap()
    }
}

impl cases::Database for Database {
    type Storage = MySqlStorage;

    const REFUSE_ROWS: &str = "ALTER TABLE oauth_dance_tokens ADD CONSTRAINT refuse CHECK (octet_length(payload) = 0)";

    async fn empty() -> Option<Self> {
        let database = Self(Server::named_by("MYSQL_URL")?);
        database.on_server(format!("CREATE DATABASE {}", database.0.database)).await;
        Some(database)
    }

    async fn connect(&self) -> MySqlStorage {
        MySqlStorage::connect(&self.0.database_url()).await.unwrap()
    }

    async fn migrate(storage: &MySqlStorage) -> Result<(), StorageError> {
        storage.migrate().await
    }

    async fn applied(storage: &MySqlStorage) -> Vec<MigrationStatus> {
        storage.migrations().await.unwrap()
    }

    fn with_table(storage: MySqlStorage, name: &str) -> MySqlStorage {
        storage.with_table(name).unwrap()
    }

    async fn execute(&self, sql: &str) -> u64 {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection().await).await.unwrap().rows_affected()
    }

    async fn migrate_application(&self) {
        let sql = "CREATE TABLE notes (id INTEGER PRIMARY KEY)".into_sql_str();
        let own = Migration::new(7, "notes".into(), MigrationType::Simple, sql, false);
        Migrator::with_migrations(vec![own]).run(&mut self.connection().await).await.unwrap();
    }

    async fn remove(self) {
        self.on_server(format!("DROP DATABASE {}", self.0.database)).await;
    }
}

impl cases::Remote for Database {
    type Transaction = MySqlConnection;

    fn url(&self) -> String {
        self.0.database_url()
    }

    async fn open(url: &str) -> Result<MySqlStorage, StorageError> {
        MySqlStorage::connect(url).await
    }

    fn with_timeout(storage: MySqlStorage, timeout: Duration) -> MySqlStorage {
        storage.with_timeout(timeout)
    }

    async fn end_sessions(&self) {
        let mut connection = self.connection().await;
        let others = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
            WHERE db = DATABASE() AND id <> CONNECTION_ID()";
        let others: Vec<i64> = sqlx::query_scalar(others).fetch_all(&mut connection).await.unwrap();
        assert!(!others.is_empty());
        for id in others {
            sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut connection).await.unwrap();
        }
    }

    async fn hold(&self, key: &TokenKey) -> MySqlConnection {
        let mut connection = self.connection().await;
        let [tenant, user, provider, account] = key.parts().map(|part| Self::literal(part.as_bytes()));
        let sql = format!(
            "BEGIN; SELECT * FROM oauth_dance_tokens WHERE tenant = {tenant} AND user_id = {user} \
                AND provider = {provider} AND account = {account} FOR UPDATE"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection
    }
}

run_remote_cases!(Database);
