//! The protocol: claim, redeem and commit, or wait and take over.
//!
//! The [module above](super) explains why each step is necessary. This module contains the claim and the redemption.
//! `commit.rs` stores the new token, and `failure.rs` stores a failure.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::event::{Observer, observe};
use super::need::Need;
use super::policy::{MAX_LEASE, Policy};
use super::single_flight::{RefreshResult, Refreshed};
use super::{Lease, Redeem, RedeemError, RefreshError, RefreshEvent};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::{BackOff, Claim, DeadReason, Progress, Stored, Tries};
use crate::record::{Version, Versioned};
use crate::storage::Precondition;
use crate::time::Timestamp;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// The number of times that a refresh may start over, because the record changed or the process was suspended.
const MAX_CLAIMS: u32 = 10;

/// One refresh of one key.
pub(super) struct Refresh {
    pub(super) tokens: Tokens,
    pub(super) key: TokenKey,
    pub(super) provider: Arc<dyn Redeem>,
    pub(super) need: Need,
    pub(super) policy: Policy,
    pub(super) observer: Observer,
    /// Whether a ledger redeems each refresh token of a request once.
    pub(super) has_ledger: bool,
    /// Where the callers wait for the outcome.
    pub(super) outcome: watch::Sender<Option<RefreshResult>>,
}

/// A claim of this process in the storage, and the token that it covers.
struct Claimed {
    own: OwnClaim,
    old: OAuth2Token,
    tries: Tries,
    version: Version,
}

/// The id of a claim of this process, and how long it is valid.
#[derive(Clone)]
pub(super) struct OwnClaim {
    pub(super) id: u64,
    lease: Lease,
    /// Whether the record contains the claim. A storage of one request may have no room for it.
    pub(super) is_stored: bool,
}

/// What to do after a step.
enum Next {
    Done(RefreshResult),
    /// The record changed. Read it again.
    ReadAgain,
    /// Nothing was sent under this claim, and too little of its lease is left. Renew the claim.
    Reclaim(OwnClaim),
}

impl Refresh {
    /// Runs the refresh and publishes its outcome. If the storage fails, the outcome is published before the token is
    /// stored, and the refresh continues.
    pub(super) async fn run(self) {
        let storage = self.tokens.storage().capabilities().name;
        let span = tracing::info_span!("token_refresh", provider = self.key.provider(), storage, outcome = Empty);
        let work = async {
            let outcome = self.refresh().await;
            Span::current().record("outcome", name_of(&outcome));
            self.publish(outcome);
        };
        work.instrument(span).await;
    }

    /// Claims and redeems, again if the record has changed in between.
    async fn refresh(&self) -> RefreshResult {
        let mut unused = None;
        for _ in 0..MAX_CLAIMS {
            let claimed = match self.claim(unused.take()).instrument(tracing::debug_span!("claim")).await? {
                Ok(claimed) => claimed,
                Err(token) => return Ok(Refreshed::found(token)),
            };
            match self.redeem(claimed).instrument(tracing::debug_span!("redeem")).await? {
                Next::Done(outcome) => return outcome,
                Next::ReadAgain => {}
                Next::Reclaim(own) => unused = Some(own),
            }
        }
        Err(RefreshError::Busy)
    }

