//! Leases.
//!
//! A lease is measured on two clocks, and ends on the one that is ahead. On Linux, the monotonic clock stops while the
//! machine is suspended, and the wall clock does not. The wall clock can be set back, and the monotonic clock cannot.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::{Clock, Timestamp};

/// The time that a request may take from this process to the provider.
const MAX_TRANSIT: Duration = Duration::from_secs(2);
/// The error of a duration between two readings of a clock in whole seconds.
const CLOCK_RESOLUTION: Duration = Duration::from_secs(1);

/// The period during which the owner of a claim may send the refresh token.
///
/// A process can be suspended for longer than its lease, by a signal or together with its virtual machine. In the
/// meantime, another process has taken over the claim. Check [`is_expired`](Self::is_expired) as late as possible
/// before a token request leaves, ideally after the connection is open.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::{Clock, Lease};
///
/// let lease = Lease::start(Duration::from_secs(30), &Clock::system());
/// assert!(!lease.is_expired());
/// let over = Lease::start(Duration::ZERO, &Clock::system());
/// assert!(over.is_expired());
/// ```
#[derive(Clone, Debug)]
pub struct Lease {
    clock: Clock,
    start: Instant,
    wall_clock_start: Timestamp,
    length: Duration,
}

impl Lease {
    /// Starts a lease of this length now. For tests of a [`Redeem`](super::Redeem).
    pub fn start(length: Duration, clock: &Clock) -> Self {
        Self { clock: clock.clone(), start: Instant::now(), wall_clock_start: clock.now(), length }
    }

    /// Whether another process may take over before a request that leaves now reaches the provider. In this case, do
    /// not send the request, and return [`RedeemError::LeaseExpired`](super::RedeemError::LeaseExpired).
    pub fn is_expired(&self) -> bool {
        !self.has_left(MAX_TRANSIT)
    }

    /// Whether more than this time is left on both clocks.
    pub(super) fn has_left(&self, time: Duration) -> bool {
        let elapsed = self.clock.now().saturating_since(self.wall_clock_start);
        // If the wall clock was set back, only the monotonic clock counts.
        let elapsed = if elapsed.is_zero() { elapsed } else { elapsed + CLOCK_RESOLUTION };
        self.start.elapsed().max(elapsed) + time < self.length
    }
}
