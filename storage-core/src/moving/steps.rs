//! The steps of a move, each conditional on the one before.
//!
//! A call of [`Migrating`] first brings the record of its key into a known place. *Settling* means that the old storage
//! has no record of the key afterwards, because the record has moved or there was none. An error of a later write is
//! ambiguous, because an earlier one has changed something.

use std::time::Instant;

use super::copier::CopyError;
use super::mark::{Unmarked, is_placeholder, mark, placeholder, unmark};
use super::migrating::{Migrating, Moved};
use super::{Read, is_same};
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::storage::Precondition;

/// The result of settling a key.
pub(super) struct Settled {
    pub(super) moved: Moved,
    /// The versions that the record had in the old storage, before and after it was marked.
    from: [Option<Version>; 2],
    /// The version of the record in the new storage, if this call has moved it.
    to: Option<Version>,
}

/// The storage that a write has to go to in step 1.
enum Place {
    /// The new storage, because the record is moving or has moved.
    New,
    /// The old storage has a record of this version, or none.
    Old(Option<Version>),
    /// The old storage has a record that cannot be read.
    Unreadable(StorageError),
}

impl Migrating {
    /// Moves the record of a key, if it is in the old storage.
    pub(super) async fn settle(&self, key: &TokenKey) -> Result<Settled, CopyError> {
        self.settle_only(key, None).await
    }

    /// The same, but only if the record has this version. Any other record remains in the old storage.
    async fn settle_only(&self, key: &TokenKey, only: Option<Version>) -> Result<Settled, CopyError> {
        let nothing = Settled { moved: Moved::Gone, from: [None; 2], to: None };
        loop {
            let sent_at = Instant::now();
            let Some(found) = self.old.get(key).await.map_err(CopyError::Source)? else { return Ok(nothing) };
            let Unmarked { found, before } = unmark(found);
            if only.is_some() && only != Some(found.version) && only != before {
                return Ok(nothing);
            }
            let marked = match before {
                Some(_) => found.version,
                None => match self.old.put(key, &mark(&found), Precondition::Version(found.version)).await {
                    Ok(version) => version,
                    Err(StorageError::Conflict) => continue,
                    Err(error) => return Err(CopyError::Source(error)),
                },
            };
            let from = [before.or(Some(found.version)), Some(marked)];
            let read = Read { found, sent_at };
            let Some((moved, to)) = self.fill(key, &read, marked).await? else { continue };
            if self.is_verifying
                && let Some(written) = to
            {
                self.verify(key, &read, marked, written).await?;
            }
            self.old.delete(key, Some(marked)).await.map_err(CopyError::Source)?;
            return Ok(Settled { moved, from, to });
        }
    }

    /// Writes a marked record into the new storage, unless the new storage has a record. Returns `None` if the marked
    /// record is no longer in the old storage.
    async fn fill(
        &self,
        key: &TokenKey,
        read: &Read,
        marked: Version,
    ) -> Result<Option<(Moved, Option<Version>)>, CopyError> {
        loop {
            let place = match self.new.put(key, &placeholder(), Precondition::Absent).await {
                Ok(version) => version,
                Err(StorageError::Conflict) => match self.new.get(key).await {
                    Ok(Some(found)) if is_placeholder(found.value.key_id.as_deref()) => found.version,
                    Ok(None) => continue,
                    Ok(Some(found)) if found.version == marked => {
                        let unmarked = self.old.put(key, &read.record(), Precondition::Version(marked)).await;
                        unmarked.map_err(CopyError::Source)?;
                        return Err(CopyError::Target(same_storage()));
                    }
                    Ok(Some(_)) | Err(StorageError::Corrupt { .. }) => return Ok(Some((Moved::Newer, None))),
                    Err(error) => return Err(CopyError::Target(error)),
                },
                Err(error) => return Err(CopyError::Target(error)),
            };
            // Before the placeholder was written, another process may have moved and then deleted the record.
            if !self.is_marked(key, marked).await? {
                self.new.delete(key, Some(place)).await.map_err(CopyError::Target)?;
                return Ok(None);
            }
            match self.new.put(key, &read.record(), Precondition::Version(place)).await {
                Ok(version) => return Ok(Some((Moved::Written, Some(version)))),
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(CopyError::Target(error)),
            }
        }
    }

