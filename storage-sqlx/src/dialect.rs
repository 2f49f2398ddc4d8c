use std::future::Future;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::Either;
use sqlx::error::DatabaseError;

use crate::error::Failure;
use crate::sql::Texts;

/// One value for a `?` of a statement.
#[derive(Clone, Copy)]
pub(crate) enum Bind<'a> {
    Bytes(&'a [u8]),
    OptionalBytes(Option<&'a [u8]>),
    Number(i64),
    OptionalNumber(Option<i64>),
}

/// What came back from a statement.
pub(crate) struct Outcome<DB: sqlx::Database> {
    pub(crate) rows: Vec<DB::Row>,
    pub(crate) affected: u64,
}

/// What a database is asked for, in types that are the same for all of them.
pub(crate) trait Dialect: sqlx::Database {
    /// The name in `Capabilities`.
    const STORAGE_NAME: &'static str;
    /// Whether connections reach a server, and are closed when there is doubt about them.
    const REMOTE: bool;
    const TEXTS: Texts;
    /// What [`look_up`](Self::look_up) remembers.
    type LookUps: Default + std::fmt::Debug + Send + Sync + 'static;

    /// What an error of the database means.
    fn failure(error: &dyn DatabaseError) -> Failure;

    /// How many rows a statement changed.
    fn changed(done: &Self::QueryResult) -> u64;

    /// Runs one statement to its end.
    fn run(
        connection: &mut Self::Connection,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
    ) -> impl Future<Output = Result<Outcome<Self>, sqlx::Error>> + Send;

    /// Runs the read of one record, which is most of what a storage does, and may be the same each time.
    fn look_up(
        connection: &mut Self::Connection,
        sql: &Arc<str>,
        binds: &[Bind<'_>],
        _state: &Self::LookUps,
    ) -> impl Future<Output = Result<Outcome<Self>, sqlx::Error>> + Send {
        Self::run(connection, sql, binds)
    }

    fn bytes(row: &Self::Row, column: usize) -> Result<Vec<u8>, sqlx::Error>;
    fn optional_bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;
    fn optional_number(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;
}

/// A row, or the end of a statement.
type Part<DB> = Either<<DB as sqlx::Database>::QueryResult, <DB as sqlx::Database>::Row>;

/// Collects what came back from a statement.
pub(crate) async fn collect<DB: Dialect>(
    mut results: BoxStream<'_, Result<Part<DB>, sqlx::Error>>,
) -> Result<Outcome<DB>, sqlx::Error> {
    let mut outcome = Outcome { rows: Vec::new(), affected: 0 };
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(done) => outcome.affected += DB::changed(&done),
            Either::Right(row) => outcome.rows.push(row),
        }
    }
    Ok(outcome)
}

/// [`Dialect::run`] by a statement that is prepared once on each connection. It reads the same for each database and
/// differs in types only, as the other macro here.
macro_rules! run_prepared {
    () => {
        async fn run(
            connection: &mut Self::Connection,
            sql: &std::sync::Arc<str>,
            binds: &[crate::dialect::Bind<'_>],
        ) -> Result<crate::dialect::Outcome<Self>, sqlx::Error> {
            use sqlx::{Arguments as _, Executor as _};

            let mut arguments = <Self as sqlx::Database>::Arguments::default();
            for bind in binds {
                match *bind {
                    crate::dialect::Bind::Bytes(bytes) => arguments.add(bytes),
                    crate::dialect::Bind::OptionalBytes(bytes) => arguments.add(bytes),
                    crate::dialect::Bind::Number(number) => arguments.add(number),
                    crate::dialect::Bind::OptionalNumber(number) => arguments.add(number),
                }
                .map_err(sqlx::Error::Encode)?;
            }
            // Safe: made of constants and a table name of letters, digits and underscores.
            let sql = sqlx::AssertSqlSafe(std::sync::Arc::clone(sql));
            crate::dialect::collect(connection.fetch_many(sqlx::query_with(sql, arguments))).await
        }
    };
}
pub(crate) use run_prepared;

/// The methods of [`Dialect`] that read a column.
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
