//! What an application sees of the state of a refresh.
//!
//! The stored [`Progress`] is about the protocol. [`ConnectionState`] is about what it means for a user.

use crate::progress::{BackOff, DeadReason, Progress};
use crate::time::Timestamp;
use crate::token::Token;

/// A stored token and its state, as [`Refresher::connection`](crate::Refresher::connection) returns it, for a page of
/// the application or an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The token, expired or not.
    pub token: Token,
    /// The state of the token.
    pub state: ConnectionState,
}

/// The state of a stored token.
///
/// Only [`NeedsAuthorization`](Self::NeedsAuthorization) requires the user. All other states end by themselves.
///
/// ```
/// use oauth_dance_core::{ConnectionState, DeadReason, Timestamp};
///
/// fn describe(state: &ConnectionState) -> String {
///     match state {
///         ConnectionState::NeedsAuthorization { reason, .. } => format!("reconnect, because {}", reason.describe()),
///         ConnectionState::BackingOff { until, .. } => format!("retried at {}", until.as_unix_seconds()),
///         _ => "connected".to_owned(),
///     }
/// }
/// let since = Timestamp::from_unix_seconds(1_700_000_000);
/// let dead = ConnectionState::NeedsAuthorization { reason: DeadReason::Refused, since };
/// assert_eq!(describe(&dead), "reconnect, because the provider no longer accepts the token");
/// assert_eq!(describe(&ConnectionState::Valid), "connected");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The access token can be used, as far as this application knows.
    Valid,
    /// The access token has expired or is about to expire. The next use refreshes it.
    Expiring,
    /// A refresh is in flight.
    Refreshing,
    /// A refresh was interrupted, and the refresh token may be spent. The next use sends the refresh token once more,
    /// and the response shows whether it was spent.
    OutcomeUnknown,
    /// The last refresh failed for a reason that may be temporary.
    BackingOff {
        /// When the refresh is retried.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// The user must authorize again.
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
        /// Since when this is known.
        since: Timestamp,
    },
}

impl ConnectionState {
    /// Derives the state. `due` is whether the token is due for a refresh.
    pub(crate) fn of(token: &Token, progress: &Progress, due: bool, now: Timestamp) -> Self {
        match progress {
            Progress::Dead { reason, since } => Self::NeedsAuthorization { reason: *reason, since: *since },
            Progress::Claimed(claim) if claim.tries.maybe_spent || claim.looks_abandoned(now) => Self::OutcomeUnknown,
            Progress::Claimed(_) => Self::Refreshing,
            Progress::BackingOff(BackOff { tries, .. }) if tries.needs_user_since().is_some() => {
                let since = tries.needs_user_since().unwrap_or(now);
                Self::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since }
            }
            Progress::BackingOff(back_off) if back_off.is_in_force(now) => {
                Self::BackingOff { until: back_off.until, cause: back_off.cause.clone() }
            }
            Progress::BackingOff(back_off) if back_off.tries.maybe_spent => Self::OutcomeUnknown,
            _ if !due => Self::Valid,
            _ if token.as_oauth2().is_some_and(|token| token.refresh_token.is_some()) => Self::Expiring,
            _ if token.expires_at().is_none_or(|expiry| expiry > now) => Self::Valid,
            _ => {
                let since = token.expires_at().unwrap_or(now);
                Self::NeedsAuthorization { reason: DeadReason::NoRefreshToken, since }
            }
        }
    }
}
