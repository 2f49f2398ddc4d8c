use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oauth_dance_core::{Clock, Timestamp};

/// A clock that stands still until a test advances it. Clones share their time.
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// A clock that starts at the current time.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(Clock::system().now().as_unix_seconds())))
    }

    /// The clock for [`OAuthBuilder::clock`](crate::OAuthBuilder::clock) and
    /// [`MemoryStorage::with_clock`](crate::MemoryStorage::with_clock).
    pub fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::new(move || Timestamp::from_unix_seconds(seconds.load(Ordering::SeqCst)))
    }

    /// Advances the clock, in whole seconds.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// Sets the clock back, in whole seconds.
    pub fn turn_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_secs(), Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}
