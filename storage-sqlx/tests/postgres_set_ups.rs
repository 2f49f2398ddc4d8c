//! PostgreSQL with other configurations: settings of the server, the database and the user, proxies, a standby.
//!
//! Each configuration works, or is an error that says what to change. None loses a record, and none reports an existing
//! record as missing.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports, unused_macros, reason = "the cases are those of other files")]

mod cases;

use std::time::Duration;

use cases::{Server, kept_for, key};
use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenStorage as _};
use oauth_dance_sqlx::PostgresStorage;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::net::{TcpListener, TcpStream};

/// A new database on the server that a variable names.
struct Database(Server);

impl Database {
    async fn with(variable: &str, end: &str) -> Option<Self> {
        let server = Server::named_by(variable)?;
        run(&server.url, &format!("CREATE DATABASE {} {end}", server.database)).await;
        Some(Self(server))
    }

    async fn new() -> Option<Self> {
        Self::with("POSTGRES_URL", "").await
    }

    fn url(&self) -> String {
        self.0.database_url()
    }

    async fn execute(&self, sql: &str) {
        run(&self.url(), sql).await;
    }

    async fn set(&self, setting: &str) {
        self.execute(&format!("ALTER DATABASE {} SET {setting}", self.0.database)).await;
    }

    /// Storages on their own pool and on an application pool.
    async fn both(&self) -> [PostgresStorage; 2] {
        let options: PgConnectOptions = self.url().parse().unwrap();
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
        [PostgresStorage::connect(&self.url()).await.unwrap(), PostgresStorage::from_pool(pool)]
    }

    async fn remove(self) {
        run(&self.0.url, &format!("DROP DATABASE {} WITH (FORCE)", self.0.database)).await;
    }
}

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn advice(result: Result<impl std::fmt::Debug, StorageError>) -> String {
    match result.unwrap_err() {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    }
}

