//! The command for the token table: migrates it, shows its migrations, or prints their SQL.

mod sql;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use oauth_dance_core::StorageError;
use oauth_dance_migrations::{MigrationState, Status, TableName, TableNameError};
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage};

use crate::address::{UnusableStorage, scheme};
use crate::open::{existing_sqlite, sqlite_as_it_is};

/// An action of `oauth-dance migrate`.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Create or update the table, and show its migrations; several processes may do so at the same time
    Up(Database),
    /// Show the migrations and change nothing; exits with 0 if the table is up to date, 1 if not, 2 on an error
    Status(Database),
    /// Print the SQL of all migrations, which also records them as applied; for sqlite3, psql, or mariadb
    Sql(Sql),
}

/// A table in a database.
#[derive(Args, Debug)]
pub struct Database {
    /// sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The table.
    #[command(flatten)]
    pub table: Table,
}

/// The name of a table.
#[derive(Args, Clone, Debug, Default)]
pub struct Table {
    /// The table of the tokens [default: oauth_dance_tokens]
    #[arg(long = "table", value_name = "NAME")]
    pub name: Option<String>,
    /// The schema of the table on PostgreSQL, or its database on MySQL
    #[arg(long, value_name = "NAME")]
    pub schema: Option<String>,
}

/// The SQL to print.
#[derive(Args, Debug)]
pub struct Sql {
    /// The database to print for
    #[arg(long, value_enum)]
    pub dialect: Dialect,
    /// Omit the migrations up to this version, because the database already has them
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub after: i64,
    /// The table.
    #[command(flatten)]
    pub table: Table,
}

/// Databases that understand the same SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

/// Why a migration was not run, shown or printed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// No database was named.
    #[error("set the database with --database-url or DATABASE_URL")]
    NoUrl,
    /// The URL is not that of a SQL database.
    #[error("there are no migrations for {scheme:?}; use sqlite:FILE, postgres://… or mysql://…")]
    UnknownDatabase {
        /// The scheme of the URL. The rest may contain a password.
        scheme: String,
    },
    /// The name of the table is invalid.
    #[error(transparent)]
    Table(#[from] TableNameError),
    /// A schema was named for SQLite, which has none.
    #[error("SQLite has no schemas; omit --schema")]
    NoSchemas,
    /// The database cannot be reached or used.
    #[error(transparent)]
    Database(#[from] UnusableStorage),
    /// A migration differs from the one that was applied.
    #[error(
        "migration {version} differs from the one that was applied; compare the table with `oauth-dance \
        migrate sql`, then correct the checksum in {bookkeeping}"
    )]
    Altered {
        /// The number of the migration.
        version: i64,
        /// The table that records applied migrations.
        bookkeeping: String,
    },
    /// The output could not be printed.
    #[error("cannot write to the standard output")]
    Print(#[from] io::Error),
}

/// Runs the action, and returns the exit code: 1 if `status` finds a table that is not up to date, otherwise 0.
///
/// # Errors
/// [`MigrateError`], whose message and sources name the cause and what to do. The program should exit with 2 in this
/// case.
pub async fn run(action: Action) -> Result<ExitCode, MigrateError> {
    match action {
        Action::Up(database) => {
            let (url, table) = database.parse()?;
            let statuses = in_database(url, &table, true).await?;
            show(&statuses, &table).map(|_| ExitCode::SUCCESS)
        }
        Action::Status(database) => {
            let (url, table) = database.parse()?;
            let statuses = in_database(url, &table, false).await?;
            let up_to_date = show(&statuses, &table)?;
            Ok(if up_to_date { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Action::Sql(Sql { dialect, after, table }) => {
            let script = sql::script(dialect, &table.parse(dialect)?, after);
            io::stdout().lock().write_all(script.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Database {
    fn parse(&self) -> Result<(&str, TableName), MigrateError> {
        let url = self.database_url.as_deref().filter(|url| !url.is_empty()).ok_or(MigrateError::NoUrl)?;
        let table = self.table.parse(Dialect::of(url)?)?;
        Ok((url, table))
    }
}

impl Table {
    pub(crate) fn parse(&self, dialect: Dialect) -> Result<TableName, MigrateError> {
        let name = self.name.clone().unwrap_or_else(|| TableName::default().to_string());
        let table: TableName = match &self.schema {
            Some(schema) => format!("{schema}.{name}").parse()?,
            None => name.parse()?,
        };
        if dialect == Dialect::Sqlite && table.schema().is_some() {
            return Err(MigrateError::NoSchemas);
        }
        Ok(table)
    }
}

impl Dialect {
    pub(crate) fn of(url: &str) -> Result<Self, MigrateError> {
        let scheme = scheme(url);
        match scheme {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" | "mariadb" => Ok(Self::Mysql),
            _ => Err(MigrateError::UnknownDatabase { scheme: scheme.to_owned() }),
        }
    }
}

/// Migrates a table if `up` is set, and returns its migrations.
async fn in_database(url: &str, table: &TableName, up: bool) -> Result<Vec<Status>, MigrateError> {
    let done = match Dialect::of(url)? {
        Dialect::Sqlite => in_sqlite(url, table, up).await,
        Dialect::Postgres => in_postgres(url, table, up).await,
        Dialect::Mysql => in_mysql(url, table, up).await,
    };
    match done {
        Ok(statuses) => Ok(statuses),
        Err(error) => Err(UnusableStorage::new(url, error).await.into()),
    }
}

async fn in_sqlite(url: &str, table: &TableName, up: bool) -> Result<Vec<Status>, StorageError> {
    let storage = if up { sqlite_as_it_is(url).await? } else { existing_sqlite(url).await? };
    let storage = storage.with_table(&table.to_string())?;
    if up {
        storage.migrate().await?;
    }
    storage.migrations().await
}

async fn in_postgres(url: &str, table: &TableName, up: bool) -> Result<Vec<Status>, StorageError> {
    let storage = PostgresStorage::connect(url).await?.with_table(&table.to_string())?;
    if up {
        storage.migrate().await?;
    }
    storage.migrations().await
}

async fn in_mysql(url: &str, table: &TableName, up: bool) -> Result<Vec<Status>, StorageError> {
    let storage = MySqlStorage::connect(url).await?.with_table(&table.to_string())?;
    if up {
        storage.migrate().await?;
    }
    storage.migrations().await
}

/// Prints the migrations, and returns whether the table is up to date.
fn show(statuses: &[Status], table: &TableName) -> Result<bool, MigrateError> {
    let width = statuses.iter().map(|status| status.description.len()).max().unwrap_or_default().max("migration".len());
    let mut out = io::stdout().lock();
    writeln!(out, "version  {:width$}  state", "migration")?;
    for Status { version, description, state, .. } in statuses {
        let state = match state {
            MigrationState::Pending => "pending",
            MigrationState::Applied => "applied",
            MigrationState::Altered => "altered",
            MigrationState::Newer => "applied by a newer release",
            _ => "unknown",
        };
        writeln!(out, "{version:>7}  {description:width$}  {state}")?;
    }
    if let Some(altered) = statuses.iter().find(|status| status.state == MigrationState::Altered) {
        return Err(MigrateError::Altered { version: altered.version, bookkeeping: table.bookkeeping() });
    }
    Ok(statuses.iter().all(|status| status.state != MigrationState::Pending))
}
