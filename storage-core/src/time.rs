use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999: the latest instant that all databases and formats here can store.
const LAST: u64 = 253_402_300_799;

/// An instant in whole seconds since 1970-01-01T00:00:00Z.
///
/// Values are limited to the years 1970 to 9999, so that arithmetic cannot overflow for any `expires_in` of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant this many seconds after the Unix epoch, but at most the end of the year 9999.
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        if seconds > LAST { Self(LAST) } else { Self(seconds) }
    }

    /// Seconds since the Unix epoch.
    pub const fn as_unix_seconds(self) -> u64 {
        self.0
    }

    /// Seconds since the Unix epoch, in the type that databases use. Never negative.
    pub const fn as_unix_seconds_signed(self) -> i64 {
        // Lossless, because `from_unix_seconds` limits the value to far below `i64::MAX`.
        self.0 as i64
    }

    /// Converts a value from a database. `None` if it is out of the range of a [`Timestamp`].
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
    /// The system clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp::from_unix_seconds(since_epoch.as_secs())
        })
    }

    /// A custom clock, for tests and simulations.
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
