//! The storage in a SQLite file.
//!
//! SQLite permits one writer at a time, and a second writer polls for the lock. Therefore one connection runs all
//! writes of a storage in turn, and a few others run the reads, which WAL mode does not block. Writes that would wait
//! for each other share a transaction. What a server would do by itself has to be done here: a file can be deleted or
//! replaced while it is open ([`OpenFiles`]), have two names, or be on a network share.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};
use oauth_dance_migrations::{TableName, migrate_sqlite, status_sqlite};
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool};
use tokio::time::{Instant, sleep};

use crate::connection::Connections;
use crate::engine::Engine;
use crate::error::{ErrorClass, bad_name, classify, migration, unchanged};
use crate::pool::OwnPool;
use crate::sqlite_file::{OpenFiles, create_private, network_share, reject_hard_links, warn_of_shares};
use crate::{DEFAULT_TIMEOUT, MigrationStatus};

/// The number of connections for reads. Each one is a thread, so more of them than cores gain nothing.
const READERS: usize = 4;
/// How long SQLite itself waits for the write of another process. It is shorter than [`DEFAULT_TIMEOUT`], so that
/// SQLite reports the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);
/// The number of rows that a connection's thread reads ahead: more than a shared statement or a usual page has. With a smaller
/// buffer, the thread would wait in the middle of a larger statement until its caller has taken rows.
const ROW_BUFFER: usize = 128;
/// The pause between tries to set a new file to WAL mode, for which SQLite does not wait.
const WAL_PAUSE: Duration = Duration::from_millis(20);

/// Stores tokens in a SQLite file, which any number of processes on one machine may share.
///
/// ```
/// use oauth_dance_core::{Precondition, Record, TokenKey, TokenStorage as _};
/// use oauth_dance_sqlx::SqliteStorage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = SqliteStorage::connect("sqlite::memory:").await?; // "sqlite:tokens.db"
/// storage.migrate().await?;
///
/// let key = TokenKey::new("github", "alice")?;
/// let version = storage.put(&key, &Record::new("sealed bytes"), Precondition::Absent).await?;
/// assert_eq!(storage.get(&key).await?.expect("a record").version, version);
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// An acknowledged write survives a crash of the application. With SQLite's default (`synchronous = FULL`), which
/// [`connect`](Self::connect) retains, it also survives a power failure. This costs an fsync per transaction. It is
/// worth it, because a refresh token that replaced another one cannot be obtained again. With
/// [`connect_with`](Self::connect_with) you can choose `NORMAL`: writes are faster, and a power failure may lose the
/// last of them.
///
/// # Several processes
/// SQLite permits one writer at a time. A write waits up to four seconds for the write of another process, and is
/// repeated for up to half of the [timeout](Self::with_timeout). Machines must not share a file, because the locks of
/// network file systems do not work. On Linux, the storage logs a warning if the file is on one.
///
/// # Connections
/// All writes use one connection, because SQLite permits one writer at a time and waits for a lock by polling. While a
/// write is in progress, others wait, and then share one transaction, at most 64 at a time, in a thread of the storage.
/// Reads use a few other connections, which writes do not block (WAL).
///
/// # Lost files
/// A file can be deleted, moved or replaced while the application runs, for example by a restored backup. The
/// application could still write to the open file, but those writes would be lost at the next start. Therefore every
/// operation first verifies that the path still leads to the open file, and with [`connect`](Self::connect) also to its
/// log. A write verifies this again before it is acknowledged. If the file is lost, operations return
/// [`StorageError::Misconfigured`] until the file is back.
///
/// On systems other than Unix, only a missing file is detected. A backup that is copied *into* the open file is not
/// detected. Stop the application first, or use the `.restore` command of SQLite.
#[derive(Clone, Debug)]
pub struct SqliteStorage {
    engine: Engine<Sqlite>,
    /// `None` if the database is in memory.
    files: Option<OpenFiles>,
    anchor: Anchor,
}

