//! The sealing keys with which a command opens tokens.

mod error;
mod wrap;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use oauth_dance_core::{AgeProvider, KeyLoader, KeyRing, KeyRingError, TokenStorage, Tokens, read_key_file};
use zeroize::Zeroizing;

pub use error::KeysError;
pub use wrap::WrapArgs;

/// The environment variable with a key ring.
pub(crate) const VARIABLE: &str = "OAUTH_DANCE_KEYS";

/// How the tokens are sealed. The key ring in the environment variable `OAUTH_DANCE_KEYS` is used if neither is named.
#[derive(Args, Clone, Debug, Default)]
pub struct KeyArgs {
    /// The file of the sealing keys, one on each line; without it, OAUTH_DANCE_KEYS contains the keys
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// What unwraps wrapped keys.
    #[command(flatten)]
    pub age: AgeArgs,
    /// The tokens are stored in plain text, so no key is needed
    #[arg(long, conflicts_with = "key_file")]
    pub plaintext: bool,
}

/// What unwraps keys that `age` has wrapped.
#[derive(Args, Clone, Debug, Default)]
pub struct AgeArgs {
    /// The file of the age identity that unwraps the keys, if age has wrapped them
    #[arg(long, value_name = "FILE", env = "OAUTH_DANCE_AGE_IDENTITY",
        value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub age_identity: Option<PathBuf>,
}

/// How the tokens of a storage are sealed.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    Ring(KeyRing),
    Plaintext,
}

impl KeyArgs {
    /// The keys, or `None` if none are named.
    pub(crate) async fn load(&self) -> Result<Option<Keys>, KeysError> {
        if self.plaintext {
            return Ok(Some(Keys::Plaintext));
        }
        if let Some(path) = &self.key_file {
            return self.age.ring_in(path).await.map(|ring| Some(Keys::Ring(ring)));
        }
        let Some(text) = env::var_os(VARIABLE).map(OsString::into_string) else { return Ok(None) };
        // What is not UTF-8 is no key.
        let text = Zeroizing::new(text.unwrap_or_else(|_| "?".to_owned()));
        match text.trim().is_empty() {
            true => Ok(None),
            false => self.age.ring(&text, VARIABLE).await.map(|ring| Some(Keys::Ring(ring))),
        }
    }

    /// The keys, for a command that needs them.
    pub(crate) async fn require(&self) -> Result<Keys, KeysError> {
        self.load().await?.ok_or(KeysError::Missing)
    }
}

impl AgeArgs {
    /// The file, which an empty variable does not name.
    fn identity(&self) -> Option<&PathBuf> {
        self.age_identity.as_ref().filter(|path| !path.as_os_str().is_empty())
    }

    /// The ring in a file that others cannot read.
    pub(crate) async fn ring_in(&self, path: &Path) -> Result<KeyRing, KeysError> {
        self.ring(&read(path)?, &format!("the key file {}", path.display())).await
    }

    /// The ring in a text, whose place a message names.
    async fn ring(&self, text: &str, place: &str) -> Result<KeyRing, KeysError> {
        match KeyRing::parse(text) {
            Err(KeyRingError::Wrapped { .. }) => {}
            parsed => return parsed.map_err(|source| KeysError::Invalid { place: place.to_owned(), source }),
        }
        let Some(identity) = self.identity() else { return Err(KeysError::NoIdentity { place: place.to_owned() }) };
        let loaded = KeyLoader::new(AgeProvider::new(identity)).load(text).await;
        loaded.map_err(|source| KeysError::NotLoaded { place: place.to_owned(), source })
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

/// Reads a key file that others can neither read nor change.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    Ok(read_key_file(path)?)
}

/// The permissions of a file on Unix. `None` on other systems.
#[cfg(test)]
pub(crate) fn mode(found: &std::fs::Metadata) -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777);
    #[cfg(not(unix))]
    {
        let _ = found;
        None
    }
}