    /// Reads back what was written into the new storage. If it is different, it is removed there, and the old storage
    /// still has the record.
    async fn verify(&self, key: &TokenKey, read: &Read, marked: Version, written: Version) -> Result<(), CopyError> {
        match self.new.get(key).await {
            Ok(Some(found)) if found.version == written && !is_same(&found.value, &read.found.value) => {}
            // This record, or one that another process has written since.
            Ok(Some(_)) => return Ok(()),
            // Another process may have removed it: first from the old storage.
            Ok(None) if !self.is_marked(key, marked).await? => return Ok(()),
            Ok(None) if read.is_expiring() => return Ok(()),
            Ok(None) => return Err(CopyError::Target(not_as_written("it has no such record"))),
            Err(StorageError::Corrupt { .. }) => {}
            Err(error) => return Err(CopyError::Target(error)),
        }
        self.new.delete(key, Some(written)).await.map_err(CopyError::Target)?;
        Err(CopyError::Target(not_as_written("its record is different")))
    }

    /// Whether the old storage still has a marked record.
    async fn is_marked(&self, key: &TokenKey, marked: Version) -> Result<bool, CopyError> {
        let found = self.old.get(key).await.map_err(CopyError::Source)?;
        Ok(found.is_some_and(|found| found.version == marked))
    }

    /// The record in the new storage. A placeholder counts as absent.
    pub(super) async fn in_new(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let found = self.new.get(key).await?;
        Ok(found.filter(|found| !is_placeholder(found.value.key_id.as_deref())))
    }

