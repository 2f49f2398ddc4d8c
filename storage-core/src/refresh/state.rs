use std::time::Duration;

use super::RefreshError;
use super::policy::{ENOUGH_REFUSALS, LONGEST_RETRY_AFTER, REFUSED_FOR};
use super::successor::have_same_credentials;
use crate::random_bytes;
use crate::time::Timestamp;
use crate::token::Token;

/// A token and where its refresh stands, as they are stored together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) token: Token,
    pub(crate) progress: Progress,
}

/// Where the refresh of a token stands. Every change of it is a conditional write of the whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody refreshes it.
    Idle,
    /// As `Idle`; the token is the successor of one that the API had rejected.
    Replaced,
    /// Somebody is about to redeem the refresh token, or is doing it, or died of it.
    Claimed(Claim),
    /// The last try failed for a reason that may pass.
    BackingOff(BackOff),
    /// Only the user can help.
    Dead { reason: DeadReason, since: Timestamp },
}

/// The right to redeem a refresh token, for as long as the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Tells the claims of one record apart.
    pub(crate) id: u64,
    /// When it was made, on its owner's clock: for people to read, not to reckon with.
    pub(crate) since: Timestamp,
    /// How long others leave it alone, each on their own clock from when they first see it.
    pub(crate) lease: Duration,
    pub(crate) tries: Tries,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackOff {
    pub(crate) until: Timestamp,
    /// What failed, in a few words without anything secret.
    pub(crate) cause: String,
    pub(crate) tries: Tries,
}

/// What came before the next try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    /// How many tries failed since the token was obtained.
    pub(crate) failed: u32,
    /// One of them may have reached the provider, so that the refresh token may be spent.
    pub(crate) maybe_spent: bool,
    /// Those of them that the provider definitely refused, for a reason that is not known.
    pub(crate) refused: Option<Refusals>,
}

/// Refusals of one refresh token, with no success between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusals {
    pub(crate) count: u32,
    /// When the first of them came.
    pub(crate) since: Timestamp,
    /// When the last of them came.
    pub(crate) last: Timestamp,
}

impl Refusals {
    /// After one more at this instant.
    fn and_at(this: Option<Self>, now: Timestamp) -> Self {
        let since = this.map_or(now, |refusals| refusals.since);
        // A clock that was set back does not make them last longer.
        Self { count: this.map_or(0, |refusals| refusals.count).saturating_add(1), since: since.min(now), last: now }
    }

    /// Whether the user is asked to authorize again, although the refresh token may still be good.
    pub(crate) fn are_enough(&self) -> bool {
        self.count >= ENOUGH_REFUSALS && self.last.saturating_since(self.since) >= REFUSED_FOR
    }
}

impl Tries {
    pub(crate) fn refused_at(&mut self, now: Timestamp) {
        self.refused = Some(Refusals::and_at(self.refused, now));
    }

    /// Since when the provider has refused the refresh token, if that is long enough to ask the user.
    pub(crate) fn needs_user_since(&self) -> Option<Timestamp> {
        self.refused.filter(Refusals::are_enough).map(|refusals| refusals.since)
    }
}

/// Why a connection is dead until the user authorizes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadReason {
    /// The provider no longer accepts the refresh token, or the token itself where it has none: it was revoked, has run
    /// out, or was never good.
    Refused,
    /// The provider does not accept the refresh token after an earlier answer was lost, which may have replaced it.
    AnswerLost,
    /// The provider has refused the refresh token several times and for a long time, with errors whose meaning is not
    /// known. It is retained and still tried now and then: if the provider accepts it, the connection is valid again.
    RefusedRepeatedly,
    /// The access token has run out, and the provider gave no refresh token.
    NoRefreshToken,
    /// The provider's API rejected the access token before it expired, and it could not be refreshed.
    Rejected,
}

