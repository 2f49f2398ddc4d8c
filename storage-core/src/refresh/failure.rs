//! What a failed redemption means, and how the failure is stored.
//!
//! The failure replaces the claim in the record, so that all processes wait for the same pause and report the same
//! cause. Only a definite response that the grant is invalid ends a connection immediately. Anything else may be an
//! incident of the provider, and requires the user only after days.

use super::protocol::{OwnClaim, Refresh};
use super::single_flight::RefreshResult;
use super::{RedeemError, RefreshError, RefreshEvent};
use crate::error::{StorageError, TokensError};
use crate::progress::{BackOff, DeadReason, Progress, Stored, Tries};
use crate::record::{Version, Versioned};
use crate::storage::Precondition;
use crate::token::{OAuth2Token, Token};

/// A failed redemption: the state to store, the error to return, and the events to report.
pub(super) struct Failed {
    progress: Progress,
    error: RefreshError,
    events: Vec<RefreshEvent>,
}

impl Refresh {
    /// Classifies a failed redemption.
    pub(super) fn failed(&self, error: &RedeemError, tries: Tries) -> Failed {
        if !matches!(error, RedeemError::Dead { .. }) {
            return self.failed_temporarily(error, tries);
        }
        let reason = if tries.maybe_spent { DeadReason::ResponseLost } else { DeadReason::Refused };
        let since = self.policy.clock.now();
        Failed {
            progress: Progress::Dead { reason, since },
            error: RefreshError::NeedsAuthorization { reason, since },
            events: vec![RefreshEvent::NeedsAuthorization { reason }],
        }
    }

    /// Classifies a failure after which the refresh is retried. Repeated refusals over hours require the user, and so
    /// do responses without a token over days.
    fn failed_temporarily(&self, error: &RedeemError, mut tries: Tries) -> Failed {
        let was_enough = tries.needs_user_since().is_some();
        let now = self.policy.clock.now();
        match error {
            RedeemError::Refused { .. } => tries.refused_at(now),
            RedeemError::Unusable { .. } => tries.unusable_at(now),
            _ => {}
        }
        let until = self.policy.back_off(&tries, error.retry_after());
        tries.failed = tries.failed.saturating_add(1);
        tries.maybe_spent |= matches!(error, RedeemError::Unknown { .. } | RedeemError::Unusable { .. });

        let cause = error.to_string();
        let mut events = vec![match error {
            RedeemError::Refused { .. } => RefreshEvent::Refused { until, cause: cause.clone() },
            RedeemError::Misconfigured { .. } => {
                tracing::error!(
                    provider = self.key.provider(),
                    cause,
                    "no token of this provider can be refreshed until the client's configuration is corrected"
                );
                RefreshEvent::Misconfigured { until, cause: cause.clone() }
            }
            _ => RefreshEvent::BackingOff { until, cause: cause.clone() },
        }];
        if !was_enough && tries.needs_user_since().is_some() {
            events.push(RefreshEvent::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly });
        }
        let back_off = BackOff { until, cause, tries };
        Failed { error: RefreshError::from(&back_off), progress: Progress::BackingOff(back_off), events }
    }

    /// Replaces the claim by the failure. Returns `None` if the record no longer contains this claim.
    pub(super) async fn store_failure(
        &self,
        failed: Failed,
        old: OAuth2Token,
        own: &OwnClaim,
        version: Version,
    ) -> Option<RefreshResult> {
        let mut stored = self.store_progress(old.clone(), &failed.progress, own.id, version).await;
        if let (Err(TokensError::Storage(StorageError::TooLarge { .. })), Progress::BackingOff(back_off)) =
            (&stored, &failed.progress)
        {
            let smaller = Progress::BackingOff(BackOff { cause: String::new(), ..back_off.clone() });
            stored = self.store_progress(old, &smaller, own.id, version).await;
        }
        match stored {
            Ok(true) => {}
            Ok(false) if own.is_stored => return None,
            // Without a claim, another change of the record does not show that the refresh is obsolete. The refresh token
            // may have been sent, and is not sent again by this refresh.
            Ok(false) => {}
            // The claim, or the pause in its place, remains. A later refresh will fail in the same way.
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the failure of a refresh could not be stored"
                );
            }
        }
        for event in &failed.events {
            self.observe(event);
        }
        Some(Err(failed.error))
    }

    /// Writes a state over the claim, also if the token was changed since. Returns `false` if the claim is gone.
    pub(super) async fn store_progress(
        &self,
        old: OAuth2Token,
        progress: &Progress,
        id: u64,
        mut version: Version,
    ) -> Result<bool, TokensError> {
        let mut token = Token::OAuth2(old);
        loop {
            let stored = Stored { token, progress: progress.clone() };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Err(TokensError::Storage(StorageError::Conflict)) => {}
                written => return written.map(|_| true),
            }
            match self.tokens.load(&self.key).await? {
                // The application has changed the token, or the same record was resealed.
                Some(Versioned {
                    value: Stored { token: current, progress: Progress::Claimed(claim) },
                    version: at,
                }) if claim.id == id => {
                    (token, version) = (current, at);
                }
                _ => return Ok(false),
            }
        }
    }
}
