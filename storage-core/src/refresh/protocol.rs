//! The protocol itself: claim, redeem, commit; wait and take over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::flight::{Found, Outcome};
use super::policy::{LONGEST_LEASE, Policy};
use super::state::{Claim, DeadReason, Progress, Stored, Tries};
use super::{Lease, Need, Observer, Redeem, RedeemError, RefreshError, RefreshEvent};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::record::{Version, Versioned};
use crate::storage::Precondition;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// How often one refresh may begin again, because the record changed or the process stood still.
const MOST_CLAIMS: u32 = 10;

/// One refresh of one key.
pub(super) struct Refresh {
    pub(super) tokens: Tokens,
    pub(super) key: TokenKey,
    pub(super) provider: Arc<dyn Redeem>,
    pub(super) need: Need,
    pub(super) policy: Policy,
    pub(super) observer: Observer,
    pub(super) outcome: watch::Sender<Option<Outcome>>,
}

/// A claim of ours in the storage, and what it is on.
struct Claimed {
    mark: Mark,
    old: OAuth2Token,
    tries: Tries,
    version: Version,
}

/// How a claim of ours is recognized, and how long it holds.
#[derive(Clone)]
struct Mark {
    id: u64,
    lease: Lease,
}

/// What to do after a step.
enum Next {
    Done(Outcome),
    /// The record changed: look at it again.
    LookAgain,
    /// Nothing was sent under this claim, and it is too late to.
    ClaimAgain(Mark),
}

impl Refresh {
    /// Runs to the end and tells the outcome. May go on after telling it, to store what only memory has.
    pub(super) async fn run(self) {
        let storage = self.tokens.storage().capabilities().name;
        let span = tracing::info_span!("token_refresh", provider = self.key.provider(), storage, outcome = Empty);
        let work = async {
            let outcome = self.to_the_end().await;
            Span::current().record("outcome", name_of(&outcome));
            self.tell(outcome);
        };
        work.instrument(span).await;
    }

    async fn to_the_end(&self) -> Outcome {
        let mut unused = None;
        for _ in 0..MOST_CLAIMS {
            let claimed = match self.claim(unused.take()).instrument(tracing::debug_span!("claim")).await? {
                Ok(claimed) => claimed,
                Err(token) => return Ok(Found { token, redeemed: false }),
            };
            match self.redeem(claimed).instrument(tracing::debug_span!("redeem")).await? {
                Next::Done(outcome) => return outcome,
                Next::LookAgain => {}
                Next::ClaimAgain(mark) => unused = Some(mark),
            }
        }
        Err(RefreshError::Busy)
    }

    /// Gets the claim, or finds a token that needs none: the inner `Err`. `ours` is a claim under which nothing was sent.
    async fn claim(&self, mut ours: Option<Mark>) -> Result<Result<Claimed, OAuth2Token>, RefreshError> {
        let mut give_up = Instant::now() + self.policy.longest_wait();
        let mut watched: Option<(u64, Instant)> = None;
        let mut takes_over = false;
        for looks in 0.. {
            if looks > 0 {
                sleep(self.policy.poll(looks - 1)).await;
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
            if token.refresh_token.is_none() {
                let since = token.expires_at.unwrap_or(now).min(now);
                return Err(RefreshError::NeedsAuthorization { reason: DeadReason::NoRefreshToken, since });
            }

            let tries = match progress {
                Progress::Idle | Progress::Replaced => Tries::default(),
                Progress::Dead { reason, since } => return Err(RefreshError::NeedsAuthorization { reason, since }),
                Progress::BackingOff(back_off) if back_off.is_in_force(now) => {
                    return Err(back_off.error());
                }
                Progress::BackingOff(back_off) => back_off.tries,
                Progress::Claimed(claim) => match &ours {
                    // A write of ours that was cut off has been done after all.
                    Some(mark) if mark.id == claim.id => {
                        if self.is_in_time(&mark.lease) {
                            self.observe_takeover(takes_over);
                            return Ok(Ok(Claimed { mark: mark.clone(), old: token, tries: claim.tries, version }));
                        }
                        claim.tries
                    }
                    _ => {
                        // Other writers may change the record around the claim.
                        let since = match watched {
                            Some((seen, since)) if seen == claim.id => since,
                            _ => Instant::now(),
                        };
                        watched = Some((claim.id, since));
                        let lease = claim.lease.min(LONGEST_LEASE);
                        // Another process may have been given more time than this one.
                        give_up = give_up.max(since + lease + self.policy.request_timeout());
                        if since.elapsed() < lease && Instant::now() < give_up {
                            continue;
                        }
                        takes_over = true;
                        // Its owner may have sent the refresh token before it died.
                        Tries { failed: claim.tries.failed.saturating_add(1), maybe_spent: true, ..claim.tries }
                    }
                },
            };
            if Instant::now() >= give_up {
                break;
            }

            let lease = Lease::start(self.policy.lease(), &self.policy.clock);
            let claim = Claim::new(now, self.policy.lease(), tries);
            let mark = Mark { id: claim.id, lease };
            let stored = Stored { token: Token::OAuth2(token.clone()), progress: Progress::Claimed(claim) };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Ok(version) if self.is_in_time(&mark.lease) => {
                    self.observe_takeover(takes_over);
                    return Ok(Ok(Claimed { mark, old: token, tries, version }));
                }
                Ok(_) | Err(TokensError::Storage(StorageError::Ambiguous { .. })) => ours = Some(mark),
                // Somebody else was faster, also with taking over.
                Err(TokensError::Storage(StorageError::Conflict)) => takes_over = false,
                Err(error) => return Err(error.into()),
            }
        }
        Err(RefreshError::Busy)
    }

    fn observe_takeover(&self, takes_over: bool) {
        if takes_over {
            self.observe(&RefreshEvent::TakenOver);
        }
    }

    /// Whether a token request that starts now ends before the lease does.
    fn is_in_time(&self, lease: &Lease) -> bool {
        lease.has_left(self.policy.request_timeout())
    }

    /// Redeems the refresh token, once, and writes down what came of it.
    async fn redeem(&self, claimed: Claimed) -> Result<Next, RefreshError> {
        let Claimed { mark, old, tries, version } = claimed;
        if !self.is_in_time(&mark.lease) {
            return Ok(Next::ClaimAgain(mark));
        }
        let answer = match timeout(self.policy.request_timeout(), self.provider.redeem(&old, &mark.lease)).await {
            Ok(answer) => answer,
            Err(_) => Err(RedeemError::Unknown { cause: "no answer in time".to_owned(), retry_after: None }),
        };
        match answer {
            Ok(mut new) => {
                new.issued_at = Some(self.policy.clock.now());
                Ok(Next::Done(self.commit(old, new, version).await))
            }
            Err(RedeemError::LeaseOver) => Ok(Next::ClaimAgain(mark)),
            Err(failure) => {
                let failed = self.failed(&failure, tries);
                // `None`: somebody has logged in or out meanwhile, or has taken over.
                Ok(self.note_failure(failed, old, mark.id, version).await.map_or(Next::LookAgain, Next::Done))
            }
        }
    }

    pub(super) fn tell(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    pub(super) fn observe(&self, event: &RefreshEvent) {
        tracing::info!(provider = self.key.provider(), event = event.name(), "token refresh");
        // A bug in there must not cost a token that is not stored yet.
        let told = catch_unwind(AssertUnwindSafe(|| (self.observer)(&self.key, event)));
        if told.is_err() {
            tracing::error!(event = event.name(), "the observer of token refreshes panicked");
        }
    }
}

/// A short name that stays the same, for spans.
fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(found) if found.redeemed => "refreshed",
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
