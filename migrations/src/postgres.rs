use sqlx::migrate::{AppliedMigration, MigrateError};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

use crate::run::{all_applied, compare, is_missing_table};
use crate::{Dialect, Status, TableName};

/// Brings a table of PostgreSQL up to date, with the schema if the name has one. Does nothing if it is; safe from any
/// number of processes at once, and through a pooler.
///
/// Everything happens in one message of the simple query protocol, which is one transaction: a pooler runs it on one
/// connection of the server, and no lock or prepared statement is left there.
///
/// # Errors
/// What sqlx says. Nothing has changed then.
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

/// Every migration of PostgreSQL that this release or the database knows, oldest first. Changes nothing.
///
/// # Errors
/// What sqlx says. A database without the bookkeeping table has all migrations pending, which is no error.
pub async fn status_postgres(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Status>, MigrateError> {
    Ok(statuses(table, applied(connection, table).await?))
}

/// A row of the bookkeeping table.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
    success: bool,
}

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

fn statuses(table: &TableName, applied: Vec<Applied>) -> Vec<Status> {
    let applied =
        applied.into_iter().map(|row| AppliedMigration { version: row.version, checksum: row.checksum.into() });
    compare(Dialect::Postgres, table, applied.collect())
}

/// Takes the lock, and applies what the bookkeeping table lacks then. The table is the one that sqlx makes.
fn script(table: &TableName) -> String {
    let bookkeeping = table.bookkeeping();
    let schema = table.schema().map(|schema| {
        // Not `CREATE SCHEMA IF NOT EXISTS`, for which one needs the right to create schemas also where it exists.
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
    // Committed reads see what another process did until it gave the lock back. A large table may take its time.
    format!(
        "SET LOCAL transaction_isolation = 'read committed';
        SET LOCAL statement_timeout = 0;
        SELECT pg_advisory_xact_lock(hashtextextended('oauth-dance migrates {table}', 0));
        DO $steps$ BEGIN {steps} END $steps$"
    )
}
