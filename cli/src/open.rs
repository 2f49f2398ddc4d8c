//! Opens the storage of a command.

use std::str::FromStr as _;
use std::sync::Arc;

use clap::Args;
use oauth_dance_core::{StorageError, TokenKey, TokenStorage, Version};
use oauth_dance_migrations::{MigrationState, Status, TableName};
use oauth_dance_redis::RedisStorage;
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::UnusableStorage;
use crate::address::scheme;
use crate::migrate::{Dialect, Table};
use crate::operate::OperateError;

/// Where the tokens are stored.
#[derive(Args, Clone, Debug)]
pub struct StorageArgs {
    /// sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE, mysql://…, redis://…, redis+cluster://… or
    /// redis+sentinel://…
    #[arg(long = "storage", value_name = "URL", env = "OAUTH_DANCE_STORAGE", hide_env_values = true)]
    pub url: Option<String>,
    /// The place in the storage.
    #[command(flatten)]
    pub place: Place,
}

/// The place of the tokens in a storage.
#[derive(Args, Clone, Debug, Default)]
pub struct Place {
    /// The table.
    #[command(flatten)]
    pub table: Table,
    /// The prefix of all keys in Redis [default: oauth-dance]
    #[arg(long, value_name = "NAME")]
    pub prefix: Option<String>,
    /// How the options start that name this place, if the command has several.
    #[arg(skip)]
    pub(crate) options: &'static str,
}

/// How a command uses a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The command only reads, so it needs no permission to write.
    Read,
    /// The command writes, so a missing permission is reported before the first change.
    Write,
}

/// An open storage.
pub(crate) struct Opened {
    pub(crate) storage: Arc<dyn TokenStorage>,
    pub(crate) server: Server,
    /// The table, if the storage is a SQL database.
    pub(crate) table: Option<TableName>,
    url: String,
    /// How the options start that name its place.
    options: &'static str,
}

/// The storage by its type, for functions that only this type has.
#[derive(Clone)]
pub(crate) enum Server {
    Sqlite(SqliteStorage),
    Postgres(PostgresStorage),
    MySql(MySqlStorage),
    Redis(RedisStorage),
}

impl StorageArgs {
    pub(crate) async fn open(&self, access: Access) -> Result<Opened, OperateError> {
        let url = self.url.as_deref().filter(|url| !url.is_empty()).ok_or(OperateError::NoStorage)?;
        open(url, &self.place, access).await
    }

    /// Opens the storage even if its table is missing or not up to date.
    pub(crate) async fn open_unmigrated(&self) -> Result<Opened, OperateError> {
        let url = self.url.as_deref().filter(|url| !url.is_empty()).ok_or(OperateError::NoStorage)?;
        open_unmigrated(url, &self.place, Access::Read).await
    }
}

/// Opens a storage, and verifies that its table is up to date. Creates and migrates nothing.
pub(crate) async fn open(url: &str, place: &Place, access: Access) -> Result<Opened, OperateError> {
    let opened = open_unmigrated(url, place, access).await?;
    // A user without permission to read the bookkeeping table may still have permission to read tokens.
    let migrations = opened.migrations().await.unwrap_or_default();
    if migrations.iter().any(|status| status.state == MigrationState::Pending) {
        return Err(OperateError::NotMigrated { storage: opened.shown(), options: place.options });
    }
    if access == Access::Write
        && let Err(error) = opened.try_write().await
    {
        return Err(opened.explain(error).await);
    }
    Ok(opened)
}

async fn open_unmigrated(url: &str, place: &Place, access: Access) -> Result<Opened, OperateError> {
    let target = Target::parse(url, place)?;
    let server = match connect(url, &target, access).await {
        Ok(server) => server,
        Err(error) => return Err(UnusableStorage::with_options(url, error, place.options).await.into()),
    };
    let table = match target {
        Target::Sql(_, table) => Some(table),
        Target::Redis(_) => None,
    };
    Ok(Opened { storage: server.storage(), server, table, url: url.to_owned(), options: place.options })
}

/// A place that exists in this kind of storage.
enum Target {
    Sql(Dialect, TableName),
    Redis(Option<String>),
}

impl Target {
    fn parse(url: &str, place: &Place) -> Result<Self, OperateError> {
        let scheme = scheme(url);
        if is_redis(scheme) {
            return match (&place.table.name, &place.table.schema) {
                (None, None) => Ok(Self::Redis(place.prefix.clone())),
                _ => Err(OperateError::Inapplicable { option: "table and --schema", storage: "Redis" }),
            };
        }
        let unknown = |_| OperateError::UnknownStorage { scheme: scheme.to_owned() };
        let dialect = Dialect::of(url).map_err(unknown)?;
        if place.prefix.is_some() {
            return Err(OperateError::Inapplicable { option: "prefix", storage: "a SQL database" });
        }
        Ok(Self::Sql(dialect, place.table.parse(dialect)?))
    }
}

async fn connect(url: &str, target: &Target, access: Access) -> Result<Server, StorageError> {
    Ok(match target {
        Target::Sql(Dialect::Sqlite, table) => {
            Server::Sqlite(existing_sqlite(url).await?.with_table(&table.to_string())?)
        }
        Target::Sql(Dialect::Postgres, table) => {
            Server::Postgres(PostgresStorage::connect(url).await?.with_table(&table.to_string())?)
        }
        Target::Sql(Dialect::Mysql, table) => {
            Server::MySql(MySqlStorage::connect(url).await?.with_table(&table.to_string())?)
        }
        Target::Redis(prefix) => {
            let mut storage = RedisStorage::lazy(url)?;
            if let Some(prefix) = prefix {
                storage = storage.with_prefix(prefix)?;
            }
            if access == Access::Write {
                storage.check().await?;
            }
            Server::Redis(storage)
        }
    })
}

