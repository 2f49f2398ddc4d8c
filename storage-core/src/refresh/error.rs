//! Why a caller gets no token.

use std::sync::Arc;

use crate::error::TokensError;
use crate::progress::{BackOff, DeadReason};
use crate::time::Timestamp;

/// Why there is no usable token.
///
/// | error | what to do |
/// | --- | --- |
/// | [`NotConnected`](Self::NotConnected), [`NeedsAuthorization`](Self::NeedsAuthorization) | send the user to the login |
/// | [`BackingOff`](Self::BackingOff), [`Busy`](Self::Busy) | try again later |
/// | [`Storage`](Self::Storage) | see [`TokensError`] |
/// | [`WrongKind`](Self::WrongKind) | correct the provider's configuration, or reconnect the account |
/// | [`Interrupted`](Self::Interrupted) | try again, unless the process is about to exit |
///
/// The enum is exhaustive on purpose: each variant requires another action of the caller, so a new variant must not be
/// mistaken for an existing one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefreshError {
    /// No token is stored under the key.
    #[error("no token is stored for this user; the user must authorize first")]
    NotConnected,
    /// The user must authorize again. The stored token is unchanged.
    #[error("the user must authorize again: {}", .reason.describe())]
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
        /// Since when this is known.
        since: Timestamp,
    },
    /// The access token has expired and could not be refreshed. The stored token is unchanged. The refresh is retried
    /// later.
    #[error("the token could not be refreshed ({cause}); the refresh is retried later")]
    BackingOff {
        /// When the refresh is retried.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// Another process is refreshing the token, and did not finish in time. Try again later.
    #[error("another process is refreshing the token and did not finish in time; try again later")]
    Busy,
    /// The stored token belongs to the other protocol: OAuth 1.0a instead of OAuth 2.0, or the reverse.
    #[error(
        "the stored token belongs to another protocol (OAuth 1.0a or 2.0) than the provider; reconnect the account"
    )]
    WrongKind,
    /// The storage failed.
    #[error("the token storage failed")]
    Storage(#[source] Arc<TokensError>),
    /// The refresh was interrupted, because the runtime is shutting down or because a [`Redeem`](crate::Redeem)
    /// panicked.
    #[error("the refresh was interrupted because the runtime is shutting down")]
    Interrupted,
}

impl From<TokensError> for RefreshError {
    fn from(error: TokensError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<&BackOff> for RefreshError {
    fn from(back_off: &BackOff) -> Self {
        match back_off.tries.needs_user_since() {
            Some(since) => Self::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since },
            None => Self::BackingOff { until: back_off.until, cause: back_off.cause.clone() },
        }
    }
}
