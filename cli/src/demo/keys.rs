//! The sealing keys of the demo.

use std::path::Path;
use std::time::Duration;

use oauth_dance_core::KeyRing;

use crate::key_file::KeyFile;
use crate::keys::{AgeArgs, KeysError, WrapArgs};

/// How often, and after which pause, a demo looks for a key file that another one is creating.
const TRIES: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// Loads the keys of a file, or creates the file with a new key, readable by its owner only. Demos that start at the same
/// time use the same key.
pub(super) async fn load_or_create(path: &Path, age: &AgeArgs) -> Result<KeyRing, KeysError> {
    let wrap = WrapArgs { age: age.clone(), ..WrapArgs::default() };
    for _ in 0..TRIES {
        match KeyFile::create(path, &wrap).await {
            Ok(_) => tracing::info!(file = %path.display(), "created a new sealing key"),
            Err(KeysError::Exists { .. }) => {}
            Err(KeysError::InUse { .. }) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        return age.ring_in(path).await;
    }
    Err(KeysError::InUse { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn key_is_created_once_and_is_readable_by_its_owner() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("keys");
        let age = AgeArgs::default();
        let load = async || load_or_create(&path, &age).await.map(|ring| ring.primary_id());
        let (first, second) = tokio::join!(load(), load());
        let first = first.unwrap();
        assert_eq!((second.unwrap(), load().await.unwrap()), (first.clone(), first));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
        let found = std::fs::metadata(&path).unwrap();
        assert!(crate::keys::mode(&found).is_none_or(|mode| mode == 0o600));

        std::fs::write(&path, "CANARY\n").unwrap();
        let error = load().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("line 1 of the key ring is not a key") && !cause.contains("CANARY"), "{cause}");
    }
}
