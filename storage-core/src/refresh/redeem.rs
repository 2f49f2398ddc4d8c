use std::time::Duration;

use async_trait::async_trait;

use super::Lease;
use crate::token::OAuth2Token;

/// Redeems refresh tokens at one provider.
#[async_trait]
pub trait Redeem: Send + Sync + 'static {
    /// Fetches the data for a token request, such as the address of the token endpoint from the issuer's metadata.
    ///
    /// This is called before [`redeem`](Self::redeem), with a separate timeout. It therefore does not shorten the token
    /// request: a request that is interrupted after it was sent may lose the only copy of a new refresh token. The
    /// default does nothing.
    ///
    /// # Errors
    /// [`RedeemError`], as for a token request that was not sent.
    async fn prepare(&self) -> Result<(), RedeemError> {
        Ok(())
    }

    /// Redeems the refresh token of `token` and returns the complete new token.
    ///
    /// If the provider issued no new refresh token, the new token contains the old one (RFC 6749 section 6). It
    /// contains the key it is bound to, if any. The implementation must not retry, except for a request that the
    /// provider rejected before it evaluated the refresh token (RFC 9449 section 8).
    ///
    /// Check [`lease`](Lease::is_expired) directly before the request leaves, ideally after the connection is open.
    ///
    /// # Errors
    /// [`RedeemError`], classified by what it means for the refresh token.
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError>;

    /// Revokes a new token that must not be used, because its user has logged out meanwhile or it is for a different
    /// subject. Best effort.
    async fn revoke(&self, token: &OAuth2Token);

    /// Returns the part of a new token that is stored and returned to callers. The default is the whole token.
    fn to_store(&self, old: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let _ = old;
        new.clone()
    }

    /// Verifies a new token as the provider issued it. This is called after the token was stored, so that a failed
    /// check cannot lose the token. The default accepts every token.
    async fn verify(&self, old: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        let _ = (old, new);
        Verdict::Accepted
    }
}

/// What happens to a new token after it was stored. `cause` is a short reason that contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The token is used.
    Accepted,
    /// The token is used, and an event reports that it could not be verified.
    Unverified {
        /// What could not be verified.
        cause: String,
    },
    /// The token is for a different subject. It is deleted.
    DifferentSubject {
        /// How this is known.
        cause: String,
    },
}

/// Why a refresh token was not exchanged for a new token. `cause` is a short reason that contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// The provider reports that the grant is no longer valid (`invalid_grant`).
    #[error("{cause}")]
    Dead {
        /// What the provider reported.
        cause: String,
    },
    /// The provider refused the refresh token with an unknown error. The grant may be invalid, or the fault may be
    /// temporary. The refresh token is not spent.
    #[error("{cause}")]
    Refused {
        /// What the provider reported.
        cause: String,
        /// How long the provider asks the client to wait.
        retry_after: Option<Duration>,
    },
    /// The client or its configuration is at fault (`invalid_client`). The grant is unaffected, and the refresh token
    /// is not spent.
    #[error("{cause}")]
    Misconfigured {
        /// What the provider reported, and what to correct.
        cause: String,
    },
    /// The provider was not reached, or is temporarily unable to respond. The refresh token is not spent.
    #[error("{cause}")]
    NotRedeemed {
        /// What happened.
        cause: String,
        /// How long the provider asks the client to wait.
        retry_after: Option<Duration>,
    },
    /// The provider responded, but with a server error (5xx) or with a success that contains no token. The refresh token may
    /// be spent. If this goes on, the user is asked to authorize again, later than after refusals.
    #[error("{cause}")]
    Unusable {
        /// What the provider said.
        cause: String,
        /// How long the provider asks the client to wait.
        retry_after: Option<Duration>,
    },
    /// The request may have reached the provider, but no response arrived. The refresh token may be spent.
    #[error("{cause}")]
    Unknown {
        /// What happened.
        cause: String,
        /// How long the provider asks the client to wait.
        retry_after: Option<Duration>,
    },
    /// The [lease](Lease) expired before the request left. Nothing was sent.
    #[error("the lease expired before the token request was sent, because this process was suspended")]
    LeaseExpired,
}

impl RedeemError {
    /// How long the provider asks the client to wait.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Dead { .. } | Self::Misconfigured { .. } | Self::LeaseExpired => None,
            Self::Refused { retry_after, .. }
            | Self::NotRedeemed { retry_after, .. }
            | Self::Unusable { retry_after, .. }
            | Self::Unknown { retry_after, .. } => *retry_after,
        }
    }
}
