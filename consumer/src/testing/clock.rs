//! A clock for tests of what happens after hours and days.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oauth_dance_core::{Clock, Timestamp};

/// A clock that stands still until a test advances it. Clones share their time.
///
/// Pass it to everything that should agree on the time: the application, the storage, and, if tokens should also expire
/// at the provider, the provider. Timeouts and pauses of retries use the real time.
///
/// ```
/// use std::time::Duration;
/// use oauth_dance::testing::{TestClock, TestProvider};
/// use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (provider, clock) = (TestProvider::start().await?, TestClock::new());
/// provider.configure(|settings| settings.clock = clock.clock());
/// let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new().with_clock(clock.clock()), KeyRing::generate())
///     .provider(provider.registration("acme"))
///     .clock(clock.clock())
///     .retention(Duration::from_secs(30 * 24 * 3600))
///     .anonymous_users()
///     .build()?;
/// let alice = User::new("alice");
/// provider.connect(&oauth, "acme", &alice).await?;
///
/// clock.advance(Duration::from_secs(31 * 24 * 3600));
/// assert!(oauth.connection("acme", &alice).await?.is_none(), "the retention is over");
/// # Ok(())
/// # }
/// ```
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

    /// Advances the clock, in whole seconds; a fraction is ignored.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// Sets the clock back, in whole seconds, as the correction of a wrong clock does.
    pub fn turn_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_secs(), Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}
