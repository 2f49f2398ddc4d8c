use std::collections::BTreeMap;

use sqlx::migrate::{Migrate, MigrateError, Migration};

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

/// Brings a table of PostgreSQL up to date, with the schema if the name has one. Does nothing if it is; safe from any
/// number of processes at once.
///
/// # Errors
/// What sqlx says. Nothing has changed then.
#[cfg(feature = "postgres")]
pub async fn migrate_postgres(connection: &mut sqlx::PgConnection, table: &TableName) -> Result<(), MigrateError> {
    use sqlx::Connection as _;

    if is_current(Dialect::Postgres, connection, table).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    // All of it is undone, and the lock given back, with the transaction. A large table may take its time.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    let lock = format!("oauth-dance migrates {table}");
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(lock).execute(&mut *transaction).await?;
    if let Some(schema) = table.schema() {
        let found = sqlx::query("SELECT FROM pg_namespace WHERE nspname = $1").bind(schema);
        // Not `IF NOT EXISTS`, for which one needs the right to create schemas also where it exists.
        if found.fetch_optional(&mut *transaction).await?.is_none() {
            transaction.create_schema_if_not_exists(schema).await?;
        }
    }
    for migration in pending(Dialect::Postgres, &mut *transaction, table).await? {
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

/// Every migration of PostgreSQL that this release or the database knows, oldest first. Changes nothing.
///
/// # Errors
/// As [`status_sqlite`](crate::status_sqlite).
#[cfg(feature = "postgres")]
pub async fn status_postgres(
    connection: &mut sqlx::PgConnection,
    table: &TableName,
) -> Result<Vec<Status>, MigrateError> {
    status(Dialect::Postgres, connection, table).await
}

/// Whether nothing has to be applied. Then nothing is locked either, and no right to create tables needed.
pub(crate) async fn is_current<C: Migrate>(
    dialect: Dialect,
    connection: &mut C,
    table: &TableName,
) -> Result<bool, MigrateError> {
    let statuses = status(dialect, connection, table).await?;
    if let Some(altered) = statuses.iter().find(|status| status.state == State::Altered) {
        return Err(MigrateError::VersionMismatch(altered.version));
    }
    Ok(statuses.iter().all(|status| status.state != State::Pending))
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
    // The codes of PostgreSQL and MySQL; SQLite has one for all mistakes.
    matches!(error.code().as_deref(), Some("42P01" | "42S02")) || error.message().starts_with("no such table")
}
