use std::time::Duration;

use tokio::time::Instant;

use crate::time::{Clock, Timestamp};

/// How long a request may take from leaving this process until it reaches the provider.
const MAX_TRANSIT: Duration = Duration::from_secs(2);
/// What two readings of a clock in whole seconds may lose.
const CLOCK_RESOLUTION: Duration = Duration::from_secs(1);

/// The period during which the owner of a claim may send the refresh token.
///
/// A process can be suspended for longer than its lease, by a signal or with its virtual machine. Another process has
/// taken the claim over by then. Check [`is_expired`](Self::is_expired) as late as possible before a token request
/// leaves.
///
/// A lease is measured on two clocks: on Linux, the monotonic clock stops while the machine is suspended, and the wall
/// clock does not.
#[derive(Clone, Debug)]
pub struct Lease {
    clock: Clock,
    start: Instant,
    wall_clock_start: Timestamp,
    length: Duration,
}

impl Lease {
    /// Starts a lease of this length now.
    pub fn start(length: Duration, clock: &Clock) -> Self {
        Self { clock: clock.clone(), start: Instant::now(), wall_clock_start: clock.now(), length }
    }

    /// Whether another process may have taken over before a request that leaves now arrives. If so, do not send the
    /// request, and return [`RedeemError::LeaseExpired`](super::RedeemError::LeaseExpired).
    pub fn is_expired(&self) -> bool {
        !self.has_left(MAX_TRANSIT)
    }

    /// Whether more than this time is left on both clocks.
    pub(super) fn has_left(&self, time: Duration) -> bool {
        let elapsed = self.clock.now().saturating_since(self.wall_clock_start);
        // A wall clock that was set back shows nothing. The monotonic clock still counts.
        let elapsed = if elapsed.is_zero() { elapsed } else { elapsed + CLOCK_RESOLUTION };
        self.start.elapsed().max(elapsed) + time < self.length
    }
}
