//! The storages that several processes can share. Each test has a separate file, database or prefix.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Filter, PageRequest, TokenStorage, random_bytes};
use oauth_dance_redis::RedisStorage;
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};
use tempfile::TempDir;

use crate::support::missing;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
    PgBouncer,
    MySql,
    Redis,
    RedisCluster,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::PgBouncer => "PostgreSQL through PgBouncer",
            Self::MySql => "MySQL/MariaDB",
            Self::Redis => "Redis",
            Self::RedisCluster => "Redis Cluster",
        }
    }

    fn server(self) -> Option<String> {
        let variable = match self {
            Self::Sqlite => return Some(String::new()),
            Self::Postgres => "POSTGRES_URL",
            Self::PgBouncer => "PGBOUNCER_SERVER_URL",
            Self::MySql => "MYSQL_URL",
            Self::Redis => "REDIS_URL",
            Self::RedisCluster => "REDIS_CLUSTER_URL",
        };
        let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
        if url.is_none() {
            missing(&format!("{variable} (`tests/servers/start` starts servers)"));
        }
        url
    }
}

/// An empty storage for one test.
pub struct Backend {
    pub kind: Kind,
    server: String,
    pub url: String,
    /// The prefix in Redis. For other storages, the URL identifies the data.
    pub namespace: String,
    folder: Option<TempDir>,
}

impl Backend {
    /// A storage of this kind. If there is no server, prints that and returns `None`.
    pub async fn of(kind: Kind) -> Option<Self> {
        let server = kind.server()?;
        let namespace = format!("refresh_{:016x}", u64::from_be_bytes(random_bytes()));
        let mut backend = Self { kind, url: server.clone(), server, namespace, folder: None };
        match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                backend.url = format!("sqlite:{}", folder.path().join("tokens.db").display());
                backend.folder = Some(folder);
                SqliteStorage::connect(&backend.url).await.unwrap().migrate().await.unwrap();
            }
            Kind::Postgres | Kind::PgBouncer => {
                backend.on_server("CREATE").await;
                backend.url = backend.database_url();
                PostgresStorage::connect(&backend.url).await.unwrap().migrate().await.unwrap();
            }
            Kind::MySql => {
                backend.on_server("CREATE").await;
                backend.url = backend.database_url();
                MySqlStorage::connect(&backend.url).await.unwrap().migrate().await.unwrap();
            }
            Kind::Redis | Kind::RedisCluster => {}
        }
        Some(backend)
    }

    pub async fn open(&self) -> Arc<dyn TokenStorage> {
        // A long timeout, because the test itself must not fail on a busy machine.
        open(&self.url, &self.namespace, Some(Duration::from_secs(60))).await
    }

    /// Deletes the data of a test that has passed.
    pub async fn remove(self) {
        match self.kind {
            Kind::Sqlite => {}
            Kind::Postgres | Kind::PgBouncer | Kind::MySql => self.on_server("DROP").await,
            Kind::Redis | Kind::RedisCluster => {
                let storage = self.open().await;
                let entries = storage.list(&Filter::everything(), PageRequest { after: None, limit: 10_000 }).await;
                for entry in entries.unwrap().entries {
                    storage.delete(&entry.key, None).await.unwrap();
                }
            }
        }
    }

    async fn on_server(&self, verb: &str) {
        let sql = |end: &str| AssertSqlSafe(format!("{verb} DATABASE {}{end}", self.namespace));
        match self.kind {
            Kind::Postgres | Kind::PgBouncer => {
                let end = if verb == "DROP" { " WITH (FORCE)" } else { "" };
                let mut connection = PgConnection::connect(&self.server).await.unwrap();
                sqlx::raw_sql(sql(end)).execute(&mut connection).await.unwrap();
            }
            _ => {
                let mut connection = MySqlConnection::connect(&self.server).await.unwrap();
                sqlx::raw_sql(sql("")).execute(&mut connection).await.unwrap();
            }
        }
    }

    fn database_url(&self) -> String {
        let server = match self.kind {
            Kind::PgBouncer => std::env::var("PGBOUNCER_URL").unwrap(),
            _ => self.server.clone(),
        };
        let (server, query) = server.split_once('?').unwrap_or((&server, ""));
        let (server, _) = server.rsplit_once('/').unwrap();
        format!("{server}/{}?{query}", self.namespace)
    }
}

/// Opens a storage by its URL. `timeout` limits each of its operations.
pub async fn open(url: &str, namespace: &str, timeout: Option<Duration>) -> Arc<dyn TokenStorage> {
    macro_rules! opened {
        ($storage:expr) => {{
            let storage = $storage;
            match timeout {
                Some(timeout) => Arc::new(storage.with_timeout(timeout)),
                None => Arc::new(storage),
            }
        }};
    }
    match url.split(':').next().unwrap() {
        "sqlite" => opened!(SqliteStorage::connect(url).await.unwrap()),
        "postgres" | "postgresql" => opened!(PostgresStorage::connect(url).await.unwrap()),
        "mysql" | "mariadb" => opened!(MySqlStorage::connect(url).await.unwrap()),
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => {
            opened!(RedisStorage::lazy(url).unwrap().with_prefix(namespace).unwrap())
        }
        scheme => panic!("processes cannot share a storage with the scheme {scheme}"),
    }
}
