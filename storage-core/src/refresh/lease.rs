use std::time::Duration;

use tokio::time::Instant;

use crate::time::{Clock, Timestamp};

/// What a request may take from leaving this process to reaching the provider.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// What two readings of a clock in whole seconds lose.
const FRACTION: Duration = Duration::from_secs(1);

/// The time in which the holder of a claim may send the refresh token.
///
/// A process can stand still for longer than its lease: it is stopped by a signal, or its virtual machine is suspended.
/// Another process has then taken over, so [`is_over`](Self::is_over) is to be asked as late as possible before a token
/// request leaves. It looks at two clocks, because the monotonic one of Linux does not count the time in which the machine
/// is suspended, and the wall clock does.
#[derive(Clone, Debug)]
pub struct Lease {
    clock: Clock,
    start: Instant,
    start_on_the_wall: Timestamp,
    length: Duration,
}

impl Lease {
    /// A lease of this length, which starts now.
    pub fn start(length: Duration, clock: &Clock) -> Self {
        Self { clock: clock.clone(), start: Instant::now(), start_on_the_wall: clock.now(), length }
    }

    /// Whether another process may have taken over by the time that a request which leaves now arrives. If so, the request
    /// is not to be sent: [`RedeemError::LeaseOver`](super::RedeemError::LeaseOver).
    pub fn is_over(&self) -> bool {
        !self.has_left(ON_THE_WAY)
    }

    /// Whether more than this is left of it, on both clocks.
    pub(super) fn has_left(&self, time: Duration) -> bool {
        let on_the_wall = self.clock.now().saturating_since(self.start_on_the_wall);
        // A wall clock that was set back says nothing, and the other one still counts.
        let on_the_wall = if on_the_wall.is_zero() { on_the_wall } else { on_the_wall + FRACTION };
        self.start.elapsed().max(on_the_wall) + time < self.length
    }
}
