//! PostgreSQL: every case in a database of its own, on the server that POSTGRES_URL names.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod cases;

use std::time::Duration;

use cases::{Database as _, Server, run_cases, run_remote_cases};
use oauth_dance_core::{StorageError, TokenKey};
use oauth_dance_sqlx::{MigrationStatus, PostgresStorage};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _};

struct Database(Server);

impl Database {
    async fn on_server(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.0.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.0.database_url()).await.unwrap()
    }
}

impl cases::Database for Database {
    type Storage = PostgresStorage;

    const REFUSE_ROWS: &str = "ALTER TABLE oauth_dance_tokens ADD CONSTRAINT refuse CHECK (octet_length(payload) = 0)";

    async fn empty() -> Option<Self> {
        let database = Self(Server::named_by("POSTGRES_URL")?);
        database.on_server(format!("CREATE DATABASE {}", database.0.database)).await;
        Some(database)
    }

    async fn connect(&self) -> PostgresStorage {
        PostgresStorage::connect(&self.0.database_url()).await.unwrap()
    }

    async fn migrate(storage: &PostgresStorage) -> Result<(), StorageError> {
        storage.migrate().await
    }

    async fn applied(storage: &PostgresStorage) -> Vec<MigrationStatus> {
        storage.migrations().await.unwrap()
    }

    fn with_table(storage: PostgresStorage, name: &str) -> PostgresStorage {
        storage.with_table(name).unwrap()
    }

    async fn execute(&self, sql: &str) -> u64 {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection().await).await.unwrap().rows_affected()
    }

    async fn migrate_application(&self) {
        let sql = "CREATE TABLE notes (id integer PRIMARY KEY)".into_sql_str();
        let own = Migration::new(7, "notes".into(), MigrationType::Simple, sql, false);
        Migrator::with_migrations(vec![own]).run(&mut self.connection().await).await.unwrap();
    }

    fn literal(bytes: &[u8]) -> String {
        format!("'\\x{}'::bytea", cases::hex(bytes))
    }

    async fn remove(self) {
        self.on_server(format!("DROP DATABASE {} WITH (FORCE)", self.0.database)).await;
    }
}

impl cases::Remote for Database {
    type Transaction = PgConnection;

    fn url(&self) -> String {
        self.0.database_url()
    }

    async fn open(url: &str) -> Result<PostgresStorage, StorageError> {
        PostgresStorage::connect(url).await
    }

    fn with_timeout(storage: PostgresStorage, timeout: Duration) -> PostgresStorage {
        storage.with_timeout(timeout)
    }

    async fn end_sessions(&self) {
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(self.execute(others).await > 0);
    }

    async fn hold(&self, key: &TokenKey) -> PgConnection {
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
