use std::sync::Arc;

use super::DeadReason;
use crate::error::TokensError;
use crate::scope_change::ScopeChange;
use crate::time::Timestamp;

/// Why there is no usable token.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// Nothing is stored.
    #[error("no account is connected")]
    NotConnected,
    /// The user must authorize again. The stored token was left as it is.
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
    /// The stored token is of the other protocol: OAuth 1.0a in place of 2.0, or the other way round.
    #[error("the stored token is of another protocol")]
    WrongKind,
    /// The storage failed.
    #[error("the token storage failed")]
    Storage(#[source] Arc<TokensError>),
    /// The refresh was cut short, because the runtime shuts down.
    #[error("the refresh was cut short")]
    Interrupted,
}

impl From<TokensError> for RefreshError {
    fn from(error: TokensError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// What happened to a connection, for the application and for whoever has to answer "why was I logged out".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshEvent {
    /// The token was refreshed and stored.
    Refreshed,
    /// The token that was just refreshed has another scope than the one before. It is stored and used all the same.
    ScopeChanged(ScopeChange),
    /// Somebody else was faster; their token is used.
    Adopted,
    /// A refresh that somebody else did not finish was taken over.
    TakenOver,
    /// The token could not be refreshed for now.
    BackingOff {
        /// When it is tried again.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// The provider refused the refresh token with an error whose meaning is not known. The refresh token is retained and
    /// tried again.
    Refused {
        /// When it is tried again.
        until: Timestamp,
        /// What the provider said.
        cause: String,
    },
    /// The token could not be refreshed because the client's configuration is wrong. No connection is lost, but none of
    /// this provider's tokens is refreshed until an operator corrects it.
    Misconfigured {
        /// When it is tried again.
        until: Timestamp,
        /// What the provider said, and what to correct.
        cause: String,
    },
    /// The user must authorize again.
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
    },
    /// The token was refreshed, but the storage does not take it. It is served from memory and tried again.
    NotStored,
    /// The token was refreshed too late: the user has logged out. It was dropped, and revoked if that was possible.
    Dropped,
    /// The token was refreshed and stored, but what came with it could not be verified. It is kept.
    Doubtful {
        /// What is wrong with it.
        cause: String,
    },
    /// The refreshed token was somebody else's. It was deleted, and revoked if that was possible.
    Foreign {
        /// How that is known.
        cause: String,
    },
}

impl RefreshEvent {
    /// A short name that stays the same, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::ScopeChanged(_) => "scope_changed",
            Self::Adopted => "adopted",
            Self::TakenOver => "taken_over",
            Self::BackingOff { .. } => "backing_off",
            Self::Refused { .. } => "refused",
            Self::Misconfigured { .. } => "misconfigured",
            Self::NeedsAuthorization { .. } => "needs_authorization",
            Self::NotStored => "not_stored",
            Self::Dropped => "dropped",
            Self::Doubtful { .. } => "doubtful",
            Self::Foreign { .. } => "foreign",
        }
    }
}
