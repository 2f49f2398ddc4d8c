//! The sealing keys with which a command opens tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use clap::Args;
use oauth_dance_core::{KeyRing, KeyRingError, TokenStorage, Tokens};

/// The environment variable with a key ring.
pub(crate) const VARIABLE: &str = "OAUTH_DANCE_KEYS";

/// How the tokens are sealed. The key ring in the environment variable `OAUTH_DANCE_KEYS` is used if neither is named.
#[derive(Args, Clone, Debug, Default)]
pub struct KeyArgs {
    /// The file of the sealing keys, one on each line; without it, OAUTH_DANCE_KEYS contains the keys
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The tokens are stored in plain text, so no key is needed
    #[arg(long, conflicts_with = "key_file")]
    pub plaintext: bool,
}

/// How the tokens of a storage are sealed.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    Ring(KeyRing),
    Plaintext,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// No keys were named.
    #[error(
        "name the sealing keys with --key-file or in OAUTH_DANCE_KEYS, or add --plaintext if tokens are stored unsealed"
    )]
    Missing,
    /// The file cannot be read.
    #[error("the key file {} cannot be read; correct --key-file or its permissions", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Every user of this machine can read or replace the file.
    #[error("every user of this machine can read or change the key file {}; run `chmod 600` on it, and rotate the keys", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file exists already.
    #[error("the key file {} exists and is not overwritten; add a key with `oauth-dance key add`, or name another file", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("the key file {} cannot be written; correct --key-file or the permissions of its folder", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A command that needs keys was run with `--plaintext`.
    #[error("--plaintext does not apply; name the sealing keys with --key-file or in OAUTH_DANCE_KEYS")]
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
}

impl KeyArgs {
    /// The keys, or `None` if none are named.
    pub(crate) fn load(&self) -> Result<Option<Keys>, KeysError> {
        if self.plaintext {
            return Ok(Some(Keys::Plaintext));
        }
        if let Some(path) = &self.key_file {
            return read(path).map(|ring| Some(Keys::Ring(ring)));
        }
        match env::var(VARIABLE) {
            Ok(text) if !text.trim().is_empty() => {
                let invalid = |source| KeysError::Invalid { place: VARIABLE.to_owned(), source };
                KeyRing::parse(&text).map(|ring| Some(Keys::Ring(ring))).map_err(invalid)
            }
            _ => Ok(None),
        }
    }

    /// The keys, for a command that needs them.
    pub(crate) fn require(&self) -> Result<Keys, KeysError> {
        self.load()?.ok_or(KeysError::Missing)
    }
}

impl Keys {
    /// A handle to the tokens of a storage that uses these keys.
    pub(crate) fn tokens(&self, storage: &Arc<dyn TokenStorage>) -> Tokens {
        match self {
            Self::Ring(ring) => Tokens::sealed(Arc::clone(storage), ring.clone()),
            Self::Plaintext => Tokens::dangerous_plaintext(Arc::clone(storage)),
        }
    }
}

/// Reads the key ring in a file that others cannot read.
pub(crate) fn read(path: &Path) -> Result<KeyRing, KeysError> {
    let unreadable = |source| KeysError::Unreadable { path: path.to_owned(), source };
    if permissions(path).map_err(unreadable)?.is_some_and(|mode| mode & 0o007 != 0) {
        return Err(KeysError::Exposed { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let invalid = |source| KeysError::Invalid { place: format!("the key file {}", path.display()), source };
    KeyRing::parse(&text).map_err(invalid)
}

/// The permissions of a file on Unix. `None` on other systems.
pub(crate) fn permissions(path: &Path) -> std::io::Result<Option<u32>> {
    #[cfg(unix)]
    return fs::metadata(path).map(|found| Some(std::os::unix::fs::PermissionsExt::mode(&found.permissions())));
    #[cfg(not(unix))]
    fs::metadata(path).map(|_| None)
}
