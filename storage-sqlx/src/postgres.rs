//! The storage on PostgreSQL, which works through any pooler.
//!
//! It contains the options, and the checks of a URL. [`postgres_dialect`](crate::postgres_dialect) runs the statements.

use std::str::FromStr as _;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::{migrate_postgres, status_postgres};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, Postgres};

use crate::address::{Address, Parameters, without_brackets};
use crate::connection::Connections;
use crate::engine::{Engine, token_storage};
use crate::error::{bad_address, bad_name, migration, unchanged};
use crate::pool::{CONNECTIONS, OwnPool};
use crate::{DEFAULT_TIMEOUT, MigrationStatus};

/// Stores tokens in a table of PostgreSQL.
///
/// ```no_run
/// use oauth_dance_core::{KeyRing, Tokens};
/// use oauth_dance_sqlx::PostgresStorage;
///
/// # async fn example() -> Result<(), oauth_dance_core::StorageError> {
/// let url = "postgres://app:password@db.example/app?sslmode=verify-full";
/// let storage = PostgresStorage::connect(url).await?;
/// storage.migrate().await?;
/// let tokens = Tokens::sealed(storage, KeyRing::generate());
/// # let _ = tokens;
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// The storage is as durable as the server. With `synchronous_commit = off` or an unlogged table, a crash of the server
/// may lose acknowledged writes, and the storage cannot detect this.
///
/// # Poolers
/// The storage works through any pooler. Each new connection detects whether there is one, by a random number in its
/// startup message, which only the connection's own session has. Without a pooler, statements are prepared. Behind a
/// pooler, and on the application's pool, each operation is one message of the simple query protocol, and relies on no
/// session setting. Only `get` uses prepared statements there, one for a single read and one for concurrent reads.
/// Their names are derived from their texts, so that a name means the same on every server connection.
///
/// # URL parameters
/// | parameter | meaning |
/// | --- | --- |
/// | `sslmode` | how TLS is used and verified: `disable`, `prefer`, `require`, `verify-ca` or `verify-full` |
/// | `sslrootcert` | the file with the root certificate that verifies the server |
/// | `sslcert`, `sslkey` | the files with the client's certificate and its key |
/// | `host`, `hostaddr`, `port`, `dbname`, `user`, `password` | replace a part of the URL; `host` may be the folder of a Unix socket |
/// | `application_name` | the name in `pg_stat_activity` |
/// | `options` | settings of the session, which some poolers reject |
/// | `connect_timeout` | how many seconds to wait for a connection |
///
/// A parameter of another library is accepted if its value describes what this storage does in any case, such as
/// `target_session_attrs=read-write` or `pgbouncer=true`. Any other parameter is an error, because sqlx would ignore it
/// silently.
///
/// # Privileges
/// The user needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the table, and `USAGE` on its schema. To verify that the
/// table is current, [`migrate`](Self::migrate) and [`migrations`](Self::migrations) also need `SELECT` on
/// `_oauth_dance_tokens_migrations`. To apply the migrations, the user also needs `CREATE` on the schema, and has
/// to own the tables.
///
/// # Rejected servers
/// If row-level security hides rows, or if the server is a standby, a read is an error. Otherwise an existing token
/// could look like a missing one. The server stops a statement after eight seconds.
#[derive(Clone, Debug)]
pub struct PostgresStorage {
    engine: Engine<Postgres>,
}

