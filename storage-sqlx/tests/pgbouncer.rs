//! PostgreSQL behind PgBouncer in transaction mode, where each statement of a client may run on another connection of
//! the server: every case in a new database, through the PgBouncer that PGBOUNCER_URL names.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod cases;

use std::time::{Duration, Instant};

use cases::{Database as _, Remote as _, Server, key, run_cases, run_remote_cases};
use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _};
use oauth_dance_sqlx::{MigrationStatus, PostgresStorage};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;

/// A database that tests reach through PgBouncer and directly.
struct Database {
    pooled: Server,
    direct: Server,
}

impl Database {
    async fn on_server(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.direct.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.direct.database_url()).await.unwrap()
    }

    /// A pool like that of an application, with the statement names of sqlx.
    fn pool(&self) -> PgPool {
        let options: PgConnectOptions = self.url().parse().unwrap();
        PgPoolOptions::new().max_connections(10).connect_lazy_with(options.extra_float_digits(None))
    }
}

impl cases::Database for Database {
    type Storage = PostgresStorage;

    const REFUSE_ROWS: &str = "ALTER TABLE oauth_dance_tokens ADD CONSTRAINT refuse CHECK (octet_length(payload) = 0)";

    async fn empty() -> Option<Self> {
        let pooled = Server::named_by("PGBOUNCER_URL")?;
        let mut direct = Server::named_by("PGBOUNCER_SERVER_URL")?;
        direct.database.clone_from(&pooled.database);
        let database = Self { pooled, direct };
        database.on_server(format!("CREATE DATABASE {}", database.direct.database)).await;
        Some(database)
    }

    async fn connect(&self) -> PostgresStorage {
        PostgresStorage::connect(&self.url()).await.unwrap()
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
        cases::application_migrations().run(&mut self.connection().await).await.unwrap();
    }

    fn literal(bytes: &[u8]) -> String {
        format!("'\\x{}'::bytea", cases::hex(bytes))
    }

    async fn remove(self) {
        self.on_server(format!("DROP DATABASE {} WITH (FORCE)", self.direct.database)).await;
    }
}

impl cases::Remote for Database {
    type Transaction = PgConnection;

    fn url(&self) -> String {
        self.pooled.database_url()
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

#[tokio::test(flavor = "multi_thread")]
async fn read_never_runs_the_statement_of_another_client() {
    let Some(database) = Database::empty().await else { return };
    let direct = PostgresStorage::connect(&database.direct.database_url()).await.unwrap();
    direct.migrate().await.unwrap();
    for number in 0..200 {
        direct.put(&key(&format!("user{number}")), &Record::new("x"), Precondition::Absent).await.unwrap();
    }
    let (reader, deleter) = (PostgresStorage::from_pool(database.pool()), PostgresStorage::from_pool(database.pool()));
    let other = PostgresStorage::from_pool(database.pool()).with_table("other").unwrap();
    other.migrate().await.unwrap();
    for number in 0..200 {
        other.put(&key(&format!("user{number}")), &Record::new("other"), Precondition::Absent).await.unwrap();
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..4_u32 {
        let (storage, expected) = if task % 2 == 0 { (&reader, "x") } else { (&other, "other") };
        let (reader, deleter) = (storage.clone(), deleter.clone());
        tasks.spawn(async move {
            let mut failures = 0;
            let mut number = task;
            while start.elapsed() < Duration::from_secs(2) {
                number = (number + 1) % 200;
                let found = reader.get(&key(&format!("user{number}"))).await;
                failures += u32::from(!matches!(found, Ok(Some(found)) if found.value == Record::new(expected)));
            }
            failures
        });
        tasks.spawn(async move {
            let mut failures = 0;
            while start.elapsed() < Duration::from_secs(2) {
                failures += u32::from(!matches!(deleter.delete(&key("no such user"), None).await, Ok(false)));
            }
            failures
        });
    }
    let failures = tasks.join_all().await;
    let left = database.execute("UPDATE oauth_dance_tokens SET created_at = 1").await;
    assert_eq!((left, failures), (200, vec![0; 8]));
    database.remove().await;
}

/// A session of its own has prepared statements, whose parameters have numbers. Here the values are in the text.
#[tokio::test]
async fn pooler_is_detected() {
    let Some(database) = Database::empty().await else { return };
    for variable in ["PGBOUNCER_URL", "PGBOUNCER_IGNORING_URL"] {
        let mut pooler = Server::named_by(variable).unwrap();
        pooler.database.clone_from(&database.direct.database);
        let storage = PostgresStorage::connect(&pooler.database_url()).await.unwrap();
        storage.migrate().await.unwrap();
        for user in ["alice", "bob"] {
            storage.put(&key(user), &Record::new("x"), Precondition::Always).await.unwrap();
            storage.get(&key(user)).await.unwrap().unwrap();
        }
        let last = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let last: Vec<String> = sqlx::query_scalar(last).fetch_all(&mut database.connection().await).await.unwrap();
        assert!(!last.is_empty() && last.iter().all(|query| !query.contains("$1")), "{variable}: {last:#?}");
        storage.close().await;
    }
    database.remove().await;
}

#[tokio::test]
async fn statement_mode_works() {
    let Some(server) = Server::named_by("PGBOUNCER_URL") else { return };
    let url = server.url.replace("/postgres?", "/statement_mode?");
    let storage = PostgresStorage::connect(&url).await.unwrap().with_table(&server.database).unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let storage = storage.clone();
        tasks.spawn(async move { storage.migrate().await });
    }
    for migrated in tasks.join_all().await {
        migrated.unwrap();
    }
    let version = storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    storage.put(&key("alice"), &Record::new("y"), Precondition::Version(version)).await.unwrap();
    assert_eq!(storage.get(&key("alice")).await.unwrap().unwrap().value, Record::new("y"));
    assert_eq!(storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries.len(), 1);
    assert_eq!(storage.purge(10).await.unwrap(), 0);
    assert!(storage.delete(&key("alice"), None).await.unwrap());
    storage.close().await;
    let table = &server.database;
    let sql = AssertSqlSafe(format!("DROP TABLE {table}, _{table}_migrations"));
    sqlx::raw_sql(sql)
        .execute(&mut PgConnection::connect(&Server::named_by("PGBOUNCER_SERVER_URL").unwrap().url).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn pgbouncer_errors_name_the_fix() {
    let Some(database) = Database::empty().await else { return };
    let advice = |result: Result<PostgresStorage, StorageError>| match result.unwrap_err() {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    };
    let url = database.url();
    let options = PostgresStorage::connect(&format!("{url}&options=-c%20work_mem=1MB")).await;
    assert!(advice(options).contains("remove `options`"));
    let wrong = PostgresStorage::connect(&url.replacen("oauth_dance:", "oauth_dance:wrong", 1)).await;
    assert!(advice(wrong).contains("password"));
    let unknown = PostgresStorage::connect(&url.replacen("oauth_dance:", "nobody:", 1)).await;
    assert!(advice(unknown).contains("user"));

    // A pool like that of an application which has not followed the advice.
    let pool = PgPool::connect_lazy(&url).unwrap();
    match PostgresStorage::from_pool(pool).get(&key("alice")).await {
        Err(StorageError::Misconfigured { advice, .. }) => assert!(advice.contains("extra_float_digits(None)")),
        other => panic!("{other:?}"),
    }
    database.remove().await;
}
