use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::mark::{OVERHEAD, unmark};
use super::merge::Merged;
use super::steps::ambiguous;
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::storage::{Capabilities, Filter, Page, PageRequest, Precondition, TokenStorage};

/// Moves a running application from one storage to another: reads the new storage and then the old, and writes the new.
///
/// Complete each step on all processes before the next one:
///
/// 1. [`Migrating::prepare`]: reads both, and writes the old storage. Processes that use the old storage alone may run
///    beside it.
/// 2. [`Migrating::new`]: reads both, and writes the new storage. Processes of step 1 may run beside it.
/// 3. Move what no process has written meanwhile, with [`move_record`](Self::move_record) or `oauth-dance copy --move`,
///    until the old storage is empty. Wait a minute.
/// 4. Use the new storage alone. Processes of step 2 may run beside it.
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
/// It fulfils the contract of [`TokenStorage`] in any number of processes, with the weaker of both storages'
/// [capabilities](TokenStorage::capabilities). Three promises are weaker during the move:
///
/// * A record gets a new version when it moves. A conditional write that raced with the move may return
///   [`StorageError::Conflict`] although no one else wrote.
/// * While processes of step 1 and step 2 run side by side, and both write a key at the same moment that neither storage
///   has, both writes may conflict, and a reader may see one of them briefly.
/// * If one of the storages does not list in the [order](Capabilities::ordered) of keys, each page reads the entries of
///   all records that match.
///
/// Put a [cache](crate::Tokens::with_cache) in front of it, and not into it: each step reads what is stored.
///
/// # How a record moves
///
/// It is first *marked* in the old storage by a conditional write, after which no process writes it there. Then a
/// *placeholder* occupies its place in the new storage, a conditional write replaces the placeholder by the record, and
/// the marked record is removed from the old storage. Each step is conditional on the one before, so a process that was
/// delayed never restores a record that was replaced or deleted meanwhile. A process that dies leaves the record in one
/// of these steps, and the next one that writes the record continues there. A placeholder counts as absent, and
/// disappears after a minute.
#[derive(Clone)]
pub struct Migrating {
    pub(super) new: Arc<dyn TokenStorage>,
    pub(super) old: Arc<dyn TokenStorage>,
    is_preparing: bool,
}

/// What [`Migrating::move_record`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moved {
    /// The record was written into the new storage, and removed from the old.
    Written,
    /// The new storage has a record already. The old storage's was removed.
    Newer,
    /// The old storage has no record.
    Gone,
}

impl Migrating {
    /// Step 2: writes go to the new storage, and the record of the old storage moves there first.
    pub fn new(new: Arc<dyn TokenStorage>, old: Arc<dyn TokenStorage>) -> Self {
        Self { new, old, is_preparing: false }
    }

    /// Step 1: writes go to the old storage, unless the record has moved.
    pub fn prepare(new: Arc<dyn TokenStorage>, old: Arc<dyn TokenStorage>) -> Self {
        Self { new, old, is_preparing: true }
    }

    /// Moves the record of a key to the new storage. Not before all processes have completed step 2.
    ///
    /// # Errors
    /// [`StorageError`]. The record is then readable in one of the storages; call this again.
    pub async fn move_record(&self, key: &TokenKey) -> Result<Moved, StorageError> {
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
            // It may have moved after the first look.
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
        // In this order, so that a record is not missed that moves meanwhile.
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
            .finish()
    }
}
