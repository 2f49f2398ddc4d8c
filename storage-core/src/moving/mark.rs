//! What a move writes into the two storages in addition to records.
//!
//! A *mark* in the old storage reserves a record for the move. It is a prefix of the payload, so that the conditional
//! write that sets it replaces the record, and a process that does not know about the move fails to decode it. A
//! *placeholder* in the new storage reserves the place of the record, so that a conditional write there proves that
//! nothing else has happened in between.

use std::time::Duration;

use crate::record::{Record, Version, Versioned};

/// The beginning of a marked payload. The version of the unmarked record and its payload follow. No sealed payload and
/// no plain document begins like this.
const MARK: &[u8; 20] = b"\0oauth-dance moving\0";
/// The key id of a placeholder. It is a hint, so that a list shows which entries are placeholders.
const PLACEHOLDER: &str = "oauth-dance placeholder";
/// The number of bytes that a mark adds to a payload.
pub(super) const OVERHEAD: usize = MARK.len() + 16;
/// The retention of a placeholder, in case the process that wrote it dies.
const PLACEHOLDER_RETENTION: Duration = Duration::from_secs(60);

/// A record of the old storage without its mark.
pub(super) struct Unmarked {
    pub(super) found: Versioned<Record>,
    /// The version that the record had before it was marked. `None` if it is not marked.
    pub(super) before: Option<Version>,
}

/// Adds a mark to a record. The process that wrote the mark, or any other process that finds it, moves the record.
pub(super) fn mark(found: &Versioned<Record>) -> Record {
    let mut marked = found.value.clone();
    marked.payload = [&MARK[..], found.version.as_bytes(), &found.value.payload].concat();
    marked
}

/// Removes the mark of a record, if it has one.
pub(super) fn unmark(mut found: Versioned<Record>) -> Unmarked {
    let before = found.value.payload.strip_prefix(MARK).and_then(<[u8]>::split_first_chunk::<16>);
    let Some((before, payload)) = before else { return Unmarked { found, before: None } };
    let (before, payload) = (Version::from_bytes(*before), payload.to_vec());
    found.value.payload = payload;
    Unmarked { found, before: Some(before) }
}

/// The record that reserves a place in the new storage. It counts as absent.
pub(super) fn placeholder() -> Record {
    Record::new("").with_key_id(Some(PLACEHOLDER.to_owned())).with_retain_for(Some(PLACEHOLDER_RETENTION))
}

/// Whether a record or an entry with this key id is a placeholder.
pub(super) fn is_placeholder(key_id: Option<&str>) -> bool {
    key_id == Some(PLACEHOLDER)
}
