//! MySQL and MariaDB: every case in a new database, on the server that MYSQL_URL names.
#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod cases;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cases::{Database as _, Remote as _, Server, run_cases, run_remote_cases};
use futures_util::future::join_all;
use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage as _};
use oauth_dance_sqlx::{MigrationStatus, MySqlStorage};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

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
        cases::application_migrations().run(&mut self.connection().await).await.unwrap();
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

fn advice(error: StorageError) -> String {
    match error {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    }
}

/// The first operations on a pool of the application read the settings of the server.
#[tokio::test]
async fn first_calls_on_a_silent_server_end_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mysql://app:pw@{}/app", listener.local_addr().unwrap());
    let pool = MySqlPoolOptions::new().connect_lazy(&url).unwrap();
    let storage = MySqlStorage::from_pool(pool).with_timeout(Duration::from_secs(1));
    let key = TokenKey::new("github", "alice").unwrap();
    let start = Instant::now();
    for result in join_all((0..20).map(|_| storage.get(&key))).await {
        assert!(matches!(result, Err(StorageError::Unavailable { .. })), "{result:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn connections_are_encrypted_and_verified() {
    let Some(database) = Database::empty().await else { return };
    let url = database.url().replace("ssl-mode=DISABLED", "ssl-mode=REQUIRED");
    let storage = MySqlStorage::connect(&url).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();

    let user = url.split_once("://").unwrap().1.split_once(':').unwrap().0;
    database.on_server(format!("CREATE USER {}@127.0.0.1 IDENTIFIED BY 'x' REQUIRE SSL", database.0.database)).await;
    database.on_server(format!("GRANT ALL ON {0}.* TO {0}@127.0.0.1", database.0.database)).await;
    let (_, host) = url.split_once('@').unwrap();
    assert!(user != database.0.database);
    let only_encrypted = format!("mysql://{}:x@{host}", database.0.database);
    MySqlStorage::connect(&only_encrypted).await.unwrap();
    let plain = MySqlStorage::connect(&only_encrypted.replace("REQUIRED", "DISABLED")).await.unwrap_err();
    assert!(advice(plain).contains("rejects"), "a server that requires TLS was used without it");

    // The server's certificate is self-signed.
    let error = MySqlStorage::connect(&url.replace("REQUIRED", "VERIFY_IDENTITY")).await.unwrap_err();
    assert!(advice(error).contains("TLS"));
    database.on_server(format!("DROP USER {}@127.0.0.1", database.0.database)).await;
    database.remove().await;
}

#[tokio::test]
async fn misconfiguration_errors_say_what_to_do() {
    let Some(database) = Database::empty().await else { return };
    let url = database.url();
    let connect = async |url: &str| MySqlStorage::connect(url).await.unwrap_err();
    assert!(advice(connect("mysql://a:b@c:port/d").await).contains("URL"));
    assert!(advice(connect(&url.replacen("oauth_dance:", "oauth_dance:wrong", 1)).await).contains("password"));
    assert!(advice(connect(&url.replace("test_", "no_test_")).await).contains("database"));
    let nobody_there = connect("mysql://a:b@127.0.0.1:1/d").await;
    assert!(matches!(nobody_there, StorageError::Unavailable { .. }), "{nobody_there:?}");
    for bad in ["Tokens", "a.b.c", "x;"] {
        assert!(advice(database.connect().await.with_table(bad).unwrap_err()).contains("name"));
    }
    database.remove().await;
}

#[tokio::test]
async fn table_in_another_database_works() {
    let (Some(here), Some(there)) = (Database::empty().await, Database::empty().await) else { return };
    let storage = here.connect().await.with_table(&format!("{}.tokens", there.0.database)).unwrap();
    storage.migrate().await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert_eq!(there.execute("DELETE FROM tokens").await, 1);
    // The operator named the database, and the application has it in its URL.
    there.connect().await.with_table("tokens").unwrap().migrate().await.unwrap();
    here.remove().await;
    there.remove().await;
}

#[tokio::test]
async fn application_needs_no_privilege_to_create_tables() {
    let Some(database) = Database::empty().await else { return };
    let owner = database.connect().await;
    let name = &database.0.database;
    database.on_server(format!("CREATE USER {name}@127.0.0.1 IDENTIFIED BY 'app'")).await;
    database.on_server(format!("GRANT SELECT ON {name}.* TO {name}@127.0.0.1")).await;
    let url = database.url();
    let (_, host) = url.split_once('@').unwrap();
    let url = format!("mysql://{name}:app@{host}");
    let storage = MySqlStorage::connect(&url).await.unwrap();
    assert!(advice(storage.migrate().await.unwrap_err()).contains("privilege"));

    owner.migrate().await.unwrap();
    let put = storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Always).await;
    assert!(advice(put.unwrap_err()).contains("privilege"));
    database.on_server(format!("GRANT INSERT, UPDATE, DELETE ON {name}.oauth_dance_tokens TO {name}@127.0.0.1")).await;
    let storage = MySqlStorage::connect(&url).await.unwrap();
    storage.migrate().await.unwrap();
    let version = storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Version(version)).await.unwrap();
    storage.purge(10).await.unwrap();
    assert!(storage.delete(&cases::key("alice"), None).await.unwrap());
    database.on_server(format!("DROP USER {name}@127.0.0.1")).await;
    database.remove().await;
}

