//! The storage on PostgreSQL, which works through any pooler.
//!
//! A connection whose [session](crate::postgres_session) belongs to it alone prepares its statements, like those of the
//! other databases. This is not possible through a pooler. A pooler in transaction mode runs each transaction on any of its server connections. Therefore a statement must not
//! depend on the session: values are literals in its text ([`literal`](crate::literal)), settings are local to it
//! ([`PREFIX`]), and prepared statements have names that mean the same everywhere ([`named`](crate::named)).

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::{migrate_postgres, status_postgres};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgQueryResult, Postgres};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, query_with, raw_sql};

use crate::address::{Address, Parameters, without_brackets};
use crate::connection::Connections;
use crate::dialect::{Bind, Dialect, StatementResult, collect, read_columns};
use crate::engine::{Engine, token_storage};
use crate::error::{ErrorClass, bad_address, bad_name, migration, unchanged};
use crate::literal::with_literals;
use crate::named::LookupName;
use crate::pool::{CONNECTIONS, OwnPool};
use crate::postgres_session::open;
use crate::several::Several;
use crate::sql::{After, Sql, Texts};
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
/// start-up message that only a session of its own has. Without a pooler, statements are prepared. Through a pooler,
/// and on a pool of the application, each operation is one message of the simple query protocol, and relies on no
/// setting of the session. Only `get` uses prepared statements there, one for a single read and one for concurrent
/// reads. Their names are derived from their texts, so that a name means the same on every server connection.
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
    /// may call this at the same time, also through a pooler.
    ///
    /// An application that may change its schema calls this at each start. To let an operator apply the migrations
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
    /// [`StorageError::Unavailable`]. This includes the pool of an application that was given to
    /// [`from_pool`](Self::from_pool).
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

token_storage!(PostgresStorage);

/// The settings that precede every statement and end with it. A setting of the session would not do, because a pooler
/// may run the next statement on another server connection. With `row_security = off`, row-level security that would
/// hide rows is an error. Hidden rows would look like missing tokens.
const PREFIX: &str = "SET LOCAL statement_timeout = 8000; SET LOCAL row_security = off; SET LOCAL bytea_output = hex; ";

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

impl Dialect for Postgres {
    type LookupState = LookupName;

    const STORAGE_NAME: &'static str = "PostgreSQL";
    const REMOTE: bool = true;
    const PARALLEL_READS: usize = 3;

    const TEXTS: Texts = Texts {
        now: "floor(extract(epoch FROM statement_timestamp()))::bigint",
        put_always: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
            SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
                retain_until = excluded.retain_until, key_id = excluded.key_id, updated_at = excluded.updated_at",
        put_absent: "INSERT INTO {table} AS existing (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
            SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
                retain_until = excluded.retain_until, key_id = excluded.key_id, \
                created_at = excluded.created_at, updated_at = excluded.updated_at \
            WHERE existing.retain_until <= {now}",
        // Rows are locked first. Rows that another statement has locked are skipped, because it may be replacing the
        // record.
        purge: "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE retain_until <= {now} \
                LIMIT ? FOR UPDATE SKIP LOCKED))",
        after: After::Rows,
        several: Several::Arrays,
        // Evaluated once, before any row is read.
        only_primary: " AND (SELECT 1 / (NOT pg_catalog.pg_is_in_recovery())::int) = 1",
        is_numbered: true,
    };

    fn classify(error: &dyn DatabaseError) -> ErrorClass {
        let code = error.code().unwrap_or_default();
        match &*code {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => ErrorClass::Busy,
            // The server was shut down or crashed during the statement, or ended an idle session.
            "57P01" | "57P02" | "57P05" => ErrorClass::Broken,
            // The only division by zero is the one in `only_primary`.
            "25006" | "22012" => ErrorClass::ReadOnly(READ_ONLY),
            "42P01" => ErrorClass::Misconfigured(NO_TABLE),
            "3F000" => ErrorClass::Misconfigured(NO_SCHEMA),
            "42703" | "42804" | "42809" | "42883" | "42P07" | "42P10" => ErrorClass::Misconfigured(ANOTHER_TABLE),
            "42501" => ErrorClass::Misconfigured(NO_PRIVILEGE),
            "28000" | "28P01" => ErrorClass::Misconfigured(
                "the server rejects this user, password or client host (pg_hba.conf); correct the URL or the server",
            ),
            "3D000" => ErrorClass::Misconfigured("there is no database of this name; create it, or correct the URL"),
            "26000" | "42P05" => ErrorClass::Misconfigured(UNTRACKED_STATEMENTS),
            "08P01" => protocol_violation(error.message()),
            _ if code.starts_with("08") => ErrorClass::Broken,
            _ => ErrorClass::Unavailable,
        }
    }

    fn changed(done: &PgQueryResult) -> u64 {
        done.rows_affected()
    }

    async fn open(options: &PgConnectOptions, is_pooler: &AtomicBool) -> Result<(PgConnection, bool), sqlx::Error> {
        open(options, is_pooler).await
    }

    async fn run_prepared(
        connection: &mut PgConnection,
        sql: &Sql,
        binds: &[Bind<'_>],
    ) -> Result<StatementResult<Self>, sqlx::Error> {
        match execute_prepared(connection, sql, binds).await {
            // feature_not_supported: the type of a column has changed since the statement was prepared.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("0A000") => {
                connection.clear_cached_statements().await?;
                execute_prepared(connection, sql, binds).await
            }
            result => result,
        }
    }

