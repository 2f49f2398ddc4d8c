//! A refresh token that brought no new token: what that means, and how it is written down.

use super::flight::Outcome;
use super::protocol::Refresh;
use super::state::{BackOff, DeadReason, Progress, Stored, Tries};
use super::{RedeemError, RefreshError, RefreshEvent};
use crate::error::{StorageError, TokensError};
use crate::record::{Version, Versioned};
use crate::storage::Precondition;
use crate::token::{OAuth2Token, Token};

/// What becomes of the record and of the caller, and what is reported.
pub(super) struct Failed {
    progress: Progress,
    error: RefreshError,
    events: Vec<RefreshEvent>,
}

impl Refresh {
    pub(super) fn failed(&self, failure: &RedeemError, tries: Tries) -> Failed {
        if !matches!(failure, RedeemError::Dead { .. }) {
            return self.failed_for_now(failure, tries);
        }
        let reason = if tries.maybe_spent { DeadReason::AnswerLost } else { DeadReason::Refused };
        let since = self.policy.clock.now();
        Failed {
            progress: Progress::Dead { reason, since },
            error: RefreshError::NeedsAuthorization { reason, since },
            events: vec![RefreshEvent::NeedsAuthorization { reason }],
        }
    }

    /// Only a definite refusal of the refresh token counts towards asking the user.
    fn failed_for_now(&self, failure: &RedeemError, mut tries: Tries) -> Failed {
        let was_enough = tries.needs_user_since().is_some();
        if matches!(failure, RedeemError::Refused { .. }) {
            tries.refused_at(self.policy.clock.now());
        }
        let until = self.policy.back_off(&tries, failure.retry_after());
        tries.failed = tries.failed.saturating_add(1);
        tries.maybe_spent |= matches!(failure, RedeemError::Unknown { .. });

        let cause = failure.to_string();
        let mut events = vec![match failure {
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
        Failed { error: back_off.error(), progress: Progress::BackingOff(back_off), events }
    }

    /// Writes down over the claim why the refresh failed. `None` says that the record is no longer the claimed one.
    pub(super) async fn note_failure(
        &self,
        failed: Failed,
        old: OAuth2Token,
        id: u64,
        version: Version,
    ) -> Option<Outcome> {
        match self.note(old, &failed.progress, id, version).await {
            Ok(true) => {}
            Ok(false) => return None,
            // The claim stays, and whoever takes it over finds out the same.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a failed refresh was not noted"),
        }
        for event in &failed.events {
            self.observe(event);
        }
        Some(Err(failed.error))
    }

    async fn note(
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
                // The application has changed the token, or the same record has been sealed again.
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
