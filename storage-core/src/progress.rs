//! The state of a token's refresh, which is stored in the same record as the token.
//!
//! Because both are in one record, a conditional write of a storage changes both or neither. No storage has to know
//! about refreshes, and no lock service is needed beside it.
//!
//! | from | to | when |
//! | --- | --- | --- |
//! | `Idle`, `Replaced` | `Claimed` | a process starts a refresh |
//! | `Claimed` | `Idle`, `Replaced` | it stores the new token |
//! | `Claimed` | `BackingOff` | the refresh failed for a reason that may be temporary |
//! | `Claimed` | `Dead` | the provider reports that the grant is no longer valid |
//! | `Claimed` | `Claimed` | the lease has expired, and another process takes over |
//! | `BackingOff` | `Claimed` | the pause is over |
//! | any | `Idle` | the user logs in |

use std::time::Duration;

use crate::random::random_bytes;
use crate::time::Timestamp;
use crate::token::Token;

/// The minimum number of refusals with unknown errors before the user must authorize again. They have to be spread over
/// [`MIN_REFUSAL_PERIOD`].
pub(crate) const MIN_REFUSALS: u32 = 3;
/// The minimum time between the first and the last of these refusals. It is longer than a typical incident of a
/// provider, because an application may send emails to its users.
pub(crate) const MIN_REFUSAL_PERIOD: Duration = Duration::from_secs(12 * 3600);
/// The same for responses that are neither a token nor a refusal. It is longer, because a server that fails for all
/// users is repaired within days.
pub(crate) const MIN_UNUSABLE_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest pause that a provider can impose with `Retry-After`.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The content of a record: a token and the state of its refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) token: Token,
    pub(crate) progress: Progress,
}

/// The state of a refresh. Every change is a conditional write of the whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No refresh is in flight.
    Idle,
    /// No refresh is in flight, and the token replaced one that the API had rejected.
    Replaced,
    /// A process is about to redeem the refresh token, is redeeming it, or has died while it was redeeming it.
    Claimed(Claim),
    /// The last try failed for a reason that may be temporary.
    BackingOff(BackOff),
    /// The user must authorize again.
    Dead { reason: DeadReason, since: Timestamp },
}

/// The exclusive right to redeem a refresh token during the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// A random number, which distinguishes the claims of one record.
    pub(crate) id: u64,
    /// When the claim was written, on its owner's clock. Other processes use it only for display and for guesses,
    /// because their clocks may differ.
    pub(crate) since: Timestamp,
    /// How long other processes respect the claim. Each of them measures this time on its own clock, from when it first
    /// reads the claim. In the storage of a request, it is measured from `since`.
    pub(crate) lease: Duration,
    pub(crate) tries: Tries,
}

/// A pause after a failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackOff {
    pub(crate) until: Timestamp,
    /// What failed: a short text that contains no secret.
    pub(crate) cause: String,
    pub(crate) tries: Tries,
}

/// The tries since the token was issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    /// The number of failed tries.
    pub(crate) failed: u32,
    /// Whether one of them may have reached the provider, so that the refresh token may be spent.
    pub(crate) maybe_spent: bool,
    /// The tries that the provider definitely refused with an unknown error.
    pub(crate) refused: Option<Refusals>,
    /// The tries whose response was neither a token nor a refusal.
    pub(crate) unusable: Option<Refusals>,
}

/// Consecutive refusals of one refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusals {
    pub(crate) count: u32,
    /// The time of the first refusal.
    pub(crate) since: Timestamp,
    /// The time of the last refusal.
    pub(crate) last: Timestamp,
}

impl Refusals {
    /// Adds a refusal at this instant.
    fn plus_one(this: Option<Self>, now: Timestamp) -> Self {
        let since = this.map_or(now, |refusals| refusals.since);
        // If the clock was set back, the period starts at the earlier time.
        Self { count: this.map_or(0, |refusals| refusals.count).saturating_add(1), since: since.min(now), last: now }
    }

    /// Whether the user must authorize again, although the refresh token may still be valid.
    fn are_enough(&self, period: Duration) -> bool {
        self.count >= MIN_REFUSALS && self.last.saturating_since(self.since) >= period
    }
}

impl Tries {
    /// Records that the provider refused the refresh token with an unknown error.
    pub(crate) fn refused_at(&mut self, now: Timestamp) {
        self.refused = Some(Refusals::plus_one(self.refused, now));
    }

    /// Records that the provider responded with neither a token nor a refusal.
    pub(crate) fn unusable_at(&mut self, now: Timestamp) {
        self.unusable = Some(Refusals::plus_one(self.unusable, now));
    }

