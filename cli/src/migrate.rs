//! The operator's tool: brings the table that keeps tokens up to date, or says how it stands, or prints the SQL.

mod sql;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr as _;

use clap::{Args, Subcommand, ValueEnum};
use oauth_dance_core::StorageError;
use oauth_dance_migrations::{State, Status, TableName, TableNameError};
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::address::{CannotUse, scheme};

/// What `oauth-dance migrate` is to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Create the table or bring it up to date, and show what is there then; any number of processes may do so at once
    Up(Database),
    /// Show the migrations and change nothing; ends with 0 if the table is up to date, 1 if not, 2 on an error
    Status(Database),
    /// Print the SQL of all migrations, with what notes them as applied; for sqlite3, psql, or mariadb
    Sql(Sql),
}

/// Which table, in which database.
#[derive(Args, Debug)]
pub struct Database {
    /// sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Its name.
    #[command(flatten)]
    pub table: Table,
}

/// The name of a table.
#[derive(Args, Debug)]
pub struct Table {
    /// The table that keeps the tokens [default: oauth_dance_tokens]
    #[arg(long = "table", value_name = "NAME")]
    pub name: Option<String>,
    /// The schema it is in, on PostgreSQL; the database it is in, on MySQL
    #[arg(long, value_name = "NAME")]
    pub schema: Option<String>,
}

/// What SQL to print.
#[derive(Args, Debug)]
pub struct Sql {
    /// For which database
    #[arg(long, value_enum)]
    pub dialect: Dialect,
    /// Leave out the migrations up to this one, which the database has
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub after: i64,
    /// Its name.
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
    /// It was not said where.
    #[error("name the database with --database-url or in DATABASE_URL")]
    NoUrl,
    /// The URL is that of no database.
    #[error("there are no migrations for {scheme:?}; use sqlite:FILE, postgres://… or mysql://…")]
    UnknownDatabase {
        /// What the URL begins with. What follows may be a password.
        scheme: String,
    },
    /// The table cannot be called that.
    #[error(transparent)]
    Table(#[from] TableNameError),
    /// A schema was named, where there are none.
    #[error("SQLite has no schemas; leave the schema out")]
    NoSchemas,
    /// The database cannot be reached or used.
    #[error(transparent)]
    Database(#[from] CannotUse),
    /// A migration was applied that said something else.
    #[error(
        "migration {version} was applied from another text than this release has; compare the table with `oauth-dance \
        migrate sql`, then correct the checksum in {bookkeeping}"
    )]
    Altered {
        /// The migration's number.
        version: i64,
        /// The table where applied migrations are noted.
        bookkeeping: String,
    },
    /// What was to be printed was not.
    #[error("cannot write to the standard output")]
    Print(#[from] io::Error),
}

/// Does it, and says with which code the program ends: 1 after a `status` of a table that is not up to date, else 0.
///
/// # Errors
/// [`MigrateError`], whose message and sources name cause and fix. The program should end with 2 then.
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
    fn parse(&self, dialect: Dialect) -> Result<TableName, MigrateError> {
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
    fn of(url: &str) -> Result<Self, MigrateError> {
        let scheme = scheme(url);
        match scheme {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" | "mariadb" => Ok(Self::Mysql),
            _ => Err(MigrateError::UnknownDatabase { scheme: scheme.to_owned() }),
        }
    }
}

/// Migrates a table if it is to be, and asks how it stands.
async fn in_database(url: &str, table: &TableName, up: bool) -> Result<Vec<Status>, MigrateError> {
    let done = match Dialect::of(url)? {
        Dialect::Sqlite => in_sqlite(url, table, up).await,
        Dialect::Postgres => in_postgres(url, table, up).await,
        Dialect::Mysql => in_mysql(url, table, up).await,
    };
    match done {
        Ok(statuses) => Ok(statuses),
        Err(error) => Err(CannotUse::new(url, error).await.into()),
    }
}

async fn in_sqlite(url: &str, table: &TableName, up: bool) -> Result<Vec<Status>, StorageError> {
    let url = if up { url.to_owned() } else { without_creating(url) };
    // A file's journal mode is the application's affair. The URL has been parsed once when this is called.
    let as_it_is = |given| SqliteConnectOptions::from_str(&url).unwrap_or(given).disable_statement_logging();
    let storage = SqliteStorage::connect_with(&url, as_it_is).await?.with_table(&table.to_string())?;
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

/// The URL of a file of SQLite that is not made where it is missing.
fn without_creating(url: &str) -> String {
    match url.split_once('?') {
        None => format!("{url}?mode=rw"),
        Some((file, options)) => {
            let kept = options.split('&').filter(|option| *option != "mode=rwc" && !option.is_empty());
            format!("{file}?{}", kept.chain(["mode=rw"]).collect::<Vec<_>>().join("&"))
        }
    }
}

/// Prints the migrations, and says whether the table is up to date.
fn show(statuses: &[Status], table: &TableName) -> Result<bool, MigrateError> {
    let width = statuses.iter().map(|status| status.description.len()).max().unwrap_or_default().max("migration".len());
    let mut out = io::stdout().lock();
    writeln!(out, "version  {:width$}  state", "migration")?;
    for Status { version, description, state, .. } in statuses {
        let state = match state {
            State::Pending => "pending",
            State::Applied => "applied",
            State::Altered => "altered",
            State::Newer => "applied by a newer release",
            _ => "unknown",
        };
        writeln!(out, "{version:>7}  {description:width$}  {state}")?;
    }
    if let Some(altered) = statuses.iter().find(|status| status.state == State::Altered) {
        return Err(MigrateError::Altered { version: altered.version, bookkeeping: table.bookkeeping() });
    }
    Ok(statuses.iter().all(|status| status.state != State::Pending))
}
