//! Which connections were opened before their server stopped accepting writes.
//!
//! After a planned switchover, the former primary is still running and serves the sessions that it has. A write there is
//! an error, but a read would return outdated records. The first error therefore begins a new generation of
//! connections, and those of earlier generations are closed before their next use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a generation lasts at least. A server that stays read-only would otherwise cause new connections all the time.
const MIN_AGE: Duration = Duration::from_secs(5);

/// The number of the current generation of a pool.
#[derive(Clone, Default)]
pub(crate) struct Generations(Arc<State>);

#[derive(Default)]
struct State {
    number: AtomicU64,
    /// When the last generation but the first began.
    begun: Mutex<Option<Instant>>,
}

impl Generations {
    /// The current generation. Ask for it before the connection is opened.
    pub(crate) fn current(&self) -> Generation {
        Generation { number: self.0.number.load(Ordering::Acquire), generations: self.clone() }
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
        self.number != self.generations.0.number.load(Ordering::Acquire)
    }

    /// Begins a new generation, unless this one is over or has just begun.
    pub(crate) fn end(&self) {
        let state = &self.generations.0;
        let mut begun = state.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() || begun.is_some_and(|begun| begun.elapsed() < MIN_AGE) {
            return;
        }
        *begun = Some(Instant::now());
        state.number.fetch_add(1, Ordering::Release);
    }
}
