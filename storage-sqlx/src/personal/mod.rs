//! A storage for the programs of one person: a SQLite file in the person's data folder, with its key ring.
//!
//! One small file, `key`, says where the key is: it contains the key, or a reference to an entry of the operating system's
//! keyring. It is created once, under a lock, and is complete from the moment it exists. No process looks for a key anywhere
//! else, so a keyring that is absent today cannot lead to a second key, and one that appears tomorrow cannot either.

mod error;
mod folder;
mod key;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oauth_dance_core::KeyRing;

use crate::sqlite::SqliteStorage;
use folder::Folder;
use key::KeyFinder;

pub use error::PersonalError;

/// How long the keyring may take, unless another limit is set. It may ask the person for a password.
const KEYRING_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer limits are not limits, and sums of them must not overflow.
const MAX_KEYRING_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The tokens of one person on their own machine, for command-line and desktop programs: a [`SqliteStorage`] in the person's
/// data folder, and the [`KeyRing`] that seals it.
///
/// ```
/// use oauth_dance_core::Tokens;
/// use oauth_dance_sqlx::{KeyPlace, PersonalStorage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path().join("acme-cli");
/// let personal = PersonalStorage::builder("acme-cli") // or: PersonalStorage::open("acme-cli").await?
///     .folder(&folder)
///     .key_place(KeyPlace::File)
///     .open()
///     .await?;
/// let (storage, key_ring) = personal.into_parts();
/// let tokens = Tokens::sealed(storage, key_ring);
/// # let _ = tokens;
/// # Ok(())
/// # }
/// ```
///
/// # Several processes
/// Any number of processes may open the storage at the same time, even the first time. They use the same key, and
/// refresh each token once, so that no instance of a program logs another one out.
///
/// # Where the key is
/// The first start generates the key and stores it in the operating system's keyring. If the machine has no keyring, as
/// in a container or on a build server, the key is stored in a file that only the person can read. The key never moves
/// later: if a keyring with the key is absent or locked, opening fails with an error and not with a second key, and if
/// a keyring appears, a key in a file remains there. [`key_place`](Self::key_place) returns the place, and
/// [`PersonalStorageBuilder::key_place`] permits only one.
///
/// A locked keyring, or one that does not respond or rejects the connection, is an error even at the first start: the
/// person has a keyring, and would not expect the key in a file.
///
/// # Files
/// | file | content |
/// | --- | --- |
/// | `tokens.sqlite`, with `-wal` and `-shm` | the sealed tokens |
/// | `key` | the key, or a reference to the entry of the keyring |
/// | `lock` | empty; locked while a process creates the key |
///
/// The folder is `oauth` in the application's folder, which is in `$XDG_DATA_HOME` or `~/.local/share`, in
/// `~/Library/Application Support` on macOS, or in `%LOCALAPPDATA%` on Windows. Only its owner can read it (mode 0700).
/// To remove everything, disconnect, and delete the folder.
///
/// A key in a file protects the tokens only as far as the file is protected: a copy of the whole folder contains both.
pub struct PersonalStorage {
    storage: SqliteStorage,
    key_ring: KeyRing,
    key_place: KeyPlace,
    folder: PathBuf,
}

/// Where the key of a [`PersonalStorage`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In the operating system's keyring.
    Keyring,
    /// In the file `key` of the folder, with mode 0600.
    File,
}

impl PersonalStorage {
    /// Opens the storage of an application, with the defaults. Creates what is missing.
    ///
    /// # Errors
    /// The errors of [`PersonalStorageBuilder::open`].
    pub async fn open(application: impl Into<String>) -> Result<Self, PersonalError> {
        Self::builder(application).open().await
    }

    /// Opens the storage of an application, with other settings. The name of the application is that of its folder, and of
    /// its entries in the keyring: 1 to 64 letters, digits, `-`, `_` and `.`, the first of which is a letter or a digit.
    pub fn builder(application: impl Into<String>) -> PersonalStorageBuilder {
        PersonalStorageBuilder {
            application: application.into(),
            folder: None,
            key_place: None,
            keyring_timeout: KEYRING_TIMEOUT,
        }
    }

    /// The storage, and the key ring that seals its records.
    pub fn into_parts(self) -> (SqliteStorage, KeyRing) {
        (self.storage, self.key_ring)
    }

    /// Where the key is.
    pub fn key_place(&self) -> KeyPlace {
        self.key_place
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Shows the folder and the id of the key.
impl fmt::Debug for PersonalStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersonalStorage")
            .field("folder", &self.folder)
            .field("key_ring", &self.key_ring)
            .field("key_place", &self.key_place)
            .finish_non_exhaustive()
    }
}

/// The settings of a [`PersonalStorage`].
#[derive(Clone, Debug)]
pub struct PersonalStorageBuilder {
    application: String,
    folder: Option<PathBuf>,
    key_place: Option<KeyPlace>,
    keyring_timeout: Duration,
}

impl PersonalStorageBuilder {
    /// Uses this folder instead of the one in the person's data folder. It must contain nothing else.
    #[must_use]
    pub fn folder(self, folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..self }
    }

    /// Permits the key only in this place. By default, the first start chooses the keyring if there is one.
    ///
    /// Choose [`KeyPlace::File`] for a program that runs unattended, such as a job on a build server. Choose
    /// [`KeyPlace::Keyring`] if a file is not acceptable.
    #[must_use]
    pub fn key_place(self, place: KeyPlace) -> Self {
        Self { key_place: Some(place), ..self }
    }

    /// How long the keyring may take, instead of 30 seconds, and at most a day. It may prompt the person for a
    /// password.
    #[must_use]
    pub fn keyring_timeout(self, timeout: Duration) -> Self {
        Self { keyring_timeout: timeout.min(MAX_KEYRING_TIMEOUT), ..self }
    }

    /// Opens the storage. Creates the folder, the database and the key if they are missing.
    ///
    /// # Errors
    /// [`PersonalError`]. A new key is never generated if the database contains records, in any table of tokens: they are
    /// sealed with another key.
    ///
    /// # Cancel safety
    /// Dropping the future at any point, or killing the process, leaves a folder that the next start completes. A key that
    /// was stored in the keyring is found again.
    pub async fn open(self) -> Result<PersonalStorage, PersonalError> {
        let folder = Folder::open(&self.application, self.folder)?;
        let storage = SqliteStorage::open_file(&folder.database()).await?;
        storage.migrate().await?;
        let finder = KeyFinder::new(&self.application, &folder, self.key_place, self.keyring_timeout);
        let (key_ring, key_place) = finder.find_or_create(&storage).await?;
        Ok(PersonalStorage { storage, key_ring, key_place, folder: folder.into_path() })
    }
}
