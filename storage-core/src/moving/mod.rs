//! Moves records from one storage to another.
//!
//! [`Copier`] is for storages of which at most one is in use. [`Migrating`] moves a running application without
//! downtime. Both copy records unchanged, so they need no key ring. Each of their writes is conditional.

mod copier;
mod mark;
mod merge;
mod migrating;
mod steps;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use copier::{Copied, Copier, CopyError};
pub use migrating::{Migrating, Moved};

use crate::record::{Record, Versioned};

/// By how much a retention may end early: each storage may round to a second.
const ROUNDING: Duration = Duration::from_secs(2);

/// A record that was read from a storage, and when the request for it was sent.
struct Read {
    found: Versioned<Record>,
    sent_at: Instant,
}

impl Read {
    /// The record for another storage, with its remaining retention. This is rounded down, so that the retention never
    /// ends late.
    fn record(&self) -> Record {
        let remaining = |left: Duration| Duration::from_secs(left.saturating_sub(self.sent_at.elapsed()).as_secs());
        self.found.value.clone().with_retain_for(self.found.value.retain_for.map(remaining))
    }

    /// Whether the retention may have ended in the other storage, with the rounding of both.
    fn is_expiring(&self) -> bool {
        self.found.value.retain_for.is_some_and(|left| left.saturating_sub(self.sent_at.elapsed()) <= ROUNDING)
    }
}

/// Whether two records have the same content. The remaining retention changes with time, so only its presence is
/// compared.
fn is_same(one: &Record, other: &Record) -> bool {
    one.payload == other.payload
        && one.expires_at == other.expires_at
        && one.key_id == other.key_id
        && one.retain_for.is_some() == other.retain_for.is_some()
}
