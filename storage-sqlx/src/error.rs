//! How an error of sqlx becomes a [`StorageError`].
//!
//! A caller needs to know whether a write may have taken effect, and an operator needs to know what to do. A dialect
//! derives an [`ErrorClass`] from the code that the database reported. [`Runner`](crate::runner::Runner) combines it
//! with what it knows about the statement: whether it was sent, and whether it writes.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use oauth_dance_core::{BoxError, StorageError};
use sqlx::migrate::MigrateError;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::address::AddressError;
use crate::dialect::Dialect;

/// The advice if the table does not have the expected columns.
pub(crate) const RUN_MIGRATIONS: &str =
    "the table is missing or older than this release; run the migrations with `migrate()` or by hand";

/// The advice if the TLS handshake fails.
const NO_TLS: &str =
    "the server does not support TLS, or its certificate is not trusted; check `sslmode` or `ssl-mode` in the URL";

/// What an error means for the statement that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Nothing has changed, because the database does not know a function or the syntax of the statement.
    Unknown,
    /// Nothing has changed, and the same statement may succeed soon, so it is retried.
    Busy,
    /// The connection is broken. The statement may have taken effect.
    Broken,
    /// Nothing has changed. Try again later.
    Unavailable,
    /// Nothing has changed. The statement fails until the configuration is corrected, as the advice describes.
    Misconfigured(&'static str),
    /// The server does not accept writes. Another connection may reach a server that does.
    ReadOnly(&'static str),
}

/// Classifies an error of sqlx. The dialect classifies what the database itself reported.
pub(crate) fn classify<DB: Dialect>(error: &sqlx::Error) -> ErrorClass {
    match error {
        sqlx::Error::Database(error) => DB::classify(error.as_ref()),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => ErrorClass::Broken,
        sqlx::Error::Tls(_) => ErrorClass::Misconfigured(NO_TLS),
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => ErrorClass::Misconfigured(
            "the database URL or the connection options are wrong, or do not match the server; see the cause",
        ),
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::TypeNotFound { .. } => ErrorClass::Misconfigured(RUN_MIGRATIONS),
        _ => ErrorClass::Unavailable,
    }
}

/// Converts the error of a statement that changed nothing.
pub(crate) fn unchanged<DB: Dialect>(error: sqlx::Error) -> StorageError {
    let class = match &error {
        // rustls reports an untrusted certificate in this way.
        sqlx::Error::Io(io) if io.kind() == ErrorKind::InvalidData => ErrorClass::Misconfigured(NO_TLS),
        error => classify::<DB>(error),
    };
    match class {
        ErrorClass::Misconfigured(advice) | ErrorClass::ReadOnly(advice) => {
            StorageError::Misconfigured { advice: advice.to_owned(), source: source(error) }
        }
        ErrorClass::Unknown => StorageError::unavailable(UnknownSyntax(source(error))),
        ErrorClass::Busy | ErrorClass::Broken | ErrorClass::Unavailable => StorageError::unavailable(source(error)),
    }
}

/// The underlying error without anything that could quote a row. For example, PostgreSQL's errors have a detail that
/// contains the failing row.
pub(crate) fn source(error: sqlx::Error) -> BoxError {
    match error {
        sqlx::Error::Database(error) => Box::new(ReportedError {
            code: error.code().map(std::borrow::Cow::into_owned).unwrap_or_default(),
            message: error.message().to_owned(),
        }),
        other => Box::new(other),
    }
}

/// Whether the database does not know a function or the syntax of the statement.
pub(crate) fn is_unknown_syntax(error: &StorageError) -> bool {
    matches!(error, StorageError::Unavailable { source } if source.is::<UnknownSyntax>())
}

/// The error of a statement that the database does not know.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct UnknownSyntax(BoxError);

/// The error that the database reported.
#[derive(Debug, thiserror::Error)]
#[error("the database reported error {code}: {message}")]
struct ReportedError {
    code: String,
    message: String,
}

/// The database did not respond in time.
#[derive(Debug, thiserror::Error)]
#[error("the database did not respond in time")]
pub(crate) struct TimedOut;

/// The cause of an error that several callers receive.
#[derive(Clone, Debug)]
pub(crate) struct SharedError(Arc<dyn std::error::Error + Send + Sync>);

impl From<BoxError> for SharedError {
    fn from(error: BoxError) -> Self {
        Self(error.into())
    }
}

impl From<TimedOut> for SharedError {
    fn from(error: TimedOut) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The error of a statement for several reads, from which each caller receives a [`StorageError`] of its own.
#[derive(Clone, Debug)]
pub(crate) enum SharedFailure {
    Misconfigured(String, SharedError),
    Unavailable(SharedError),
}

impl From<StorageError> for SharedFailure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Misconfigured { advice, source } => Self::Misconfigured(advice, source.into()),
            StorageError::Unavailable { source } => Self::Unavailable(source.into()),
            // No read returns any other error.
            other => Self::Unavailable(SharedError(Arc::new(other))),
        }
    }
}

impl SharedFailure {
    /// A copy for one caller.
    pub(crate) fn to_error(&self) -> StorageError {
        match self.clone() {
            Self::Misconfigured(advice, source) => StorageError::Misconfigured { advice, source: Box::new(source) },
            Self::Unavailable(source) => StorageError::unavailable(source),
        }
    }
}

/// Converts an error of the migrations.
pub(crate) fn migration<DB: Dialect>(error: MigrateError) -> StorageError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => unchanged::<DB>(error),
        altered @ MigrateError::VersionMismatch(_) => StorageError::Misconfigured {
            advice: "an applied migration differs from the file of this release; compare the schema with the file, then correct \
                the bookkeeping table"
                .to_owned(),
            source: Box::new(altered),
        },
        dirty @ MigrateError::Dirty(_) => StorageError::Misconfigured {
            advice: "a migration was interrupted; complete it by hand, then correct the bookkeeping table".to_owned(),
            source: Box::new(dirty),
        },
        other => StorageError::unavailable(other),
    }
}

/// The error of a table name that this database does not support.
pub(crate) fn bad_name(error: impl Into<BoxError>) -> StorageError {
    StorageError::Misconfigured { advice: "choose another table name".to_owned(), source: error.into() }
}

/// The error of a URL, with the advice for it.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn bad_address(error: AddressError) -> StorageError {
    StorageError::Misconfigured { advice: error.advice().to_owned(), source: Box::new(error) }
}
