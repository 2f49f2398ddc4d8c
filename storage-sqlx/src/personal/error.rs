use std::io;
use std::path::PathBuf;

use oauth_dance_core::{KeyFileError, KeyLoadError, KeyProviderError, StorageError};

use super::KeyPlace;

/// Why a [`PersonalStorage`](super::PersonalStorage) was not opened. No variant contains a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersonalError {
    /// The name of the application cannot be that of a folder.
    #[error(
        "{application:?} cannot be the name of a folder; use 1 to 64 letters, digits, `-`, `_` and `.`, and start with a \
        letter or a digit"
    )]
    ApplicationName {
        /// The name.
        application: String,
    },
    /// The operating system names no data folder.
    #[error("this user has no data folder; set HOME or XDG_DATA_HOME, or name a folder")]
    NoDataFolder,
    /// A folder or a file cannot be created, read or locked.
    #[error("{} cannot be used; correct its permissions, or name another folder", .path.display())]
    Unusable {
        /// The folder or the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other users of this machine can read or change the folder.
    #[error(
        "other users of this machine can read or change the folder {}; if it contains nothing else, run `chmod 700` on it",
        .path.display()
    )]
    Exposed {
        /// The folder.
        path: PathBuf,
    },
    /// The key file cannot be read, or other users can read it.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The key file is invalid, or the keyring does not return the key that it names. Nothing has changed.
    #[error(
        "the key that {} names cannot be loaded; no new key was generated, because the stored tokens are sealed with it",
        .path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Why: it names the key, and what to do.
        #[source]
        source: KeyLoadError,
    },
    /// The key file is missing, and the database contains records.
    #[error(
        "the key file {} is missing, but stored tokens are sealed with key {}; restore it from a backup, or delete the \
        folder and log in again",
        .path.display(), .key_ids.join(", ")
    )]
    KeyLost {
        /// The file that is missing.
        path: PathBuf,
        /// The ids of the keys that sealed the records.
        key_ids: Vec<String>,
    },
    /// The key is in another place than the one that is permitted.
    #[error(
        "the key of {} is in {}, and only {} is permitted; permit both, or delete the folder and log in again",
        .path.display(), in_words(*.found), in_words(*.permitted)
    )]
    OtherPlace {
        /// The folder.
        path: PathBuf,
        /// Where the key is.
        found: KeyPlace,
        /// The only permitted place.
        permitted: KeyPlace,
    },
    /// The key was not stored in the keyring, at the first start.
    #[error("the operating system's keyring cannot be used; unlock it, or permit the key in a file only")]
    Keyring {
        /// Why.
        #[source]
        source: KeyProviderError,
    },
    /// Another process has been creating the key for too long.
    #[error("another process is creating the key; answer its prompt, or end it, and try again (it has locked {})", .path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn in_words(place: KeyPlace) -> &'static str {
    match place {
        KeyPlace::Keyring => "the operating system's keyring",
        KeyPlace::File => "a file",
    }
}
