use std::str::FromStr as _;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::{migrate_postgres, status_postgres};
use sqlx::ConnectOptions as _;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgQueryResult, Postgres};

use crate::connection::Doubts;
use crate::dialect::{Dialect, plumbing};
use crate::engine::{Engine, token_storage};
use crate::error::{Failure, RUN_MIGRATIONS, bad_name, migration, unchanged};
use crate::sql::{After, Texts};
use crate::{MigrationStatus, STATEMENT_TIMEOUT};

/// Keeps tokens in a table of PostgreSQL.
///
/// Durable as far as the server is: with `synchronous_commit = off` or an unlogged table it is not.
#[derive(Clone, Debug)]
pub struct PostgresStorage {
    engine: Engine<Postgres>,
}

impl PostgresStorage {
    /// Connects with a pool of its own, of at most ten connections:
    /// `postgres://user:password@host/database?sslmode=verify-full`. Then [`migrate`](Self::migrate).
    ///
    /// The server stops a statement of these connections after eight seconds. It is told so when a connection starts,
    /// which PgBouncer refuses by default: behind it use [`from_pool`](Self::from_pool).
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong or the server refuses the user,
    /// [`StorageError::Unavailable`] if the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let options = PgConnectOptions::from_str(url).map_err(unchanged::<Postgres>)?;
        let options = options
            .options([("statement_timeout", STATEMENT_TIMEOUT.as_millis().to_string())])
            .disable_statement_logging();
        let doubts = Doubts::default();
        let pool = doubts.watch().connect_with(options).await.map_err(unchanged::<Postgres>)?;
        Ok(Self { engine: Self::from_pool(pool).engine.with_doubts(doubts) })
    }

    /// Uses the application's pool as it is. Set a `statement_timeout` there, and leave `test_before_acquire` on.
    pub fn from_pool(pool: PgPool) -> Self {
        Self { engine: Engine::new(pool.clone(), pool, true, true) }
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

impl Dialect for Postgres {
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
        numbered: true,
    };

    fn failure(error: &dyn DatabaseError) -> Failure {
        let code = error.code().unwrap_or_default();
        match &*code {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => Failure::Busy,
            // The server is shut down or has crashed under the statement.
            "57P01" | "57P02" | "57P05" => Failure::Broken,
            "42P01" | "42703" | "3F000" => Failure::Misconfigured(RUN_MIGRATIONS),
            "42501" => Failure::Misconfigured("the database user lacks a right on the table"),
            "28000" | "28P01" => Failure::Misconfigured("the server refuses this user or password"),
            "3D000" => Failure::Misconfigured("there is no database of this name"),
            _ if code.starts_with("08") => Failure::Broken,
            _ => Failure::Unavailable,
        }
    }

    fn changed(done: &PgQueryResult) -> u64 {
        done.rows_affected()
    }

    plumbing!();
}
