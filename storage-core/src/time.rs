use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, the largest instant every database and format here can hold.
const LAST: u64 = 253_402_300_799;

/// An instant in whole seconds since 1970-01-01T00:00:00Z.
///
/// Values are bounded to the years 1970 to 9999, so that arithmetic cannot overflow whatever a
/// provider puts into `expires_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant this many seconds after the Unix epoch, at most the end of the year 9999.
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        if seconds > LAST { Self(LAST) } else { Self(seconds) }
    }

    /// Seconds since the Unix epoch.
    pub const fn as_unix_seconds(self) -> u64 {
        self.0
    }

    /// Seconds since the Unix epoch as databases take them. Never negative.
    pub const fn as_unix_seconds_signed(self) -> i64 {
        // Lossless: `from_unix_seconds` bounds the value far below `i64::MAX`.
        self.0 as i64
    }

    /// What a database gave back, or `None` for a value no [`Timestamp`] can have.
    pub fn from_unix_seconds_signed(seconds: i64) -> Option<Self> {
        let seconds = u64::try_from(seconds).ok()?;
        (seconds <= LAST).then_some(Self(seconds))
    }

    /// This instant moved on by whole seconds, at most to the end of the year 9999.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self::from_unix_seconds(self.0.saturating_add(duration.as_secs()))
    }

    /// How long after `earlier` this instant is; zero if it is not.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// Where the current time comes from: the system, or a test.
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
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp::from_unix_seconds(since_epoch.as_secs())
        })
    }

    /// A clock of the caller's own, for tests and simulations.
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
