//! The storage of an application that moves, and the description of a move.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::copier::CopyError;
use super::mark::{OVERHEAD, unmark};
use super::merge::Merged;
use super::steps::ambiguous;
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};

/// Moves a running application from one storage to another. It reads both storages, the new one first, and writes the
/// new one.
///
/// The move has four steps. Complete each step on all processes before the next one:
///
/// 1. Use [`Migrating::prepare`], which reads both and writes the old storage. Processes that use the old storage alone
///    may still run.
/// 2. Use [`Migrating::new`], which reads both and writes the new storage. Processes of step 1 may still run.
/// 3. Move the records that no process has written since, with [`move_record`](Self::move_record) or `oauth-dance copy
///    --move`, until the old storage is empty. Wait a minute.
/// 4. Use the new storage alone. Processes of step 2 may still run.
///
/// Without step 1, a process that still uses the old storage alone cannot read the tokens that have moved, and its users
/// have to log in again. If step 3 is omitted, step 4 loses the tokens that have not moved.
///
/// ```
/// use oauth_dance_core::{MemoryStorage, Migrating, Moved, Precondition, Record, TokenKey, TokenStorage};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (old, new) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryStorage::new()));
/// let key = TokenKey::new("github", "alice")?;
/// old.put(&key, &Record::new("sealed"), Precondition::Always).await?;
///
/// let storage = Migrating::new(new.clone(), old.clone());
/// assert_eq!(storage.get(&key).await?.unwrap().value.payload, b"sealed");
/// assert_eq!(storage.move_record(&key).await?, Moved::Written);
/// assert!(old.get(&key).await?.is_none());
/// assert_eq!(new.get(&key).await?.unwrap().value.payload, b"sealed");
/// # Ok(())
/// # }
/// ```
///
/// # What it promises
///
/// It fulfils the contract of [`TokenStorage`] in any number of processes. Its
/// [capabilities](TokenStorage::capabilities) are those that both storages have. Three promises are weaker during the
/// move:
///
/// * A record gets a new version when it moves. A conditional write that races with the move may return
///   [`StorageError::Conflict`] although no other caller has written.
/// * Processes of step 1 and step 2 may create a record of the same key at the same time. Both writes may then
///   conflict, and a reader may briefly see one of them.
/// * If one of the storages does not list in the [order](Capabilities::ordered) of the keys, each page reads the
///   entries of all matching records.
///
/// A [cache](crate::Tokens::with_cache) belongs in front of this storage not inside it, because each step has to read
/// what is stored.
///
/// # How a record moves
///
/// 1. A conditional write *marks* the record in the old storage. From then on, no process writes it there.
/// 2. A *placeholder* reserves the place of the record in the new storage. It counts as absent, and its retention is a
///    minute.
/// 3. A conditional write replaces the placeholder by the record.
/// 4. The marked record is removed from the old storage.
///
/// Each step is conditional on the one before. A process that was delayed therefore never restores a record that has
/// been replaced or deleted in the meantime. If a process dies, the next one that writes the record continues at the
/// same step.
#[derive(Clone)]
pub struct Migrating {
    pub(super) new: Arc<dyn TokenStorage>,
    pub(super) old: Arc<dyn TokenStorage>,
    is_preparing: bool,
    /// Whether each moved record is read back before it is removed from the old storage.
    pub(super) is_verifying: bool,
}

/// The result of [`Migrating::move_record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moved {
    /// The record was written into the new storage, and removed from the old.
    Written,
    /// The new storage already had a record, which remains. The record of the old storage was removed.
    Newer,
    /// The old storage has no record.
    Gone,
}

impl Migrating {
    /// Step 2. Before a write of a key, its record moves from the old storage to the new one. Then the new storage is
    /// written.
    pub fn new(new: Arc<dyn TokenStorage>, old: Arc<dyn TokenStorage>) -> Self {
        Self { new, old, is_preparing: false, is_verifying: false }
    }

    /// Step 1. Writes go to the old storage, unless the record has moved.
    pub fn prepare(new: Arc<dyn TokenStorage>, old: Arc<dyn TokenStorage>) -> Self {
        Self { new, old, is_preparing: true, is_verifying: false }
    }

    /// Reads each moved record back, and compares it, before it is removed from the old storage. A difference is
    /// [`StorageError::Misconfigured`], and the old storage still has the record. A record that the new storage already
    /// has, for example from a run that was interrupted, is [`Moved::Newer`] and not compared.
    #[must_use]
    pub fn verifying(self) -> Self {
        Self { is_verifying: true, ..self }
    }

    /// Moves the record of a key to the new storage, for step 3. Do not call it before all processes have completed
    /// step 2.
    ///
    /// # Errors
    /// [`CopyError`], whose source is the old storage. The record is readable in one of the storages in this case. Call this again.
    ///
    /// # Cancel safety
    /// Dropping this future leaves the record readable in one of the storages. Call this again.
    pub async fn move_record(&self, key: &TokenKey) -> Result<Moved, CopyError> {
        Ok(self.settle(key).await?.moved)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TokenStorage for Migrating {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        if let Some(found) = self.in_new(key).await? {
            return Ok(Some(found));
        }
        match self.old.get(key).await? {
            Some(found) => Ok(Some(unmark(found).found)),
            // The record may have moved since the new storage was read.
            None => self.in_new(key).await,
        }
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        if self.is_preparing
            && let Some(version) = self.put_in_old(key, record, when).await?
        {
            return Ok(version);
        }
        self.put_in_new(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        if self.is_preparing
            && let Some(is_removed) = self.delete_in_old(key, only).await?
        {
            return Ok(is_removed);
        }
        self.delete_in_new(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let mut merged = Merged::new(&page)?;
        // The old storage comes first, so that no record is missed that moves between the two lists.
        merged.add(&self.old, filter).await?;
        merged.add(&self.new, filter).await?;
        Ok(merged.into_page())
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let first = self.old.purge(limit).await?;
        let rest = limit.saturating_sub(usize::try_from(first).unwrap_or(usize::MAX));
        match self.new.purge(rest).await {
            Ok(second) => Ok(first.saturating_add(second)),
            Err(error) if first == 0 => Err(error),
            Err(error) => Err(ambiguous(error)),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let (new, old) = (self.new.capabilities(), self.old.capabilities());
        let old_limit = old.max_payload.map(|limit| limit.saturating_sub(OVERHEAD));
        Capabilities {
            name: "migrating",
            durable: new.durable && old.durable,
            shared: new.shared && old.shared,
            atomic: new.atomic && old.atomic,
            listable: new.listable && old.listable,
            ordered: true,
            request_bound: new.request_bound || old.request_bound,
            max_payload: [new.max_payload, old_limit].into_iter().flatten().min(),
            max_age: new.max_age.max(old.max_age),
        }
    }
}

impl fmt::Debug for Migrating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrating")
            .field("new", &self.new.capabilities().name)
            .field("old", &self.old.capabilities().name)
            .field("is_preparing", &self.is_preparing)
            .field("is_verifying", &self.is_verifying)
            .finish()
    }
}
