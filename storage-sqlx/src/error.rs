use std::io::ErrorKind;

use oauth_dance_core::{BoxError, StorageError};
use sqlx::migrate::MigrateError;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::address::AddressError;
use crate::dialect::Dialect;

pub(crate) const RUN_MIGRATIONS: &str =
    "the table is missing or older than this release; run the migrations, with `migrate()` or by hand";

const NO_TLS: &str =
    "the server offers no TLS, or a certificate that is not trusted; see the URL's sslmode or ssl-mode";

/// What an error means for what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing changed, and the same statement may succeed in a moment: it is tried again.
    Busy,
    /// The connection is gone. What was sent on it may have been done.
    Broken,
    /// Nothing changed; try again later.
    Unavailable,
    /// Nothing changes until the set-up does, as the advice says.
    Misconfigured(&'static str),
    /// The same of a server that takes no writes. Another connection may lead to one that does.
    ReadOnly(&'static str),
}

pub(crate) fn failure<DB: Dialect>(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => DB::failure(error.as_ref()),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Failure::Broken,
        sqlx::Error::Tls(_) => Failure::Misconfigured(NO_TLS),
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => Failure::Misconfigured(
            "the database's URL or options are wrong, or do not fit the server; the cause is underneath",
        ),
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::TypeNotFound { .. } => Failure::Misconfigured(RUN_MIGRATIONS),
        _ => Failure::Unavailable,
    }
}

/// An error of a statement that changed nothing.
pub(crate) fn unchanged<DB: Dialect>(error: sqlx::Error) -> StorageError {
    let failure = match &error {
        // How rustls says that it does not trust a certificate.
        sqlx::Error::Io(io) if io.kind() == ErrorKind::InvalidData => Failure::Misconfigured(NO_TLS),
        error => failure::<DB>(error),
    };
    match failure {
        Failure::Misconfigured(advice) | Failure::ReadOnly(advice) => {
            StorageError::Misconfigured { advice: advice.to_owned(), source: source(error) }
        }
        Failure::Busy | Failure::Broken | Failure::Unavailable => StorageError::unavailable(source(error)),
    }
}

/// The error underneath, without what could quote a row: PostgreSQL's errors carry the failing row as a detail.
pub(crate) fn source(error: sqlx::Error) -> BoxError {
    match error {
        sqlx::Error::Database(error) => Box::new(DatabaseFailure {
            code: error.code().map(std::borrow::Cow::into_owned).unwrap_or_default(),
            message: error.message().to_owned(),
        }),
        other => Box::new(other),
    }
}

/// What the database answered.
#[derive(Debug, thiserror::Error)]
#[error("the database answered {code}: {message}")]
struct DatabaseFailure {
    code: String,
    message: String,
}

/// There was no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the database did not answer in time")]
pub(crate) struct TimedOut;

/// An error of the migrations.
pub(crate) fn migration<DB: Dialect>(error: MigrateError) -> StorageError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => unchanged::<DB>(error),
        altered @ MigrateError::VersionMismatch(_) => StorageError::Misconfigured {
            advice: "a migration was applied from a file with other text than this release has; \
                compare the schema with the file, then correct the bookkeeping table"
                .to_owned(),
            source: Box::new(altered),
        },
        dirty @ MigrateError::Dirty(_) => StorageError::Misconfigured {
            advice: "a migration stopped half-way; finish it by hand, then correct the bookkeeping table".to_owned(),
            source: Box::new(dirty),
        },
        other => StorageError::unavailable(other),
    }
}

pub(crate) fn bad_name(error: impl Into<BoxError>) -> StorageError {
    StorageError::Misconfigured { advice: "choose another table name".to_owned(), source: error.into() }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn bad_address(error: AddressError) -> StorageError {
    StorageError::Misconfigured { advice: error.advice().to_owned(), source: Box::new(error) }
}
