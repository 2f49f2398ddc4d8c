use std::time::Duration;

use async_trait::async_trait;

use super::Lease;
use crate::token::OAuth2Token;

/// Redeems refresh tokens at one provider.
#[async_trait]
pub trait Redeem: Send + Sync + 'static {
    /// Redeems the refresh token of `token` and returns the whole new token, with the old refresh token in it where the
    /// provider gave no new one (RFC 6749 section 6), and with the key it is bound to. It must not be tried twice inside,
    /// but for a request that the provider refused before looking at the refresh token (RFC 9449 section 8).
    ///
    /// Directly before the request leaves, best of all when the connection is there, `lease` is to be asked whether it
    /// [is over](Lease::is_over).
    ///
    /// # Errors
    /// [`RedeemError`], told by what it means for the refresh token.
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError>;

    /// Revokes a new token that nobody is to have: its user has logged out meanwhile, or it is somebody else's. Best effort.
    async fn revoke(&self, token: &OAuth2Token);

    /// What is stored of a new token and given out. By default all of it.
    fn kept(&self, old: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let _ = old;
        new.clone()
    }

    /// Looks at a new token, as it was redeemed, once it is stored, when no check that fails can lose it any more. By default it is good.
    async fn look_at(&self, old: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        let _ = (old, new);
        Verdict::Good
    }
}

/// What to do with a new token that is stored. `cause` says in a few words why, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Keep it.
    Good,
    /// Keep it, and tell that something about it could not be verified.
    Doubtful {
        /// What.
        cause: String,
    },
    /// Delete it, as it is the token of somebody else.
    Foreign {
        /// How that is known.
        cause: String,
    },
}

/// Why a refresh token brought no new token. `cause` says it in a few words, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// The provider says that the grant is dead (`invalid_grant`).
    #[error("{cause}")]
    Dead {
        /// What it said.
        cause: String,
    },
    /// The provider definitely refused the refresh token, with an error whose meaning is not known. It may be dead, or
    /// the fault may pass. The refresh token is not spent.
    #[error("{cause}")]
    Refused {
        /// What it said.
        cause: String,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The client or its configuration is at fault (`invalid_client`). It says nothing about the grant, and the refresh
    /// token is not spent.
    #[error("{cause}")]
    Misconfigured {
        /// What the provider said, and what to correct.
        cause: String,
    },
    /// The provider was not reached, or cannot answer for now. The refresh token is not spent.
    #[error("{cause}")]
    NotRedeemed {
        /// What happened.
        cause: String,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The request may have reached the provider, but no answer came that could be used. The refresh token may be spent.
    #[error("{cause}")]
    Unknown {
        /// What happened.
        cause: String,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The [lease](Lease) was over before the request left. Nothing was sent.
    #[error("this process stood still for longer than its claim on the refresh token holds")]
    LeaseOver,
}

impl RedeemError {
    /// How long the provider asks to be left alone.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Dead { .. } | Self::Misconfigured { .. } | Self::LeaseOver => None,
            Self::Refused { retry_after, .. }
            | Self::NotRedeemed { retry_after, .. }
            | Self::Unknown { retry_after, .. } => *retry_after,
        }
    }
}
