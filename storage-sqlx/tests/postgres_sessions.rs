//! PostgreSQL without a pooler: each connection of the storage has a session of its own, with prepared statements.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports, unused_macros, reason = "the cases are those of other files")]

mod cases;

use cases::{Server, key};
use futures_util::future::join_all;
use oauth_dance_core::{Precondition, Record, StorageError, TokenStorage as _};
use oauth_dance_sqlx::PostgresStorage;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A new database with one record.
struct Database(Server, PgConnection);

impl Database {
    async fn new() -> Option<(Self, PostgresStorage)> {
        let server = Server::named_by("POSTGRES_URL")?;
        let mut connection = PgConnection::connect(&server.url).await.unwrap();
        run(&mut connection, &format!("CREATE DATABASE {}", server.database)).await;
        let url = server.database_url();
        let database = Self(server, PgConnection::connect(&url).await.unwrap());
        let storage = PostgresStorage::connect(&url).await.unwrap();
        storage.migrate().await.unwrap();
        storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
        Some((database, storage))
    }

    async fn run(&mut self, sql: &str) {
        run(&mut self.1, sql).await;
    }

    async fn remove(self) {
        let mut connection = PgConnection::connect(&self.0.url).await.unwrap();
        run(&mut connection, &format!("DROP DATABASE {} WITH (FORCE)", self.0.database)).await;
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

/// Reads the record alone and together with others.
async fn payload(storage: &PostgresStorage) -> Result<Option<Vec<u8>>, StorageError> {
    let users = [key("bob"), key("alice"), key("carol")];
    let together = join_all(users.iter().map(|user| storage.get(user))).await.swap_remove(1)?;
    assert_eq!(storage.get(&key("alice")).await?, together);
    Ok(together.map(|found| found.value.payload))
}

fn advice(result: Result<impl std::fmt::Debug, StorageError>) -> String {
    match result.unwrap_err() {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn statements_are_prepared() {
    let Some((mut database, storage)) = Database::new().await else { return };
    assert_eq!(payload(&storage).await.unwrap().unwrap(), b"x");
    let last = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let last: Vec<String> = sqlx::query_scalar(last).fetch_all(&mut database.1).await.unwrap();
    assert!(!last.is_empty() && last.iter().all(|query| query.contains("$1")), "{last:#?}");
    database.remove().await;
}

#[tokio::test]
async fn settings_of_the_session_protect_reads_and_writes() {
    let Some((mut database, storage)) = Database::new().await else { return };
    let role = format!("{}_app", database.0.database);
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON oauth_dance_tokens TO {role}");
    database.run(&create).await;
    let url = database.0.database_url();
    let (_, host) = url.split_once('@').unwrap();
    let limited = PostgresStorage::connect(&format!("postgres://{role}:secret@{host}")).await.unwrap();
    for _ in 0..8 {
        assert_eq!(payload(&limited).await.unwrap().unwrap(), b"x");
    }
    // Hidden rows are an error, also for statements that were prepared before.
    database.run("CREATE POLICY few ON oauth_dance_tokens USING (user_id = 'bob')").await;
    database.run("ALTER TABLE oauth_dance_tokens ENABLE ROW LEVEL SECURITY").await;
    for _ in 0..2 {
        assert!(advice(payload(&limited).await).contains("row-level security"));
        let write = limited.put(&key("alice"), &Record::new("y"), Precondition::Always).await;
        assert!(advice(write).contains("row-level security"));
    }
    database.run("ALTER TABLE oauth_dance_tokens DISABLE ROW LEVEL SECURITY").await;
    assert_eq!(payload(&limited).await.unwrap().unwrap(), b"x");
    limited.close().await;
    database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    storage.close().await;
    database.remove().await;
}

#[tokio::test]
async fn reads_continue_after_a_change_of_the_table() {
    let Some((mut database, storage)) = Database::new().await else { return };
    for _ in 0..8 {
        assert_eq!(payload(&storage).await.unwrap().unwrap(), b"x");
    }
    for change in [
        "ALTER TABLE oauth_dance_tokens ADD COLUMN more integer",
        "ALTER TABLE oauth_dance_tokens DROP COLUMN more",
        "ALTER TABLE oauth_dance_tokens ALTER key_id TYPE text USING NULL",
        "ALTER TABLE oauth_dance_tokens ALTER key_id TYPE bytea USING NULL",
    ] {
        database.run(change).await;
        let is_text = change.contains("TYPE text");
        for _ in 0..3 {
            match payload(&storage).await {
                Err(StorageError::Corrupt { .. }) if is_text => {}
                found => assert_eq!(found.unwrap().unwrap(), b"x", "{change}"),
            }
        }
    }
    database.run("ALTER TABLE oauth_dance_tokens RENAME TO old").await;
    assert!(advice(payload(&storage).await).contains("migrations"));
    database.run("ALTER TABLE old RENAME TO oauth_dance_tokens").await;
    assert_eq!(payload(&storage).await.unwrap().unwrap(), b"x");
    storage.close().await;
    database.remove().await;
}
