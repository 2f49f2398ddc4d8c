//! A database for each test, and what every test does with a storage.

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenStorage as _};
use oauth_dance_sqlx::PostgresStorage;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::cases::{Server, key, retained_for};

/// A new database on the server that a variable names.
pub(crate) struct Database(pub(crate) Server);

impl Database {
    pub(crate) async fn with(variable: &str, end: &str) -> Option<Self> {
        let server = Server::named_by(variable)?;
        run(&server.url, &format!("CREATE DATABASE {} {end}", server.database)).await;
        Some(Self(server))
    }

    pub(crate) async fn new() -> Option<Self> {
        Self::with("POSTGRES_URL", "").await
    }

    pub(crate) fn url(&self) -> String {
        self.0.database_url()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        run(&self.url(), sql).await;
    }

    pub(crate) async fn set(&self, setting: &str) {
        self.execute(&format!("ALTER DATABASE {} SET {setting}", self.0.database)).await;
    }

    /// Storages on their own pool and on an application pool.
    pub(crate) async fn both(&self) -> [PostgresStorage; 2] {
        let options: PgConnectOptions = self.url().parse().unwrap();
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
        [PostgresStorage::connect(&self.url()).await.unwrap(), PostgresStorage::from_pool(pool)]
    }

    pub(crate) async fn remove(self) {
        run(&self.0.url, &format!("DROP DATABASE {} WITH (FORCE)", self.0.database)).await;
    }
}

pub(crate) async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

pub(crate) fn advice(result: Result<impl std::fmt::Debug, StorageError>) -> String {
    match result.unwrap_err() {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    }
}

/// Runs every statement with bytes that are special in SQL.
pub(crate) async fn works(storage: &PostgresStorage) {
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
        storage.put(&user, &retained_for(60), Precondition::Always).await.unwrap();
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

/// Reads a record by the statement for several keys.
pub(crate) async fn together(storage: &PostgresStorage, user: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let users = [key("missing"), key(user), key("nothing")];
    let mut found = futures_util::future::join_all(users.iter().map(|user| storage.get(user))).await;
    found.swap_remove(1).map(|found| found.map(|found| found.value.payload))
}

/// An application pool with one connection.
pub(crate) async fn one_connection(url: &str) -> (PgPool, PostgresStorage) {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await.unwrap();
    (pool.clone(), PostgresStorage::from_pool(pool))
}

/// The prepared statements of the connection of a pool: name, text, and how often the generic plan was used.
pub(crate) async fn prepared(pool: &PgPool) -> Vec<(String, String, i64)> {
    let names = "SELECT name, statement, generic_plans FROM pg_prepared_statements";
    let rows = sqlx::raw_sql(names).fetch_all(pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}
