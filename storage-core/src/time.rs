//! Instants and clocks.
//!
//! Providers report lifetimes in whole seconds, and databases store whole seconds, so an instant has no fraction.
//! Everything that depends on the time takes a [`Clock`], so that no test has to wait.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, which is the latest instant that every supported database and format can store.
const LAST: u64 = 253_402_300_799;

/// An instant in whole seconds since 1970-01-01T00:00:00Z.
///
/// Values are limited to the years 1970 to 9999, so that arithmetic cannot overflow for any `expires_in` of a provider.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::Timestamp;
///
/// let issued = Timestamp::from_unix_seconds(1_700_000_000);
/// let expires = issued.saturating_add(Duration::from_secs(3600));
/// assert_eq!(expires.saturating_since(issued), Duration::from_secs(3600));
/// assert_eq!(issued.saturating_since(expires), Duration::ZERO);
///
/// let far = issued.saturating_add(Duration::MAX);
/// assert_eq!(far, Timestamp::from_unix_seconds(u64::MAX), "the end of the year 9999");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant this many seconds after the Unix epoch, but at most the end of the year 9999.
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        if seconds > LAST { Self(LAST) } else { Self(seconds) }
    }

    /// The seconds since the Unix epoch.
    pub const fn as_unix_seconds(self) -> u64 {
        self.0
    }

    /// The seconds since the Unix epoch, in the type that databases use. It is never negative.
    pub const fn as_unix_seconds_signed(self) -> i64 {
        // Lossless, because `from_unix_seconds` limits the value to far below `i64::MAX`.
        self.0 as i64
    }

    /// Converts a value from a database. `None` if it is not between the years 1970 and 9999.
    pub fn from_unix_seconds_signed(seconds: i64) -> Option<Self> {
        let seconds = u64::try_from(seconds).ok()?;
        (seconds <= LAST).then_some(Self(seconds))
    }

    /// This instant plus whole seconds, but at most the end of the year 9999.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self::from_unix_seconds(self.0.saturating_add(duration.as_secs()))
    }

    /// The time from `earlier` until this instant, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// A source of the current time: the system clock, or a test clock.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use oauth_dance_core::{Clock, Timestamp};
///
/// let seconds = Arc::new(AtomicU64::new(1_000));
/// let reading = Arc::clone(&seconds);
/// let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
///
/// seconds.fetch_add(60, Ordering::SeqCst);
/// assert_eq!(clock.now().as_unix_seconds(), 1_060);
/// ```
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system clock. An instant before 1970 counts as 1970.
    pub fn system() -> Self {
        Self::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp::from_unix_seconds(since_epoch.as_secs())
        })
    }

    /// A clock that calls a function, for tests and simulations.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current instant.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_stay_between_1970_and_9999() {
        let last = Timestamp::from_unix_seconds(u64::MAX);
        assert_eq!(last.as_unix_seconds(), LAST);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(Timestamp::from_unix_seconds_signed(last.as_unix_seconds_signed()), Some(last));
        assert_eq!(Timestamp::from_unix_seconds_signed(-1), None);
        assert_eq!(Timestamp::from_unix_seconds_signed(i64::MAX), None);
    }
}
