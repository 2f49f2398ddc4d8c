//! Why a login failed, at its start or at its callback.
//!
//! Most variants have no data: what a user can do about a failed login is to start again. They are separate because an
//! operator has to distinguish an attack, a misconfiguration and a slow user, by the code in the log and the metrics.

use std::io;

use http::StatusCode;
use oauth_dance_core::{BoxError, KeyError, TokensError};

use super::{DiscoveryError, IdTokenError, NO_REQUEST_STORAGE, TokenEndpointError, storage_status};

/// Why a login failed. [`Hooks::failed`](crate::Hooks::failed) can respond with a page of the application; otherwise the
/// visitor gets a plain page with [`LoginError::status`].
///
/// It contains no secret. Text from the provider or the query is truncated and reduced to printable ASCII, but must still be
/// escaped in HTML.
///
/// | cause | variants |
/// | --- | --- |
/// | the user, or time | [`Denied`](Self::Denied), [`Expired`](Self::Expired), [`UserChanged`](Self::UserChanged), [`NoUser`](Self::NoUser) |
/// | the browser, or another site | [`UnknownAttempt`](Self::UnknownAttempt), [`CrossSite`](Self::CrossSite), [`Prefetch`](Self::Prefetch), [`Malformed`](Self::Malformed) |
/// | a repeated callback | [`Spent`](Self::Spent), [`Interrupted`](Self::Interrupted), [`FailedBefore`](Self::FailedBefore) |
/// | the provider | [`Provider`](Self::Provider), [`Token`](Self::Token), [`PushedRequest`](Self::PushedRequest), [`Discovery`](Self::Discovery), [`IdToken`](Self::IdToken), [`IssuerMismatch`](Self::IssuerMismatch) |
/// | a login of a [program](crate::Connector::loopback_login) | [`Listener`](Self::Listener), [`Device`](Self::Device), [`Unsupported`](Self::Unsupported) |
/// | the application | all others |
///
/// An application can show its own page for what users cause, and leave the rest to the default page:
///
/// ```
/// use axum::response::{Html, IntoResponse, Response};
/// use oauth_dance::{FailedLogin, Hooks, LoginError};
///
/// struct Pages;
///
/// #[async_trait::async_trait]
/// impl Hooks for Pages {
///     async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
///         let text = match failure.error {
///             LoginError::Denied => "You did not grant access, so nothing was connected.",
///             LoginError::Expired | LoginError::UnknownAttempt => "That took too long. Please start again.",
///             _ => return None,
///         };
///         Some((failure.error.status(), Html(text)).into_response())
///     }
/// }
/// assert_eq!(LoginError::Denied.code(), "denied");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// No provider with that name is configured.
    #[error("no provider with that name is configured")]
    UnknownProvider,
    /// Another site caused this request, which would change the connected account.
    #[error("the request came from another site")]
    CrossSite,
    /// The browser only prefetched the page. No login was started, and no attempt was spent.
    #[error("the page was only prefetched")]
    Prefetch,
    /// A part of the request is missing, repeated or too long.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// This browser did not start a login with that `state`, or has finished it.
    #[error("this callback belongs to no login in progress in this browser; start again")]
    UnknownAttempt,
    /// The login was started too long ago.
    #[error("the login took too long; start again")]
    Expired,
    /// The callback was used before, and its outcome is no longer known.
    #[error("this callback was used before")]
    Spent,
    /// The callback was used before, and that login did not end in time: its process was stopped, or a hook is slow or
    /// panicked. The account may or may not be connected; a new login resolves this.
    #[error("the login was interrupted before it ended; start again")]
    Interrupted,
    /// The callback was used before, and failed with this error. An error that consists of its code alone is reported as its
    /// own variant instead.
    #[error("{message}")]
    FailedBefore {
        /// The text of that error.
        message: String,
        /// The status of that error.
        status: StatusCode,
    },
    /// The signed-in user is not the one who started the login.
    #[error("the signed-in user is not the one who started the login")]
    UserChanged,
    /// Each request has its own token storage, and this request has none.
    #[error("{NO_REQUEST_STORAGE}")]
    NoRequestStorage,
    /// No user is signed in, and no hook named the owner of the token.
    #[error("no user is signed in to connect the account to")]
    NoUser,
    /// `iss` in the callback is not the provider's issuer (RFC 9207), or it is missing although the provider announced it.
    /// The two must be identical, including any trailing slash.
    #[error("the callback came from {}, but the login was started at the issuer {expected:?}", named(.found.as_deref()))]
    IssuerMismatch {
        /// The provider's issuer.
        expected: String,
        /// The issuer in the callback, if present.
        found: Option<String>,
    },
    /// The user, or the provider on their behalf, denied access (RFC 6749 section 4.1.2.1, `access_denied`).
    #[error("access was denied at the provider")]
    Denied,
    /// The provider reported another error in the callback (RFC 6749 section 4.1.2.1).
    #[error("the provider reported the error {code}")]
    Provider {
        /// The error code.
        code: String,
        /// The provider's description of the error.
        description: Option<String>,
    },
    /// The provider issued no code for this device (RFC 8628 section 3.2).
    #[error("the provider issued no code for this device")]
    Device(#[source] TokenEndpointError),
    /// No port of this machine could be opened for the response of the provider.
    #[error("no port of this machine can be opened for the login")]
    Listener(#[source] io::Error),
    /// The provider, or its configuration, does not support this kind of login.
    #[error("this kind of login is not supported: {0}")]
    Unsupported(&'static str),
    /// The provider rejected the pushed authorization request (RFC 9126 section 2.3), so the browser was not redirected.
    #[error("the pushed authorization request failed")]
    PushedRequest(#[source] TokenEndpointError),
    /// The token request failed.
    #[error("the token request failed")]
    Token(#[from] TokenEndpointError),
    /// The provider's endpoints come from its metadata, which is not available.
    #[error("the provider's metadata could not be fetched")]
    Discovery(#[from] DiscoveryError),
    /// The provider's ID token failed verification, so nothing was stored.
    #[error("the provider's ID token failed verification")]
    IdToken(#[from] IdTokenError),
    /// The token storage failed.
    #[error("the token storage failed")]
    Storage(#[from] TokensError),
    /// The source of users failed to identify the user.
    #[error("the signed-in user could not be determined")]
    Users(#[source] BoxError),
    /// The application's hook failed.
    #[error("a login hook failed")]
    Hook(#[source] BoxError),
    /// A hook set a parameter that belongs to the protocol.
    #[error("a login hook may not set the parameter {parameter}")]
    ReservedParameter {
        /// Its name.
        parameter: String,
    },
    /// The user's identifier cannot be a part of a storage key.
    #[error("the user's identifier is not valid in a storage key")]
    Key(#[from] KeyError),
}

impl LoginError {
    /// A short, stable name, for logs and metrics. The counter `oauth_dance_logins_total` has it as its label `outcome`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider => "unknown_provider",
            Self::CrossSite => "cross_site",
            Self::Prefetch => "prefetch",
            Self::Malformed(_) => "malformed_request",
            Self::UnknownAttempt => "unknown_attempt",
            Self::Expired => "expired",
            Self::Spent => "spent",
            Self::Interrupted => "interrupted",
            Self::FailedBefore { .. } => "failed_before",
            Self::UserChanged => "user_changed",
            Self::NoRequestStorage => "no_request_storage",
            Self::NoUser => "no_user",
            Self::IssuerMismatch { .. } => "issuer_mismatch",
            Self::Denied => "denied",
            Self::Provider { .. } => "provider_error",
            Self::Device(_) => "device_request_failed",
            Self::Listener(_) => "listener_failed",
            Self::Unsupported(_) => "unsupported",
            Self::PushedRequest(_) => "pushed_request_failed",
            Self::Token(_) => "token_request_failed",
            Self::Discovery(_) => "discovery_failed",
            Self::IdToken(_) => "id_token_refused",
            Self::Storage(_) => "storage_failed",
            Self::Users(_) => "users_failed",
            Self::Hook(_) => "hook_failed",
            Self::ReservedParameter { .. } => "reserved_parameter",
            Self::Key(_) => "invalid_user",
        }
    }

    /// The matching HTTP status, which the default page has too: 4xx if the request is at fault, 502 or 504 for the
    /// provider, 503 if the user can start again immediately, and 500 for the application.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownProvider => StatusCode::NOT_FOUND,
            Self::CrossSite | Self::Denied => StatusCode::FORBIDDEN,
            Self::Prefetch => StatusCode::TOO_EARLY,
            Self::Malformed(_) | Self::UnknownAttempt | Self::Expired | Self::IssuerMismatch { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Spent | Self::UserChanged => StatusCode::CONFLICT,
            Self::NoUser => StatusCode::UNAUTHORIZED,
            Self::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            Self::FailedBefore { status, .. } => *status,
            Self::Provider { .. } | Self::Discovery(_) | Self::IdToken(_) => StatusCode::BAD_GATEWAY,
            Self::PushedRequest(error) | Self::Device(error) | Self::Token(error) => error.status(),
            Self::Storage(error) => storage_status(error),
            Self::NoRequestStorage
            | Self::Listener(_)
            | Self::Unsupported(_)
            | Self::Users(_)
            | Self::Hook(_)
            | Self::ReservedParameter { .. }
            | Self::Key(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The issuer in a callback, for an error text.
fn named(issuer: Option<&str>) -> String {
    issuer.map_or_else(|| "an unnamed authorization server".to_owned(), |issuer| format!("{issuer:?}"))
}
