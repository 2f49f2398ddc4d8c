use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
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
use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteQueryResult,
};
use tokio::time::{Instant, sleep};

use crate::dialect::{Dialect, read_columns, run_prepared};
use crate::engine::Engine;
use crate::error::{Failure, RUN_MIGRATIONS, bad_name, failure, migration, unchanged};
use crate::sql::{After, Texts};
use crate::sqlite_file::{OpenFiles, refuse_links, warn_of_shares};
use crate::{DEFAULT_TIMEOUT, MigrationStatus};

/// Connections that read. Each one is a thread; more of them than cores gain nothing.
const READERS: u32 = 4;
/// How long SQLite itself waits for another process's write: less than [`DEFAULT_TIMEOUT`], so that it answers first.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);
/// How often to try again to put a new file into WAL mode, for which SQLite does not wait.
const WAL_PAUSE: Duration = Duration::from_millis(20);

/// Keeps tokens in a SQLite file, which any number of processes on one machine may share.
///
/// # Durability
/// An acknowledged write survives the application's crash, and with SQLite's own default (`synchronous = FULL`), which
/// [`connect`](Self::connect) leaves alone, also a power cut. A refresh token that the provider has replaced cannot be
/// had again, so that is worth an fsync a write. Where it is not, [`connect_with`](Self::connect_with) sets `NORMAL`: writes are
/// two to three times faster and a power cut may cost the last of them.
///
/// # Connections
/// Writes queue for one connection, because SQLite lets one writer in at a time and its own way of waiting is to
/// sleep and ask again; reads have a few connections that no write holds up (WAL).
///
/// # A file that is lost
/// A file that is deleted, moved or replaced under a running application, for example by a restored backup, can still be
/// written to, and what is written is gone at the next start. So every operation looks first whether the path still leads
/// to the file that was opened, and with [`connect`](Self::connect) also to its log, and a write looks again before it is
/// acknowledged. It is [`StorageError::Misconfigured`] if not, and everything goes on once the file is back. On systems
/// other than Unix only a file that is gone is noticed. A backup that is copied *into* the open file is not noticed: stop the
/// application first, or use SQLite's own `.restore`.
#[derive(Clone, Debug)]
pub struct SqliteStorage {
    engine: Engine<Sqlite>,
    /// `None` if the database is in memory.
    files: Option<OpenFiles>,
    anchor: Anchor,
}

/// A connection that stays open and is never used. The pools may close theirs at any time, and SQLite deletes the log with
/// the last one, so that a log that is gone would not mean that it was lost.
type Anchor = Arc<Mutex<Option<SqliteConnection>>>;

impl SqliteStorage {
    /// Opens the file that a URL names, `sqlite:tokens.db` or `sqlite:///var/lib/app/tokens.db`. A missing file is
    /// created, readable by its owner only, unless the URL has a `mode` other than `rwc`; then [`migrate`](Self::migrate).
    ///
    /// `sqlite::memory:` is a database of this storage and its clones only, gone when they are.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong or the file cannot be opened, is no database or has several hard
    /// links, [`StorageError::Unavailable`] if another process keeps it locked.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        Self::connect_with(url, |options| options).await
    }

    /// The same with some of sqlx's options changed. They come with WAL, a busy time-out of four seconds and no
    /// statement log.
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
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        url: &str,
        change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, StorageError> {
        let create = may_create(url);
        let options = SqliteConnectOptions::from_str(url).map_err(unchanged::<Sqlite>)?;
        let options = options
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        if create {
            create_private(options.get_filename());
        }

        // Never closed, because that is the end of a database in memory.
        let pool = SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        let options = change(options);
        refuse_links(options.get_filename())?;
        let writers = open(pool.clone().max_connections(1), &options).await?;
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
        let readers = pool.max_connections(READERS).connect_lazy_with(options);
        Ok(Self { engine: Engine::new(readers, writers, true, true), files: Some(files), anchor })
    }

    /// Uses the application's pool, for reads and writes alike. WAL and a busy time-out are the pool's own affair.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] for a pool of several connections to `:memory:`, which may be a database each;
    /// otherwise as [`connect`](Self::connect).
    pub async fn from_pool(pool: SqlitePool) -> Result<Self, StorageError> {
        let path = file_of(&pool).await?;
        if path.is_none() && pool.options().get_max_connections() > 1 {
            return Err(StorageError::Misconfigured {
                advice: "give a pool to an in-memory database `max_connections(1)`, no idle time-out and no \
                    maximal lifetime, or use a file"
                    .to_owned(),
                source: "each connection to an in-memory database may be a database of its own".into(),
            });
        }
        let files = path.map(|path| OpenFiles::of(&path, pool.connect_options().get_filename())).transpose()?;
        let on_disk = files.is_some();
        Ok(Self { engine: Engine::new(pool.clone(), pool, on_disk, on_disk), files, anchor: Anchor::default() })
    }

    /// Uses another table than `oauth_dance_tokens`.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless it is of at most 48 lower-case letters, digits and underscores and does
    /// not start with a digit.
    pub fn with_table(self, name: &str) -> Result<Self, StorageError> {
        let table: TableName = name.parse().map_err(bad_name)?;
        if table.schema().is_some() {
            return Err(bad_name("SQLite has no schemas"));
        }
        Ok(Self { engine: self.engine.with_table(table), ..self })
    }

    /// Sets the longest an operation takes.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { engine: self.engine.with_timeout(timeout), ..self }
    }

    /// Creates the table or brings it up to date. Does nothing if it is; safe from any number of processes at once.
    ///
    /// # Errors
    /// As the other operations. Nothing has changed then.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        self.check()?;
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Sqlite>)?;
        migrate_sqlite(&mut connection, self.engine.table()).await.map_err(migration::<Sqlite>)?;
        self.confirm()
    }

    /// The migrations and whether the database has them. Changes nothing.
    ///
    /// # Errors
    /// As the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        self.check()?;
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Sqlite>)?;
        status_sqlite(&mut connection, self.engine.table()).await.map_err(migration::<Sqlite>)
    }

    /// Closes the connections once what runs on them has ended. Operations fail from then on.
    pub async fn close(&self) {
        self.engine.close().await;
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = anchor {
            let _ = connection.close().await;
        }
    }

    /// The files to look for. A closed database has no log, and its operations fail by themselves.
    fn watched(&self) -> Option<&OpenFiles> {
        self.files.as_ref().filter(|_| !self.engine.writers().is_closed())
    }

    /// Whether the database is still the one at its path, before something is done with it.
    fn check(&self) -> Result<(), StorageError> {
        self.watched().map_or(Ok(()), OpenFiles::check)
    }

    /// The same before a write is acknowledged.
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

