//! What a storage author implements: how the suite creates a storage, and what else it can do to the stored data.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{BoxError, TokenKey, TokenStorage};

/// The result of creating a harness, and of its methods.
pub type HarnessResult<T> = Result<T, HarnessError>;

/// Why a harness could not do something.
///
/// The operator `?` turns every [`std::error::Error`] into [`Failed`](Self::Failed), so a method of a harness can use the
/// storage's own client:
///
/// ```
/// use oauth_dance_conformance::{HarnessError, HarnessResult};
///
/// fn damage(path: &str) -> HarnessResult<()> {
///     Ok(std::fs::write(path, "not a record")?)
/// }
///
/// assert!(matches!(damage("/no/such/folder/record"), Err(HarnessError::Failed(_))));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum HarnessError {
    /// The harness has no way to do this. Properties that need it are reported as not applicable. The text completes "the
    /// harness cannot ...".
    Cannot(&'static str),
    /// A server is not available. The tests print `SKIP` with this text, or fail if `REQUIRE_BACKENDS=1`.
    Missing(String),
    /// An attempt to do this failed. The property fails, because nothing is known about the storage.
    Failed(BoxError),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HarnessError {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Reads the URL of a server from an environment variable, so that tests without that server are skipped and not failed.
///
/// The variable is read when the tests run, not when they are compiled.
///
/// ```
/// use oauth_dance_conformance::{HarnessError, server_from_env};
///
/// let url = server_from_env("THE_URL_OF_NO_SERVER");
/// assert!(matches!(url, Err(HarnessError::Missing(text)) if text == "THE_URL_OF_NO_SERVER is not set"));
/// ```
///
/// # Errors
/// [`HarnessError::Missing`] if the variable is not set or empty.
pub fn server_from_env(name: &str) -> HarnessResult<String> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(HarnessError::Missing(format!("{name} is not set"))),
    }
}

