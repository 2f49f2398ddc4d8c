//! The sealing keys of the demo.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use oauth_dance_core::{KeyRing, SealingKey};

use super::DemoError;

/// Loads the keys of a file. A missing file is created with a new key, and only its owner may read it.
pub(super) fn load_or_create(path: &Path) -> Result<KeyRing, DemoError> {
    let wrong = |problem: String| DemoError::Keys { path: path.to_owned(), problem };
    match create(path) {
        Ok(()) => tracing::info!(file = %path.display(), "created a new sealing key"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(format!("cannot be created: {error}"))),
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    KeyRing::parse(&text).map_err(|error| wrong(format!("cannot be used: {error}")))
}

/// Creates the complete file or none, so that two processes that start at the same time use the same key.
fn create(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = path.with_file_name(name);

    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    let linked = writeln!(file, "# Sealing keys of oauth-dance: the first seals, all open. Keep them secret.")
        .and_then(|()| writeln!(file, "{}", *SealingKey::generate().encode()))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&unfinished, path));
    fs::remove_file(&unfinished)?;
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_created_once_and_is_readable_by_its_owner() {
        let folder = std::env::temp_dir().join(format!("oauth-dance-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("keys");
        let first = load_or_create(&path).unwrap().primary_id();
        assert_eq!(load_or_create(&path).unwrap().primary_id(), first);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }

        fs::write(&path, "CANARY\n").unwrap();
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("line 1 of the key ring is not a key") && !error.contains("CANARY"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
