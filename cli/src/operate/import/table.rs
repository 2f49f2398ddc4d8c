//! Reads the table of an application that uses another library.

use oauth_dance_core::{StorageError, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, Row as _, SqliteConnection};

use super::FlaskDanceOptions;
use crate::UnusableStorage;
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
}

pub(super) async fn read(options: &FlaskDanceOptions) -> Result<Vec<Row>, OperateError> {
    let dialect = Dialect::of(&options.from).map_err(|_| SourceError::UnknownDatabase)?;
    for name in options.from_table.split('.').chain([options.user_column.as_str()]) {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(SourceError::BadName { name: name.to_owned() }.into());
        }
    }
    let sql = AssertSqlSafe(statement(options, dialect));
    let unreadable = |source| SourceError::Unreadable { table: options.from_table.clone(), source };
    macro_rules! rows {
        ($connection:ty, $url:expr) => {{
            let mut connection = match <$connection>::connect($url).await {
                Ok(connection) => connection,
                Err(error) => {
                    return Err(UnusableStorage::new(&options.from, StorageError::unavailable(error)).await.into());
                }
            };
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.map_err(unreadable)?;
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
            rows.collect::<Result<Vec<Row>, sqlx::Error>>().map_err(unreadable)?
        }};
    }
    Ok(match dialect {
        Dialect::Sqlite => rows!(SqliteConnection, &crate::open::without_creating(&options.from)),
        Dialect::Postgres => rows!(PgConnection, &options.from),
        Dialect::Mysql => rows!(MySqlConnection, &options.from.replacen("mariadb:", "mysql:", 1)),
    })
}

/// The statement that reads the table. Flask-Dance stores times in UTC without a zone.
fn statement(options: &FlaskDanceOptions, dialect: Dialect) -> String {
    let FlaskDanceOptions { from_table: table, user_column: user, .. } = options;
    let (text, time) = match dialect {
        Dialect::Sqlite => ("TEXT", "CAST(strftime('%s', created_at) AS INTEGER)"),
        Dialect::Postgres => ("TEXT", "CAST(EXTRACT(EPOCH FROM created_at) AS BIGINT)"),
        Dialect::Mysql => ("CHAR", "TIMESTAMPDIFF(SECOND, '1970-01-01', created_at)"),
    };
    let cast = |column: &str| format!("CAST({column} AS {text})");
    format!(
        "SELECT {}, {}, {}, {}, {time} FROM {table} ORDER BY id",
        cast("id"),
        cast("provider"),
        cast("token"),
        cast(user)
    )
}
