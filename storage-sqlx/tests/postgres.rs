//! PostgreSQL: every case in a new database, on the server that POSTGRES_URL names.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod cases;

use std::time::Duration;

use cases::{Database as _, Remote as _, Server, run_cases, run_remote_cases};
use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage as _};
use oauth_dance_sqlx::{MigrationState, MigrationStatus, PostgresStorage};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

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
        cases::application_migrations().run(&mut self.connection().await).await.unwrap();
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

fn advice(error: StorageError) -> String {
    match error {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serialization_failures_are_retried() {
    let Some(database) = Database::empty().await else { return };
    let storage = database.connect().await;
    storage.migrate().await.unwrap();
    storage.put(&cases::key("counter"), &Record::new("0"), Precondition::Absent).await.unwrap();

    let options: PgConnectOptions = database.url().parse().unwrap();
    let pool = PgPoolOptions::new()
        .connect_with(options.options([("default_transaction_isolation", "serializable")]))
        .await
        .unwrap();
    let strict = PostgresStorage::from_pool(pool);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let storage = strict.clone();
        tasks.spawn(async move {
            for _ in 0..25 {
                cases::increment(&storage).await;
                storage.put(&cases::key("same"), &Record::new("x"), Precondition::Always).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(storage.get(&cases::key("counter")).await.unwrap().unwrap().value.payload, b"200");

    // A write that waits for a row certainly fails if the row has changed.
    let others = sqlx::PgPool::connect(&database.url()).await.unwrap();
    let mut change = others.begin().await.unwrap();
    sqlx::raw_sql("UPDATE oauth_dance_tokens SET created_at = 0").execute(&mut *change).await.unwrap();
    let write = tokio::spawn(async move {
        let version = strict.get(&cases::key("same")).await.unwrap().unwrap().version;
        strict.put(&cases::key("same"), &Record::new("y"), Precondition::Version(version)).await
    });
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&others).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    change.commit().await.unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(storage.get(&cases::key("same")).await.unwrap().unwrap().value.payload, b"y");
    others.close().await;
    database.remove().await;
}

#[tokio::test]
async fn transactions_of_the_application_are_unaffected() {
    let Some(database) = Database::empty().await else { return };
    let pool = sqlx::PgPool::connect(&database.url()).await.unwrap();
    let storage = PostgresStorage::from_pool(pool.clone());
    storage.migrate().await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes (id integer)").execute(&pool).await.unwrap();

    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql("INSERT INTO notes VALUES (1)").execute(&mut *transaction).await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(
        database.execute("DELETE FROM notes").await,
        0,
        "a write of the storage does not commit the application's transaction"
    );
    assert!(
        storage.get(&cases::key("alice")).await.unwrap().is_some(),
        "the write is not rolled back with that transaction"
    );
    drop((storage, pool));
    database.remove().await;
}

#[tokio::test]
async fn connections_are_encrypted_and_verified() {
    let Some(database) = Database::empty().await else { return };
    let url = database.url().replace("sslmode=disable", "sslmode=require");
    let storage = PostgresStorage::connect(&url).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let plain = "DELETE FROM oauth_dance_tokens WHERE EXISTS (SELECT FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND NOT ssl)";
    assert_eq!(database.execute(plain).await, 0);
    assert_eq!(database.execute(&plain.replace("NOT ssl", "ssl")).await, 1);

    // The server's certificate is self-signed.
    let error = PostgresStorage::connect(&url.replace("require", "verify-full")).await.unwrap_err();
    assert!(advice(error).contains("TLS"));
    database.remove().await;
}

#[tokio::test]
async fn misconfiguration_errors_say_what_to_do() {
    let Some(database) = Database::empty().await else { return };
    let url = database.url();
    let connect = async |url: &str| PostgresStorage::connect(url).await.unwrap_err();
    assert!(advice(connect("postgres://a:b@c:port/d").await).contains("URL"));
    assert!(advice(connect(&url.replacen("oauth_dance:", "oauth_dance:wrong", 1)).await).contains("password"));
    assert!(advice(connect(&url.replace("test_", "no_test_")).await).contains("database"));
    let nobody_there = connect("postgres://a:b@127.0.0.1:1/d").await;
    assert!(matches!(nobody_there, StorageError::Unavailable { .. }), "{nobody_there:?}");
    for bad in ["Tokens", "a.b.c", "x;"] {
        assert!(advice(database.connect().await.with_table(bad).unwrap_err()).contains("name"));
    }
    database.remove().await;
}

#[tokio::test]
async fn missing_schema_is_created() {
    let Some(database) = Database::empty().await else { return };
    let plain = database.connect().await;
    plain.migrate().await.unwrap();
    let storage = database.connect().await.with_table("auth.oauth_dance_tokens").unwrap();
    assert!(storage.migrations().await.unwrap().iter().all(|status| status.state == MigrationState::Pending));
    assert!(advice(storage.get(&cases::key("alice")).await.unwrap_err()).contains("migrations"));
    storage.migrate().await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert_eq!(database.execute("DELETE FROM auth.oauth_dance_tokens").await, 1);
    assert_eq!(plain.get(&cases::key("alice")).await.unwrap(), None);
    database.remove().await;
}

#[tokio::test]
async fn application_needs_no_privilege_to_create_tables() {
    let Some(database) = Database::empty().await else { return };
    let owner = database.connect().await;
    let role = format!("{}_app", database.0.database);
    database
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'app'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        .await;
    let (_, host) = database.0.database_url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let storage = PostgresStorage::connect(&format!("postgres://{role}:app@{host}")).await.unwrap();
    assert!(advice(storage.migrate().await.unwrap_err()).contains("privilege"));

    owner.migrate().await.unwrap();
    assert!(advice(storage.get(&cases::key("alice")).await.unwrap_err()).contains("privilege"));
    database
        .execute(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON oauth_dance_tokens TO {role}; \
            GRANT SELECT ON _oauth_dance_tokens_migrations TO {role}"
        ))
        .await;
    storage.migrate().await.unwrap();
    let version = storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Version(version)).await.unwrap();
    storage.purge(10).await.unwrap();
    assert!(storage.delete(&cases::key("alice"), None).await.unwrap());
    storage.close().await;
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.remove().await;
}
