//! The times of a refresh, and its random choices.
//!
//! The times depend on each other. A lease is longer than a token request, so that no process takes over while a
//! request may still reach the provider. A caller waits longer than two leases, so that it survives the death of
//! another process.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::progress::{MAX_RETRY_AFTER, Tries};
use crate::random::random_bytes;
use crate::time::{Clock, Timestamp};
use crate::token::OAuth2Token;

/// The difference between a lease and the request timeout. It is the time for the writes before and after the request.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// The upper limit of the request timeout.
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest lease that a process can write. A longer one in a record is invalid.
pub(super) const MAX_LEASE: Duration = MAX_REQUEST_TIMEOUT.saturating_add(LEASE_MARGIN);
/// The pause after the first failure. Each further pause is twice as long.
const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
const MAX_BACK_OFF: Duration = Duration::from_secs(300);
/// The longest pause if the provider refuses the refresh token with an unknown error. It is longer, because the grant
/// may be invalid.
const MAX_BACK_OFF_REFUSED: Duration = Duration::from_secs(3600);
/// The pause before a claimed record is read again. Each further pause is twice as long.
const FIRST_POLL: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(500);

/// All times and random choices of a refresh.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) clock: Clock,
    request_timeout: Duration,
    /// How long before its expiry an access token is refreshed, at most.
    pub(crate) margin: Duration,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Policy {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::system(),
            request_timeout: Duration::from_secs(20),
            margin: Duration::from_secs(60),
            random: Arc::new(|| u64::from_be_bytes(random_bytes())),
        }
    }

    pub(crate) fn with_request_timeout(self, timeout: Duration) -> Self {
        Self { request_timeout: timeout.min(MAX_REQUEST_TIMEOUT), ..self }
    }

    #[cfg(test)]
    pub(crate) fn with_random(self, random: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { random: Arc::new(random), ..self }
    }

    /// How long a token request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The length of a claim's lease. It is longer than the request timeout.
    pub(crate) fn lease(&self) -> Duration {
        self.request_timeout + LEASE_MARGIN
    }

    /// The longest time that a caller waits: for another process, which may die, and for a third process that takes
    /// over.
    pub(crate) fn max_wait(&self) -> Duration {
        self.lease() * 2 + self.request_timeout
    }

    /// Whether a token should be refreshed now, because it expires within `margin`.
    ///
    /// The margin is at most a quarter of the token's lifetime. Its second half is random, so that tokens that were
    /// issued together are not refreshed together. The random value is derived from the token, so that all processes
    /// agree on it.
    pub(crate) fn is_due(&self, token: &OAuth2Token, now: Timestamp, margin: Duration) -> bool {
        let Some(expires_at) = token.expires_at else { return false };
        let lifetime = token.issued_at.map_or(Duration::MAX, |issued_at| expires_at.saturating_since(issued_at));
        let mut hasher = DefaultHasher::new();
        token.access_token.expose().hash(&mut hasher);
        let margin = between_half_and_whole(margin.min(lifetime / 4), hasher.finish());
        now.saturating_add(margin) >= expires_at
    }

    /// When to retry after these failures: after the back-off or after `retry_after` of the provider, whichever is
    /// later.
    pub(crate) fn back_off(&self, tries: &Tries, retry_after: Option<Duration>) -> Timestamp {
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << tries.failed.min(16));
        let is_rare = tries.refused.is_some() || tries.needs_user_since().is_some();
        let max = if is_rare { MAX_BACK_OFF_REFUSED } else { MAX_BACK_OFF };
        let pause = self.jitter(doubled.min(max));
        let requested =
            retry_after.map_or(Duration::ZERO, |time| time.min(MAX_RETRY_AFTER) + self.jitter(FIRST_BACK_OFF));
        // One second is added, because both the current instant and the pause lose their fractions of a second.
        self.clock.now().saturating_add(pause.max(requested) + Duration::from_secs(1))
    }

    /// The pause before a claimed record is read again for the n-th time.
    pub(crate) fn poll(&self, n: u32) -> Duration {
        self.jitter(FIRST_POLL.saturating_mul(1 << n.min(16)).min(MAX_POLL))
    }

    /// A random duration between the half and the whole of this one, so that processes do not act in lockstep.
    pub(crate) fn jitter(&self, duration: Duration) -> Duration {
        between_half_and_whole(duration, (self.random)())
    }
}

/// Maps a random number to a duration between the half and the whole of `duration`.
fn between_half_and_whole(duration: Duration, random: u64) -> Duration {
    duration / 2 + (duration / 2).mul_f64(random as f64 / u64::MAX as f64)
}