    /// The storage that a write of this key has to go to in step 1.
    async fn place(&self, key: &TokenKey) -> Result<Place, StorageError> {
        let has_moved = async || match self.in_new(key).await {
            Ok(found) => Ok(found.is_some()),
            Err(StorageError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        };
        if has_moved().await? {
            return Ok(Place::New);
        }
        match self.old.get(key).await.map(|found| found.map(unmark)) {
            Ok(Some(Unmarked { found, before: None })) => Ok(Place::Old(Some(found.version))),
            Ok(Some(_)) => Ok(Place::New),
            // The record may have moved since the new storage was read.
            Ok(None) if has_moved().await? => Ok(Place::New),
            Ok(None) => Ok(Place::Old(None)),
            Err(error @ StorageError::Corrupt { .. }) => Ok(Place::Unreadable(error)),
            Err(error) => Err(error),
        }
    }

    /// Writes the new storage in step 2.
    pub(super) async fn put_in_new(
        &self,
        key: &TokenKey,
        record: &Record,
        when: Precondition,
    ) -> Result<Version, StorageError> {
        let when = match when {
            Precondition::Absent => return self.create_in_new(key, record).await,
            Precondition::Version(version) => {
                Precondition::Version(self.settle_at(key, version).await?.ok_or(StorageError::Conflict)?)
            }
            Precondition::Always => match self.settle(key).await.map_err(CopyError::into_storage_error) {
                Err(error) if cannot_move(&error) => {
                    let version = self.new.put(key, record, when).await?;
                    self.old.delete(key, None).await.map_err(ambiguous)?;
                    return Ok(version);
                }
                settled => settled.map(|_| when)?,
            },
        };
        self.new.put(key, record, when).await
    }

    /// Settles a key if its record has this version, and returns the version of the record in the new storage. `None`
    /// if the record has another version.
    async fn settle_at(&self, key: &TokenKey, version: Version) -> Result<Option<Version>, StorageError> {
        let Some(found) = self.old.get(key).await? else { return Ok(Some(version)) };
        let Unmarked { found, before } = unmark(found);
        if found.version == version || before == Some(version) {
            let settled = self.settle_only(key, Some(version)).await.map_err(CopyError::into_storage_error)?;
            return Ok(settled.to.filter(|_| settled.from.contains(&Some(version))));
        }
        match self.in_new(key).await? {
            Some(found) if found.version == version => {
                self.settle(key).await.map_err(CopyError::into_storage_error)?;
                Ok(Some(version))
            }
            _ => Ok(None),
        }
    }

    /// Writes the new storage in step 2, if neither storage has a record.
    async fn create_in_new(&self, key: &TokenKey, record: &Record) -> Result<Version, StorageError> {
        // A record in the old storage exists, whether it is marked or not.
        if self.old.get(key).await?.is_some() {
            return Err(StorageError::Conflict);
        }
        let version = self.occupy(key, record).await?;
        // A process of step 1 may have written the old storage in the meantime. Its record takes precedence.
        let yields = self.old.get(key).await.map_err(ambiguous)?.is_some();
        if yields && self.new.delete(key, Some(version)).await.map_err(ambiguous)? {
            return Err(StorageError::Conflict);
        }
        Ok(version)
    }

    /// Writes the new storage, in which a process may have left a placeholder.
    async fn occupy(&self, key: &TokenKey, record: &Record) -> Result<Version, StorageError> {
        let mut when = Precondition::Absent;
        loop {
            match self.new.put(key, record, when).await {
                Err(StorageError::Conflict) => {}
                written => return written,
            }
            when = match self.new.get(key).await? {
                Some(found) if is_placeholder(found.value.key_id.as_deref()) => Precondition::Version(found.version),
                Some(_) => return Err(StorageError::Conflict),
                None => Precondition::Absent,
            };
        }
    }

    /// Deletes from the new storage in step 2.
    pub(super) async fn delete_in_new(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        if let Some(version) = only {
            return match self.settle_at(key, version).await? {
                Some(version) => self.new.delete(key, Some(version)).await,
                None => Ok(false),
            };
        }
        match self.settle(key).await.map_err(CopyError::into_storage_error) {
            Err(error) if cannot_move(&error) => {
                let removed = self.old.delete(key, None).await?;
                Ok(self.new.delete(key, None).await.map_err(ambiguous)? || removed)
            }
            settled => {
                settled?;
                self.delete_any_in_new(key).await
            }
        }
    }

    /// Deletes the record in the new storage, but not a placeholder.
    async fn delete_any_in_new(&self, key: &TokenKey) -> Result<bool, StorageError> {
        loop {
            match self.in_new(key).await {
                Ok(None) => return Ok(false),
                // The deletion is conditional, because another process may have written a placeholder in the meantime.
                Ok(Some(found)) => {
                    if self.new.delete(key, Some(found.version)).await? {
                        return Ok(true);
                    }
                }
                Err(StorageError::Corrupt { .. }) => return self.new.delete(key, None).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the old storage in step 1. Returns `None` if the record is moving or has moved.
    pub(super) async fn put_in_old(
        &self,
        key: &TokenKey,
        record: &Record,
        when: Precondition,
    ) -> Result<Option<Version>, StorageError> {
        loop {
            let current = match self.place(key).await? {
                // The record exists in one of the storages.
                Place::New if when == Precondition::Absent => return Err(StorageError::Conflict),
                Place::New => return Ok(None),
                Place::Unreadable(error) if when != Precondition::Always => return Err(error),
                Place::Unreadable(_) => return self.old.put(key, record, when).await.map(Some),
                Place::Old(current) if !when.holds_for(current) => return Err(StorageError::Conflict),
                Place::Old(current) => current,
            };
            // The write is always conditional, because the record may be marked in the meantime.
            let condition = current.map_or(Precondition::Absent, Precondition::Version);
            let version = match self.old.put(key, record, condition).await {
                Err(StorageError::Conflict) if when == Precondition::Always => continue,
                written => written?,
            };
            if current.is_some() {
                return Ok(Some(version));
            }
            // In the meantime, a process of step 2 may have written the new storage, or moved this record there.
            let found = self.in_new(key).await.map_err(ambiguous)?;
            if found.is_none_or(|found| found.value.payload == record.payload) {
                return Ok(Some(version));
            }
            if when == Precondition::Always {
                return self.put_in_new(key, record, when).await.map(Some).map_err(ambiguous);
            }
            return match self.old.delete(key, Some(version)).await.map_err(ambiguous)? {
                true => Err(StorageError::Conflict),
                false => Ok(Some(version)),
            };
        }
    }

    /// Deletes from the old storage in step 1. Returns `None` if the record is moving or has moved.
    pub(super) async fn delete_in_old(
        &self,
        key: &TokenKey,
        only: Option<Version>,
    ) -> Result<Option<bool>, StorageError> {
        loop {
            let current = match self.place(key).await? {
                Place::New => return Ok(None),
                Place::Unreadable(error) if only.is_some() => return Err(error),
                Place::Unreadable(_) => return self.old.delete(key, None).await.map(Some),
                Place::Old(None) => return Ok(Some(false)),
                Place::Old(current) if only.is_some() && only != current => return Ok(Some(false)),
                Place::Old(current) => current,
            };
            // The deletion is conditional, because the record may be marked in the meantime.
            if self.old.delete(key, current).await? {
                return Ok(Some(true));
            }
        }
    }
}

/// Whether the record cannot move, but can be replaced or removed in the old storage.
fn cannot_move(error: &StorageError) -> bool {
    matches!(error, StorageError::Corrupt { .. } | StorageError::TooLarge { .. })
}

/// The error of a move from a storage to itself.
fn same_storage() -> StorageError {
    StorageError::Misconfigured {
        advice: "name two storages for a move".to_owned(),
        source: "the old and the new storage are the same".into(),
    }
}

fn not_as_written(what: &'static str) -> StorageError {
    StorageError::Misconfigured {
        advice:
            "the storage does not return what was written; find out what changes its records, such as a trigger or a \
            proxy. The old storage still has the record"
                .to_owned(),
        source: what.into(),
    }
}

/// The error of a second write, after the first one has changed something.
pub(super) fn ambiguous(error: StorageError) -> StorageError {
    match error {
        StorageError::Ambiguous { .. } => error,
        error => StorageError::ambiguous(error),
    }
}
