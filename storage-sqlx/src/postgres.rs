use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::{migrate_postgres, status_postgres};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgQueryResult, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, raw_sql};

use crate::MigrationStatus;
use crate::address::{Address, Parameters, without_brackets};
use crate::connection::Doubts;
use crate::dialect::{Bind, Dialect, Outcome, collect, read_columns};
use crate::engine::{Engine, token_storage};
use crate::error::{Failure, bad_address, bad_name, migration, unchanged};
use crate::literal::with_literals;
use crate::named::LookUpName;
use crate::sql::{After, Texts};

/// Keeps tokens in a table of PostgreSQL.
///
/// Durable as far as the server is: with `synchronous_commit = off` or an unlogged table it is not.
///
/// Each operation is one message of the simple query protocol, with no setting of the session and no prepared statement but
/// that of `get`, which has a name made of its text, so that it is the same through a pooler that hands the server's
/// connections around. The first `get` on a connection of the server takes two more. The server stops a statement after
/// eight seconds, refuses to leave rows out because of row-level security, and refuses to read on a standby.
#[derive(Clone, Debug)]
pub struct PostgresStorage {
    engine: Engine<Postgres>,
}

impl PostgresStorage {
    /// Connects with a pool of its own, of at most ten connections:
    /// `postgres://user:password@host/database?sslmode=verify-full`. Then [`migrate`](Self::migrate).
    ///
    /// The URL may be that of a pooler, such as PgBouncer, in any of its modes.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, names several hosts or a parameter that would be ignored, or if
    /// the server refuses the user;
    /// [`StorageError::Unavailable`] if the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let address = Address::parse(url, PARAMETERS).map_err(bad_address)?;
        let options = PgConnectOptions::from_str(&address.url).map_err(unchanged::<Postgres>)?;
        let host = without_brackets(options.get_host()).to_owned();
        // A pooler may refuse what is set at the start of a connection.
        let options = options.host(&host).extra_float_digits(None).disable_statement_logging();
        let doubts = Doubts::default();
        let pool = doubts.watch(address.connect_timeout).connect_with(options).await.map_err(unchanged::<Postgres>)?;
        Ok(Self { engine: Self::from_pool(pool).engine.with_doubts(doubts) })
    }

    /// Uses the application's pool as it is. Leave `test_before_acquire` on.
    ///
    /// sqlx logs the statements of such a pool at the levels its options say, as they come with `debug`, and slow ones with
    /// `warn`. The keys and sealed payloads stand in them in hexadecimal; `disable_statement_logging()` turns it off.
    pub fn from_pool(pool: PgPool) -> Self {
        Self { engine: Engine::new(pool.clone(), pool, true, true).with_opening(OPENING) }
    }

    /// Uses another table than `oauth_dance_tokens`: `tokens`, or `auth.tokens` in a schema, which
    /// [`migrate`](Self::migrate) creates where it is missing.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless each part is of at most 48 lower-case letters, digits and underscores
    /// and does not start with a digit.
    pub fn with_table(self, name: &str) -> Result<Self, StorageError> {
        let table = name.parse().map_err(bad_name)?;
        Ok(Self { engine: self.engine.with_table(table) })
    }

    /// Sets the longest an operation takes.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { engine: self.engine.with_timeout(timeout) }
    }

    /// Creates the table or brings it up to date. Does nothing if it is; safe from any number of processes at once.
    ///
    /// # Errors
    /// As the other operations. Nothing has changed then.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Postgres>)?;
        migrate_postgres(&mut connection, self.engine.table()).await.map_err(migration::<Postgres>)
    }

    /// The migrations and whether the database has them. Changes nothing.
    ///
    /// # Errors
    /// As the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<Postgres>)?;
        status_postgres(&mut connection, self.engine.table()).await.map_err(migration::<Postgres>)
    }

    /// Closes the connections once what runs on them has ended. Operations fail from then on.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

token_storage!(PostgresStorage);

/// Set for each statement alone: a pooler's connection is another client's the next moment. Row-level security that hides
/// rows becomes an error, and would otherwise read as "not connected".
const OPENING: &str =
    "SET LOCAL statement_timeout = 8000; SET LOCAL row_security = off; SET LOCAL bytea_output = hex; ";

