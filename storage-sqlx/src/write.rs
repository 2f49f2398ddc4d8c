//! A change of one record: which statement it is, and its values.

use std::borrow::Cow;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, Version};

use crate::dialect::Bind;
use crate::record::{key_binds, record_binds};
use crate::sql::{Sql, Statements};

/// A write or a deletion of one record. No changed row means that its condition was false.
pub(crate) struct Write<'a> {
    key: Cow<'a, TokenKey>,
    change: Change<'a>,
}

enum Change<'a> {
    Put { record: Cow<'a, Record>, version: Version, when: Precondition },
    Delete { only: Option<Version> },
}

impl<'a> Write<'a> {
    /// Writes a record with this new version.
    pub(crate) fn put(key: &'a TokenKey, record: &'a Record, version: Version, when: Precondition) -> Self {
        let record = Cow::Borrowed(record);
        Self { key: Cow::Borrowed(key), change: Change::Put { record, version, when } }
    }

    /// Deletes a record, or only this version of it.
    pub(crate) fn delete(key: &'a TokenKey, only: Option<Version>) -> Self {
        Self { key: Cow::Borrowed(key), change: Change::Delete { only } }
    }

    /// A copy without borrowed parts.
    pub(crate) fn to_owned(&self) -> Write<'static> {
        let change = match &self.change {
            Change::Put { record, version, when } => {
                let record = Cow::Owned(Record::clone(record));
                Change::Put { record, version: *version, when: *when }
            }
            Change::Delete { only } => Change::Delete { only: *only },
        };
        Write { key: Cow::Owned(TokenKey::clone(&self.key)), change }
    }

    #[cfg(test)]
    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }

    /// The statement of this change.
    pub(crate) fn statement<'s>(&self, statements: &'s Statements) -> &'s Sql {
        match &self.change {
            Change::Put { when: Precondition::Always, .. } => &statements.put_always,
            Change::Put { when: Precondition::Absent, .. } => &statements.put_absent,
            Change::Put { when: Precondition::Version(_), .. } => &statements.put_version,
            Change::Delete { only: None } => &statements.delete,
            Change::Delete { only: Some(_) } => &statements.delete_version,
        }
    }

    /// The values of the statement.
    ///
    /// # Errors
    /// [`StorageError::KeyTooLong`] or [`StorageError::TooLarge`].
    pub(crate) fn binds(&self) -> Result<Vec<Bind<'_>>, StorageError> {
        let key = key_binds(&self.key)?;
        let (mut binds, only) = match &self.change {
            Change::Put { record, version, when } => {
                let only = if let Precondition::Version(only) = when { Some(only) } else { None };
                (Vec::from(record_binds(record, version)?), only)
            }
            Change::Delete { only } => (Vec::new(), only.as_ref()),
        };
        binds.extend(key);
        binds.extend(only.map(|only| Bind::Bytes(only.as_bytes())));
        Ok(binds)
    }
}
