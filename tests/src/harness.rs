use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{BoxError, TokenKey, TokenStorage};

/// What the maker of a harness, or the harness itself, answers.
pub type HarnessResult<T> = Result<T, HarnessError>;

/// Why a harness did not do what it was asked. Every [`std::error::Error`] turns into [`Failed`](Self::Failed) by `?`.
#[derive(Debug)]
#[non_exhaustive]
pub enum HarnessError {
    /// It has no way to do that; properties that need it are reported as not applicable.
    Cannot(&'static str),
    /// A server is not there. Reported loudly as skipped, or as failed where `REQUIRE_BACKENDS=1`.
    Missing(String),
    /// It should have worked.
    Failed(BoxError),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HarnessError {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Reads the environment variable that says where a server is.
///
/// # Errors
/// [`HarnessError::Missing`] if it is not set or empty.
pub fn server_from_env(name: &str) -> HarnessResult<String> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(HarnessError::Missing(format!("{name} is not set"))),
    }
}

/// One set of stored data, empty at first and used by no other property, and what a test can do to it.
///
/// If the storage declares a [`max_age`](oauth_dance_core::Capabilities::max_age), each method that changes something behind
/// its back waits that long before it returns: [`advance`](Self::advance), [`corrupt`](Self::corrupt) and
/// [`inject`](Self::inject).
///
/// Only [`storage`](Self::storage) is required, and every storage that is [`Clone`] is a harness already (put one that is
/// not into an [`Arc`]). Each further method makes more properties applicable.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The storage under test. Always the same one.
    fn storage(&self) -> Arc<dyn TokenStorage>;

    /// The same data through a new pool, connection or file handle, as another replica or after a restart.
    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Err(HarnessError::Cannot("open the same data again"))
    }

    /// A storage with another table name, prefix or other namespace in the same database.
    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        let _ = namespace;
        Err(HarnessError::Cannot("open another namespace"))
    }

    /// Lets time pass on the clock that retention is counted on, for all storages of this harness.
    /// Where that clock cannot be moved it waits, as this does; then it is asked for a few seconds at most. A clock that
    /// can be moved is moved by whole seconds, and by days.
    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        tokio::time::sleep(by).await;
        Ok(())
    }

    /// Everything that is stored, in whatever form the medium holds it: a dump, the bytes of all files.
    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        Err(HarnessError::Cannot("dump what is stored"))
    }

    /// Damages the stored record of a key so that the storage cannot read it.
    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        let _ = key;
        Err(HarnessError::Cannot("damage a stored record"))
    }

    /// Brings a fault about, until [`heal`](Self::heal).
    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        Err(HarnessError::Cannot(match fault {
            Fault::Down => "make the server refuse connections",
            Fault::Silent => "make the server silent",
            Fault::CutReply => "cut the server's replies",
            Fault::CutNextReply => "cut one reply of the server",
            Fault::Crash => "crash the server",
            Fault::ReadOnly => "make the server read-only",
            Fault::Full => "fill the medium",
        }))
    }

    /// Ends the fault. Once it returns the server works again.
    async fn heal(&self) -> HarnessResult<()> {
        Ok(())
    }

    /// A program that opens the same data in a process of its own and hands the storage to
    /// [`process::work`](crate::process::work).
    async fn process(&self) -> HarnessResult<Command> {
        Err(HarnessError::Cannot("start another process"))
    }

    /// The storage's own `{:?}` and whatever it logged, to be searched for secrets.
    fn printed(&self) -> HarnessResult<String> {
        Err(HarnessError::Cannot("print the storage"))
    }

    /// Removes the data, after the property.
    async fn clean_up(&self) {}

    /// How long one property may take before it counts as failed; 60 seconds. A call that meets a silent server must
    /// end within half of it.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// What can happen to a storage's server, for [`Harness::inject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It refuses connections, and those it had are closed.
    Down,
    /// It takes requests and answers nothing.
    Silent,
    /// It does what it is asked, but every connection breaks before the answer.
    CutReply,
    /// It does what it is asked, and the connection breaks before the next answer, and before no other. A storage that
    /// repeats the call by itself meets what its first attempt did.
    CutNextReply,
    /// It is killed without warning (`kill -9`); [`Harness::heal`] starts it again.
    Crash,
    /// It reads and does not write.
    ReadOnly,
    /// Its medium has no room left.
    Full,
}

impl<S: TokenStorage + Clone> Harness for S {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.clone())
    }
}
