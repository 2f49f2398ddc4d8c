use std::collections::BTreeMap;

use sqlx::migrate::{Migrate, MigrateError};

use crate::{Dialect, State, Status, TableName};

/// Brings the table up to date. Does nothing if it is; safe from any number of processes at once.
///
/// # Errors
/// What sqlx says. Nothing has changed then.
#[cfg(feature = "sqlite")]
pub async fn migrate_sqlite(connection: &mut sqlx::SqliteConnection, table: &TableName) -> Result<(), MigrateError> {
    use sqlx::Connection as _;

    // The write lock, taken at once: of two processes that both found nothing applied, the second would fail.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    apply_pending(Dialect::Sqlite, &mut *transaction, table).await?;
    Ok(transaction.commit().await?)
}

/// Every migration that this release or the database knows, oldest first. Changes nothing.
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

/// What `Migrator::run` does, which is not `Send` enough to be awaited in a spawned task.
async fn apply_pending<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<(), MigrateError> {
    let bookkeeping = table.bookkeeping();
    connection.ensure_migrations_table(&bookkeeping).await?;
    if let Some(version) = connection.dirty_version(&bookkeeping).await? {
        return Err(MigrateError::Dirty(version));
    }
    let applied = connection.list_applied_migrations(&bookkeeping).await?;
    for migration in dialect.migrations() {
        let migration = migration.to_sqlx(table);
        match applied.iter().find(|found| found.version == migration.version) {
            None => drop(connection.apply(&bookkeeping, &migration).await?),
            Some(found) if found.checksum == migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version)),
        }
    }
    Ok(())
}

async fn status<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<Vec<Status>, MigrateError> {
    let applied = match connection.list_applied_migrations(&table.bookkeeping()).await {
        Ok(applied) => applied,
        Err(error) if is_missing_table(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
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
    Ok(statuses)
}

fn is_missing_table(error: &MigrateError) -> bool {
    let MigrateError::Execute(sqlx::Error::Database(error)) = error else { return false };
    error.message().starts_with("no such table")
}
