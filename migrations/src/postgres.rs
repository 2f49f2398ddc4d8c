//! Migrations on PostgreSQL.
//!
//! Everything happens in one message of the simple query protocol, which is one transaction. A pooler runs it on one
//! server connection, and no lock or prepared statement remains there. The migrations are statements of a `DO` block,
//! which checks each one again after it has the lock.

use sqlx::migrate::{AppliedMigration, MigrateError};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

use crate::run::{all_applied, compare, is_missing_table};
use crate::{Dialect, Status, TableName};

/// Creates or updates a table on PostgreSQL, and its schema if the name has one. Does nothing if the table is current.
/// Any number of processes may call this at the same time, even through a pooler.
///
/// # Errors
/// The error of sqlx, or [`MigrateError::VersionMismatch`] if an applied migration differs from the file of this
/// release. Nothing has changed in this case.
///
/// # Cancel safety
/// Dropping this future leaves the old or the new schema, and no lock on the server.
pub async fn migrate_postgres(connection: &mut PgConnection, table: &TableName) -> Result<(), MigrateError> {
    let applied = applied(connection, table).await?;
    if let Some(failed) = applied.iter().find(|migration| !migration.success) {
        return Err(MigrateError::Dirty(failed.version));
    }
    if all_applied(&statuses(table, applied))? {
        return Ok(());
    }
    connection.execute(sqlx::raw_sql(AssertSqlSafe(script(table)))).await?;
    Ok(())
}

/// Returns the migrations of this release and those that the database has recorded, oldest first. Changes nothing.
///
/// # Errors
/// The error of sqlx. A missing bookkeeping table is not an error, but means that all migrations are pending.
pub async fn status_postgres(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Status>, MigrateError> {
    Ok(statuses(table, applied(connection, table).await?))
}

/// A row of the bookkeeping table.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
    success: bool,
}

/// Reads the bookkeeping table. It is empty if it does not exist.
async fn applied(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Applied>, MigrateError> {
    let select = format!(
        "SET LOCAL row_security = off; SET LOCAL bytea_output = hex; SELECT version, checksum, success FROM {} ORDER BY version",
        table.bookkeeping()
    );
    let rows = match connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(select))).await {
        Ok(rows) => rows,
        Err(error) if is_missing_table(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut applied = Vec::new();
    for row in rows {
        applied.push(Applied { version: row.try_get(0)?, checksum: row.try_get(1)?, success: row.try_get(2)? });
    }
    Ok(applied)
}

/// A migration that is recorded as failed is pending.
fn statuses(table: &TableName, applied: Vec<Applied>) -> Vec<Status> {
    let applied = applied.into_iter().filter(|row| row.success);
    let applied = applied.map(|row| AppliedMigration { version: row.version, checksum: row.checksum.into() });
    compare(Dialect::Postgres, table, applied.collect())
}

/// Builds the script, which takes a lock and then applies the pending migrations. The bookkeeping table has the columns
/// that sqlx expects.
fn script(table: &TableName) -> String {
    let bookkeeping = table.bookkeeping();
    let schema = table.schema().map(|schema| {
        // `CREATE SCHEMA IF NOT EXISTS` would need the privilege to create schemas even if the schema exists.
        format!(
            "IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN CREATE SCHEMA {schema}; END IF;"
        )
    });
    let mut steps = schema.unwrap_or_default();
    steps.push_str(&format!(
        "CREATE TABLE IF NOT EXISTS {bookkeeping} (
            version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(),
            success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL);"
    ));
    for migration in Dialect::Postgres.migrations() {
        let migration = migration.to_sqlx(table);
        let (version, description, sql) = (migration.version, &migration.description, migration.sql.as_str());
        let checksum: String = migration.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        steps.push_str(&format!(
            "IF NOT EXISTS (SELECT FROM {bookkeeping} WHERE version = {version}) THEN
                EXECUTE $migration${sql}$migration$;
                INSERT INTO {bookkeeping} (version, description, success, checksum, execution_time)
                VALUES ({version}, '{description}', TRUE, decode('{checksum}', 'hex'), -1);
            END IF;"
        ));
    }
    // Read committed sees everything that another process did before it released the lock. There is no timeout, because
    // a large table may need much time. The lock timeout of the user applies to tables only.
    format!(
        "SET LOCAL transaction_isolation = 'read committed';
        SET LOCAL statement_timeout = 0;
        SET LOCAL lock_timeout = 0;
        SELECT pg_advisory_xact_lock(hashtextextended('oauth-dance migrates {table}', 0));
        SET LOCAL lock_timeout TO DEFAULT;
        DO $steps$ BEGIN {steps} END $steps$"
    )
}