/// A connection that stays open and runs no statement. The pools may close their connections at any time, and SQLite
/// deletes the log when the last connection is closed. While the anchor is open, a missing log therefore means that the
/// log was lost.
type Anchor = Arc<Mutex<Option<SqliteConnection>>>;

impl SqliteStorage {
    /// Opens the file of a URL such as `sqlite:tokens.db` or `sqlite:///var/lib/app/tokens.db`. Call
    /// [`migrate`](Self::migrate) next.
    ///
    /// A missing file is created, unless the URL has a `mode` other than `rwc`. Only its owner may read it.
    /// `sqlite::memory:` is a private database of this storage and its clones. It is lost when they are dropped.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, or if the file cannot be opened, is not a database or has
    /// several hard links. [`StorageError::Unavailable`] if another process has locked the file.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        Self::connect_with(url, |options| options).await
    }

    /// Opens a file like [`connect`](Self::connect), with options of sqlx that `change` modifies. The defaults are WAL
    /// mode, a busy timeout of four seconds, a buffer of 128 rows and no statement log.
    ///
    /// ```
    /// # async fn example() -> Result<(), oauth_dance_core::StorageError> {
    /// use oauth_dance_sqlx::SqliteStorage;
    /// use sqlx::sqlite::SqliteSynchronous;
    ///
    /// let url = "sqlite:tokens.db";
    /// let faster = SqliteStorage::connect_with(url, |sqlite| sqlite.synchronous(SqliteSynchronous::Normal)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`connect`](Self::connect).
    pub async fn connect_with(
        url: &str,
        change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, StorageError> {
        let options = SqliteConnectOptions::from_str(url).map_err(unchanged::<Sqlite>)?;
        Self::open(options, may_create(url), change).await
    }

    /// Opens a file, or creates it, with the defaults.
    #[cfg(feature = "personal")]
    pub(crate) async fn open_file(path: &std::path::Path) -> Result<Self, StorageError> {
        Self::open(SqliteConnectOptions::new().filename(path), true, |options| options).await
    }

    async fn open(
        options: SqliteConnectOptions,
        create: bool,
        change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, StorageError> {
        let options = options
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT)
            .row_buffer_size(ROW_BUFFER)
            .disable_statement_logging();
        if create {
            create_private(options.get_filename());
        }

        let options = change(options);
        reject_hard_links(options.get_filename())?;
        let writers = open(&options).await?;
        let Some(path) = file_of(&writers).await? else {
            return Ok(Self {
                engine: Engine::new(writers.clone(), writers, false, false),
                files: None,
                anchor: Anchor::default(),
            });
        };
        let anchor = anchor(&options).await.map_err(unchanged::<Sqlite>)?;
        warn_of_shares(&path);
        let files = OpenFiles::of(&path, options.get_filename())?.with_log();
        let readers = Connections::Own(OwnPool::new(options, READERS, DEFAULT_TIMEOUT / 2, None));
        Ok(Self { engine: Engine::new(readers, writers, true, true), files: Some(files), anchor })
    }

    /// Uses a pool of the application, for both reads and writes.
    ///
    /// Set WAL mode on the pool, so that reads do not wait for writes, and a busy timeout, so that a write waits for
    /// the write of another process.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use oauth_dance_sqlx::SqliteStorage;
    /// use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("app.db");
    /// let options = SqliteConnectOptions::new()
    ///     .filename(file)
    ///     .create_if_missing(true)
    ///     .journal_mode(SqliteJournalMode::Wal)
    ///     .busy_timeout(Duration::from_secs(4));
    /// let pool = SqlitePool::connect_with(options).await?;
    ///
    /// let storage = SqliteStorage::from_pool(pool).await?.with_table("tokens")?;
    /// storage.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] for a pool with several connections to `:memory:`, because each may be a
    /// separate database. Otherwise the errors of [`connect`](Self::connect).
    pub async fn from_pool(pool: SqlitePool) -> Result<Self, StorageError> {
        let connections = Connections::Application(pool.clone());
        let path = file_of(&connections).await?;
        if path.is_none() && pool.options().get_max_connections() > 1 {
            return Err(StorageError::Misconfigured {
                advice:
                    "set `max_connections(1)`, no idle timeout and no maximum lifetime on the pool of an in-memory \
                    database, or use a file"
                        .to_owned(),
                source: "each connection to an in-memory database may be a separate database".into(),
            });
        }
        let files = path.map(|path| OpenFiles::of(&path, pool.connect_options().get_filename())).transpose()?;
        let on_disk = files.is_some();
        let engine = Engine::new(connections.clone(), connections, on_disk, on_disk);
        Ok(Self { engine, files, anchor: Anchor::default() })
    }

    /// Uses another table than `oauth_dance_tokens`, for example for two applications with one file.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless the name consists of at most 48 lower-case letters, digits and
    /// underscores, and does not start with a digit.
    pub fn with_table(self, name: &str) -> Result<Self, StorageError> {
        let table: TableName = name.parse().map_err(bad_name)?;
        if table.schema().is_some() {
            return Err(bad_name("SQLite has no schemas"));
        }
        Ok(Self { engine: self.engine.with_table(table), ..self })
    }

    /// Sets the timeout of an operation. The default is [`DEFAULT_TIMEOUT`].
    ///
    /// The timeout includes the wait for a connection and all retries of a statement.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { engine: self.engine.with_timeout(timeout), ..self }
    }

    /// Creates the table, or updates it to this release. Does nothing if the table is current. Any number of processes
    /// may call this at the same time.
    ///
    /// An application that may change its schema calls this at every startup. To let an operator apply the migrations
    /// instead, call [`migrations`](Self::migrations) and refuse to start while one is pending.
    ///
    /// # Errors
    /// The errors of the other operations. Nothing has changed in this case.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        self.check()?;
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Sqlite>)?;
        migrate_sqlite(connection.get(), self.engine.table()).await.map_err(migration::<Sqlite>)?;
        connection.mark_clean();
        self.confirm()
    }

    /// Returns all migrations and their state in the database. Changes nothing.
    ///
    /// ```
    /// use oauth_dance_sqlx::{MigrationState, SqliteStorage};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), oauth_dance_core::StorageError> {
    /// let storage = SqliteStorage::connect("sqlite::memory:").await?;
    /// assert!(storage.migrations().await?.iter().all(|migration| migration.state == MigrationState::Pending));
    ///
    /// storage.migrate().await?;
    /// assert!(storage.migrations().await?.iter().all(|migration| migration.state == MigrationState::Applied));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        self.check()?;
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Sqlite>)?;
        let statuses = status_sqlite(connection.get(), self.engine.table()).await.map_err(migration::<Sqlite>)?;
        connection.mark_clean();
        Ok(statuses)
    }

    /// Returns the keys of at most `limit` rows whose key is not a valid [`TokenKey`], for example because it is not
    /// UTF-8. Each key is a text with escapes, for an operator to read.
    ///
    /// Such rows exist only if something other than this crate has written to the table. A list leaves them out, so
    /// they have to be removed with the database's own client.
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn invalid_keys(&self, limit: usize) -> Result<Vec<String>, StorageError> {
        self.check()?;
        self.engine.invalid_keys(limit).await
    }

    /// The kind of network file system that contains the file, such as `nfs4`. `None` on a local disk, and always on
    /// systems other than Linux.
    ///
    /// Machines that share such a file do not see each other's locks and corrupt it. [`connect`](Self::connect) only
    /// logs a warning, because the file may be used by one machine only. An application can be stricter.
    pub fn network_file_system(&self) -> Option<String> {
        self.files.as_ref().and_then(|files| network_share(files.database()?))
    }

    /// Closes the connections after their running statements have ended. Later operations fail with
    /// [`StorageError::Unavailable`]. This includes an application's pool that was passed to
    /// [`from_pool`](Self::from_pool).
    pub async fn close(&self) {
        self.engine.close().await;
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = anchor {
            let _ = connection.close().await;
        }
    }

    /// The names of all tables in the file that have the columns of this storage, and that
    /// [`with_table`](Self::with_table) accepts.
    #[cfg(feature = "personal")]
    pub(crate) async fn token_tables(&self) -> Result<Vec<String>, StorageError> {
        const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND 7 = (\
            SELECT count(*) FROM pragma_table_info(sqlite_schema.name) AS info WHERE info.name IN \
            ('tenant', 'user_id', 'provider', 'account', 'version', 'payload', 'key_id'))";

        self.check()?;
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Sqlite>)?;
        let tables: Vec<String> =
            sqlx::query_scalar(TABLES).fetch_all(connection.get()).await.map_err(unchanged::<Sqlite>)?;
        connection.mark_clean();
        Ok(tables.into_iter().filter(|name| name.parse::<TableName>().is_ok()).collect())
    }

    /// The files to verify. A closed database has no log, and its operations fail anyway.
    fn watched(&self) -> Option<&OpenFiles> {
        self.files.as_ref().filter(|_| !self.engine.writers().is_closed())
    }

    /// Verifies before an operation that the path still leads to the open database.
    fn check(&self) -> Result<(), StorageError> {
        self.watched().map_or(Ok(()), OpenFiles::check)
    }

    /// Verifies the same after a write, before it is acknowledged.
    fn confirm(&self) -> Result<(), StorageError> {
        self.watched().map_or(Ok(()), OpenFiles::confirm)
    }
}

