//! Why no client is available, as a response that a handler can return.
//!
//! The response depends on the request, but a handler creates the error after the request is gone. The rejection therefore
//! carries a `Visitor`, which has read what it needs from the request: whether it is a browser, and where it should return.

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "axum")]
use axum::response::Response;
#[cfg(feature = "axum")]
use oauth_dance_core::Timestamp;

use super::ConnectError;

/// The browser that a rejection responds to. It gets a redirect to the login or a page; a program gets JSON.
pub(crate) trait Visitor: fmt::Debug + Send + Sync {
    #[cfg(feature = "axum")]
    fn respond(&self, rejection: &ConnectedRejection) -> Response;
}

/// Why a handler gets no client, or why its client's token is no longer accepted. As a response it is a redirect to the
/// login for a browser that views a page, if a login helps. Otherwise it is a status with a page or, for a program, JSON.
///
/// It is the rejection of [`Connected`](crate::Connected) and [`Connections`](crate::Connections). To respond in another
/// way, take a `Result` as the argument:
///
/// ```
/// use axum::response::{IntoResponse, Redirect, Response};
/// use oauth_dance::presets::GitHub;
/// use oauth_dance::{Connected, ConnectedRejection};
///
/// async fn home(github: Result<Connected<GitHub>, ConnectedRejection>) -> Response {
///     match github {
///         Ok(github) => format!("{:?}", github.token().scope()).into_response(),
///         // A page that explains what connecting is good for, instead of the login itself.
///         Err(rejection) if rejection.error().needs_login() => Redirect::to("/connect").into_response(),
///         Err(rejection) => rejection.into_response(),
///     }
/// }
/// # let _ = home;
/// ```
#[derive(Clone, Debug)]
pub struct ConnectedRejection(pub(crate) Arc<Inner>);

#[derive(Debug)]
#[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "only a response reads the rest"))]
pub(crate) struct Inner {
    pub(crate) error: ConnectError,
    pub(crate) provider: Option<String>,
    pub(crate) browser: Option<Arc<dyn Visitor>>,
    pub(crate) is_after_call: bool,
    /// In how many seconds a retry may succeed (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<u64>,
}

impl ConnectedRejection {
    #[cfg(feature = "axum")]
    pub(crate) fn new(error: ConnectError, provider: Option<&str>, browser: Option<Arc<dyn Visitor>>) -> Self {
        let provider = provider.map(str::to_owned);
        Self(Arc::new(Inner { error, provider, browser, is_after_call: false, retry_after: None }))
    }

    /// The same, with the time from `now` until the refresh is retried.
    #[cfg(feature = "axum")]
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

    /// The same for a token that the API rejected. If a login a moment ago did not help, the browser is not redirected to
    /// another one: an API that rejects every token would cause a redirect loop.
    pub(crate) fn after_call(error: ConnectError, provider: &str, browser: Option<Arc<dyn Visitor>>) -> Self {
        Self(Arc::new(Inner {
            error,
            provider: Some(provider.to_owned()),
            browser,
            is_after_call: true,
            retry_after: None,
        }))
    }

    /// The cause, for a log or for the application's own response.
    pub fn error(&self) -> &ConnectError {
        &self.0.error
    }
}