    /// Since when the provider has refused the refresh token, or has responded without a token. `None` if this is not
    /// long enough to require the user.
    pub(crate) fn needs_user_since(&self) -> Option<Timestamp> {
        let refused = self.refused.filter(|refused| refused.are_enough(MIN_REFUSAL_PERIOD));
        let unusable = || self.unusable.filter(|unusable| unusable.are_enough(MIN_UNUSABLE_PERIOD));
        refused.or_else(unusable).map(|refusals| refusals.since)
    }
}

/// Why a connection does not work until the user authorizes again.
///
/// ```
/// use oauth_dance_core::DeadReason;
///
/// let text = format!("Please connect your account again: {}.", DeadReason::NoRefreshToken.describe());
/// assert!(text.contains("no refresh token"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadReason {
    /// The provider no longer accepts the refresh token, or the access token if there is no refresh token. It was
    /// revoked, has expired, or was never valid.
    Refused,
    /// The provider does not accept the refresh token, and the response to an earlier refresh was lost. The lost
    /// response may have contained the successor.
    ResponseLost,
    /// The provider has refused the refresh token several times over a long period, with unknown errors, or has responded
    /// with neither a token nor a refusal for a week. The refresh token is retained and retried from time to time. If
    /// the provider accepts it, the connection works again.
    RefusedRepeatedly,
    /// The access token has expired, and the provider issued no refresh token.
    NoRefreshToken,
    /// The provider's API rejected the access token before its expiry, and the token could not be refreshed.
    Rejected,
}

impl DeadReason {
    /// The reason as a clause in English, without a capital letter and a full stop.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Refused => "the provider no longer accepts the token",
            Self::ResponseLost => {
                "the provider's response to an earlier refresh was lost, and the new refresh token with it"
            }
            Self::RefusedRepeatedly => "the provider has issued no token for a long time, for an unknown reason",
            Self::NoRefreshToken => "the access token has expired, and the provider issued no refresh token",
            Self::Rejected => "the provider's API rejected the access token, and the token could not be refreshed",
        }
    }
}

impl Stored {
    /// A token whose refresh has no state.
    pub(crate) fn idle(token: Token) -> Self {
        Self { token, progress: Progress::Idle }
    }

    /// The same record with a token that the application has changed. The state of the refresh is retained, unless the
    /// token has another refresh token.
    pub(crate) fn with_token(self, token: Token) -> Self {
        let progress = match self.progress {
            _ if !have_same_credentials(&self.token, &token) => Progress::Idle,
            // These two states describe the access token.
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
    /// A claim with a new id.
    pub(crate) fn new(since: Timestamp, lease: Duration, tries: Tries) -> Self {
        Self { id: u64::from_be_bytes(random_bytes()), since, lease, tries }
    }

    /// Whether the owner of the claim has probably died. This is a guess, because clocks differ.
    pub(crate) fn looks_abandoned(&self, now: Timestamp) -> bool {
        now.saturating_since(self.since) > self.lease
    }
}

impl BackOff {
    /// Whether the refresh must not be retried yet. A pause that is longer than any provider can impose was written by
    /// a wrong clock. It is ignored, so that it does not lock the user out.
    pub(crate) fn is_in_force(&self, now: Timestamp) -> bool {
        self.until > now && self.until.saturating_since(now) <= MAX_RETRY_AFTER * 2
    }
}

/// Whether the state of one token's refresh applies to the other token. Both must have the same refresh token, or the
/// same access token and no refresh token.
pub(crate) fn have_same_credentials(one: &Token, other: &Token) -> bool {
    match (one, other) {
        (Token::OAuth2(one), Token::OAuth2(other)) => {
            one.refresh_token == other.refresh_token
                && (one.refresh_token.is_some() || one.access_token == other.access_token)
        }
        (Token::OAuth1(one), Token::OAuth1(other)) => {
            one.token == other.token && one.token_secret == other.token_secret
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::{Extra, OAuth1Token, OAuth2Token};

    fn token(access_token: &str, refresh_token: Option<&str>) -> OAuth2Token {
        let mut token = OAuth2Token::bearer(access_token);
        token.refresh_token = refresh_token.map(Into::into);
        token
    }

    #[test]
    fn only_credentials_are_compared() {
        let one = Token::from(token("a0", Some("r0")));
        let mut annotated = token("a0", Some("r0"));
        annotated.extra = Extra::from(json!({"note": 1}).as_object().unwrap().clone());
        for (other, expected) in [
            (Token::from(annotated), true),
            (token("another", Some("r0")).into(), true),
            (token("a0", Some("another")).into(), false),
            (token("a0", None).into(), false),
            (OAuth1Token::new("a0", "r0").into(), false),
        ] {
            assert_eq!(have_same_credentials(&one, &other), expected, "{other:?}");
        }
        assert!(!have_same_credentials(&token("a0", None).into(), &token("a1", None).into()));
        let (one, other) = (OAuth1Token::new("t", "s"), OAuth1Token::new("t", "another"));
        assert!(!have_same_credentials(&one.into(), &other.into()));
    }
}