/// The log is there from the first read on, for as long as this connection is.
async fn anchor(options: &SqliteConnectOptions) -> Result<Anchor, sqlx::Error> {
    let mut connection = options.connect().await?;
    sqlx::query("SELECT count(*) FROM sqlite_schema").execute(&mut connection).await?;
    Ok(Arc::new(Mutex::new(Some(connection))))
}

/// Whether a missing file is ours to create: without a `mode`, and with the one that says so.
fn may_create(url: &str) -> bool {
    let path = url.trim_start_matches("sqlite://").trim_start_matches("sqlite:");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let other_mode = |pair: &str| pair.strip_prefix("mode=").is_some_and(|mode| mode != "rwc");
    !path.is_empty() && path != ":memory:" && !query.split('&').any(other_mode)
}

/// The file of a database. `None` if it is in memory, or in a temporary file of one connection.
async fn file_of(pool: &SqlitePool) -> Result<Option<PathBuf>, StorageError> {
    let file = sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'").fetch_one(pool).await;
    let file: Option<String> = file.map_err(unchanged::<Sqlite>)?;
    Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
}

/// Creates a missing file that only its owner may read. SQLite gives the files beside it the same permissions.
/// What goes wrong here goes wrong again when SQLite opens it, which knows better what to say.
fn create_private(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(path);
}

async fn open(pool: SqlitePoolOptions, options: &SqliteConnectOptions) -> Result<SqlitePool, StorageError> {
    let deadline = Instant::now() + DEFAULT_TIMEOUT / 2;
    loop {
        match pool.clone().connect_with(options.clone()).await {
            Ok(pool) => return Ok(pool),
            Err(error) if failure::<Sqlite>(&error) == Failure::Busy && Instant::now() < deadline => {
                sleep(WAL_PAUSE).await;
            }
            Err(error) => return Err(unchanged::<Sqlite>(error)),
        }
    }
}

impl Dialect for Sqlite {
    type LookUps = ();

    const STORAGE_NAME: &'static str = "SQLite";
    const REMOTE: bool = false;

    const TEXTS: Texts = Texts {
        now: "unixepoch()",
        put_always: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
            SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
                retain_until = excluded.retain_until, key_id = excluded.key_id, updated_at = excluded.updated_at",
        put_absent: "INSERT INTO {table} AS kept (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
            SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
                retain_until = excluded.retain_until, key_id = excluded.key_id, \
                created_at = excluded.created_at, updated_at = excluded.updated_at \
            WHERE kept.retain_until <= {now}",
        purge: "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE retain_until <= {now} LIMIT ?)",
        after: After::Rows,
        only_primary: "",
    };

    fn failure(error: &dyn DatabaseError) -> Failure {
        let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        // The low byte is the result code, the rest says more about it.
        match code & 0xff {
            1 if error.message().starts_with("no such") => Failure::Misconfigured(RUN_MIGRATIONS),
            5 | 6 => Failure::Busy,
            8 => Failure::Misconfigured("the database file or its folder is read-only"),
            11 | 26 => Failure::Misconfigured("the file is damaged or no SQLite database"),
            14 => Failure::Misconfigured("the database file cannot be opened; check its path and permissions"),
            _ => Failure::Unavailable,
        }
    }

    fn changed(done: &SqliteQueryResult) -> u64 {
        done.rows_affected()
    }

    run_prepared!();
    read_columns!();
}
