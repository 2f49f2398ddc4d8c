use std::sync::Arc;

use http::StatusCode;
use oauth_dance_core::{BoxError, DeadReason, KeyError, RefreshError, Timestamp, TokensError};

use super::{DiscoveryError, NO_REQUEST_STORAGE, storage_status};

/// Why there is no client to call the provider with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No provider of that name is configured.
    #[error("no provider called {0:?} is configured")]
    UnknownProvider(String),
    /// The user has not connected an account.
    #[error("no account is connected")]
    NotConnected,
    /// The grant is dead or has run out, and the user must authorize again. The stored token was left as it is.
    #[error("the user must authorize again: {}", .reason.describe())]
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
        /// Since when that is known.
        since: Timestamp,
    },
    /// The access token has expired and could not be refreshed for now. The stored token was left as it is.
    #[error("the token could not be refreshed ({cause}); it is tried again later")]
    BackingOff {
        /// When it is tried again.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// Another process refreshes the token and takes too long.
    #[error("the token is being refreshed elsewhere, and that takes too long")]
    Busy,
    /// The provider's metadata is not there, and it is needed.
    #[error("the provider's metadata could not be fetched")]
    Discovery(#[from] DiscoveryError),
    /// The token storage failed.
    #[error("the token storage failed")]
    Storage(#[source] Arc<TokensError>),
    /// Tokens are kept in a storage of each request, and this request brings none.
    #[error("{NO_REQUEST_STORAGE}")]
    NoRequestStorage,
    /// The stored token is of another kind than this provider's.
    #[error("the stored token is of another protocol than the provider's")]
    WrongKind,
    /// It could not be told who is signed in.
    #[error("it could not be told who is signed in")]
    Users(#[source] BoxError),
    /// The user's identifier cannot be a part of a storage key.
    #[error("the user's identifier cannot be used")]
    Key(#[from] KeyError),
    /// The refresh was cut short, because the runtime shuts down.
    #[error("the refresh was cut short")]
    Interrupted,
}

impl ConnectError {
    /// Whether a login would help.
    pub const fn needs_login(&self) -> bool {
        matches!(self, Self::NotConnected | Self::NeedsAuthorization { .. })
    }

    /// A short name that stays the same, for logs and JSON answers.
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
            Self::Interrupted => "interrupted",
        }
    }

    /// The status that fits.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotConnected | Self::NeedsAuthorization { .. } => StatusCode::UNAUTHORIZED,
            Self::UnknownProvider(_) => StatusCode::NOT_FOUND,
            Self::Storage(error) => storage_status(error),
            Self::BackingOff { .. } | Self::Busy | Self::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            Self::Discovery(_) => StatusCode::BAD_GATEWAY,
            Self::NoRequestStorage | Self::WrongKind | Self::Users(_) | Self::Key(_) => {
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
