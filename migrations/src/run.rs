use std::collections::BTreeMap;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration};

use crate::{Dialect, State, Status, TableName};

/// Brings a table of SQLite up to date. Does nothing if it is; safe from any number of processes at once.
///
/// # Errors
/// What sqlx says. Nothing has changed then.
#[cfg(feature = "sqlite")]
pub async fn migrate_sqlite(connection: &mut sqlx::SqliteConnection, table: &TableName) -> Result<(), MigrateError> {
    use sqlx::Connection as _;

    if is_current(Dialect::Sqlite, connection, table).await? {
        return Ok(());
    }
    // The write lock, taken at once: of two processes that both found nothing applied, the second would fail.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for migration in pending(Dialect::Sqlite, &mut *transaction, table).await? {
        transaction.apply(&table.bookkeeping(), &migration).await?;
    }
    Ok(transaction.commit().await?)
}

/// Every migration of SQLite that this release or the database knows, oldest first. Changes nothing.
///
/// # Errors
/// What sqlx says. A database without the bookkeeping table has all migrations pending, which is no error.
#[cfg(feature = "sqlite")]
pub async fn status_sqlite(
    connection: &mut sqlx::SqliteConnection,
    table: &TableName,
) -> Result<Vec<Status>, MigrateError> {
    status(Dialect::Sqlite, connection, table).await
}

/// Whether nothing has to be applied. Then nothing is locked either, and no right to create tables needed.
pub(crate) async fn is_current<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<bool, MigrateError> {
    all_applied(&status(dialect, connection, table).await?)
}

/// What has to be applied, after what `Migrator::run` checks. That itself is not `Send` enough to be awaited in a
/// spawned task.
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

pub(crate) async fn status<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<Vec<Status>, MigrateError> {
    let applied = match connection.list_applied_migrations(&table.bookkeeping()).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error)) if is_missing_table(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(compare(dialect, table, applied))
}

/// What this release knows beside what a database has applied.
pub(crate) fn compare(dialect: Dialect, table: &TableName, applied: Vec<AppliedMigration>) -> Vec<Status> {
    let mut checksums: BTreeMap<_, _> = applied.into_iter().map(|found| (found.version, found.checksum)).collect();
    let mut statuses = Vec::new();
    for migration in dialect.migrations() {
        let state = match checksums.remove(&migration.version) {
            None => State::Pending,
            Some(checksum) if checksum == migration.to_sqlx(table).checksum => State::Applied,
            Some(_) => State::Altered,
        };
        statuses.push(Status { version: migration.version, description: migration.description, state });
    }
    let newer = |version| Status { version, description: "", state: State::Newer };
    statuses.extend(checksums.into_keys().map(newer));
    statuses
}

/// Whether nothing has to be applied.
///
/// # Errors
/// [`MigrateError::VersionMismatch`] if a migration was applied with another text.
pub(crate) fn all_applied(statuses: &[Status]) -> Result<bool, MigrateError> {
    if let Some(altered) = statuses.iter().find(|status| status.state == State::Altered) {
        return Err(MigrateError::VersionMismatch(altered.version));
    }
    Ok(statuses.iter().all(|status| status.state != State::Pending))
}

pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // The codes of PostgreSQL and MySQL; SQLite has one for all mistakes.
    matches!(error.code().as_deref(), Some("42P01" | "42S02")) || error.message().starts_with("no such table")
}
