//! Refreshes tokens in the background.
//!
//! An application does not need this: a token is refreshed when it is used. It helps in two cases. First, some
//! providers expire refresh tokens that are not used for some time. Second, a user who opens a page after hours waits
//! for a refresh, unless it was made ahead of time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Due, DueReport, Redeem, TokenKey};

use super::{Connector, own_key};
use crate::error::ConnectError;

impl Connector {
    /// Lists the stored tokens once and refreshes those that are [`Due`], each exactly once, however many processes do the
    /// same. Tokens of providers that are not configured are not touched. Call it from a scheduled job; for a task in the
    /// application itself, use [`keep_refreshing`](Self::keep_refreshing).
    ///
    /// ```
    /// # use oauth_dance::{Connector, KeyRing, MemoryStorage, TokenKey, testing::{TestClock, TestProvider}};
    /// use std::time::Duration;
    /// use oauth_dance::Due;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
    /// # let storage = MemoryStorage::new().with_clock(clock.clock());
    /// # let connector = Connector::builder(storage, KeyRing::generate())
    /// #     .provider(provider.registration("acme")).clock(clock.clock()).build()?;
    /// provider.connect_key(&connector, &TokenKey::new("acme", "alice")?).await?;
    /// let due = Due::expiring_within(Duration::from_secs(600));
    /// assert_eq!(connector.refresh_due(&due).await?.refreshed, 0);
    ///
    /// // The access token lasts an hour.
    /// clock.advance(Duration::from_secs(3300));
    /// assert_eq!(connector.refresh_due(&due).await?.refreshed, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::Storage`] if the storage cannot list. A token that cannot be read or refreshed is counted in the
    /// report and passed to the [`observer`](crate::ConnectorBuilder::observer), and does not affect the others.
    ///
    /// # Cancel safety
    /// Dropping this future starts no more refreshes. Those in flight complete in their own tasks.
    pub async fn refresh_due(&self, due: &Due) -> Result<DueReport, ConnectError> {
        let find = |key: &TokenKey| self.redeemer(key);
        Ok(self.shared.refresher.refresh_due(&self.tokens, due, find).await?)
    }

    /// Calls [`refresh_due`](Self::refresh_due) indefinitely, with pauses of about `period`. Any number of replicas can run
    /// it. An error is logged, and the next pass follows after the usual pause.
    ///
    /// ```
    /// use std::time::Duration;
    /// use oauth_dance::{Connector, Due};
    ///
    /// # fn example(connector: Connector) {
    /// tokio::spawn(async move {
    ///     // A refresh token of this provider expires if it is not used for 30 days.
    ///     let due = Due::idle_for(Duration::from_secs(20 * 24 * 60 * 60));
    ///     connector.keep_refreshing(&due, Duration::from_secs(60 * 60)).await
    /// });
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As [`refresh_due`](Self::refresh_due).
    pub async fn keep_refreshing(&self, due: &Due, period: Duration) -> Infallible {
        let find = |key: &TokenKey| self.redeemer(key);
        self.shared.refresher.keep_refreshing(&self.tokens, due, period, find).await
    }

    fn redeemer(&self, key: &TokenKey) -> Option<Arc<dyn Redeem>> {
        // A token that this library requests for itself is requested again when it is used.
        let registered = self.registered(key.provider()).ok().filter(|_| !own_key::is_own(key))?;
        Some(self.stored(registered.clone(), key.clone()).provider())
    }
}