impl DeadReason {
    /// The reason in a sentence.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Refused => "the provider no longer accepts the token",
            Self::AnswerLost => {
                "the provider's answer to an earlier refresh was lost, and with it the new refresh token"
            }
            Self::RefusedRepeatedly => "the provider keeps refusing the token, for a reason that is not known",
            Self::NoRefreshToken => "the access token has expired, and the provider gave no refresh token",
            Self::Rejected => "the provider's API rejected the access token, and it could not be refreshed",
        }
    }
}

impl Stored {
    pub(crate) fn idle(token: Token) -> Self {
        Self { token, progress: Progress::Idle }
    }

    /// The same record with a token that was changed by the application. What is known about its refresh stays, unless
    /// the refresh token is another one.
    pub(crate) fn changed_to(self, token: Token) -> Self {
        let progress = match self.progress {
            _ if !have_same_credentials(&self.token, &token) => Progress::Idle,
            // These are about the access token.
            Progress::Replaced if self.token.secret() != token.secret() => Progress::Idle,
            Progress::Dead { reason: DeadReason::Rejected, since } if self.token.secret() != token.secret() => {
                Progress::Dead { reason: DeadReason::Refused, since }
            }
            progress => progress,
        };
        Self { token, progress }
    }
}

impl Claim {
    pub(crate) fn new(since: Timestamp, lease: Duration, tries: Tries) -> Self {
        Self { id: u64::from_be_bytes(random_bytes()), since, lease, tries }
    }

    /// Whether its owner seems to have died: a guess, for clocks differ.
    pub(crate) fn looks_abandoned(&self, now: Timestamp) -> bool {
        now.saturating_since(self.since) > self.lease
    }
}

impl BackOff {
    /// Why there is no new token until the next try.
    pub(crate) fn error(&self) -> RefreshError {
        match self.tries.needs_user_since() {
            Some(since) => RefreshError::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since },
            None => RefreshError::BackingOff { until: self.until, cause: self.cause.clone() },
        }
    }

    /// Whether to leave the provider alone. An end further away than any provider may ask for comes from a clock gone
    /// wrong, and must not lock a user out until that day.
    pub(crate) fn is_in_force(&self, now: Timestamp) -> bool {
        self.until > now && self.until.saturating_since(now) <= LONGEST_RETRY_AFTER * 2
    }
}

/// A stored token with what an application or an operator may want to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The token, expired or not.
    pub token: Token,
    /// How it stands.
    pub state: ConnectionState,
}

/// How a stored token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The access token can be used, as far as is known.
    Valid,
    /// The access token has expired or is about to, and the next use refreshes it.
    Expiring,
    /// A refresh is under way.
    Refreshing,
    /// A refresh was cut off after the refresh token may have been spent. The next use tries once more and then knows.
    SentUnknown,
    /// Refreshing failed for a reason that may pass.
    BackingOff {
        /// When it is tried again.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// The user must authorize again.
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
        /// Since when that is known.
        since: Timestamp,
    },
}

impl ConnectionState {
    /// The state of a stored token that is due for a refresh, or is not.
    pub(crate) fn of(token: &Token, progress: &Progress, due: bool, now: Timestamp) -> Self {
        match progress {
            Progress::Dead { reason, since } => Self::NeedsAuthorization { reason: *reason, since: *since },
            Progress::Claimed(claim) if claim.tries.maybe_spent || claim.looks_abandoned(now) => Self::SentUnknown,
            Progress::Claimed(_) => Self::Refreshing,
            Progress::BackingOff(BackOff { tries, .. }) if tries.needs_user_since().is_some() => {
                let since = tries.needs_user_since().unwrap_or(now);
                Self::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since }
            }
            Progress::BackingOff(back_off) if back_off.is_in_force(now) => {
                Self::BackingOff { until: back_off.until, cause: back_off.cause.clone() }
            }
            Progress::BackingOff(back_off) if back_off.tries.maybe_spent => Self::SentUnknown,
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
