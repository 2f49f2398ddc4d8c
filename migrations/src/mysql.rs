//! Migrations on MySQL and MariaDB.
//!
//! These databases cannot roll back a change of a table. Each migration is therefore idempotent, and is recorded as
//! applied after it has run. A lock serializes the processes on one server. The nodes of a Galera cluster do not see
//! each other's locks. If another node migrates at the same time, this one detects the conflict and starts over.

use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate as _, MigrateError};
use sqlx::mysql::{MySqlDatabaseError, MySqlRow};
use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

use crate::run::{is_current, pending};
use crate::{Dialect, Status, TableName};

/// How long a migration that conflicts with another process or node is retried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Creates or updates a table on MySQL or MariaDB. Does nothing if the table is current. Any number of processes may
/// call this at the same time, even on several nodes of a Galera cluster.
///
/// # Errors
/// The error of sqlx, or a timeout if another process has been migrating for a minute. Migrations that were completed
/// before the error are recorded, and the next call continues after them. [`MigrateError::VersionMismatch`] if an
/// applied migration differs from the file of this release.
///
/// # Cancel safety
/// If this future is dropped, close the connection, because it has a lock and may have another `autocommit` and
/// `wsrep_sync_wait`. The next call continues.
pub async fn migrate_mysql(connection: &mut MySqlConnection, table: &TableName) -> Result<(), MigrateError> {
    // The name of a lock is short and belongs to the whole server, so it contains a checksum of the table's name. Two
    // tables with the same checksum only wait for each other.
    const LOCK: &str = "SELECT GET_LOCK(CONCAT('oauth-dance ', CRC32(CONCAT_WS('.', DATABASE(), ?))), 60)";
    // Without autocommit, the record of an applied migration would be lost with the connection.
    const AUTOCOMMIT: &str = "SET @oauth_dance_autocommit = @@autocommit, SESSION autocommit = 1";
    const AUTOCOMMIT_AS_BEFORE: &str = "SET SESSION autocommit = @oauth_dance_autocommit";
    const UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('oauth-dance ', CRC32(CONCAT_WS('.', DATABASE(), ?))))";

    let waited = wait_for_nodes(connection).await?;
    if !is_current(Dialect::MySql, connection, table).await? {
        let name = table.to_string();
        let locked: Option<i64> = sqlx::query_scalar(LOCK).bind(&name).fetch_one(&mut *connection).await?;
        if locked != Some(1) {
            return Err(sqlx::Error::Protocol("another process has been migrating for a minute".to_owned()).into());
        }
        sqlx::raw_sql(AUTOCOMMIT).execute(&mut *connection).await?;
        let applied = apply_until_current(connection, table).await;
        sqlx::query(UNLOCK).bind(&name).execute(&mut *connection).await?;
        sqlx::raw_sql(AUTOCOMMIT_AS_BEFORE).execute(&mut *connection).await?;
        applied?;
    }
    if let Some(before) = waited {
        set_sync_wait(connection, before).await?;
    }
    Ok(())
}

/// Returns the migrations of this release and those that the database has recorded, oldest first. Changes nothing.
///
/// # Errors
/// The error of sqlx. A missing bookkeeping table is not an error, but means that all migrations are pending.
pub async fn status_mysql(connection: &mut MySqlConnection, table: &TableName) -> Result<Vec<Status>, MigrateError> {
    crate::run::status(Dialect::MySql, connection, table).await
}

/// Applies the pending migrations, and starts over if another node has migrated at the same time.
async fn apply_until_current(connection: &mut MySqlConnection, table: &TableName) -> Result<(), MigrateError> {
    let start = Instant::now();
    loop {
        let Err(error) = apply(connection, table).await else { return Ok(()) };
        if !is_conflict(&error) || start.elapsed() > RETRY_TIMEOUT {
            return Err(error);
        }
        // The server sleeps, so that no timer of a runtime is needed here. The time is random, so that the nodes do not
        // collide again.
        sqlx::raw_sql("DO SLEEP(0.05 + 0.2 * RAND())").execute(&mut *connection).await?;
    }
}

/// Applies the pending migrations once.
async fn apply(connection: &mut MySqlConnection, table: &TableName) -> Result<(), MigrateError> {
    for migration in pending(Dialect::MySql, connection, table).await? {
        // Not `apply` of sqlx, which first records a migration as failed, and never retries a failed one.
        let applied = sqlx::raw_sql(migration.sql.clone()).execute(&mut *connection).await;
        applied.map_err(|error| MigrateError::ExecuteMigration(error, migration.version))?;
        connection.skip(&table.bookkeeping(), &migration).await?;
    }
    Ok(())
}

/// Whether another process may have migrated at the same time, on this node or another.
fn is_conflict(error: &MigrateError) -> bool {
    let (MigrateError::Execute(sqlx::Error::Database(error))
    | MigrateError::ExecuteMigration(sqlx::Error::Database(error), _)) = error
    else {
        return false;
    };
    let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
    // The table, column, index or bookkeeping row exists already; a deadlock, a lock timeout, a certification failure
    // or a change of the table by another node; or a node that is not ready.
    matches!(number, 1020 | 1022 | 1047 | 1050 | 1060 | 1061 | 1062 | 1180 | 1205 | 1213 | 1317 | 1412 | 1615 | 3101)
}

/// On a Galera node, makes this connection wait for the writes of other nodes before it reads. Returns the previous
/// setting.
async fn wait_for_nodes(connection: &mut MySqlConnection) -> Result<Option<u64>, MigrateError> {
    const SETTINGS: &str = "SHOW VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_sync_wait')";

    let rows: Vec<MySqlRow> = sqlx::raw_sql(SETTINGS).fetch_all(&mut *connection).await?;
    let text = |row: &MySqlRow, column: usize| row.try_get_unchecked::<String, _>(column).unwrap_or_default();
    let value = |name: &str| rows.iter().find(|row| text(row, 0) == name).map(|row| text(row, 1));
    let before = value("wsrep_sync_wait").and_then(|value| value.parse::<u64>().ok());
    let Some(before) = before.filter(|_| value("wsrep_on").is_some_and(|on| on == "ON" || on == "1")) else {
        return Ok(None);
    };
    set_sync_wait(connection, before | 7).await?;
    Ok(Some(before))
}

async fn set_sync_wait(connection: &mut MySqlConnection, value: u64) -> Result<(), MigrateError> {
    let set = AssertSqlSafe(format!("SET SESSION wsrep_sync_wait = {value}"));
    sqlx::raw_sql(set).execute(connection).await?;
    Ok(())
}
