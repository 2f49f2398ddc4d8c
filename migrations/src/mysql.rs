use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate as _, MigrateError};
use sqlx::mysql::{MySqlDatabaseError, MySqlRow};
use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

use crate::run::{is_current, pending};
use crate::{Dialect, Status, TableName};

/// How long to try again what another process, or another node, was doing at the same time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Brings a table of MySQL or MariaDB up to date. Does nothing if it is; safe from any number of processes at once, also
/// on several nodes of a Galera cluster.
///
/// These databases cannot undo a change of a table. Each migration is therefore one that can be run twice, and is
/// noted as applied once it is. A lock makes processes on one server wait for each other. Nodes of a Galera
/// cluster know nothing of each other's locks: there the one that comes second finds that the first was faster, and
/// looks again.
///
/// Close the connection if this is not awaited to its end: it holds a lock.
///
/// # Errors
/// What sqlx says, and a time-out if another process has been migrating for a minute.
pub async fn migrate_mysql(connection: &mut MySqlConnection, table: &TableName) -> Result<(), MigrateError> {
    // The lock's name is one for the whole server, and short; two tables that share one wait for each other.
    const LOCK: &str = "SELECT GET_LOCK(CONCAT('oauth-dance ', CRC32(CONCAT_WS('.', DATABASE(), ?))), 60)";
    const UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('oauth-dance ', CRC32(CONCAT_WS('.', DATABASE(), ?))))";

    let waited = wait_for_nodes(connection).await?;
    if !is_current(Dialect::MySql, connection, table).await? {
        let name = table.to_string();
        let locked: Option<i64> = sqlx::query_scalar(LOCK).bind(&name).fetch_one(&mut *connection).await?;
        if locked != Some(1) {
            return Err(sqlx::Error::Protocol("another process has been migrating for a minute".to_owned()).into());
        }
        let applied = apply_until_current(connection, table).await;
        sqlx::query(UNLOCK).bind(&name).execute(&mut *connection).await?;
        applied?;
    }
    if let Some(before) = waited {
        set_sync_wait(connection, before).await?;
    }
    Ok(())
}

/// Every migration of MySQL or MariaDB that this release or the database knows, oldest first. Changes nothing.
///
/// # Errors
/// What sqlx says. A database without the bookkeeping table has all migrations pending, which is no error.
pub async fn status_mysql(connection: &mut MySqlConnection, table: &TableName) -> Result<Vec<Status>, MigrateError> {
    crate::run::status(Dialect::MySql, connection, table).await
}

/// Applies what is pending, as often as another node comes in between.
async fn apply_until_current(connection: &mut MySqlConnection, table: &TableName) -> Result<(), MigrateError> {
    let start = Instant::now();
    loop {
        let Err(error) = apply(connection, table).await else { return Ok(()) };
        if !is_overtaken(&error) || start.elapsed() > PATIENCE {
            return Err(error);
        }
        // The server waits, which needs no runtime here; each node for another time.
        sqlx::raw_sql("DO SLEEP(0.05 + 0.2 * RAND())").execute(&mut *connection).await?;
    }
}

async fn apply(connection: &mut MySqlConnection, table: &TableName) -> Result<(), MigrateError> {
    for migration in pending(Dialect::MySql, connection, table).await? {
        // Not `apply`, which notes a migration as failed before it starts and gives up for good if it finds that.
        let applied = sqlx::raw_sql(migration.sql.clone()).execute(&mut *connection).await;
        applied.map_err(|error| MigrateError::ExecuteMigration(error, migration.version))?;
        connection.skip(&table.bookkeeping(), &migration).await?;
    }
    Ok(())
}

/// Whether another process may have been faster, on this node or on another one.
fn is_overtaken(error: &MigrateError) -> bool {
    let (MigrateError::Execute(sqlx::Error::Database(error))
    | MigrateError::ExecuteMigration(sqlx::Error::Database(error), _)) = error
    else {
        return false;
    };
    let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
    // The table, the column, the index or the note is there already; a deadlock, a lock, a certification or a change of the
    // table by another node; a node that is not ready.
    matches!(number, 1020 | 1022 | 1047 | 1050 | 1060 | 1061 | 1062 | 1180 | 1205 | 1213 | 1317 | 1412 | 1615 | 3101)
}

/// On a Galera node makes this connection wait, before it reads, for what other nodes have done. Returns what was set.
async fn wait_for_nodes(connection: &mut MySqlConnection) -> Result<Option<u64>, MigrateError> {
    const QUESTION: &str = "SHOW VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_sync_wait')";

    let rows: Vec<MySqlRow> = sqlx::raw_sql(QUESTION).fetch_all(&mut *connection).await?;
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
