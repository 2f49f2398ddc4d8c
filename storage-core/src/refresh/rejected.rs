//! Access tokens that a provider's API rejects before they expire.

use std::sync::Arc;
use std::time::Duration;

use super::state::{DeadReason, Progress, Stored};
use super::{Redeem, RefreshError, RefreshEvent, Refresher};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::record::{Version, Versioned};
use crate::secret::Secret;
use crate::storage::Precondition;
use crate::time::Timestamp;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// A token younger than this, or than a quarter of its life, is not replaced because of a rejection without a reason.
const MOMENT: Duration = Duration::from_secs(60);
/// A token that replaced a rejected one is not replaced again for this long, or a quarter of its life, whatever the API says.
const BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(600);
/// How often a record that others write at the same time is read again.
const MOST_CONFLICTS: usize = 5;

/// What an API says about an access token that it rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// Status 401 and no reason. Some APIs answer so if the token is good but the request is not.
    Unexplained,
    /// The error `invalid_token` (RFC 6750 section 3.1), or something else that leaves no doubt that the token is at fault.
    InvalidToken,
}

impl Refresher {
    /// Another token in place of one that the provider's API has rejected: the stored one if it is another by now, or else
    /// a refreshed one. `None` if the rejected token stays in use.
    ///
    /// A token stays in use if it was obtained within the last minute and the rejection is
    /// [unexplained](Rejection::Unexplained); if it replaced another rejected token within the last ten minutes; and if it
    /// cannot be refreshed and the rejection is unexplained. Both times are at most a quarter of the token's life. An API
    /// that rejects every token thus costs one refresh in ten minutes, however many calls and processes there are, if its
    /// tokens live for 40 minutes or longer.
    ///
    /// A token that is at fault and cannot be refreshed is stored as [`DeadReason::Rejected`], until the user has authorized
    /// again. The token itself stays stored.
    ///
    /// # Errors
    /// [`RefreshError::NeedsAuthorization`] if the token cannot be replaced; [`RefreshError`] as for any refresh.
    ///
    /// # Cancel safety
    /// As [`usable`](Self::usable).
    pub async fn replace_rejected(
        &self,
        rejected: &Secret,
        rejection: Rejection,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
    ) -> Result<Option<OAuth2Token>, RefreshError> {
        let (token, progress, _) = load(tokens, key).await?;
        let now = self.policy.clock.now();
        if token.access_token == *rejected {
            let is_dead = matches!(progress, Progress::Dead { .. });
            if is_dead || token.refresh_token.is_none() {
                return match rejection {
                    Rejection::Unexplained if !is_dead => Ok(None),
                    _ => self.give_up_rejected(rejected, tokens, key).await,
                };
            }
            if is_recent(&token, &progress, rejection, now) {
                return Ok(None);
            }
        }
        match self.instead_of(rejected, tokens, key, provider).await {
            Err(RefreshError::NeedsAuthorization { .. }) => self.give_up_rejected(rejected, tokens, key).await,
            replaced => Ok(Some(replaced?)),
        }
    }

    /// Stores that only the user can help, unless another token is stored by now, which is returned.
    async fn give_up_rejected(
        &self,
        rejected: &Secret,
        tokens: &Tokens,
        key: &TokenKey,
    ) -> Result<Option<OAuth2Token>, RefreshError> {
        let now = self.policy.clock.now();
        let reason = DeadReason::Rejected;
        for _ in 0..MOST_CONFLICTS {
            let (token, progress, version) = load(tokens, key).await?;
            if token.access_token != *rejected {
                return Ok(Some(token).filter(|token| !token.is_expired_at(now)));
            }
            let since = match progress {
                Progress::Dead { reason: DeadReason::Rejected, since } => {
                    return Err(RefreshError::NeedsAuthorization { reason, since });
                }
                Progress::Dead { since, .. } => since,
                _ if token.refresh_token.is_none() => now,
                // Its refresh token may still be good.
                _ => break,
            };
            let was_known = matches!(progress, Progress::Dead { .. });
            let stored = Stored { token: Token::OAuth2(token), progress: Progress::Dead { reason, since } };
            match tokens.save(key, &stored, Precondition::Version(version)).await {
                Ok(_) if was_known => {}
                Ok(_) => (self.observer)(key, &RefreshEvent::NeedsAuthorization { reason }),
                Err(TokensError::Storage(StorageError::Conflict)) => continue,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, provider = key.provider(), "a rejected token could not be marked as such");
                }
            }
            return Err(RefreshError::NeedsAuthorization { reason, since });
        }
        Err(RefreshError::NeedsAuthorization { reason, since: now })
    }
}

/// Whether a token is too new to be replaced. An instant in the future comes from another clock, and counts by its distance.
fn is_recent(token: &OAuth2Token, progress: &Progress, rejection: Rejection, now: Timestamp) -> bool {
    let interval = match (progress, rejection) {
        (Progress::Replaced, _) => BETWEEN_REPLACEMENTS,
        (_, Rejection::Unexplained) => MOMENT,
        (_, Rejection::InvalidToken) => return false,
    };
    // One that lives for seconds may have expired by the provider's clock.
    let life = token.expires_at.zip(token.issued_at).map(|(expires, issued)| expires.saturating_since(issued));
    let interval = life.map_or(interval, |life| interval.min(life / 4));
    let distance = |issued: Timestamp| now.saturating_since(issued).max(issued.saturating_since(now));
    token.issued_at.is_some_and(|issued| distance(issued) < interval)
}

async fn load(tokens: &Tokens, key: &TokenKey) -> Result<(OAuth2Token, Progress, Version), RefreshError> {
    match tokens.load(key).await? {
        Some(Versioned { value: Stored { token: Token::OAuth2(token), progress }, version }) => {
            Ok((token, progress, version))
        }
        Some(_) => Err(RefreshError::WrongKind),
        None => Err(RefreshError::NotConnected),
    }
}
