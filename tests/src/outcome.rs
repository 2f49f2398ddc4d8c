//! How a property ends, and the macros with which properties check something.

use std::fmt::Write as _;
use std::panic::Location;

use crate::harness::HarnessError;

/// The result of one property: `Ok` if the storage has the property, otherwise a [`Stop`] with the reason.
///
/// ```
/// use std::sync::Arc;
/// use oauth_dance_conformance::{PropertyResult, Stop, TestedStorage, listing};
/// use oauth_dance_core::MemoryStorage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tested = Arc::new(TestedStorage::new(MemoryStorage::new(), 1));
/// let result: PropertyResult = listing::an_undeclared_list_is_unsupported(tested).await;
/// assert_eq!(result, Err(Stop::not_applicable("listable")));
/// # }
/// ```
pub type PropertyResult<T = ()> = Result<T, Stop>;

/// Why a property did not pass. Only [`Failed`](Self::Failed) means that the storage is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The property is about something that the storage does not declare, or needs something that the harness cannot do.
    /// The text says which. The property is counted and listed in the report, and its test passes.
    NotApplicable(String),
    /// The server, or something else that the storage needs, is not available. The test prints `SKIP` and passes, or fails
    /// if `REQUIRE_BACKENDS=1`.
    Missing(String),
    /// The storage does not fulfil its contract. The first line names the call, the key and the record; the last calls and
    /// the seed of the random choices follow.
    Failed(String),
}

impl Stop {
    /// A failure, with the place in the suite at which it was detected.
    #[track_caller]
    pub fn failed(what: impl std::fmt::Display) -> Self {
        let place = Location::caller();
        Self::Failed(format!("{what} ({}:{})", place.file(), place.line()))
    }

    /// Something that the storage does not declare, or that the harness cannot do.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::NotApplicable(why.into())
    }
}

/// The prefix of an error that the property did not expect. [`Property::run`](crate::Property::run) replaces it by the call.
pub(crate) const UNEXPECTED: &str = "unexpected error: ";

/// Every error that a property does not expect is a failure. It is reported with its sources.
impl<E: std::error::Error> From<E> for Stop {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::failed(format_args!("{UNEXPECTED}{}", chain(&error)))
    }
}

impl From<HarnessError> for Stop {
    fn from(error: HarnessError) -> Self {
        match error {
            HarnessError::Cannot(what) => Self::NotApplicable(format!("the harness cannot {what}")),
            HarnessError::Missing(what) => Self::Missing(what),
            HarnessError::Failed(error) => Self::Failed(format!("the harness failed: {}", chain(error.as_ref()))),
        }
    }
}

/// An error and its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}

/// Ends the property as failed unless the condition is true.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::outcome::Stop::failed(format_args!($($why)+)));
        }
    };
}

/// Ends the property as failed unless two values are equal. The message shows both.
macro_rules! ensure_eq {
    ($found:expr, $wanted:expr, $($why:tt)+) => {
        match (&$found, &$wanted) {
            (found, wanted) => ensure!(
                found == wanted,
                "{}: expected {}, found {}",
                format_args!($($why)+),
                $crate::show::Show::show(wanted),
                $crate::show::Show::show(found)
            ),
        }
    };
}

/// Ends the property as failed unless the result is an error that matches the pattern.
macro_rules! ensure_error {
    ($result:expr, $error:pat, $($why:tt)+) => {
        match $result {
            Err($error) => {}
            other => return Err($crate::outcome::Stop::failed(format_args!(
                "{}: expected Err({}), found {}",
                format_args!($($why)+),
                stringify!($error),
                $crate::show::Show::show(&other)
            ))),
        }
    };
}

pub(crate) use {ensure, ensure_eq, ensure_error};
