use std::str::FromStr as _;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use oauth_dance_migrations::{migrate_mysql, status_mysql};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySql, MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlQueryResult};
use sqlx::{AssertSqlSafe, ConnectOptions as _};

use crate::connection::Doubts;
use crate::dialect::{Dialect, plumbing};
use crate::engine::{Engine, token_storage};
use crate::error::{Failure, RUN_MIGRATIONS, bad_name, migration, unchanged};
use crate::sql::{After, Texts};
use crate::{MigrationStatus, STATEMENT_TIMEOUT};

/// Keeps tokens in an InnoDB table of MySQL or MariaDB.
///
/// Durable as far as the server is: with `innodb_flush_log_at_trx_commit` other than 1 it is not.
#[derive(Clone, Debug)]
pub struct MySqlStorage {
    engine: Engine<MySql>,
}

impl MySqlStorage {
    /// Connects with a pool of its own, of at most ten connections:
    /// `mysql://user:password@host/database?ssl-mode=verify_identity`. Then [`migrate`](Self::migrate).
    ///
    /// On these connections the server stops waiting for a lock after four seconds, and MariaDB stops any statement
    /// after eight.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong or the server refuses the user,
    /// [`StorageError::Unavailable`] if the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let options = MySqlConnectOptions::from_str(url).map_err(unchanged::<MySql>)?.disable_statement_logging();
        let doubts = Doubts::default();
        let pool = doubts.watch().after_connect(|connection, _| {
            // What stands between /*M! and */ only MariaDB runs.
            let limits = format!(
                "SET SESSION innodb_lock_wait_timeout = {} /*M!100100 , max_statement_time = {} */",
                STATEMENT_TIMEOUT.as_secs() / 2,
                STATEMENT_TIMEOUT.as_secs(),
            );
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(limits)).execute(connection).await?;
                Ok(())
            })
        });
        let pool = pool.connect_with(options).await.map_err(unchanged::<MySql>)?;
        Ok(Self { engine: Self::from_pool(pool).engine.with_doubts(doubts) })
    }

    /// Uses the application's pool as it is. Set `innodb_lock_wait_timeout` there, and leave `test_before_acquire` on.
    pub fn from_pool(pool: MySqlPool) -> Self {
        Self { engine: Engine::new(pool.clone(), pool, true, true) }
    }

    /// Uses another table than `oauth_dance_tokens`: `tokens`, or `auth.tokens` in another database of the server.
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
    /// As the other operations. What was done until then is noted, and the next call goes on from there.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<MySql>)?;
        // It has a lock and another time limit, also if this is never awaited to its end.
        connection.close_on_drop();
        let no_limit = "SET SESSION innodb_lock_wait_timeout = DEFAULT /*M!100100 , max_statement_time = 0 */";
        sqlx::raw_sql(no_limit).execute(&mut *connection).await.map_err(unchanged::<MySql>)?;
        migrate_mysql(&mut connection, self.engine.table()).await.map_err(migration::<MySql>)
    }

    /// The migrations and whether the database has them. Changes nothing.
    ///
    /// # Errors
    /// As the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<MySql>)?;
        status_mysql(&mut connection, self.engine.table()).await.map_err(migration::<MySql>)
    }

    /// Closes the connections once what runs on them has ended. Operations fail from then on.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

token_storage!(MySqlStorage);

impl Dialect for MySql {
    const STORAGE_NAME: &'static str = "MySQL";
    const REMOTE: bool = true;

    const TEXTS: Texts = Texts {
        now: "CAST(UNIX_TIMESTAMP() AS SIGNED)",
        put_always: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON DUPLICATE KEY UPDATE \
                version = VALUES(version), payload = VALUES(payload), expires_at = VALUES(expires_at), \
                retain_until = VALUES(retain_until), key_id = VALUES(key_id), updated_at = VALUES(updated_at)",
        // The number of rows does not tell a new record from one left as it was: sqlx asks for rows found, not changed,
        // and both are 1. So what is left notes a 1 as the id of the last insert, which comes back with the answer;
        // a table without AUTO_INCREMENT has 0 otherwise. The retention decides and is therefore assigned last.
        put_absent: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON DUPLICATE KEY UPDATE \
                version = IF(retain_until <= {now}, VALUES(version), IF(LAST_INSERT_ID(1), version, version)), \
                payload = IF(retain_until <= {now}, VALUES(payload), payload), \
                expires_at = IF(retain_until <= {now}, VALUES(expires_at), expires_at), \
                key_id = IF(retain_until <= {now}, VALUES(key_id), key_id), \
                created_at = IF(retain_until <= {now}, VALUES(created_at), created_at), \
                updated_at = IF(retain_until <= {now}, VALUES(updated_at), updated_at), \
                retain_until = IF(retain_until <= {now}, VALUES(retain_until), retain_until)",
        purge: "DELETE FROM {table} WHERE retain_until <= {now} ORDER BY retain_until LIMIT ?",
        after: After::Columns,
        numbered: false,
    };

    fn failure(error: &dyn DatabaseError) -> Failure {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
        match number {
            // Record changed since it was read, lock wait time-out, deadlock.
            1020 | 1205 | 1213 => Failure::Busy,
            // The server is shut down under the statement, or broke the connection off.
            1053 | 1152 | 1158..=1161 | 1184 | 1927 => Failure::Broken,
            1054 | 1146 => Failure::Misconfigured(RUN_MIGRATIONS),
            1142 | 1143 | 1370 => Failure::Misconfigured("the database user lacks a right on the table"),
            1044 | 1045 | 1698 => Failure::Misconfigured("the server refuses this user or password"),
            1049 => Failure::Misconfigured("there is no database of this name"),
            1153 => Failure::Misconfigured("raise the server's max_allowed_packet to 16 MiB"),
            _ => Failure::Unavailable,
        }
    }

    fn changed(done: &MySqlQueryResult) -> u64 {
        if done.last_insert_id() == 0 { done.rows_affected() } else { 0 }
    }

    plumbing!();
}
