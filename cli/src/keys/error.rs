//! The errors of the sealing keys.

use std::io;
use std::path::PathBuf;

use oauth_dance_core::{KeyFileError, KeyLoadError, KeyRingError};

/// Why there are no keys, or why a key file was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// No keys were named.
    #[error(
        "set the sealing keys with --key-file or OAUTH_DANCE_KEYS, or add --plaintext if tokens are stored unsealed"
    )]
    Missing,
    /// The file cannot be read, or is not private.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The file exists already.
    #[error("the key file {} exists and is not overwritten; add a key with `oauth-dance key add`, or choose another file", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("the key file {} cannot be written, and is unchanged; {}", .path.display(), advice(.source))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another command has begun to change the file.
    #[error("another command is changing the key file {}; run this one again when it has ended", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A command that needs keys was run with `--plaintext`.
    #[error("--plaintext does not apply; set the sealing keys with --key-file or OAUTH_DANCE_KEYS")]
    Plaintext,
    /// The text is not a key ring.
    #[error("{place} cannot be used")]
    Invalid {
        /// The file or the variable.
        place: String,
        /// Why.
        #[source]
        source: KeyRingError,
    },
    /// The keys are wrapped, and nothing is named that unwraps them.
    #[error(
        "{place} contains wrapped keys; set the age identity that unwraps them with --age-identity or \
        OAUTH_DANCE_AGE_IDENTITY, or set OAUTH_DANCE_KEYS to the unwrapped keys"
    )]
    NoIdentity {
        /// The file or the variable.
        place: String,
    },
    /// The keys are wrapped, and were not unwrapped.
    #[error("{place} cannot be used")]
    NotLoaded {
        /// The file or the variable.
        place: String,
        /// Why.
        #[source]
        source: KeyLoadError,
    },
    /// A new key was not wrapped, or would not be unwrapped.
    #[error("no key was added, because a new one cannot be wrapped, and unwrapped again")]
    NotWrapped {
        /// Why.
        #[source]
        source: KeyLoadError,
    },
    /// A plain key would be added to wrapped ones.
    #[error(
        "the keys of {} are wrapped, and a new one would not be; add --age-identity or --age-recipient", .path.display()
    )]
    WouldBePlain {
        /// The file.
        path: PathBuf,
    },
}

/// What to do about a file that cannot be written.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "free space on its disk, and run the command again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose a --key-file on a writable disk",
        _ => "correct --key-file or the permissions of its folder",
    }
}
