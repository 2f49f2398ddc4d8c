use std::fmt::Write as _;
use std::panic::Location;

use crate::harness::HarnessError;

/// How one property ended: it holds, or a [`Stop`].
pub type PropertyResult<T = ()> = Result<T, Stop>;

/// Why a property was not shown to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The storage does not declare what this is about, or the harness cannot bring it about.
    NotApplicable(String),
    /// The server or whatever else the storage needs is not there.
    Missing(String),
    /// The storage broke its contract.
    Failed(String),
}

impl Stop {
    /// A broken promise, with the place in the suite that noticed.
    #[track_caller]
    pub fn failed(what: impl std::fmt::Display) -> Self {
        let place = Location::caller();
        Self::Failed(format!("{what} ({}:{})", place.file(), place.line()))
    }

    /// Something the storage or the harness does not offer.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::NotApplicable(why.into())
    }
}

/// Before an error that no property asked for. The run puts the call in its place.
pub(crate) const UNEXPECTED: &str = "unexpected error: ";

/// Any error that was not expected is a failure, reported with the errors underneath.
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

/// An error and everything underneath, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a string does not fail.
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}

/// Ends the property as failed unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::outcome::Stop::failed(format_args!($($why)+)));
        }
    };
}

/// Ends the property as failed unless two values are equal, and shows both.
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

/// Ends the property as failed unless the result is the error of a pattern.
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