/// Opens a SQLite file that exists.
pub(crate) async fn existing_sqlite(url: &str) -> Result<SqliteStorage, StorageError> {
    sqlite_as_it_is(&without_creating(url)).await
}

/// Opens a SQLite file without changing its journal mode, which is the application's decision.
pub(crate) async fn sqlite_as_it_is(url: &str) -> Result<SqliteStorage, StorageError> {
    // `connect_with` has parsed the URL successfully before it calls this.
    let unchanged = |given| SqliteConnectOptions::from_str(url).unwrap_or(given).disable_statement_logging();
    SqliteStorage::connect_with(url, unchanged).await
}

/// The URL of a SQLite file that is not created if it is missing.
pub(crate) fn without_creating(url: &str) -> String {
    let (file, options) = url.split_once('?').unwrap_or((url, ""));
    let creates = |option: &&str| *option != "mode=rwc" && !option.is_empty();
    let mut options: Vec<_> = options.split('&').filter(creates).collect();
    if !options.iter().any(|option| option.starts_with("mode=")) {
        options.push("mode=rw");
    }
    format!("{file}?{}", options.join("&"))
}

/// Whether a URL with this scheme names Redis or Valkey.
pub(crate) fn is_redis(scheme: &str) -> bool {
    let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    let named = matches!(base, "redis" | "rediss" | "valkey" | "valkeys")
        && matches!(kind, "" | "cluster" | "sentinel" | "unix");
    named || scheme == "unix"
}

impl Opened {
    /// The error of a command that uses this storage. It names the storage, and why its server cannot be reached.
    pub(crate) async fn explain(&self, error: StorageError) -> OperateError {
        UnusableStorage::with_options(&self.url, error, self.options).await.into()
    }

    /// The URL, which may contain a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A separate connection to the SQLite file.
    pub(crate) async fn sqlite(&self) -> Result<SqliteConnection, sqlx::Error> {
        SqliteConnectOptions::from_str(&without_creating(&self.url))?.disable_statement_logging().connect().await
    }

    /// The URL for messages, without secrets.
    pub(crate) fn shown(&self) -> String {
        UnusableStorage::shown(&self.url)
    }

    /// The migrations of the table. Empty if the storage has no table.
    pub(crate) async fn migrations(&self) -> Result<Vec<Status>, StorageError> {
        match &self.server {
            Server::Sqlite(storage) => storage.migrations().await,
            Server::Postgres(storage) => storage.migrations().await,
            Server::MySql(storage) => storage.migrations().await,
            Server::Redis(_) => Ok(Vec::new()),
        }
    }

    /// At most `limit` keys that no list shows, because they are invalid.
    pub(crate) async fn invalid_keys(&self, limit: usize) -> Result<Vec<String>, OperateError> {
        let found = match &self.server {
            Server::Sqlite(storage) => storage.invalid_keys(limit).await,
            Server::Postgres(storage) => storage.invalid_keys(limit).await,
            Server::MySql(storage) => storage.invalid_keys(limit).await,
            Server::Redis(storage) => storage.invalid_keys(limit).await,
        };
        match found {
            Ok(found) => Ok(found),
            Err(error) => Err(self.explain(error).await),
        }
    }

    /// Verifies that this user may write, by a deletion that matches no record.
    pub(crate) async fn try_write(&self) -> Result<(), StorageError> {
        let [tenant, user, provider, account] = ["oauth-dance:check", "check", "check", ""];
        let key = TokenKey::from_parts(tenant, user, provider, account).map_err(StorageError::unavailable)?;
        self.storage.delete(&key, Some(Version::random())).await.map(drop)
    }
}

impl Server {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        match self {
            Self::Sqlite(storage) => Arc::new(storage.clone()),
            Self::Postgres(storage) => Arc::new(storage.clone()),
            Self::MySql(storage) => Arc::new(storage.clone()),
            Self::Redis(storage) => Arc::new(storage.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_of_the_storage_names_redis() {
        for url in [
            "redis://localhost/",
            "valkeys://localhost/",
            "rediss+sentinel://localhost/main",
            "valkey+cluster://localhost",
            "redis+unix:///run/redis.sock",
            "unix:///run/redis.sock",
        ] {
            assert!(RedisStorage::lazy(url).is_ok() && is_redis(scheme(url)), "{url}");
        }
        assert!(!is_redis("redis+http") && !is_redis("http+unix"));
    }

    #[test]
    fn missing_file_is_never_created() {
        for (url, opened) in [
            ("sqlite:a.db", "sqlite:a.db?mode=rw"),
            ("sqlite:a.db?mode=rwc", "sqlite:a.db?mode=rw"),
            ("sqlite:a.db?cache=private&mode=rwc", "sqlite:a.db?cache=private&mode=rw"),
            ("sqlite:a.db?mode=ro", "sqlite:a.db?mode=ro"),
            ("sqlite:a.db?", "sqlite:a.db?mode=rw"),
        ] {
            assert_eq!(without_creating(url), opened);
        }
    }
}
