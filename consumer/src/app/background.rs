//! Refreshes tokens that no request asks for at the moment.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Due, DueReport, Redeem, TokenKey};

use super::OAuth;
use crate::error::ConnectError;

impl OAuth {
    /// Goes once through the stored tokens and refreshes those that are [`Due`], each exactly once however many processes
    /// do the same. Tokens of providers that are not configured are left alone.
    ///
    /// # Errors
    /// [`ConnectError::Storage`] if the storage cannot list. A token that cannot be read or refreshed is counted in the
    /// report, told to [`Hooks::refresh`](crate::Hooks::refresh), and stops no other.
    ///
    /// # Cancel safety
    /// Dropping this future starts no more refreshes; those in flight end in tasks of their own.
    pub async fn refresh_due(&self, due: &Due) -> Result<DueReport, ConnectError> {
        let find = |key: &TokenKey| self.redeemer(key);
        Ok(self.inner.refresher.refresh_due(&self.tokens, due, find).await?)
    }

    /// Calls [`refresh_due`](Self::refresh_due) indefinitely, with pauses of about `period`: a task for any number of
    /// replicas.
    ///
    /// ```
    /// use std::time::Duration;
    /// use oauth_dance::{Due, OAuth};
    ///
    /// # fn example(oauth: OAuth) {
    /// tokio::spawn(async move {
    ///     // A refresh token of this provider dies when it is not used for 30 days.
    ///     let due = Due::idle_for(Duration::from_secs(20 * 24 * 60 * 60));
    ///     oauth.keep_refreshing(&due, Duration::from_secs(60 * 60)).await
    /// });
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As [`refresh_due`](Self::refresh_due).
    pub async fn keep_refreshing(&self, due: &Due, period: Duration) -> Infallible {
        let find = |key: &TokenKey| self.redeemer(key);
        self.inner.refresher.keep_refreshing(&self.tokens, due, period, find).await
    }

    fn redeemer(&self, key: &TokenKey) -> Option<Arc<dyn Redeem>> {
        let registered = self.registered(key.provider()).ok()?;
        Some(self.stored(registered, key.clone()).provider())
    }
}
