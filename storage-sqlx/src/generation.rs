//! Which connections were opened before their server stopped accepting writes.
//!
//! After a planned switchover, the former primary is still running and serves the sessions that it has. A write there is
//! an error, but a read would return outdated records. The first error therefore begins a new generation of
//! connections, and those of earlier generations are closed before their next use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of the current generation of a pool.
#[derive(Clone, Default)]
pub(crate) struct Generations(Arc<AtomicU64>);

impl Generations {
    /// Begins a new generation.
    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// The current generation. Ask for it before the connection is opened.
    pub(crate) fn current(&self) -> Generation {
        Generation { number: self.0.load(Ordering::Acquire), generations: self.clone() }
    }
}

/// The generation of a connection.
pub(crate) struct Generation {
    number: u64,
    generations: Generations,
}

impl Generation {
    /// Whether a new generation has begun.
    pub(crate) fn is_over(&self) -> bool {
        self.number != self.generations.0.load(Ordering::Acquire)
    }
}