impl PostgresStorage {
    /// Connects with a new pool of at most ten connections. Call [`migrate`](Self::migrate) next.
    ///
    /// The URL has the form `postgres://user:password@host/database?sslmode=verify-full`. It may name a pooler such as
    /// PgBouncer, in any of its modes. The parameter `connect_timeout` is the time in seconds to wait for a connection,
    /// five by default. The server's certificate is verified only with `sslmode=verify-ca` or `verify-full`.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, names several hosts or contains a parameter that is not
    /// supported, or if the server rejects the user. [`StorageError::Unavailable`] if the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let address = Address::parse(url, PARAMETERS).map_err(bad_address)?;
        let options = PgConnectOptions::from_str(&address.url).map_err(unchanged::<Postgres>)?;
        let host = without_brackets(options.get_host()).to_owned();
        // A pooler may reject start-up parameters.
        let options = options.host(&host).extra_float_digits(None).disable_statement_logging();
        let wait = address.connect_timeout.unwrap_or(DEFAULT_TIMEOUT / 2);
        let pool = OwnPool::connect(options, CONNECTIONS, wait, None).await.map_err(unchanged::<Postgres>)?;
        Ok(Self::on(Connections::Own(pool)))
    }

    /// Uses a pool of the application, so that tokens and application share their connections. Does not connect yet.
    ///
    /// Leave `test_before_acquire` on, because a write on a closed connection is ambiguous.
    ///
    /// sqlx logs the statements of such a pool at the level `debug`, and slow statements at `warn`. They contain the
    /// keys and the sealed payloads in hexadecimal. Turn this off in the options of the pool:
    ///
    /// ```
    /// use oauth_dance_sqlx::PostgresStorage;
    /// use sqlx::ConnectOptions as _;
    /// use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let options: PgConnectOptions = "postgres://app:password@db.example/app".parse()?;
    /// let pool = PgPoolOptions::new().connect_lazy_with(options.disable_statement_logging());
    /// let storage = PostgresStorage::from_pool(pool).with_table("auth.tokens")?;
    /// # let _ = storage;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_pool(pool: PgPool) -> Self {
        Self::on(Connections::Application(pool))
    }

    fn on(connections: Connections<Postgres>) -> Self {
        Self { engine: Engine::new(connections.clone(), connections, true, true) }
    }

    /// Uses another table than `oauth_dance_tokens`, such as `tokens`, or `auth.tokens` in a schema.
    /// [`migrate`](Self::migrate) creates a missing schema.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless each part consists of at most 48 lower-case letters, digits and
    /// underscores, and does not start with a digit.
    pub fn with_table(self, name: &str) -> Result<Self, StorageError> {
        let table = name.parse().map_err(bad_name)?;
        Ok(Self { engine: self.engine.with_table(table) })
    }

    /// Sets the timeout of an operation. The default is [`DEFAULT_TIMEOUT`].
    ///
    /// The timeout includes the wait for a connection and all retries of a statement.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { engine: self.engine.with_timeout(timeout) }
    }

    /// Creates the table, or updates it to this release. Does nothing if the table is current. Any number of processes
    /// may call this at the same time, even through a pooler.
    ///
    /// An application that may change its schema calls this at every startup. To let an operator apply the migrations
    /// instead, call [`migrations`](Self::migrations) and refuse to start while one is pending.
    ///
    /// # Errors
    /// The errors of the other operations. Nothing has changed in this case.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Postgres>)?;
        migrate_postgres(connection.get(), self.engine.table()).await.map_err(migration::<Postgres>)?;
        connection.mark_clean();
        Ok(())
    }

    /// Returns all migrations and their state in the database. Changes nothing, and needs no privilege to create
    /// tables.
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Postgres>)?;
        let statuses = status_postgres(connection.get(), self.engine.table()).await.map_err(migration::<Postgres>)?;
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
        self.engine.invalid_keys(limit).await
    }

    /// Closes the connections after their running statements have ended. Later operations fail with
    /// [`StorageError::Unavailable`]. This includes an application's pool that was passed to
    /// [`from_pool`](Self::from_pool).
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

token_storage!(PostgresStorage);

/// The parameters of a URL. The values of `implied` have no effect, because the storage behaves in this way.
const PARAMETERS: Parameters = Parameters {
    sqlx: &[
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        "statement-cache-capacity",
    ],
    implied: &[
        // These have no effect, because reads and writes on a standby are errors.
        ("target_session_attrs", &["any", "read-write", "primary"]),
        ("load_balance_hosts", &["disable"]),
        ("client_encoding", &["auto", "utf8", "utf-8"]),
        ("channel_binding", &["disable", "prefer"]),
        ("gssencmode", &["disable", "prefer"]),
        ("sslnegotiation", &["postgres"]),
        // Another library needs this parameter for poolers. This storage works with any pooler.
        ("pgbouncer", &["true", "false"]),
    ],
};
