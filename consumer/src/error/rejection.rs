//! Why there is no client, for a handler to return.

use std::fmt;
use std::sync::Arc;

use axum::response::Response;
use oauth_dance_core::Timestamp;

use super::ConnectError;

/// A browser that a rejection answers: it gets a redirect to the login or a page, where a program gets JSON.
pub(crate) trait Visitor: fmt::Debug + Send + Sync {
    fn respond(&self, rejection: &ConnectedRejection) -> Response;
}

/// Why there is no client for a handler, or the client's token is of no use any more, as the response that says so: a
/// redirect to the login for a browser that views a page and needs one, or else a status with a page or, for a program, JSON.
#[derive(Clone, Debug)]
pub struct ConnectedRejection(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) error: ConnectError,
    pub(crate) provider: Option<String>,
    pub(crate) browser: Option<Arc<dyn Visitor>>,
    pub(crate) is_after_call: bool,
    /// In how many seconds it may be tried again (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<u64>,
}

impl ConnectedRejection {
    pub(crate) fn new(error: ConnectError, provider: Option<&str>, browser: Option<Arc<dyn Visitor>>) -> Self {
        let provider = provider.map(str::to_owned);
        Self(Arc::new(Inner { error, provider, browser, is_after_call: false, retry_after: None }))
    }

    /// The same with how long it takes from `now` until the connection is tried again.
    pub(crate) fn as_of(
        error: ConnectError,
        provider: &str,
        browser: Option<Arc<dyn Visitor>>,
        now: Timestamp,
    ) -> Self {
        let retry_after = match &error {
            ConnectError::BackingOff { until, .. } => {
                Some(until.as_unix_seconds().saturating_sub(now.as_unix_seconds()).max(1))
            }
            _ => None,
        };
        let provider = Some(provider.to_owned());
        Self(Arc::new(Inner { error, provider, browser, is_after_call: false, retry_after }))
    }

    /// The same for a token that the API rejected. If a login a moment ago did not help, the browser is not sent to another
    /// one: an API that rejects every token would send it round and round.
    pub(crate) fn after_call(error: ConnectError, provider: &str, browser: Option<Arc<dyn Visitor>>) -> Self {
        Self(Arc::new(Inner {
            error,
            provider: Some(provider.to_owned()),
            browser,
            is_after_call: true,
            retry_after: None,
        }))
    }

    /// The error.
    pub fn error(&self) -> &ConnectError {
        &self.0.error
    }
}
