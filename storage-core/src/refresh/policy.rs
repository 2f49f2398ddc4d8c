use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::Tries;
use crate::random_bytes;
use crate::time::{Clock, Timestamp};
use crate::token::OAuth2Token;

/// What a lease is longer than the token request it covers: time for the two writes around it.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// The longest a token request may be allowed to take.
const LONGEST_REQUEST: Duration = Duration::from_secs(600);
/// The longest lease of any process. A claim that says more was not written by one.
pub(crate) const LONGEST_LEASE: Duration = LONGEST_REQUEST.saturating_add(LEASE_MARGIN);
const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
/// A refresh token that is refused for a reason that nobody knows is tried less often: it may be dead for good.
const LONGEST_BACK_OFF_REFUSED: Duration = Duration::from_secs(3600);
/// So many refusals, over at least [`REFUSED_FOR`], are needed before the user is asked to authorize again.
pub(crate) const ENOUGH_REFUSALS: u32 = 3;
/// Longer than incidents of providers last: an application may write to its users when they are asked.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(12 * 3600);
/// What a provider may ask for at most.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
const FIRST_POLL: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// Times and chances of a refresh, all in one place.
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
        Self { request_timeout: timeout.min(LONGEST_REQUEST), ..self }
    }

    #[cfg(test)]
    pub(crate) fn with_random(self, random: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { random: Arc::new(random), ..self }
    }

    /// The longest a token request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Longer than the request by construction.
    pub(crate) fn lease(&self) -> Duration {
        self.request_timeout + LEASE_MARGIN
    }

    /// How long a caller waits for another process at most: for one that dies, and for one that takes over from it.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.lease() * 2 + self.request_timeout
    }

    /// Whether a token should be refreshed now: within `margin` before its expiry, of which the second half is by
    /// chance, so that tokens issued together are not refreshed together. The margin is never more than a quarter of
    /// the token's life. The chance is the token's own: all processes agree on it, however often they ask.
    pub(crate) fn is_due(&self, token: &OAuth2Token, now: Timestamp, margin: Duration) -> bool {
        let Some(expires_at) = token.expires_at else { return false };
        let lifetime = token.issued_at.map_or(Duration::MAX, |issued_at| expires_at.saturating_since(issued_at));
        let mut hasher = DefaultHasher::new();
        token.access_token.expose().hash(&mut hasher);
        let margin = between_half_and_whole(margin.min(lifetime / 4), hasher.finish());
        now.saturating_add(margin) >= expires_at
    }

    /// When to try again after these failures, or as the provider asks if that is later.
    pub(crate) fn back_off(&self, tries: &Tries, retry_after: Option<Duration>) -> Timestamp {
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << tries.failed.min(16));
        let longest = if tries.refused.is_some() { LONGEST_BACK_OFF_REFUSED } else { LONGEST_BACK_OFF };
        let pause = self.jitter(doubled.min(longest));
        let asked =
            retry_after.map_or(Duration::ZERO, |asked| asked.min(LONGEST_RETRY_AFTER) + self.jitter(FIRST_BACK_OFF));
        // A second more, for both this instant and the pause lose their fractions.
        self.clock.now().saturating_add(pause.max(asked) + Duration::from_secs(1))
    }

    /// How long to wait before looking at the record again, for the n-th time.
    pub(crate) fn poll(&self, n: u32) -> Duration {
        self.jitter(FIRST_POLL.saturating_mul(1 << n.min(16)).min(LONGEST_POLL))
    }

    /// Between a half and the whole of a duration.
    pub(crate) fn jitter(&self, duration: Duration) -> Duration {
        between_half_and_whole(duration, (self.random)())
    }
}

fn between_half_and_whole(duration: Duration, random: u64) -> Duration {
    duration / 2 + (duration / 2).mul_f64(random as f64 / u64::MAX as f64)
}