#[async_trait]
impl TokenStorage for SqliteStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.check()?;
        self.engine.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.check()?;
        let version = self.engine.put(key, record, when).await?;
        self.confirm()?;
        Ok(version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.check()?;
        let deleted = self.engine.delete(key, only).await?;
        self.confirm()?;
        Ok(deleted)
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.check()?;
        self.engine.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.check()?;
        let purged = self.engine.purge(limit).await?;
        self.confirm()?;
        Ok(purged)
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }
}

/// Opens the anchor. Its first read creates the log, which exists until this connection is closed.
async fn anchor(options: &SqliteConnectOptions) -> Result<Anchor, sqlx::Error> {
    let mut connection = options.connect().await?;
    sqlx::query("SELECT count(*) FROM sqlite_schema").execute(&mut connection).await?;
    Ok(Arc::new(Mutex::new(Some(connection))))
}

/// Whether a missing file is created: if the URL has no `mode`, or the mode `rwc`.
fn may_create(url: &str) -> bool {
    let path = url.trim_start_matches("sqlite://").trim_start_matches("sqlite:");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let other_mode = |pair: &str| pair.strip_prefix("mode=").is_some_and(|mode| mode != "rwc");
    !path.is_empty() && path != ":memory:" && !query.split('&').any(other_mode)
}

