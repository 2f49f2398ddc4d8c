//! What a move writes into the two storages besides records.

use std::time::Duration;

use crate::record::{Record, Version, Versioned};

/// Starts the payload of a record in the old storage that is being moved. The version of the record before follows, and
/// then its payload. No sealed payload and no document starts like this.
const MARK: &[u8; 20] = b"\0oauth-dance moving\0";
/// The hint of a placeholder, which lists show.
const PLACEHOLDER: &str = "oauth-dance placeholder";
/// How many bytes a mark adds to a payload.
pub(super) const OVERHEAD: usize = MARK.len() + 16;
/// How long a placeholder remains if the process that wrote it dies.
const PLACEHOLDER_RETENTION: Duration = Duration::from_secs(60);

/// A record of the old storage without its mark.
pub(super) struct Unmarked {
    pub(super) found: Versioned<Record>,
    /// The version before it was marked. `None` if it is not marked.
    pub(super) before: Option<Version>,
}

/// The record with a mark: the process that wrote it, or any other that finds it, moves the record.
pub(super) fn mark(found: &Versioned<Record>) -> Record {
    let mut marked = found.value.clone();
    marked.payload = [&MARK[..], found.version.as_bytes(), &found.value.payload].concat();
    marked
}

pub(super) fn unmark(mut found: Versioned<Record>) -> Unmarked {
    let before = found.value.payload.strip_prefix(MARK).and_then(<[u8]>::split_first_chunk::<16>);
    let Some((before, payload)) = before else { return Unmarked { found, before: None } };
    let (before, payload) = (Version::from_bytes(*before), payload.to_vec());
    found.value.payload = payload;
    Unmarked { found, before: Some(before) }
}

/// Occupies the place of a record in the new storage until it is there. It counts as absent.
pub(super) fn placeholder() -> Record {
    Record::new("").with_key_id(Some(PLACEHOLDER.to_owned())).with_retain_for(Some(PLACEHOLDER_RETENTION))
}

pub(super) fn is_placeholder(key_id: Option<&str>) -> bool {
    key_id == Some(PLACEHOLDER)
}
