use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::{Read, is_same};
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::Version;
use crate::storage::{Precondition, TokenStorage};

/// The number of tries to copy a record that changes during the copy.
const MAX_TRIES: usize = 100;

/// Copies records from one storage to another unchanged: payload, hints and the remaining retention. No key ring is
/// needed, because a payload is bound to its [`TokenKey`] and not to the storage.
///
/// If the target has a record, that record takes precedence and remains. With [`mirroring`](Self::mirroring), the
/// source takes precedence instead. Every write is conditional, so a concurrent write is never overwritten. If a copy
/// is interrupted, copy again.
///
/// Use it while the application is stopped, or to make a copy that no application uses. To move a running application
/// to another storage, use [`Migrating`](super::Migrating).
///
/// ```
/// use oauth_dance_core::{Copied, Copier, MemoryStorage, Precondition, Record, TokenKey, TokenStorage};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (old, new) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryStorage::new()));
/// let key = TokenKey::new("github", "alice")?;
/// old.put(&key, &Record::new("sealed"), Precondition::Always).await?;
///
/// let copier = Copier::new(old, new.clone());
/// assert_eq!(copier.copy(&key).await?, Copied::Written);
/// assert_eq!(copier.copy(&key).await?, Copied::Same);
/// assert_eq!(new.get(&key).await?.unwrap().value.payload, b"sealed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Copier {
    source: Arc<dyn TokenStorage>,
    target: Arc<dyn TokenStorage>,
    is_mirroring: bool,
}

/// The result of copying one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Copied {
    /// The record was written into the target.
    Written,
    /// The target already had the same record.
    Same,
    /// The target has another record, which remains unchanged.
    Newer,
    /// The source has no such record. When mirroring, it was also removed from the target.
    Gone,
}

/// Why a record was not copied or moved. The variant names the storage that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source failed.
    #[error("the source failed")]
    Source(#[source] StorageError),
    /// The target failed.
    #[error("the target failed")]
    Target(#[source] StorageError),
}

impl CopyError {
    /// The error of the storage.
    pub fn into_storage_error(self) -> StorageError {
        match self {
            Self::Source(error) | Self::Target(error) => error,
        }
    }
}

impl fmt::Debug for Copier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copier")
            .field("source", &self.source.capabilities().name)
            .field("target", &self.target.capabilities().name)
            .field("is_mirroring", &self.is_mirroring)
            .finish()
    }
}

impl Copier {
    /// Copies from `source` to `target`.
    pub fn new(source: Arc<dyn TokenStorage>, target: Arc<dyn TokenStorage>) -> Self {
        Self { source, target, is_mirroring: false }
    }

    /// Makes the target equal to the source. A differing record in the target is replaced, and a record that the source
    /// does not have is removed. Only for a target that no application uses yet.
    #[must_use]
    pub fn mirroring(self) -> Self {
        Self { is_mirroring: true, ..self }
    }

    /// Copies the record of a key. If the record changes in the source during the copy, it is copied again.
    ///
    /// # Errors
    /// [`CopyError`]. The target has the old or the new record in this case. Copy again.
    ///
    /// # Cancel safety
    /// Dropping this future leaves the old or the new record in the target. Copy again.
    pub async fn copy(&self, key: &TokenKey) -> Result<Copied, CopyError> {
        let mut read = self.read(key).await?;
        // The version of the record in the target that this call may replace, because it is an earlier copy.
        let mut copied = None;
        for _ in 0..MAX_TRIES {
            let Some(from) = read else { return self.remove(key, copied).await };
            let when = copied.map_or(Precondition::Absent, Precondition::Version);
            let (outcome, version) = match self.target.put(key, &from.record(), when).await {
                Ok(version) => (Copied::Written, version),
                Err(StorageError::Conflict) => match self.target.get(key).await.map_err(CopyError::Target)? {
                    Some(found) if is_same(&found.value, &from.found.value) => (Copied::Same, found.version),
                    Some(found) if self.is_mirroring => {
                        (copied, read) = (Some(found.version), Some(from));
                        continue;
                    }
                    None if self.is_mirroring || copied.is_none() => {
                        (copied, read) = (None, Some(from));
                        continue;
                    }
                    _ => return Ok(Copied::Newer),
                },
                Err(error) => return Err(CopyError::Target(error)),
            };
            let again = self.read(key).await?;
            if again.as_ref().is_some_and(|again| again.found.version == from.found.version) {
                return Ok(outcome);
            }
            (copied, read) = (Some(version), again);
        }
        Err(CopyError::Source(StorageError::Conflict))
    }

    /// Removes a record from the target that the source no longer has, if it is a copy or if this copier mirrors.
    async fn remove(&self, key: &TokenKey, copied: Option<Version>) -> Result<Copied, CopyError> {
        let only = match copied {
            None if self.is_mirroring => {
                self.target.get(key).await.map_err(CopyError::Target)?.map(|found| found.version)
            }
            copied => copied,
        };
        if only.is_some() {
            self.target.delete(key, only).await.map_err(CopyError::Target)?;
        }
        Ok(Copied::Gone)
    }

    /// Whether source and target have the same record of a key, or both have none. Verifies a copy.
    ///
    /// # Errors
    /// [`CopyError`] if one of them cannot be read.
    pub async fn is_same(&self, key: &TokenKey) -> Result<bool, CopyError> {
        let source = self.source.get(key).await.map_err(CopyError::Source)?;
        let target = self.target.get(key).await.map_err(CopyError::Target)?;
        Ok(match (source, target) {
            (Some(source), Some(target)) => is_same(&source.value, &target.value),
            (source, target) => source.is_none() && target.is_none(),
        })
    }

    /// Reads the source.
    async fn read(&self, key: &TokenKey) -> Result<Option<Read>, CopyError> {
        let sent_at = Instant::now();
        let found = self.source.get(key).await.map_err(CopyError::Source)?;
        Ok(found.map(|found| Read { found, sent_at }))
    }
}