/// A storage under test, and what the suite can do to its data from outside.
///
/// Each property gets a harness of its own, with data that is empty at first and that no other property uses. Only
/// [`storage`](Self::storage) is required. Every storage that is [`Clone`] is a harness already; put one that is not into an
/// [`Arc`]. Each further method makes more properties applicable. They correspond to the last column of the
/// [table of all properties](crate#all-properties).
///
/// | to test | implement |
/// | --- | --- |
/// | several handles and restarts | [`reopen`](Self::reopen) |
/// | namespaces | [`sibling`](Self::sibling) |
/// | retention to the second, without waiting | [`advance`](Self::advance) |
/// | secrets on the medium and in logs | [`raw_dump`](Self::raw_dump), [`printed`](Self::printed) |
/// | corrupt records | [`corrupt`](Self::corrupt) |
/// | outages, lost replies, crashes and failovers of the server | [`inject`](Self::inject), [`heal`](Self::heal) |
/// | several processes | [`process`](Self::process) |
///
/// A default method returns [`HarnessError::Cannot`], or does nothing. If the storage declares a
/// [`max_age`](oauth_dance_core::Capabilities::max_age), the methods that change data without the storage have to wait that
/// long before they return: [`advance`](Self::advance), [`corrupt`](Self::corrupt) and [`inject`](Self::inject).
///
/// # Example
///
/// A storage in one file, whose records the suite can damage:
///
/// ```
/// use std::path::PathBuf;
/// use std::sync::Arc;
/// use oauth_dance_conformance::{Harness, HarnessResult, async_trait};
/// use oauth_dance_core::{TokenKey, TokenStorage};
/// # use oauth_dance_core::MemoryStorage;
/// # #[derive(Clone)] struct FileStorage(MemoryStorage);
/// # impl FileStorage {
/// #     fn open(_: &std::path::Path) -> std::io::Result<Self> { Ok(Self(MemoryStorage::new())) }
/// #     fn file_of(&self, _: &TokenKey) -> PathBuf { PathBuf::new() }
/// #     fn storage(&self) -> MemoryStorage { self.0.clone() }
/// # }
///
/// struct InFolder {
///     folder: PathBuf,
///     storage: FileStorage,
/// }
///
/// #[async_trait]
/// impl Harness for InFolder {
///     fn storage(&self) -> Arc<dyn TokenStorage> {
///         Arc::new(self.storage.storage())
///     }
///
///     async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
///         Ok(Arc::new(FileStorage::open(&self.folder)?.storage()))
///     }
///
///     async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
///         Ok(std::fs::write(self.storage.file_of(key), "not a record")?)
///     }
///
///     async fn clean_up(&self) {
///         let _ = std::fs::remove_dir_all(&self.folder);
///     }
/// }
/// ```
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The storage under test. Every call returns a handle on the same storage.
    fn storage(&self) -> Arc<dyn TokenStorage>;

    /// Opens the same data again, through a new pool, connection or file handle, as another process of the application
    /// does, or the same one after a restart.
    ///
    /// The suite calls this several times and uses the handles at the same time. A clone of the first handle is not enough:
    /// it would share caches and connections.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default.
    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Err(HarnessError::Cannot("open the same data again"))
    }

    /// Opens a storage with another namespace in the same database, such as another table name or prefix.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default.
    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        let _ = namespace;
        Err(HarnessError::Cannot("open another namespace"))
    }

    /// Lets time pass on the clock that counts retention, for all storages of this harness.
    ///
    /// The default waits, and the suite then requests a few seconds at most. If the clock can be moved, for instance because
    /// the storage has a [`Clock`](oauth_dance_core::Clock), move it instead and return immediately. The suite then moves it
    /// by whole seconds, up to hundreds of days, and tests more. Between these calls the clock has to run.
    ///
    /// # Errors
    /// None by default.
    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        tokio::time::sleep(by).await;
        Ok(())
    }

    /// Returns everything that is stored, as it is on the medium: a dump of the table, or the bytes of all files. The suite
    /// searches it for secrets and for words that have a special meaning.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default.
    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        Err(HarnessError::Cannot("dump what is stored"))
    }

    /// Damages the stored record of a key so that the storage cannot read it, for instance by truncating its version or its
    /// envelope. A changed payload is not enough: payloads are opaque to a storage.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default.
    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        let _ = key;
        Err(HarnessError::Cannot("damage a stored record"))
    }

    /// Causes a fault of the server, which lasts until [`heal`](Self::heal). A proxy between storage and server can cause
    /// most of them. Return [`HarnessError::Cannot`] for those that you cannot cause.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default, for every fault.
    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        Err(HarnessError::Cannot(match fault {
            Fault::Down => "make the server refuse connections",
            Fault::Silent => "make the server silent",
            Fault::CutReply => "cut the server's replies",
            Fault::CutNextReply => "cut one reply of the server",
            Fault::CutReplyAfter(_) => "cut a later reply of the server",
            Fault::Crash => "crash the server",
            Fault::ReadOnly => "make the server read-only",
            Fault::Full => "fill the medium",
            Fault::Failover => "kill one of several servers",
            Fault::Isolated => "suspend one of several servers",
        }))
    }

    /// Ends the fault. When this returns, the server works again.
    ///
    /// # Errors
    /// None by default.
    async fn heal(&self) -> HarnessResult<()> {
        Ok(())
    }

    /// Returns the command of a program that opens the same data in its own process and passes the storage to
    /// [`process::work`](crate::process::work), whose module has an example.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default.
    async fn process(&self) -> HarnessResult<Command> {
        Err(HarnessError::Cannot("start another process"))
    }

    /// Returns the `Debug` output of the storage and everything that it has logged. The suite searches it for secrets.
    ///
    /// # Errors
    /// [`HarnessError::Cannot`] by default.
    fn printed(&self) -> HarnessResult<String> {
        Err(HarnessError::Cannot("print the storage"))
    }

    /// Removes the data after the property, whether or not the property passed.
    async fn clean_up(&self) {}

    /// How long one call may take before its property fails: 60 seconds by default. During a fault, a call has to return
    /// within three quarters of that. A list, a purge, or a call that waits for others may take three times as long, and a
    /// whole property twenty times as long.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// A fault of a storage's server; see [`Harness::inject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The server refuses connections, and open ones are closed.
    Down,
    /// The server accepts requests and does not reply, like a suspended process.
    Silent,
    /// The server executes requests, but every connection breaks before the reply.
    CutReply,
    /// The server executes requests, and the connection breaks before the next reply only. A storage that retries the call
    /// then encounters the effect of its first attempt.
    CutNextReply,
    /// The next replies arrive, as many as the number says, and then the connection breaks once, as in
    /// [`CutNextReply`](Self::CutNextReply): a call that sends several requests loses the reply to a later one.
    CutReplyAfter(usize),
    /// The server is killed (`kill -9`). [`Harness::heal`] starts it again.
    Crash,
    /// The server accepts reads and rejects writes.
    ReadOnly,
    /// The medium has no space left.
    Full,
    /// One of several servers is killed (`kill -9`): the one that accepts writes, if there is only one.
    /// [`Harness::inject`] returns once the others have taken over, and [`Harness::heal`] starts the server again.
    Failover,
    /// One of several servers stops responding, as in [`Failover`](Self::Failover) the one that accepts writes, and the
    /// others take over. In [`Harness::heal`] it continues, with the requests that have waited for it and with what it knew
    /// before: a process that is suspended and resumed, or a server whose network breaks and comes back.
    Isolated,
}

impl<S: TokenStorage + Clone> Harness for S {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.clone())
    }
}