const PARAMETERS: Parameters = Parameters {
    of_sqlx: &[
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
    given: &[
        // Reads and writes on a standby are errors.
        ("target_session_attrs", &["any", "read-write", "primary"]),
        ("load_balance_hosts", &["disable"]),
        ("client_encoding", &["auto", "utf8", "utf-8"]),
        ("channel_binding", &["disable", "prefer"]),
        ("gssencmode", &["disable", "prefer"]),
        ("sslnegotiation", &["postgres"]),
        // Of another library: whether a pooler hands connections around. Here it may.
        ("pgbouncer", &["true", "false"]),
    ],
};

impl Dialect for Postgres {
    type LookUps = LookUpName;

    const STORAGE_NAME: &'static str = "PostgreSQL";
    const REMOTE: bool = true;

    const TEXTS: Texts = Texts {
        now: "floor(extract(epoch FROM statement_timestamp()))::bigint",
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
        // Locked first, and passed over where another statement has a lock: that one may be renewing the record.
        purge: "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE retain_until <= {now} \
                LIMIT ? FOR UPDATE SKIP LOCKED))",
        after: After::Rows,
        // Asked once, before any row is read.
        only_primary: " AND (SELECT 1 / (NOT pg_catalog.pg_is_in_recovery())::int) = 1",
    };

    fn failure(error: &dyn DatabaseError) -> Failure {
        let code = error.code().unwrap_or_default();
        match &*code {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => Failure::Busy,
            // The server is shut down or has crashed under the statement, or ended an idle session.
            "57P01" | "57P02" | "57P05" => Failure::Broken,
            // "Division by zero" is the only one, of `only_primary`.
            "25006" | "22012" => Failure::ReadOnly(READ_ONLY),
            "42P01" => Failure::Misconfigured(NO_TABLE),
            "3F000" => Failure::Misconfigured(NO_SCHEMA),
            "42703" | "42804" | "42809" | "42883" | "42P07" | "42P10" => Failure::Misconfigured(ANOTHER_TABLE),
            "42501" => Failure::Misconfigured(NO_RIGHT),
            "28000" | "28P01" => Failure::Misconfigured(
                "the server refuses this user or password, or the host they come from (pg_hba.conf)",
            ),
            "3D000" => Failure::Misconfigured("there is no database of this name"),
            "26000" | "42P05" => Failure::Misconfigured(MIXED_UP),
            "08P01" => protocol_violation(error.message()),
            _ if code.starts_with("08") => Failure::Broken,
            _ => Failure::Unavailable,
        }
    }

    fn changed(done: &PgQueryResult) -> u64 {
        done.rows_affected()
    }

    /// By the simple query protocol, with the values in the statement: a prepared statement with a number belongs to a connection of the
    /// server, and a pooler that hands these around would have one client run what another has prepared.
    async fn run(
        connection: &mut PgConnection,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
    ) -> Result<Outcome<Self>, sqlx::Error> {
        send(connection, with_literals(sql, binds)?).await
    }

    /// By the name of the statement, which spares the server parsing and planning. Where the name does not help, the
    /// statement itself is sent, so three messages end it. Only for reads: a name that a server does not know is in its log,
    /// with the values.
    async fn look_up(
        connection: &mut PgConnection,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
        name: &LookUpName,
    ) -> Result<Outcome<Self>, sqlx::Error> {
        if !name.try_one() {
            return Self::run(connection, sql, binds).await;
        }
        let named = name.of(sql.strip_prefix(OPENING).unwrap_or(sql), binds);
        let error = match send(connection, format!("{OPENING}{}", named.execute(binds)?)).await {
            Err(sqlx::Error::Database(error)) => error,
            answered => return answered,
        };
        let Some(remedy) = named.remedy(error.as_ref()) else { return Err(sqlx::Error::Database(error)) };
        name.unknown();
        match send(connection, format!("{OPENING}{remedy}")).await {
            // A pooler may have changed the connection. What else is wrong, the statement itself says.
            Ok(_) | Err(sqlx::Error::Database(_)) => Self::run(connection, sql, binds).await,
            Err(error) => Err(error),
        }
    }

    read_columns!();
}

/// Sends one message, made of constants, a table name of letters, digits and underscores, and digits within quotes.
async fn send(connection: &mut PgConnection, message: String) -> Result<Outcome<Postgres>, sqlx::Error> {
    collect(connection.fetch_many(raw_sql(AssertSqlSafe(message)))).await
}

/// What a protocol violation means: PgBouncer says everything with this code.
fn protocol_violation(message: &str) -> Failure {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["startup parameter"]) {
        Failure::Misconfigured(START_UP)
    } else if says(&["no such database"]) {
        Failure::Misconfigured("the pooler has no database of this name; add it to the pooler's configuration")
    } else if says(&["no such user", "authentication failed", "auth failed"]) {
        Failure::Misconfigured("the pooler refuses this user, password or host")
    } else if says(&["statement pooling mode"]) {
        Failure::Misconfigured("the pooler takes no transactions; set its pool_mode to transaction or session")
    } else if says(&["prepared statement", "bind message"]) {
        Failure::Misconfigured(MIXED_UP)
    } else if says(&["query_wait_timeout", "cannot connect to server", "login has been failing", "no more connections"])
    {
        // The statement waited for a connection of the server, and was never sent there.
        Failure::Unavailable
    } else {
        Failure::Broken
    }
}

const READ_ONLY: &str = "the server takes no writes: it is a standby, or default_transaction_read_only is on; \
    connect to the primary, or turn that off for this user";
const NO_TABLE: &str = "the table is missing, or its schema is not in the search_path; \
    run the migrations, with `migrate()` or by hand, or name the schema with `with_table(\"schema.table\")`";
const NO_SCHEMA: &str = "the search_path names no schema of this database; \
    set it for this user, or name the schema with `with_table(\"schema.table\")` and run the migrations";
const ANOTHER_TABLE: &str = "the table has not the columns of this release, or is another one of this name; \
    run the migrations, or choose a name with `with_table`";
const NO_RIGHT: &str = "the database user lacks a right on the table or its schema, or row-level security is on for \
    this user; grant the right, or turn the security off for the table or for the user with BYPASSRLS";
const START_UP: &str = "the pooler refuses a start-up parameter; leave `options` out of the URL, call \
    `extra_float_digits(None)` on the options of your own pool, or add it to the pooler's ignore_startup_parameters";
const MIXED_UP: &str = "a pooler mixes up prepared statements; set max_prepared_statements there (PgBouncer 1.21 or \
    newer) or pool_mode = session, or turn prepared statements off in the application";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbouncer_says_everything_with_one_code() {
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
            assert!(matches!(protocol_violation(message), Failure::Misconfigured(_)), "{message}");
        }
        for message in ["query_wait_timeout", "pgbouncer cannot connect to server"] {
            assert_eq!(protocol_violation(message), Failure::Unavailable, "{message}");
        }
        for message in ["server conn crashed?", "server closed the connection unexpectedly", "client_idle_timeout"] {
            assert_eq!(protocol_violation(message), Failure::Broken, "{message}");
        }
    }
}
