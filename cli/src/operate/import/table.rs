//! Reads the table of an application that uses another library.

use oauth_dance_core::{StorageError, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, Row as _, SqliteConnection};

use super::FlaskDanceOptions;
use crate::UnusableStorage;
use crate::connect;
use crate::migrate::Dialect;
use crate::operate::OperateError;

/// A row of the table, with its values as text.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) provider: String,
    pub(super) token: String,
    pub(super) user: Option<String>,
    pub(super) created_at: Option<Timestamp>,
}

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The URL is not that of a SQL database.
    #[error("--from names no SQL database; use sqlite:FILE, postgres://… or mysql://…")]
    UnknownDatabase,
    /// A name would need quoting.
    #[error(
        "the name {name:?} has other characters than letters, digits and underscores; create a view with a plain name"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The table or a column is missing, or this user may not read it.
    #[error("the table {table} cannot be read; correct --from-table and --user-column, or the permissions")]
    Unreadable {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The connection broke.
    #[error("the connection to the database of {table} broke; run the command again, and it continues")]
    Lost {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
}

/// How many rows are read at once.
const PAGE: usize = 1000;

/// A table, read page by page: all rows of a user after each other. No page needs an open transaction.
pub(super) struct Table<'a> {
    options: &'a FlaskDanceOptions,
    dialect: Dialect,
    connection: Connected,
    /// The user and the id of the last row. `None` before the first page.
    after: Option<(String, String)>,
    is_complete: bool,
}

enum Connected {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl<'a> Table<'a> {
    pub(super) async fn open(options: &'a FlaskDanceOptions) -> Result<Self, OperateError> {
        let dialect = Dialect::of(&options.from).map_err(|_| SourceError::UnknownDatabase)?;
        for name in options.from_table.split('.').chain([options.user_column.as_str()]) {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(SourceError::BadName { name: name.to_owned() }.into());
            }
        }
        let url = &options.from;
        let connection = match dialect {
            Dialect::Sqlite => {
                SqliteConnection::connect(&crate::open::without_creating(url)).await.map(Connected::Sqlite)
            }
            Dialect::Postgres => connect::postgres(url).await.map(Connected::Postgres),
            Dialect::Mysql => connect::mysql(url).await.map(Connected::MySql),
        };
        match connection {
            Ok(connection) => Ok(Self { options, dialect, connection, after: None, is_complete: false }),
            Err(error) => Err(UnusableStorage::new(url, StorageError::unavailable(error)).await.into()),
        }
    }

    /// The next rows, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Row>>, SourceError> {
        if self.is_complete {
            return Ok(None);
        }
        let rows = self.page().await.map_err(|source| match source {
            sqlx::Error::Io(_) => SourceError::Lost { table: self.options.from_table.clone(), source },
            source => SourceError::Unreadable { table: self.options.from_table.clone(), source },
        })?;
        self.is_complete = rows.len() < PAGE;
        self.after = rows.last().map(|row| (row.user.clone().unwrap_or_default(), row.id.clone()));
        Ok(Some(rows))
    }

    async fn page(&mut self) -> Result<Vec<Row>, sqlx::Error> {
        let sql = AssertSqlSafe(statement(self.options, self.dialect, self.after.is_some()));
        macro_rules! rows {
            ($connection:expr) => {{
                let mut query = sqlx::query(sql);
                if let Some((user, id)) = &self.after {
                    query = query.bind(user).bind(user).bind(id);
                }
                let rows = query.fetch_all($connection).await?;
                let rows = rows.iter().map(|row| {
                    let created_at: Option<i64> = row.try_get(4)?;
                    Ok(Row {
                        id: row.try_get(0)?,
                        provider: row.try_get(1)?,
                        token: row.try_get(2)?,
                        user: row.try_get::<Option<String>, _>(3)?.filter(|user| !user.is_empty()),
                        created_at: created_at.and_then(Timestamp::from_unix_seconds_signed),
                    })
                });
                rows.collect()
            }};
        }
        match &mut self.connection {
            Connected::Sqlite(connection) => rows!(connection),
            Connected::Postgres(connection) => rows!(connection),
            Connected::MySql(connection) => rows!(connection),
        }
    }
}

/// Orders rows by user and id, byte by byte, so that no collation of the table makes a page skip or repeat a row.
/// Flask-Dance stores the time in UTC without a zone.
fn statement(options: &FlaskDanceOptions, dialect: Dialect, is_continued: bool) -> String {
    let FlaskDanceOptions { from_table: table, user_column: user, .. } = options;
    // SQLite reads an unknown name in double quotes as a text.
    let quote = if dialect == Dialect::Postgres { '"' } else { '`' };
    let quoted = |name: &str| format!("{quote}{name}{quote}");
    let (table, user) = (table.split('.').map(quoted).collect::<Vec<_>>().join("."), &quoted(user));
    let (text, time) = match dialect {
        Dialect::Sqlite => ("TEXT", "CAST(strftime('%s', created_at) AS INTEGER)"),
        Dialect::Postgres => ("TEXT", "CAST(EXTRACT(EPOCH FROM created_at) AS BIGINT)"),
        Dialect::Mysql => ("CHAR", "TIMESTAMPDIFF(SECOND, '1970-01-01', created_at)"),
    };
    let cast = |column: &str| format!("CAST({column} AS {text})");
    let bytes = |text: &str| match dialect {
        Dialect::Sqlite => format!("{text} COLLATE BINARY"),
        Dialect::Postgres => format!("{text} COLLATE \"C\""),
        Dialect::Mysql => format!("CAST({text} AS BINARY)"),
    };
    let [by_user, by_id] = [bytes(&format!("COALESCE({}, '')", cast(user))), bytes(&cast("id"))];
    let [first, second, third] = match dialect {
        Dialect::Sqlite => ["?", "?", "?"],
        Dialect::Postgres => ["$1", "$2", "$3"],
        Dialect::Mysql => ["CAST(? AS BINARY)"; 3],
    };
    let after = match is_continued {
        true => format!("WHERE {by_user} > {first} OR ({by_user} = {second} AND {by_id} > {third}) "),
        false => String::new(),
    };
    let [id, provider, token, user] = [cast("id"), cast("provider"), cast("token"), cast(user)];
    format!(
        "SELECT {id}, {provider}, {token}, {user}, {time} FROM {table} {after}ORDER BY {by_user}, {by_id} LIMIT {PAGE}"
    )
}