#[tokio::test]
async fn interrupted_migration_is_completed() {
    let Some(database) = Database::empty().await else { return };
    let storage = database.connect().await;
    storage.migrate().await.unwrap();
    // As if the process had been killed between creating the table and recording it.
    database.execute("DELETE FROM _oauth_dance_tokens_migrations").await;
    storage.put(&cases::key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    storage.migrate().await.unwrap();
    assert!(storage.get(&cases::key("alice")).await.unwrap().is_some());
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn application_pool_works() {
    let Some(database) = Database::empty().await else { return };
    let storage = MySqlStorage::from_pool(sqlx::MySqlPool::connect(&database.url()).await.unwrap());
    storage.migrate().await.unwrap();
    storage.put(&cases::key("counter"), &Record::new("0"), Precondition::Absent).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let storage = storage.clone();
        tasks.spawn(async move { cases::increment(&storage).await });
    }
    tasks.join_all().await;
    assert_eq!(storage.get(&cases::key("counter")).await.unwrap().unwrap().value.payload, b"4");
    let again = storage.put(&cases::key("counter"), &Record::new("0"), Precondition::Absent).await;
    assert!(matches!(again, Err(StorageError::Conflict)), "{again:?}");
    database.remove().await;
}

/// Forwards connections to the server of a URL, with the function `JSON_TABLE` under a name that the server does not know.
/// Returns the URL of the proxy.
async fn without_json_table(url: &str) -> String {
    let (start, rest) = url.rsplit_once("@127.0.0.1:").unwrap();
    let (port, end) = rest.split_once('/').unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{start}@{}/{end}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 20];
                while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
                    if let Some(at) = bytes[..length].windows(10).position(|part| part == b"JSON_TABLE") {
                        bytes[at..at + 10].copy_from_slice(b"NONE_TABLE");
                    }
                    to_server.write_all(&bytes[..length]).await.unwrap();
                }
            });
        }
    });
    url
}

/// MariaDB before 10.6 and some compatible databases have no `JSON_TABLE`, which reads several records at once.
#[tokio::test]
async fn databases_without_json_table_read_one_record_at_a_time() {
    let Some(database) = Database::empty().await else { return };
    let storage = MySqlStorage::connect(&without_json_table(&database.url()).await).await.unwrap();
    storage.migrate().await.unwrap();
    let users: Vec<String> = (0..40).map(|user| user.to_string()).collect();
    for user in &users[1..] {
        storage.put(&cases::key(user), &Record::new(user.as_bytes()), Precondition::Always).await.unwrap();
    }
    for _ in 0..3 {
        let found = join_all(users.iter().map(|user| {
            let (storage, key) = (storage.clone(), cases::key(user));
            async move { storage.get(&key).await.unwrap() }
        }));
        let found: Vec<_> = found.await.into_iter().map(|found| found.map(|found| found.value.payload)).collect();
        assert_eq!(found[0], None);
        assert!(found[1..].iter().zip(&users[1..]).all(|(found, user)| found.as_deref() == Some(user.as_bytes())));
    }
    database.remove().await;
}
