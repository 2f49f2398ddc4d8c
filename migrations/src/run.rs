//! What the databases have in common, and the migrations on SQLite.
//!
//! `Migrator::run` of sqlx is not used, because its future is not `Send` and could not run in a spawned task, and
//! because it takes no lock on SQLite and MariaDB.

use std::collections::BTreeMap;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration};

use crate::{Dialect, MigrationState, Status, TableName};

/// Creates or updates a table on SQLite. Does nothing if the table is current. Any number of processes may call this at
/// the same time.
///
/// # Errors
/// The error of sqlx, or [`MigrateError::VersionMismatch`] if an applied migration differs from the file of this
/// release. Nothing has changed in this case.
///
/// # Cancel safety
/// Everything happens in one transaction, which is rolled back if this future is dropped.
#[cfg(feature = "sqlite")]
pub async fn migrate_sqlite(connection: &mut sqlx::SqliteConnection, table: &TableName) -> Result<(), MigrateError> {
    use sqlx::Connection as _;

    if is_current(Dialect::Sqlite, connection, table).await? {
        return Ok(());
    }
    // The transaction takes the write lock first. Otherwise two processes could both find no applied migration, and the
    // second one would fail.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for migration in pending(Dialect::Sqlite, &mut *transaction, table).await? {
        transaction.apply(&table.bookkeeping(), &migration).await?;
    }
    Ok(transaction.commit().await?)
}

/// Returns the migrations of this release and those that the database has recorded, oldest first. Changes nothing.
///
/// # Errors
/// The error of sqlx. A missing bookkeeping table is not an error, but means that all migrations are pending.
#[cfg(feature = "sqlite")]
pub async fn status_sqlite(
    connection: &mut sqlx::SqliteConnection,
    table: &TableName,
) -> Result<Vec<Status>, MigrateError> {
    status(Dialect::Sqlite, connection, table).await
}

/// Whether no migration is pending. Only a read, so that an application whose table is current takes no lock and needs
/// no privilege to create tables.
pub(crate) async fn is_current<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<bool, MigrateError> {
    all_applied(&status(dialect, connection, table).await?)
}

/// Returns the pending migrations, after the same checks as `Migrator::run` of sqlx.
pub(crate) async fn pending<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<Vec<Migration>, MigrateError> {
    let bookkeeping = table.bookkeeping();
    connection.ensure_migrations_table(&bookkeeping).await?;
    if let Some(version) = connection.dirty_version(&bookkeeping).await? {
        return Err(MigrateError::Dirty(version));
    }
    let applied = connection.list_applied_migrations(&bookkeeping).await?;
    let mut pending = Vec::new();
    for migration in dialect.migrations() {
        let migration = migration.to_sqlx(table);
        match applied.iter().find(|found| found.version == migration.version) {
            None => pending.push(migration),
            Some(found) if found.checksum == migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version)),
        }
    }
    Ok(pending)
}

/// Reads the state of all migrations.
pub(crate) async fn status<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<Vec<Status>, MigrateError> {
    let bookkeeping = table.bookkeeping();
    let mut applied = match connection.list_applied_migrations(&bookkeeping).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error)) if is_missing_table(&error) => {
            return Ok(compare(dialect, table, Vec::new()));
        }
        Err(error) => return Err(error),
    };
    // A migration that is recorded as failed is pending. Those after it were not applied.
    if let Some(failed) = connection.dirty_version(&bookkeeping).await? {
        applied.retain(|found| found.version < failed);
    }
    Ok(compare(dialect, table, applied))
}

/// Compares the migrations of this release with those that a database has recorded.
pub(crate) fn compare(dialect: Dialect, table: &TableName, applied: Vec<AppliedMigration>) -> Vec<Status> {
    let mut checksums: BTreeMap<_, _> = applied.into_iter().map(|found| (found.version, found.checksum)).collect();
    let mut statuses = Vec::new();
    for migration in dialect.migrations() {
        let state = match checksums.remove(&migration.version) {
            None => MigrationState::Pending,
            Some(checksum) if checksum == migration.to_sqlx(table).checksum => MigrationState::Applied,
            Some(_) => MigrationState::Altered,
        };
        statuses.push(Status { version: migration.version, description: migration.description, state });
    }
    let newer = |version| Status { version, description: "", state: MigrationState::Newer };
    statuses.extend(checksums.into_keys().map(newer));
    statuses
}

/// Whether no migration is pending.
///
/// # Errors
/// [`MigrateError::VersionMismatch`] if an applied migration differs from the file of this release.
pub(crate) fn all_applied(statuses: &[Status]) -> Result<bool, MigrateError> {
    if let Some(altered) = statuses.iter().find(|status| status.state == MigrationState::Altered) {
        return Err(MigrateError::VersionMismatch(altered.version));
    }
    Ok(statuses.iter().all(|status| status.state != MigrationState::Pending))
}

/// Whether a statement failed because its table does not exist.
pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // The codes of PostgreSQL and MySQL. SQLite has one code for all SQL errors.
    matches!(error.code().as_deref(), Some("42P01" | "42S02")) || error.message().starts_with("no such table")
}
