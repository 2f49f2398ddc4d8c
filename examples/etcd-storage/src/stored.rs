//! What a read has found: the version of a record, and whether it counts as present.

use etcd_client::KeyValue;
use oauth_dance_core::{Entry, Record, Timestamp, TokenKey, Version, Versioned};

use crate::value::decode;

/// What a read has found under a key.
pub(crate) struct Stored {
    /// The revision of the last write of the key, or 0 if there is none. It is not the version of the record: a record past
    /// its retention has a revision, and counts as absent.
    pub(crate) revision: i64,
    pub(crate) lease: i64,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Nothing,
    Live(Versioned<Record>),
    Unreadable,
}

impl Stored {
    pub(crate) fn new(found: Option<&KeyValue>, now: Timestamp) -> Self {
        let Some(found) = found else { return Self { revision: 0, lease: 0, content: Content::Nothing } };
        let revision = found.mod_revision();
        let content = match decode(found.value()) {
            Some(value) if value.is_live_at(now) => {
                Content::Live(Versioned::new(value.into_record(now), version(revision)))
            }
            Some(_) => Content::Nothing,
            None => Content::Unreadable,
        };
        Self { revision, lease: found.lease(), content }
    }

    /// The version for a condition. An unreadable record has one that matches nothing.
    pub(crate) fn condition(&self) -> Option<Version> {
        match &self.content {
            Content::Nothing => None,
            Content::Live(found) => Some(found.version),
            Content::Unreadable => Some(Version::random()),
        }
    }
}

/// The version of a record is the revision of its last write. etcd counts all writes of a cluster, so a revision is never used
/// again for a key, not even after it was deleted.
pub(crate) fn version(revision: i64) -> Version {
    Version::from_bytes(i128::from(revision).to_be_bytes())
}

/// An entry of a list, unless its retention has ended. Unreadable hints are absent.
pub(crate) fn entry(key: TokenKey, row: &KeyValue, now: Timestamp) -> Option<Entry> {
    match decode(row.value()) {
        Some(value) => value.is_live_at(now).then(|| Entry::new(key, version(row.mod_revision()), &value.record)),
        None => Some(Entry::new(key, Version::random(), &Record::new(""))),
    }
}