    /// Sends a statement through the simple query protocol, with the values in its text.
    async fn run(
        connection: &mut PgConnection,
        sql: &Sql,
        binds: &[Bind<'_>],
    ) -> Result<StatementResult<Self>, sqlx::Error> {
        send(connection, &with_literals(&sql.text, binds)?).await
    }

    /// Executes the statement by its name, so that the server need not parse and plan it. If the name is unknown, the
    /// statement is prepared for the next read and then sent itself, so a lookup takes at most three messages. Writes
    /// have no names, because a server logs an unknown name together with the values.
    async fn lookup(
        connection: &mut PgConnection,
        sql: &Sql,
        binds: &[Bind<'_>],
        name: &LookupName,
    ) -> Result<StatementResult<Self>, sqlx::Error> {
        if !name.may_try() {
            return Self::run(connection, sql, binds).await;
        }
        let named = name.of(&sql.text, binds);
        let error = match send(connection, &named.execute(binds)?).await {
            Err(sqlx::Error::Database(error)) => error,
            result => return result,
        };
        let Some(remedy) = named.remedy(error.as_ref()) else { return Err(sqlx::Error::Database(error)) };
        name.report_unknown();
        match send(connection, &remedy).await {
            // A pooler may have switched the server connection. The statement itself reports any other problem.
            Ok(_) | Err(sqlx::Error::Database(_)) => Self::run(connection, sql, binds).await,
            Err(error) => Err(error),
        }
    }

    read_columns!();
}

/// Sends one message. Its text is safe: it consists of constants, a table name of letters, digits and underscores, and
/// quoted digits.
async fn send(connection: &mut PgConnection, statement: &str) -> Result<StatementResult<Postgres>, sqlx::Error> {
    let message = AssertSqlSafe(format!("{PREFIX}{statement}"));
    collect(connection.fetch_many(raw_sql(message))).await
}

async fn execute_prepared(
    connection: &mut PgConnection,
    sql: &Sql,
    binds: &[Bind<'_>],
) -> Result<StatementResult<Postgres>, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for bind in binds {
        match *bind {
            Bind::Bytes(bytes) => arguments.add(bytes),
            Bind::Column(rows, column) => arguments.add(rows.iter().map(|row| row[column]).collect::<Vec<_>>()),
            Bind::OptionalBytes(bytes) => arguments.add(bytes),
            Bind::Number(number) => arguments.add(number),
            Bind::OptionalNumber(number) => arguments.add(number),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    let text = AssertSqlSafe(Arc::clone(&sql.prepared));
    collect(connection.fetch_many(query_with(text, arguments))).await
}

/// Classifies a protocol violation by its message, because PgBouncer reports most of its errors with this code.
fn protocol_violation(message: &str) -> ErrorClass {
    let contains_any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if contains_any(&["startup parameter"]) {
        ErrorClass::Misconfigured(START_UP)
    } else if contains_any(&["no such database"]) {
        ErrorClass::Misconfigured("the pooler has no database of this name; add it to the pooler's configuration")
    } else if contains_any(&["no such user", "authentication failed", "auth failed"]) {
        ErrorClass::Misconfigured("the pooler rejects this user, password or host; correct the URL or the pooler")
    } else if contains_any(&["statement pooling mode"]) {
        ErrorClass::Misconfigured(
            "the pooler does not support transactions; set its pool_mode to transaction or session",
        )
    } else if contains_any(&["prepared statement", "bind message"]) {
        ErrorClass::Misconfigured(UNTRACKED_STATEMENTS)
    } else if contains_any(&[
        "query_wait_timeout",
        "cannot connect to server",
        "login has been failing",
        "no more connections",
    ]) {
        // The statement waited for a server connection, and was never sent to the server.
        ErrorClass::Unavailable
    } else {
        ErrorClass::Broken
    }
}

/// The advice for an operator, which is part of an error.
const READ_ONLY: &str = "the server does not accept writes: it is a standby, or default_transaction_read_only is on; \
    connect to the primary, or turn the setting off for this user";
const NO_TABLE: &str = "the table is missing, or its schema is not in the search_path; \
    run the migrations with `migrate()` or by hand, or name the schema with `with_table(\"schema.table\")`";
const NO_SCHEMA: &str = "the search_path contains no schema of this database; \
    set it for this user, or name the schema with `with_table(\"schema.table\")` and run the migrations";
const ANOTHER_TABLE: &str = "the table does not have the columns of this release, or is another table of this name; \
    run the migrations, or choose another name with `with_table`";
const NO_PRIVILEGE: &str = "the database user lacks a privilege on the table or its schema, or row-level security is on for \
    this user; grant the privilege, or turn row-level security off for the table, or for the user with BYPASSRLS";
const START_UP: &str = "the pooler rejects a start-up parameter; remove `options` from the URL, call \
    `extra_float_digits(None)` on the options of your own pool, or add it to the pooler's ignore_startup_parameters";
const UNTRACKED_STATEMENTS: &str = "a pooler does not track prepared statements; set max_prepared_statements there (PgBouncer 1.21 or \
    newer) or pool_mode = session, or turn prepared statements off in the application";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbouncer_errors_are_classified_by_message() {
        let misconfigured = [
            "unsupported startup parameter: extra_float_digits",
            "unsupported startup parameter in options: work_mem",
            "no such database: app",
            "no such user: app",
            "password authentication failed",
            "transaction blocks not allowed in statement pooling mode",
            "bind message supplies 5 parameters, but prepared statement \"sqlx_s_1\" requires 4",
        ];
        for message in misconfigured {
            assert!(matches!(protocol_violation(message), ErrorClass::Misconfigured(_)), "{message}");
        }
        for message in ["query_wait_timeout", "pgbouncer cannot connect to server"] {
            assert_eq!(protocol_violation(message), ErrorClass::Unavailable, "{message}");
        }
        for message in ["server conn crashed?", "server closed the connection unexpectedly", "client_idle_timeout"] {
            assert_eq!(protocol_violation(message), ErrorClass::Broken, "{message}");
        }
    }
}
