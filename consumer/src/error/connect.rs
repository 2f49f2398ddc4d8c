//! Why there is no client for a user.
//!
//! The error of a storage is in an `Arc`, because one failed refresh is the result of every request that waited for it.

use std::sync::Arc;

use http::StatusCode;
use oauth_dance_core::{BoxError, DeadReason, KeyError, RefreshError, Timestamp, TokensError};

use super::{ConfigError, DiscoveryError, NO_REQUEST_STORAGE, storage_status};

/// Why no client for the provider's API is available.
///
/// | question | variants |
/// | --- | --- |
/// | Does a login help? | [`NotConnected`](Self::NotConnected), [`NeedsAuthorization`](Self::NeedsAuthorization) |
/// | Does waiting help? | [`BackingOff`](Self::BackingOff), [`Busy`](Self::Busy), [`Interrupted`](Self::Interrupted), [`Discovery`](Self::Discovery), and mostly [`Storage`](Self::Storage) |
/// | Is it a mistake in the program or its configuration? | all others |
///
/// In a handler, [`Connected`](crate::Connected) and [`Connections::reject`](crate::Connections::reject) turn it into the
/// right response. In a background job, a match decides:
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::{ScriptedResponse, TestClock, TestProvider}};
/// # use std::time::Duration;
/// use oauth_dance::ConnectError;
///
/// #[derive(Debug, PartialEq)]
/// enum Next {
///     WaitForLogin,
///     RetryLater,
///     Alert,
/// }
///
/// fn next(error: &ConnectError) -> Next {
///     match error {
///         error if error.needs_login() => Next::WaitForLogin,
///         error if error.status().is_server_error() => Next::RetryLater,
///         _ => Next::Alert,
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
/// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).clock(clock.clock()).anonymous_users().build()?;
/// # let alice = User::new("alice");
/// let error = oauth.client("acme", &alice).await.unwrap_err();
/// assert_eq!(next(&error), Next::WaitForLogin);
///
/// // The access token expires, and the provider is unavailable.
/// provider.connect(&oauth, "acme", &alice).await?;
/// clock.advance(Duration::from_secs(3601));
/// provider.next_token_response(ScriptedResponse::status(503));
/// let error = oauth.client("acme", &alice).await.unwrap_err();
/// assert_eq!((next(&error), error.code()), (Next::RetryLater, "backing_off"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No provider with that name is configured.
    #[error("no provider named {0:?} is configured")]
    UnknownProvider(String),
    /// The user has not connected an account, or has disconnected it, or its retention is over.
    #[error("no account is connected")]
    NotConnected,
    /// The grant is dead or has expired, and the user must authorize again. The stored token was not changed.
    #[error("the user must authorize again: {}", .reason.describe())]
    NeedsAuthorization {
        /// The reason.
        reason: DeadReason,
        /// Since when this is known.
        since: Timestamp,
    },
    /// The access token has expired and could not be refreshed. The refresh is retried later. The stored token was not
    /// changed.
    #[error("the token could not be refreshed ({cause}); the refresh is retried later")]
    BackingOff {
        /// When the refresh is retried.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// Another process is refreshing the token, and it takes too long. A later call gets the token of that refresh, or takes
    /// the refresh over.
    #[error("another process is refreshing the token, and it takes too long")]
    Busy,
    /// The provider's metadata is needed and not available.
    #[error("the provider's metadata could not be fetched")]
    Discovery(#[from] DiscoveryError),
    /// The token storage failed.
    #[error("the token storage failed")]
    Storage(#[source] Arc<TokensError>),
    /// Each request has its own token storage, and this request has none: the layer is missing, or is inside the routes
    /// instead of around them. See [`OAuth::per_request`](crate::OAuth::per_request).
    #[error("{NO_REQUEST_STORAGE}")]
    NoRequestStorage,
    /// The stored token belongs to another protocol than this provider's: OAuth 1.0a instead of 2.0 or the reverse. The
    /// provider was changed under the same name; give it another [name](crate::Provider::named).
    #[error("the stored token belongs to another protocol than the provider's")]
    WrongKind,
    /// The source of users failed to identify the user.
    #[error("the signed-in user could not be determined")]
    Users(#[source] BoxError),
    /// The user's identifier cannot be a part of a storage key.
    #[error("the user's identifier is not valid in a storage key")]
    Key(#[from] KeyError),
    /// The configuration does not allow this call: the provider, its client or the [`Audience`](crate::Audience) lacks
    /// something.
    #[error("the configuration does not allow this call")]
    Config(#[source] ConfigError),
    /// The refresh was interrupted, because the runtime is shutting down.
    #[error("the refresh was interrupted")]
    Interrupted,
}

impl ConnectError {
    /// Whether a login would resolve the error: the user has not connected an account, or has to authorize again.
    pub const fn needs_login(&self) -> bool {
        matches!(self, Self::NotConnected | Self::NeedsAuthorization { .. })
    }

    /// A short, stable name, for logs and JSON responses. The text of an error may change in any release, this name may not.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider(_) => "unknown_provider",
            Self::NotConnected => "not_connected",
            Self::NeedsAuthorization { .. } => "needs_authorization",
            Self::BackingOff { .. } => "backing_off",
            Self::Busy => "busy",
            Self::Discovery(_) => "discovery_failed",
            Self::Storage(_) => "storage_failed",
            Self::NoRequestStorage => "no_request_storage",
            Self::WrongKind => "wrong_kind",
            Self::Users(_) => "users_failed",
            Self::Key(_) => "invalid_user",
            Self::Config(_) => "invalid_configuration",
            Self::Interrupted => "interrupted",
        }
    }

    /// The matching HTTP status: 401 if a login helps, 503 if waiting helps, 404 for an unknown provider, 502 if the
    /// metadata of the issuer is unavailable, and 500 for a mistake in the program.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotConnected | Self::NeedsAuthorization { .. } => StatusCode::UNAUTHORIZED,
            Self::UnknownProvider(_) => StatusCode::NOT_FOUND,
            Self::Storage(error) => storage_status(error),
            Self::BackingOff { .. } | Self::Busy | Self::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            Self::Discovery(_) => StatusCode::BAD_GATEWAY,
            Self::NoRequestStorage | Self::WrongKind | Self::Users(_) | Self::Key(_) | Self::Config(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl From<TokensError> for ConnectError {
    fn from(error: TokensError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<RefreshError> for ConnectError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::NotConnected => Self::NotConnected,
            RefreshError::NeedsAuthorization { reason, since } => Self::NeedsAuthorization { reason, since },
            RefreshError::BackingOff { until, cause } => Self::BackingOff { until, cause },
            RefreshError::Busy => Self::Busy,
            RefreshError::WrongKind => Self::WrongKind,
            RefreshError::Storage(error) => Self::Storage(error),
            RefreshError::Interrupted => Self::Interrupted,
        }
    }
}