/// Runs every statement with bytes that are special in SQL.
async fn works(storage: &PostgresStorage) {
    storage.migrate().await.unwrap();
    storage.migrate().await.unwrap();
    assert!(storage.migrations().await.unwrap().iter().all(|known| format!("{known:?}").contains("Applied")));
    let every: Vec<u8> = (0..=255).collect();
    for user in ["alice", r"a'; --\", "ä\u{1F642}?$1"] {
        let (user, record) = (key(user), Record::new(every.clone()).with_key_id(Some("k'\\".into())));
        assert_eq!(storage.get(&user).await.unwrap(), None);
        let first = storage.put(&user, &record, Precondition::Absent).await.unwrap();
        assert!(matches!(storage.put(&user, &record, Precondition::Absent).await, Err(StorageError::Conflict)));
        assert_eq!(storage.get(&user).await.unwrap().unwrap().value, record);
        let second = storage.put(&user, &record, Precondition::Version(first)).await.unwrap();
        assert!(matches!(storage.put(&user, &record, Precondition::Version(first)).await, Err(StorageError::Conflict)));
        assert!(!storage.delete(&user, Some(first)).await.unwrap());
        assert!(storage.delete(&user, Some(second)).await.unwrap());
        storage.put(&user, &record, Precondition::Always).await.unwrap();
        storage.put(&user, &kept_for(60), Precondition::Always).await.unwrap();
    }
    let mut found = 0;
    for filter in [Filter::everything(), Filter::everything().tenant(None).user("alice").provider("github")] {
        let mut page = PageRequest { after: None, limit: 1 };
        loop {
            let list = storage.list(&filter, page).await.unwrap();
            found += list.entries.len();
            let Some(next) = list.next else { break };
            page = PageRequest { after: Some(next), limit: 1 };
        }
    }
    assert_eq!(found, 4);
    storage.purge(10).await.unwrap();
    for user in ["alice", r"a'; --\", "ä\u{1F642}?$1"] {
        assert!(storage.delete(&key(user), None).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_settings_have_no_effect() {
    let Some(database) = Database::new().await else { return };
    for setting in [
        "standard_conforming_strings = off",
        "bytea_output = escape",
        "row_security = on",
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "statement_timeout = '5s'",
        "lock_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "TimeZone = 'America/St_Johns'",
        "DateStyle = 'German'",
        "client_encoding = 'LATIN1'",
        "search_path = elsewhere, public",
        "search_path = public, pg_catalog",
        "plan_cache_mode = force_generic_plan",
        "default_transaction_deferrable = on",
        "check_function_bodies = off",
    ] {
        let (name, _) = setting.split_once(" = ").unwrap();
        database.set(setting).await;
        for storage in database.both().await {
            works(&storage).await;
            storage.close().await;
        }
        database.set(&format!("{name} = DEFAULT")).await;
        database.execute("DROP TABLE oauth_dance_tokens, _oauth_dance_tokens_migrations").await;
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_database_encoding_works() {
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let end = format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        let Some(database) = Database::with("POSTGRES_URL", &end).await else { return };
        for storage in database.both().await {
            works(&storage).await;
            storage.close().await;
        }
        database.remove().await;
    }
}

/// Reads a record by the statement for several keys.
async fn together(storage: &PostgresStorage, user: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let users = [key("nobody"), key(user), key("no one")];
    let mut found = futures_util::future::join_all(users.iter().map(|user| storage.get(user))).await;
    found.swap_remove(1).map(|found| found.map(|found| found.value.payload))
}

/// An application pool with one connection.
async fn one_connection(url: &str) -> (PgPool, PostgresStorage) {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await.unwrap();
    (pool.clone(), PostgresStorage::from_pool(pool))
}

async fn prepared(pool: &PgPool) -> Vec<(String, String, i64)> {
    let names = "SELECT name, statement, generic_plans FROM pg_prepared_statements";
    let rows = sqlx::raw_sql(names).fetch_all(pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn statement_name_is_derived_from_its_text() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    let other = storage.clone().with_table("auth.oauth_dance_tokens").unwrap();
    for storage in [&storage, &other] {
        works(storage).await;
        assert_eq!(together(storage, "alice").await.unwrap(), None);
    }
    let left = prepared(&pool).await;
    assert_eq!(left.len(), 4, "{left:?}");
    for (name, statement, _) in left {
        let (settings, text) = statement.split_once(&format!("PREPARE {name} ")).unwrap();
        assert!(settings.split_terminator("; ").all(|setting| setting.starts_with("SET LOCAL ")), "{settings}");
        assert_eq!(name, format!("oauth_dance_{}", cases::hex(&Sha256::digest(text)[..16])));
        assert!(!text.contains("decode") && !text.contains("E'"), "a value: {text}");
    }
    pool.close().await;
    database.remove().await;
}

/// The planner may choose the primary key or the index of users. Either has to contain the whole key, because a user may
/// have many records.
#[tokio::test]
async fn read_is_planned_once_with_the_whole_key() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    storage.migrate().await.unwrap();
    for (user, account) in [("('user' || n)::bytea", "''"), ("'busy'", "n::text::bytea")] {
        let rows = format!(
            "INSERT INTO oauth_dance_tokens (tenant, user_id, provider, account, version, payload, created_at, updated_at) \
            SELECT '', {user}, 'github', {account}, decode(repeat('ab', 16), 'hex'), 'x', 1, 1 FROM generate_series(1, 2000) n"
        );
        database.execute(&rows).await;
    }
    for analyze in ["SELECT 1", "ANALYZE oauth_dance_tokens"] {
        database.execute(analyze).await;
        sqlx::raw_sql("DEALLOCATE ALL").execute(&pool).await.unwrap();
        for number in 1..=10 {
            assert!(storage.get(&key(&format!("user{number}"))).await.unwrap().is_some());
            assert!(together(&storage, "user7").await.unwrap().is_some());
        }
        for (name, statement, generic) in prepared(&pool).await {
            assert!(generic >= 3, "{generic}: {statement}");
            let (values, compared) = match statement.contains("unnest") {
                true => ("'{}', '{}', '{}', '{}'", "wanted."),
                false => ("'', 'a', 'b', ''", "$"),
            };
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE {name}({values})"));
            let plan = sqlx::raw_sql(explain).fetch_all(&pool).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
            let condition = plan.iter().find(|line| line.contains("Index Cond")).unwrap();
            for column in ["tenant", "user_id", "provider", "account"] {
                assert!(condition.contains(&format!("({column} = {compared}")), "{plan:#?}");
            }
        }
    }
    pool.close().await;
    database.remove().await;
}

#[tokio::test]
async fn read_succeeds_when_its_name_is_unknown() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    let on_connection = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let payload = async || {
        let both = together(&storage, "alice").await.unwrap();
        assert_eq!(storage.get(&key("alice")).await.unwrap().map(|found| found.value.payload), both);
        both
    };
    for change in [
        "SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "ALTER TABLE oauth_dance_tokens ADD COLUMN more integer",
        "SET plan_cache_mode = force_generic_plan",
        "SET search_path = public, pg_catalog",
    ] {
        on_connection(change).await;
        for _ in 0..2 {
            assert_eq!(payload().await.unwrap(), b"x", "{change}");
        }
    }

    // Changes the type of a column, and changes it back.
    on_connection("ALTER TABLE oauth_dance_tokens ALTER key_id TYPE text USING NULL").await;
    for _ in 0..3 {
        assert!(matches!(storage.get(&key("alice")).await, Ok(_) | Err(StorageError::Corrupt { .. })));
        assert!(matches!(together(&storage, "alice").await, Ok(_) | Err(StorageError::Corrupt { .. })));
    }
    on_connection("ALTER TABLE oauth_dance_tokens ALTER key_id TYPE bytea USING NULL").await;
    assert_eq!(payload().await.unwrap(), b"x");

    // Another table of the same name, by another search_path and as a replacement.
    on_connection("CREATE SCHEMA other; CREATE TABLE other.oauth_dance_tokens (LIKE oauth_dance_tokens)").await;
    for (path, found) in [("other", None), ("public", Some(b"x".to_vec())), ("other, public", None)] {
        on_connection(&format!("SET search_path = {path}")).await;
        assert_eq!(payload().await, found, "{path}");
    }
    on_connection("DROP TABLE other.oauth_dance_tokens").await;
    assert_eq!(payload().await.unwrap(), b"x");
    on_connection("ALTER TABLE oauth_dance_tokens RENAME TO old").await;
    assert!(advice(storage.get(&key("alice")).await).contains("migrations"));
    on_connection("ALTER TABLE old RENAME TO oauth_dance_tokens").await;
    assert_eq!(payload().await.unwrap(), b"x");
    pool.close().await;
    database.remove().await;
}

#[tokio::test]
async fn rows_hidden_after_the_first_read_are_an_error() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    let on_connection = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let role = format!("{}_app", database.0.database);
    on_connection(&format!("CREATE ROLE {role}; GRANT ALL ON oauth_dance_tokens TO {role}")).await;
    let hide = "CREATE POLICY few ON oauth_dance_tokens USING (user_id = 'bob')";
    on_connection(hide).await;
    // Prepared by a role without a policy, and by one with a policy.
    for first in ["RESET ROLE", &format!("SET ROLE {role}")] {
        on_connection(&format!("DEALLOCATE ALL; ALTER TABLE oauth_dance_tokens DISABLE ROW LEVEL SECURITY; {first}"))
            .await;
        for _ in 0..8 {
            assert!(storage.get(&key("alice")).await.unwrap().is_some());
            assert!(together(&storage, "alice").await.unwrap().is_some());
        }
        on_connection("RESET ROLE").await;
        on_connection("ALTER TABLE oauth_dance_tokens ENABLE ROW LEVEL SECURITY").await;
        for _ in 0..2 {
            on_connection(&format!("SET ROLE {role}")).await;
            assert!(advice(storage.get(&key("alice")).await).contains("row-level security"), "{first}");
            assert!(advice(together(&storage, "alice").await).contains("row-level security"), "{first}");
            on_connection("RESET ROLE").await;
            assert!(together(&storage, "alice").await.unwrap().is_some());
            assert!(storage.get(&key("alice")).await.unwrap().is_some());
        }
    }
    // Prepared by a client without settings, with the hidden rows left out.
    let left = prepared(&pool).await;
    assert_eq!(left.len(), 2, "{left:?}");
    for (name, statement, _) in left {
        let (_, prepare) = statement.split_once("PREPARE").unwrap();
        on_connection(&format!("SET ROLE {role}; DEALLOCATE {name}; PREPARE{prepare}")).await;
    }
    assert!(advice(storage.get(&key("alice")).await).contains("row-level security"));
    assert!(advice(together(&storage, "alice").await).contains("row-level security"));
    on_connection(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await;
    pool.close().await;
    database.remove().await;
}

#[tokio::test]
async fn rows_hidden_by_row_level_security_are_an_error() {
    let Some(database) = Database::new().await else { return };
    let [owner, _] = database.both().await;
    owner.migrate().await.unwrap();
    owner.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let role = format!("{}_app", database.0.database);
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'app'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; \
            ALTER TABLE oauth_dance_tokens ENABLE ROW LEVEL SECURITY; \
            ALTER TABLE _oauth_dance_tokens_migrations ENABLE ROW LEVEL SECURITY; \
            CREATE POLICY few ON oauth_dance_tokens USING (user_id = 'bob')"
        ))
        .await;
    let (_, host) = database.url().split_once('@').map(|(login, host)| (login.to_owned(), host.to_owned())).unwrap();
    let url = format!("postgres://{role}:app@{host}");
    let own = PostgresStorage::connect(&url).await.unwrap();
    let shared = PostgresStorage::from_pool(PgPool::connect(&url).await.unwrap());
    for storage in [own, shared] {
        assert!(advice(storage.get(&key("alice")).await).contains("row-level security"));
        assert!(advice(together(&storage, "alice").await).contains("row-level security"));
        assert!(
            advice(storage.put(&key("alice"), &Record::new("y"), Precondition::Absent).await).contains("BYPASSRLS")
        );
        assert!(advice(storage.delete(&key("alice"), None).await).contains("row-level security"));
        assert!(advice(storage.list(&Filter::everything(), PageRequest::default()).await).contains("row-level"));
        assert!(advice(storage.migrate().await).contains("row-level security"), "and not pending");
        storage.close().await;
    }
    assert!(owner.get(&key("alice")).await.unwrap().is_some());
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.remove().await;
}

#[tokio::test]
async fn search_path_without_schemas_names_the_fix() {
    let Some(database) = Database::new().await else { return };
    for path in ["''", "elsewhere", "pg_catalog"] {
        database.set(&format!("search_path = {path}")).await;
        for storage in database.both().await {
            assert!(advice(storage.get(&key("alice")).await).contains("search_path"), "{path}");
            if path != "pg_catalog" {
                assert!(advice(storage.migrate().await).contains("with_table(\"schema.table\")"), "{path}");
            }
            let storage = storage.with_table("public.oauth_dance_tokens").unwrap();
            works(&storage).await;
            storage.close().await;
        }
        database.execute("DROP TABLE public.oauth_dance_tokens, public._oauth_dance_tokens_migrations").await;
    }
    database.remove().await;
}

#[tokio::test]
async fn different_table_of_the_same_name_is_rejected() {
    let Some(database) = Database::new().await else { return };
    for columns in [
        "id integer",
        "tenant text, user_id text, provider text, account text, version text, payload text, expires_at bigint, \
            retain_until bigint, key_id text, created_at bigint, updated_at bigint",
        "tenant bytea, user_id bytea, provider bytea, account bytea, version bytea, payload bytea, expires_at bigint, \
            retain_until bigint, key_id bytea, created_at bigint, updated_at bigint",
    ] {
        database.execute(&format!("CREATE TABLE oauth_dance_tokens ({columns})")).await;
        for storage in database.both().await {
            let (key, record) = (key("alice"), Record::new("x"));
            assert!(advice(storage.put(&key, &record, Precondition::Always).await).contains("another"), "{columns}");
            assert!(advice(storage.put(&key, &record, Precondition::Absent).await).contains("another"), "{columns}");
            assert!(advice(storage.migrate().await).contains("with_table"), "{columns}");
            storage.close().await;
        }
        database.execute("DROP TABLE oauth_dance_tokens").await;
    }
    database.remove().await;
}

#[tokio::test]
async fn read_only_database_names_the_fix() {
    let Some(database) = Database::new().await else { return };
    let [writer, _] = database.both().await;
    writer.migrate().await.unwrap();
    writer.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    database.set("default_transaction_read_only = on").await;
    for storage in database.both().await {
        assert!(storage.get(&key("alice")).await.unwrap().is_some());
        let put = storage.put(&key("alice"), &Record::new("y"), Precondition::Always).await;
        assert!(advice(put).contains("default_transaction_read_only"));
        assert!(advice(storage.delete(&key("alice"), None).await).contains("default_transaction_read_only"));
        storage.close().await;
    }
    run(&database.0.url, &format!("ALTER DATABASE {} RESET ALL", database.0.database)).await;
    database.remove().await;
}

#[tokio::test]
async fn standby_is_rejected_for_reads_and_writes() {
    let Some(standby) = Server::named_by("POSTGRES_STANDBY_URL") else { return };
    let Some(primary) = Database::with("POSTGRES_HAPROXY_URL", "").await else { return };
    let writer = PostgresStorage::connect(&primary.url()).await.unwrap();
    writer.migrate().await.unwrap();
    writer.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let url = standby.url.replace("/postgres?", &format!("/{}?", primary.0.database));
    let storage = loop {
        // The standby follows with a delay.
        match PostgresStorage::connect(&url).await {
            Ok(storage) if storage.migrate().await.is_ok() => break storage,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert!(advice(storage.get(&key("alice")).await).contains("standby"));
    assert!(advice(storage.get(&key("nobody")).await).contains("standby"), "and not None");
    assert!(advice(together(&storage, "nobody").await).contains("standby"), "and not None");
    assert!(advice(storage.list(&Filter::everything(), PageRequest::default()).await).contains("primary"));
    assert!(advice(storage.put(&key("alice"), &Record::new("y"), Precondition::Always).await).contains("standby"));
    assert!(advice(storage.delete(&key("alice"), None).await).contains("standby"));
    storage.close().await;
    writer.close().await;
    primary.remove().await;
}

/// The proxy closes them after two seconds.
#[tokio::test]
async fn first_write_after_a_broken_connection_succeeds() {
    let Some(database) = Database::with("POSTGRES_HAPROXY_URL", "").await else { return };
    for storage in database.both().await {
        storage.migrate().await.unwrap();
        for round in 0..2 {
            // Several connections, each of which is closed.
            let version = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
            let reads = (0..8).map(|_| async { storage.get(&key("alice")).await.unwrap().unwrap() });
            futures_util::future::join_all(reads).await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            match round {
                0 => drop(storage.put(&key("alice"), &Record::new("y"), Precondition::Version(version)).await.unwrap()),
                _ => assert!(storage.delete(&key("alice"), Some(version)).await.unwrap()),
            }
        }
        storage.close().await;
    }
    database.remove().await;
}

#[tokio::test]
async fn ipv6_address_in_a_url_works() {
    let Some(database) = Database::new().await else { return };
    let url = database.url();
    let (login, rest) = url.split_once("@127.0.0.1:").unwrap();
    let (port, rest) = rest.split_once('/').unwrap();
    let server = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    for url in [
        format!("{login}@[::1]:{port}/{rest}"),
        format!("{login}@nowhere.invalid/{rest}&host=::1&port={port}"),
        format!("{login}@[::1]:{port}/{rest}&target_session_attrs=read-write&connect_timeout=3&pgbouncer=true"),
    ] {
        let storage = PostgresStorage::connect(&url).await.unwrap();
        works(&storage).await;
        storage.close().await;
    }
    database.remove().await;
}

#[tokio::test]
async fn unsupported_url_parameters_are_rejected() {
    for (url, fix) in [
        ("postgres://u:p@a,b/d", "one host"),
        ("postgres://u:p@a:5432,b:5433/d?target_session_attrs=read-write", "one host"),
        ("postgres:///d?host=a,b", "one host"),
        ("postgres://u:p@a/d?target_session_attrs=prefer-standby", "parameter"),
        ("postgres://u:p@a/d?channel_binding=require", "parameter"),
        ("postgres://u:p@a/d?sslmod=require", "parameter"),
        ("postgres://u:p@a/d?service=x", "parameter"),
    ] {
        let error = PostgresStorage::connect(url).await.unwrap_err();
        assert!(advice(Err::<(), _>(error)).contains(fix), "{url}");
    }
}
