//! Refreshes tokens in the background.

use std::convert::Infallible;
use std::time::Duration;

use oauth_dance_core::{Due, DueReport};

use super::OAuth;
use crate::error::ConnectError;

impl OAuth {
    /// Lists the stored tokens once and refreshes those that are [`Due`], each exactly once, however many processes do the
    /// same. Tokens of providers that are not configured are not touched. Call it from a scheduled job; for a task in the
    /// application itself, use [`keep_refreshing`](Self::keep_refreshing).
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::{TestClock, TestProvider}};
    /// use std::time::Duration;
    /// use oauth_dance::Due;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
    /// # let storage = MemoryStorage::new().with_clock(clock.clock());
    /// # let oauth = OAuth::builder("http://localhost:3000", storage, KeyRing::generate())
    /// #     .provider(provider.registration("acme")).clock(clock.clock()).anonymous_users().build()?;
    /// provider.connect(&oauth, "acme", &User::new("alice")).await?;
    /// let due = Due::expiring_within(Duration::from_secs(600));
    /// assert_eq!(oauth.refresh_due(&due).await?.refreshed, 0);
    ///
    /// // The access token lasts an hour.
    /// clock.advance(Duration::from_secs(3300));
    /// assert_eq!(oauth.refresh_due(&due).await?.refreshed, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::Storage`] if the storage cannot list. A token that cannot be read or refreshed is counted in the
    /// report and passed to [`Hooks::refresh`](crate::Hooks::refresh), and does not affect the others.
    ///
    /// # Cancel safety
    /// Dropping this future starts no more refreshes. Those in flight complete in their own tasks.
    pub async fn refresh_due(&self, due: &Due) -> Result<DueReport, ConnectError> {
        self.connector.refresh_due(due).await
    }

    /// Calls [`refresh_due`](Self::refresh_due) indefinitely, with pauses of about `period`. Any number of replicas can run
    /// it. An error is logged, and the next pass follows after the usual pause.
    ///
    /// ```
    /// use std::time::Duration;
    /// use oauth_dance::{Due, OAuth};
    ///
    /// # fn example(oauth: OAuth) {
    /// tokio::spawn(async move {
    ///     // A refresh token of this provider expires if it is not used for 30 days.
    ///     let due = Due::idle_for(Duration::from_secs(20 * 24 * 60 * 60));
    ///     oauth.keep_refreshing(&due, Duration::from_secs(60 * 60)).await
    /// });
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As [`refresh_due`](Self::refresh_due).
    pub async fn keep_refreshing(&self, due: &Due, period: Duration) -> Infallible {
        self.connector.keep_refreshing(due, period).await
    }
}
