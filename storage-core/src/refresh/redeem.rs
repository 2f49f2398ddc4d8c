//! What the refresh protocol needs to know about a provider.

use std::time::Duration;

use async_trait::async_trait;

use super::Lease;
use crate::token::OAuth2Token;

/// Redeems refresh tokens at one provider. A [`Refresher`](crate::Refresher) calls it under a claim.
///
/// `oauth-dance` implements this for its providers. Implement it yourself to use this crate without it.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::{Clock, Lease, OAuth2Token, Redeem, RedeemError, async_trait};
///
/// struct Example;
///
/// #[async_trait]
/// impl Redeem for Example {
///     async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
///         // Open the connection to the token endpoint here.
///         if lease.is_expired() {
///             return Err(RedeemError::LeaseExpired);
///         }
///         // Send the request here, once, and read the response.
///         let mut new = token.clone();
///         new.access_token = "second".into();
///         new.refresh_token = Some("next".into());
///         new.expires_at = Some(Clock::system().now().saturating_add(Duration::from_secs(3600)));
///         Ok(new)
///     }
///
///     async fn revoke(&self, _: &OAuth2Token) {
///         // Send a revocation request (RFC 7009) here, if the provider supports it.
///     }
/// }
/// # let _: &dyn Redeem = &Example;
/// ```
#[async_trait]
pub trait Redeem: Send + Sync + 'static {
    /// Fetches the data for a token request, such as the address of the token endpoint from the issuer's metadata.
    ///
    /// This is called before [`redeem`](Self::redeem), with a separate timeout, so that a slow metadata server does not
    /// shorten the time for the token request. A token request that is interrupted after it was sent may lose the only
    /// copy of a new refresh token. The default does nothing.
    ///
    /// # Errors
    /// [`RedeemError`] of a token request that was not sent, usually [`NotRedeemed`](RedeemError::NotRedeemed).
    async fn prepare(&self) -> Result<(), RedeemError> {
        Ok(())
    }

    /// Whether a new token can be requested for this one. The default is whether it has a refresh token.
    ///
    /// Some grants need none: an application that acts for itself repeats the request that returned the token (RFC 6749
    /// section 4.4). [`redeem`](Self::redeem) then sends that request, under the same claim as a refresh.
    fn can_redeem(&self, token: &OAuth2Token) -> bool {
        token.refresh_token.is_some()
    }

    /// Redeems the refresh token of `token` and returns the complete new token.
    ///
    /// If the provider issued no new refresh token, the new token contains the old one (RFC 6749 section 6). It also
    /// contains the [key](OAuth2Token::dpop_key) that it is bound to, if there is one.
    ///
    /// The implementation must not retry, because the first request may have spent the refresh token. The only
    /// exception is a request that the provider rejected before it evaluated the refresh token (RFC 9449 section 8).
    /// Check [`lease`](Lease::is_expired) directly before the request leaves.
    ///
    /// # Errors
    /// [`RedeemError`], classified by what it means for the refresh token.
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError>;

    /// Revokes a new token that must not be used, because its user has logged out during the refresh or because it is
    /// for a different subject. This is best-effort, so an error is not returned.
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

/// The result of [`Redeem::verify`], which decides what happens to a stored token. `cause` is a short reason that
/// contains no secret.
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
    /// What the token was derived from has ended in the meantime. The token is deleted and revoked.
    Ended,
    /// The token is for a different subject. It is deleted.
    DifferentSubject {
        /// What shows that the subject differs.
        cause: String,
    },
}

/// Why a refresh token was not exchanged for a new token, classified by what it means for the refresh token.
///
/// `cause` is a short reason that contains no secret. It is stored and logged.
///
/// | error | is the refresh token spent? | what happens next |
/// | --- | --- | --- |
/// | [`Dead`](Self::Dead) | it is invalid | the user must authorize again |
/// | [`Refused`](Self::Refused) | no | retried; after refusals over 12 hours, the user must authorize again |
/// | [`Misconfigured`](Self::Misconfigured), [`NotRedeemed`](Self::NotRedeemed) | no | retried |
/// | [`Unusable`](Self::Unusable) | maybe | retried; after a week, the user must authorize again |
/// | [`Unknown`](Self::Unknown) | maybe | retried once more, which shows whether it is |
/// | [`LeaseExpired`](Self::LeaseExpired) | no | claimed again |
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
        /// How long the client has to wait, if the provider has sent `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The client or its configuration is at fault (`invalid_client`). The grant is unaffected, and the refresh token
    /// is not spent.
    #[error("{cause}")]
    Misconfigured {
        /// What the provider reported, and what to correct.
        cause: String,
    },
    /// The provider was not reached, or is temporarily unable to process the request. The refresh token is not spent.
    #[error("{cause}")]
    NotRedeemed {
        /// What happened.
        cause: String,
        /// How long the client has to wait, if the provider has sent `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The provider responded with a server error (5xx), or with a success that contains no token. The refresh token
    /// may be spent.
    #[error("{cause}")]
    Unusable {
        /// What the provider responded.
        cause: String,
        /// How long the client has to wait, if the provider has sent `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The request may have reached the provider, but no response arrived. The refresh token may be spent.
    #[error("{cause}")]
    Unknown {
        /// What happened.
        cause: String,
        /// How long the client has to wait, if the provider has sent `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The [lease](Lease) expired before the request left. Nothing was sent.
    #[error("the lease expired before the token request was sent, because this process was suspended")]
    LeaseExpired,
}

impl RedeemError {
    /// How long the client has to wait, if the provider has sent `Retry-After`.
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
