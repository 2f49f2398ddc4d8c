//! What differs between the databases.
//!
//! [`Engine`](crate::engine::Engine) implements every operation once, with a [`Dialect`] as its parameter. Most of a
//! dialect is data: the SQL in [`Texts`]. The functions run a statement, read a column, and classify an error.

use std::future::Future;
use std::sync::atomic::AtomicBool;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::error::DatabaseError;
use sqlx::{ConnectOptions as _, Either};

use crate::error::ErrorClass;
use crate::pool::Options;
use crate::sql::{Sql, Texts};

/// A value for one `?` in a statement.
#[derive(Clone, Copy)]
pub(crate) enum Bind<'a> {
    Bytes(&'a [u8]),
    /// An array of the values that some keys have in one column. Only PostgreSQL has arrays.
    Column(&'a [[&'a [u8]; 4]], usize),
    OptionalBytes(Option<&'a [u8]>),
    Number(i64),
    OptionalNumber(Option<i64>),
}

/// The result of a statement.
pub(crate) struct StatementResult<DB: sqlx::Database> {
    pub(crate) rows: Vec<DB::Row>,
    /// The number of rows that were inserted, changed or deleted.
    pub(crate) affected: u64,
}

/// A kind of database.
pub(crate) trait Dialect: sqlx::Database {
    /// The name in [`Capabilities`](oauth_dance_core::Capabilities).
    const STORAGE_NAME: &'static str;
    /// Whether the database is a server. Connections to a server are closed if their state is unknown.
    const REMOTE: bool;
    /// How many statements read records at the same time before the next reads wait and share one.
    const PARALLEL_READS: usize;
    /// Starts a transaction of several writes. `None` for a server, which combines concurrent commits itself.
    const BEGIN: Option<&'static str> = None;
    /// The SQL that only this database understands.
    const TEXTS: Texts;
    /// The state of [`lookup`](Self::lookup) between calls.
    type LookupState: Default + std::fmt::Debug + Send + Sync + 'static;

    /// Classifies an error of the database.
    fn classify(error: &dyn DatabaseError) -> ErrorClass;

    /// Whether the same connection may be possible soon, after this error of a new one.
    fn is_transient(error: &dyn DatabaseError) -> bool {
        error.is_transient_in_connect_phase()
    }

    /// The number of rows that a statement changed.
    fn changed(done: &Self::QueryResult) -> u64;

    /// Opens a connection. Returns whether its session belongs to it alone, and not to a pooler. The flag is set if a
    /// pooler rejects the settings of a session.
    fn open(
        options: &Options<Self>,
        _is_pooler: &AtomicBool,
    ) -> impl Future<Output = Result<(Self::Connection, bool), sqlx::Error>> + Send {
        async { Ok((options.connect().await?, true)) }
    }

    /// Runs one statement to completion, which sqlx prepares once on each connection.
    fn run_prepared(
        connection: &mut Self::Connection,
        sql: &Sql,
        binds: &[Bind<'_>],
    ) -> impl Future<Output = Result<StatementResult<Self>, sqlx::Error>> + Send;

    /// The same on a connection whose session may not belong to it alone.
    fn run(
        connection: &mut Self::Connection,
        sql: &Sql,
        binds: &[Bind<'_>],
    ) -> impl Future<Output = Result<StatementResult<Self>, sqlx::Error>> + Send {
        Self::run_prepared(connection, sql, binds)
    }

    /// Runs a statement that reads records by their keys. It is the most frequent statement of a storage and its text
    /// is always the same, so a dialect may have a faster way than [`run`](Self::run).
    fn lookup(
        connection: &mut Self::Connection,
        sql: &Sql,
        binds: &[Bind<'_>],
        _state: &Self::LookupState,
    ) -> impl Future<Output = Result<StatementResult<Self>, sqlx::Error>> + Send {
        Self::run(connection, sql, binds)
    }

    /// Reads a binary column.
    fn bytes(row: &Self::Row, column: usize) -> Result<Vec<u8>, sqlx::Error>;
    /// Reads a binary column that may be `NULL`.
    fn optional_bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;
    /// Reads an integer column that may be `NULL`.
    fn optional_number(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;
}

/// A row, or the end of a statement.
type Part<DB> = Either<<DB as sqlx::Database>::QueryResult, <DB as sqlx::Database>::Row>;

/// Collects the result of a statement.
pub(crate) async fn collect<DB: Dialect>(
    mut results: BoxStream<'_, Result<Part<DB>, sqlx::Error>>,
) -> Result<StatementResult<DB>, sqlx::Error> {
    let mut outcome = StatementResult { rows: Vec::new(), affected: 0 };
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => outcome.affected += DB::changed(&done),
            Either::Right(row) => outcome.rows.push(row),
        }
    }
    Ok(outcome)
}

/// Runs a statement that sqlx prepares once on each connection. `$add_column` adds an array. It is a macro because the
/// uses differ only in sqlx's types, whose trait bounds would be longer than the code.
macro_rules! execute_prepared {
    ($DB:ty, $connection:expr, $sql:expr, $binds:expr, $add_column:expr) => {{
        use sqlx::{Arguments as _, Executor as _};

        let mut arguments = <$DB as sqlx::Database>::Arguments::default();
        for bind in $binds {
            match *bind {
                crate::dialect::Bind::Bytes(bytes) => arguments.add(bytes),
                crate::dialect::Bind::Column(rows, column) => $add_column(&mut arguments, rows, column),
                crate::dialect::Bind::OptionalBytes(bytes) => arguments.add(bytes),
                crate::dialect::Bind::Number(number) => arguments.add(number),
                crate::dialect::Bind::OptionalNumber(number) => arguments.add(number),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        // Safe, because the text consists of constants and a table name of letters, digits and underscores.
        let text = sqlx::AssertSqlSafe(std::sync::Arc::clone(&$sql.prepared));
        crate::dialect::collect($connection.fetch_many(sqlx::query_with(text, arguments))).await
    }};
}
pub(crate) use execute_prepared;

/// Implements [`Dialect::run_prepared`] for a database without arrays.
macro_rules! run_prepared {
    () => {
        async fn run_prepared(
            connection: &mut Self::Connection,
            sql: &crate::sql::Sql,
            binds: &[crate::dialect::Bind<'_>],
        ) -> Result<crate::dialect::StatementResult<Self>, sqlx::Error> {
            crate::dialect::execute_prepared!(Self, connection, sql, binds, |_: &mut _, _, _| Err(
                "this database has no arrays".into()
            ))
        }
    };
}
pub(crate) use run_prepared;

/// Implements the methods of [`Dialect`] that read a column.
macro_rules! read_columns {
    () => {
        fn bytes(row: &Self::Row, column: usize) -> Result<Vec<u8>, sqlx::Error> {
            sqlx::Row::try_get(row, column)
        }

        fn optional_bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
            sqlx::Row::try_get(row, column)
        }

        fn optional_number(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error> {
            sqlx::Row::try_get(row, column)
        }
    };
}
pub(crate) use read_columns;