/// The file of a database. `None` if the database is in memory, or in a temporary file of one connection.
async fn file_of(connections: &Connections<Sqlite>) -> Result<Option<PathBuf>, StorageError> {
    const FILE: &str = "SELECT file FROM pragma_database_list WHERE name = 'main'";

    let mut connection = connections.acquire().await.map_err(unchanged::<Sqlite>)?;
    let file: Option<String> =
        sqlx::query_scalar(FILE).fetch_one(connection.get()).await.map_err(unchanged::<Sqlite>)?;
    connection.mark_clean();
    Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
}

/// Opens the connection for writes. The pool never closes it while in use, because an in-memory database ends with its
/// connection.
async fn open(options: &SqliteConnectOptions) -> Result<Connections<Sqlite>, StorageError> {
    let deadline = Instant::now() + DEFAULT_TIMEOUT / 2;
    loop {
        match OwnPool::connect(options.clone(), 1, DEFAULT_TIMEOUT / 2, None).await {
            Ok(pool) => return Ok(Connections::Own(pool)),
            Err(error) if classify::<Sqlite>(&error) == ErrorClass::Busy && Instant::now() < deadline => {
                sleep(WAL_PAUSE).await;
            }
            Err(error) => return Err(unchanged::<Sqlite>(error)),
        }
    }
}
