use http::StatusCode;
use oauth_dance_core::{BoxError, KeyError, TokensError};

use super::{DiscoveryError, IdTokenError, NO_REQUEST_STORAGE, TokenEndpointError, storage_status};

/// Why a login did not come to its end. [`Hooks::failed`](crate::Hooks::failed) may answer it; otherwise the visitor gets
/// a plain page with [`LoginError::status`].
///
/// Nothing in it is a secret. Text that came from the provider or the query is capped and reduced to printable ASCII,
/// but still must be escaped in HTML.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// No provider of that name is configured.
    #[error("no provider of that name is configured")]
    UnknownProvider,
    /// Another site sent the browser here to change who is connected.
    #[error("the request came from another site")]
    CrossSite,
    /// The browser only looks ahead: no login was started, and no callback used up.
    #[error("the page was only prefetched")]
    Prefetch,
    /// The request lacks something, has it twice, or has too much of it.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// This browser started no login with that `state`, or has finished it.
    #[error("this browser has no login in progress that this callback belongs to; start again")]
    UnknownAttempt,
    /// The login was started too long ago.
    #[error("the login took too long; start again")]
    Expired,
    /// The callback was used before, and what became of it is not known any more.
    #[error("this callback was used before")]
    Spent,
    /// The callback was used before and has not ended in time: its process was stopped, or a hook takes long or panicked.
    /// Whether the account is connected is not known; a new login settles it.
    #[error("the login was interrupted before its end; start again")]
    Interrupted,
    /// The callback was used before, and failed; the error of that callback in words. Errors that need no more than their
    /// code are told by their own variant.
    #[error("{message}")]
    FailedBefore {
        /// What went wrong.
        message: String,
        /// The status of that error.
        status: StatusCode,
    },
    /// Another user is signed in now than when the login was started.
    #[error("another user is signed in now than when the login was started")]
    UserChanged,
    /// Tokens are kept in a storage of each request, and this request brings none.
    #[error("{NO_REQUEST_STORAGE}")]
    NoRequestStorage,
    /// No user is signed in, and no hook said whose token it is.
    #[error("no user is signed in to connect the account to")]
    NoUser,
    /// `iss` in the callback is not the provider's issuer (RFC 9207), or is missing although it was announced. They must be
    /// equal to the last slash.
    #[error("the callback came from {}, but the login was started at the issuer {expected:?}", named(.found.as_deref()))]
    IssuerMismatch {
        /// The provider's issuer.
        expected: String,
        /// The issuer in the callback, if it names one.
        found: Option<String>,
    },
    /// The user, or the provider for them, said no (RFC 6749 section 4.1.2.1, `access_denied`).
    #[error("access was denied at the provider")]
    Denied,
    /// The provider reported another error in the callback (RFC 6749 section 4.1.2.1).
    #[error("the provider reported the error {code}")]
    Provider {
        /// The error code.
        code: String,
        /// What the provider says about it.
        description: Option<String>,
    },
    /// The provider did not take the pushed authorization request (RFC 9126 section 2.3), so the browser was not sent there.
    #[error("the pushed authorization request failed")]
    PushedRequest(#[source] TokenEndpointError),
    /// The token request failed.
    #[error("the token request failed")]
    Token(#[from] TokenEndpointError),
    /// The provider's endpoints are left to its metadata, which is not there.
    #[error("the provider's metadata could not be fetched")]
    Discovery(#[from] DiscoveryError),
    /// The provider's ID token is not believed, so nothing was stored.
    #[error("the provider's ID token was not accepted")]
    IdToken(#[from] IdTokenError),
    /// The token storage failed.
    #[error("the token storage failed")]
    Storage(#[from] TokensError),
    /// It could not be told who is signed in.
    #[error("it could not be told who is signed in")]
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
    #[error("the user's identifier cannot be used")]
    Key(#[from] KeyError),
}

impl LoginError {
    /// A short name that stays the same, for logs and metrics.
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

    /// The status that fits.
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
            Self::PushedRequest(error) | Self::Token(error) => error.status(),
            Self::Storage(error) => storage_status(error),
            Self::NoRequestStorage | Self::Users(_) | Self::Hook(_) | Self::ReservedParameter { .. } | Self::Key(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

/// The issuer that a callback names.
fn named(issuer: Option<&str>) -> String {
    issuer
        .map_or_else(|| "an authorization server that does not name itself".to_owned(), |issuer| format!("{issuer:?}"))
}
