use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The maximum size of a key file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads the text of a key ring from a file that only its owner can read and change. On systems other than Unix,
/// permissions are not verified.
///
/// Parse it with [`KeyRing::parse`](crate::KeyRing::parse), or with [`KeyLoader::load`](crate::KeyLoader::load) if its
/// keys are wrapped.
///
/// ```
/// use oauth_dance_core::{KeyFileError, KeyRing, SealingKey, read_key_file};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("oauth-dance-keys-{}", std::process::id()));
/// std::fs::write(&path, SealingKey::generate().encode().as_str())?;
/// # #[cfg(unix)]
/// std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
/// # #[cfg(unix)]
/// assert!(matches!(read_key_file(&path), Err(KeyFileError::Exposed { .. })));
///
/// # #[cfg(unix)]
/// std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
/// let ring = KeyRing::parse(&read_key_file(&path)?)?;
/// # std::fs::remove_file(&path)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`KeyFileError`].
pub fn read_key_file(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the open file, because another one may have its name by now.
    let found = file.metadata().map_err(unreadable)?;
    if is_exposed(&found) {
        return Err(KeyFileError::Exposed { path: path.to_owned() });
    }
    if found.len() > MAX_FILE {
        return Err(unreadable(io::Error::other("it is too large for a key file")));
    }
    // With room for the whole file, so that no smaller buffer is left in the memory.
    let room = usize::try_from(found.len()).unwrap_or_default().max(4096) + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.by_ref().take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Why a key file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the key file {} cannot be read; correct its path or its permissions", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other users of this machine can read or change the file.
    #[error(
        "other users of this machine can read or change the key file {}; run `chmod 600` on it, and rotate the keys",
        .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// Whether others than the owner can read or change a file.
#[cfg(unix)]
pub(crate) fn is_exposed(found: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
pub(crate) fn is_exposed(_: &fs::Metadata) -> bool {
    false
}
