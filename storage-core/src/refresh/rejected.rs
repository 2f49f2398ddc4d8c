//! Access tokens that a provider's API rejects before they expire.
//!
//! A rejection is ambiguous. The token may have been revoked, or the request may be wrong, or the API may be broken for
//! all tokens. If every rejection caused a refresh, a broken API would cause a refresh with each call. Therefore the
//! age of a token limits how often it is replaced.

use std::sync::Arc;
use std::time::Duration;

use super::event::observe;
use super::refresher::load;
use super::{Redeem, RefreshError, RefreshEvent, Refresher};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::{DeadReason, Progress, Stored};
use crate::secret::Secret;
use crate::storage::Precondition;
use crate::time::Timestamp;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// The minimum age at which a token is replaced after an unexplained rejection, or a quarter of its lifetime if that is
/// less.
const MIN_AGE: Duration = Duration::from_secs(60);
/// The minimum age at which a token that replaced a rejected one is replaced itself, or a quarter of its lifetime if
/// that is less.
const MIN_REPLACEMENT_AGE: Duration = Duration::from_secs(600);
/// The number of tries if a write conflicts with other writers.
const MAX_WRITES: usize = 5;

/// Whether an API has explained its rejection of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// Status 401 without a reason. Some APIs respond in this way if the token is valid and the request is not.
    Unexplained,
    /// The error `invalid_token` (RFC 6750 section 3.1), or another response that is clearly about the token.
    InvalidToken,
}

impl Refresher {
    /// Replaces an access token that the provider's API has rejected. Returns the stored token if it is another one, or
    /// a refreshed token. Returns `None` if the rejected token stays in use.
    ///
    /// The rejected token stays in use in three cases:
    ///
    /// * It was issued within the last minute, and the rejection is [unexplained](Rejection::Unexplained).
    /// * It replaced another rejected token within the last ten minutes.
    /// * It cannot be refreshed, and the rejection is unexplained.
    ///
    /// Both periods are at most a quarter of the token's lifetime. If tokens live for at least 40 minutes, an API that
    /// rejects every token therefore causes one refresh in ten minutes, for any number of calls and processes.
    ///
    /// An invalid token that cannot be refreshed is marked [`DeadReason::Rejected`] until the user authorizes again.
    /// The token itself remains stored.
    ///
    /// # Errors
    /// [`RefreshError::NeedsAuthorization`] if the token cannot be replaced. Otherwise the errors of
    /// [`usable`](Self::usable).
    ///
    /// # Cancel safety
    /// The same as for [`usable`](Self::usable).
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
            if is_dead || !provider.can_redeem(&token) {
                return match rejection {
                    Rejection::Unexplained if !is_dead => Ok(None),
                    _ => self.mark_rejected(rejected, tokens, key, provider).await,
                };
            }
            if is_recent(&token, &progress, rejection, now) {
                return Ok(None);
            }
        }
        match self.refresh_rejected(rejected, tokens, key, provider).await {
            Err(RefreshError::NeedsAuthorization { .. }) => self.mark_rejected(rejected, tokens, key, provider).await,
            replaced => Ok(Some(replaced?)),
        }
    }

    /// Marks the stored token as dead. If it is another token, returns it instead.
    async fn mark_rejected(
        &self,
        rejected: &Secret,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
    ) -> Result<Option<OAuth2Token>, RefreshError> {
        let now = self.policy.clock.now();
        let reason = DeadReason::Rejected;
        for _ in 0..MAX_WRITES {
            let (token, progress, version) = load(tokens, key).await?;
            if token.access_token != *rejected {
                return Ok(Some(token).filter(|token| !token.is_expired_at(now)));
            }
            let since = match progress {
                Progress::Dead { reason: DeadReason::Rejected, since } => {
                    return Err(RefreshError::NeedsAuthorization { reason, since });
                }
                Progress::Dead { since, .. } => since,
                _ if !provider.can_redeem(&token) => now,
                // The refresh token may still be valid.
                _ => break,
            };
            let was_known = matches!(progress, Progress::Dead { .. });
            let stored = Stored { token: Token::OAuth2(token), progress: Progress::Dead { reason, since } };
            match tokens.save(key, &stored, Precondition::Version(version)).await {
                Ok(_) if was_known => {}
                Ok(_) => observe(&self.observer, key, &RefreshEvent::NeedsAuthorization { reason }),
                Err(TokensError::Storage(StorageError::Conflict)) => continue,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        provider = key.provider(),
                        "a rejected token could not be marked as rejected"
                    );
                }
            }
            return Err(RefreshError::NeedsAuthorization { reason, since });
        }
        Err(RefreshError::NeedsAuthorization { reason, since: now })
    }
}

/// Whether a token is too new to be replaced. If `issued_at` is in the future, it was written by another clock, so only
/// the distance counts.
fn is_recent(token: &OAuth2Token, progress: &Progress, rejection: Rejection, now: Timestamp) -> bool {
    let interval = match (progress, rejection) {
        (Progress::Replaced, _) => MIN_REPLACEMENT_AGE,
        (_, Rejection::Unexplained) => MIN_AGE,
        (_, Rejection::InvalidToken) => return false,
    };
    // A token with a lifetime of seconds may have expired on the provider's clock.
    let lifetime = token.expires_at.zip(token.issued_at).map(|(expires, issued)| expires.saturating_since(issued));
    let interval = lifetime.map_or(interval, |lifetime| interval.min(lifetime / 4));
    let distance = |issued: Timestamp| now.saturating_since(issued).max(issued.saturating_since(now));
    token.issued_at.is_some_and(|issued| distance(issued) < interval)
}