    /// Writes a claim. The inner `Err` is a token that already meets the need, so that none is redeemed. `own` is a
    /// claim of this process under which nothing was sent.
    async fn claim(&self, mut own: Option<OwnClaim>) -> Result<Result<Claimed, OAuth2Token>, RefreshError> {
        let mut give_up = Instant::now() + self.policy.max_wait();
        let mut watched: Option<(u64, Instant)> = None;
        let mut takes_over = false;
        for reads in 0.. {
            if reads > 0 {
                sleep(self.policy.poll(reads - 1)).await;
            }
            let Some(found) = self.tokens.load(&self.key).await? else { return Err(RefreshError::NotConnected) };
            let Versioned { value: Stored { token: Token::OAuth2(token), progress }, version } = found else {
                return Err(RefreshError::WrongKind);
            };
            if self.need.is_met_by(&token, &self.policy) {
                if watched.is_some() {
                    self.observe(&RefreshEvent::Adopted);
                }
                return Ok(Err(token));
            }
            let now = self.policy.clock.now();
            if !self.provider.can_redeem(&token) {
                let since = token.expires_at.unwrap_or(now).min(now);
                return Err(RefreshError::NeedsAuthorization { reason: DeadReason::NoRefreshToken, since });
            }

            let tries = match progress {
                Progress::Idle | Progress::Replaced => Tries::default(),
                Progress::Dead { reason, since } => return Err(RefreshError::NeedsAuthorization { reason, since }),
                Progress::BackingOff(back_off) if back_off.is_in_force(now) => {
                    return Err(RefreshError::from(&back_off));
                }
                Progress::BackingOff(back_off) => back_off.tries,
                Progress::Claimed(claim) => match &own {
                    // An earlier write of this process has taken effect, although its response was lost.
                    Some(own) if own.id == claim.id => {
                        if self.is_in_time(&own.lease) {
                            self.observe_takeover(takes_over);
                            return Ok(Ok(Claimed { own: own.clone(), old: token, tries: claim.tries, version }));
                        }
                        claim.tries
                    }
                    _ => {
                        // The record may change while the claim stays the same, so the id of the claim is compared.
                        let since = match watched {
                            Some((seen, since)) if seen == claim.id => since,
                            _ => Instant::now(),
                        };
                        watched = Some((claim.id, since));
                        let lease = claim.lease.min(MAX_LEASE);
                        // Another process may have a longer request timeout than this one.
                        give_up = give_up.max(since + lease + self.policy.request_timeout());
                        let is_over = self.is_over_in_a_request(&claim, now) || since.elapsed() >= lease;
                        if !is_over && Instant::now() < give_up {
                            continue;
                        }
                        takes_over = true;
                        // The owner may have sent the refresh token before it died.
                        Tries { failed: claim.tries.failed.saturating_add(1), maybe_spent: true, ..claim.tries }
                    }
                },
            };
            if Instant::now() >= give_up {
                break;
            }

            let lease = Lease::start(self.policy.lease(), &self.policy.clock);
            let claim = Claim::new(now, self.policy.lease(), tries);
            let new = OwnClaim { id: claim.id, lease, is_stored: true };
            let stored = Stored { token: Token::OAuth2(token.clone()), progress: Progress::Claimed(claim) };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Ok(version) if self.is_in_time(&new.lease) => {
                    self.observe_takeover(takes_over);
                    return Ok(Ok(Claimed { own: new, old: token, tries, version }));
                }
                Ok(_) | Err(TokensError::Storage(StorageError::Ambiguous { .. })) => own = Some(new),
                // Other requests do not see a claim in the storage of this one, and it may leave no room for a claim.
                Err(TokensError::Storage(StorageError::TooLarge { .. })) if self.is_request_bound() => {
                    match self.save_pause(&token, tries, version).await {
                        Ok(version) => {
                            self.observe_takeover(takes_over);
                            let own = OwnClaim { is_stored: false, ..new };
                            return Ok(Ok(Claimed { own, old: token, tries, version }));
                        }
                        Err(TokensError::Storage(StorageError::Conflict)) => takes_over = false,
                        Err(error) => return Err(error.into()),
                    }
                }
                // Another process wrote first, possibly to take over as well.
                Err(TokensError::Storage(StorageError::Conflict)) => takes_over = false,
                Err(error) => return Err(error.into()),
            }
        }
        Err(RefreshError::Busy)
    }

    /// Writes a short pause in place of a claim. Then the record has room for the states after a failure, without which
    /// every request would send the refresh token again.
    async fn save_pause(&self, token: &OAuth2Token, tries: Tries, version: Version) -> Result<Version, TokensError> {
        let until = self.policy.clock.now().saturating_add(self.policy.lease());
        let tries = Tries { failed: tries.failed.saturating_add(1), maybe_spent: true, ..tries };
        let progress = Progress::BackingOff(BackOff { until, cause: String::new(), tries });
        let stored = Stored { token: Token::OAuth2(token.clone()), progress };
        self.tokens.save(&self.key, &stored, Precondition::Version(version)).await
    }

    /// Whether the record belongs to one request, and other requests do not see what this one writes.
    fn is_request_bound(&self) -> bool {
        self.tokens.storage().capabilities().request_bound
    }

    /// Whether a claim of another request, which this request found in its own record, is over. Waiting for it would
    /// never show the new token.
    ///
    /// The claim was sent to the browser, so the response of its owner was sent, and the owner can no longer store a
    /// token. With a ledger, the ledger's own claim prevents the refresh token from being redeemed twice. Without one, the
    /// owner may still redeem it until its lease ends, which is later than its token request times out.
    fn is_over_in_a_request(&self, claim: &Claim, now: Timestamp) -> bool {
        self.is_request_bound() && (self.has_ledger || claim.looks_abandoned(now))
    }

    /// Reports that another process's refresh was taken over.
    fn observe_takeover(&self, takes_over: bool) {
        if takes_over {
            self.observe(&RefreshEvent::TakenOver);
        }
    }

    /// Whether a token request that starts now times out before the lease ends.
    fn is_in_time(&self, lease: &Lease) -> bool {
        lease.has_left(self.policy.request_timeout())
    }

    /// Redeems the refresh token once, and stores the result.
    async fn redeem(&self, claimed: Claimed) -> Result<Next, RefreshError> {
        let Claimed { own, old, tries, version } = claimed;
        if !self.is_in_time(&own.lease) {
            return Ok(Next::Reclaim(own));
        }
        match self.send(&old, &own.lease).await {
            Ok(mut new) => {
                new.issued_at = Some(self.policy.clock.now());
                Ok(Next::Done(self.commit(old, new, version, own.id).await))
            }
            Err(RedeemError::LeaseExpired) => Ok(Next::Reclaim(own)),
            Err(error) => {
                let failed = self.failed(&error, tries);
                // `None` means that the user has logged in or out, or that another process has taken over.
                Ok(self.store_failure(failed, old, &own, version).await.map_or(Next::ReadAgain, Next::Done))
            }
        }
    }

    /// Sends one token request. Its timeout starts after the preparation.
    async fn send(&self, old: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let limit = self.policy.request_timeout();
        match timeout(limit, self.provider.prepare()).await {
            Ok(prepared) => prepared?,
            Err(_) => {
                let cause = "the data for the token request did not arrive in time".to_owned();
                return Err(RedeemError::NotRedeemed { cause, retry_after: None });
            }
        }
        if !self.is_in_time(lease) {
            return Err(RedeemError::LeaseExpired);
        }
        let late = |_| {
            let cause = "the provider did not respond in time".to_owned();
            Err(RedeemError::Unknown { cause, retry_after: None })
        };
        timeout(limit, self.provider.redeem(old, lease)).await.unwrap_or_else(late)
    }

    /// Sends the outcome to the callers that wait.
    pub(super) fn publish(&self, outcome: RefreshResult) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Logs an event, and calls the observer.
    pub(super) fn observe(&self, event: &RefreshEvent) {
        tracing::info!(provider = self.key.provider(), event = event.name(), "token refresh");
        observe(&self.observer, &self.key, event);
    }
}

/// The outcome in a span. Dashboards depend on these names.
fn name_of(outcome: &RefreshResult) -> &'static str {
    match outcome {
        Ok(refreshed) if refreshed.is_redeemed() => "refreshed",
        Ok(_) => "adopted",
        Err(RefreshError::NotConnected) => "not_connected",
        Err(RefreshError::NeedsAuthorization { .. }) => "needs_authorization",
        Err(RefreshError::BackingOff { .. }) => "backing_off",
        Err(RefreshError::Busy) => "busy",
        Err(RefreshError::WrongKind) => "wrong_kind",
        Err(RefreshError::Storage(_)) => "storage_failed",
        Err(RefreshError::Interrupted) => "interrupted",
    }
}
