//! The protocol itself: claim, redeem, commit; wait and take over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::flight::{Found, Outcome};
use super::policy::{LONGEST_LEASE, Policy};
use super::state::{BackOff, Claim, DeadReason, Progress, Stored, Tries};
use super::successor::{Standing, have_same_credentials, successor};
use super::{Lease, Need, Observer, Redeem, RedeemError, RefreshError, RefreshEvent, Verdict};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::record::{Version, Versioned};
use crate::scope_change::ScopeChange;
use crate::storage::Precondition;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
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
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
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
                    return Err(RefreshError::BackingOff { until: back_off.until, cause: back_off.cause });
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
                        Tries { failed: claim.tries.failed.saturating_add(1), maybe_spent: true }
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
        let Claimed { mark, old, mut tries, version } = claimed;
        if !self.is_in_time(&mark.lease) {
            return Ok(Next::ClaimAgain(mark));
        }
        let answer = match timeout(self.policy.request_timeout(), self.provider.redeem(&old, &mark.lease)).await {
            Ok(answer) => answer,
            Err(_) => Err(RedeemError::Unknown { cause: "no answer in time".to_owned(), retry_after: None }),
        };
        let (progress, event, error) = match answer {
            Ok(mut new) => {
                new.issued_at = Some(self.policy.clock.now());
                return Ok(self.commit(old, new, version).await);
            }
            Err(RedeemError::LeaseOver) => return Ok(Next::ClaimAgain(mark)),
            Err(RedeemError::Dead { .. }) => {
                let reason = if tries.maybe_spent { DeadReason::AnswerLost } else { DeadReason::Refused };
                let since = self.policy.clock.now();
                (
                    Progress::Dead { reason, since },
                    RefreshEvent::NeedsAuthorization { reason },
                    RefreshError::NeedsAuthorization { reason, since },
                )
            }
            Err(failure) => {
                let until = self.policy.back_off(tries.failed, failure.retry_after());
                tries.failed = tries.failed.saturating_add(1);
                tries.maybe_spent |= matches!(failure, RedeemError::Unknown { .. });
                let cause = failure.to_string();
                let event = match failure {
                    RedeemError::Refused { cause, .. } => RefreshEvent::Refused { until, cause },
                    RedeemError::Misconfigured { cause } => {
                        tracing::error!(
                            provider = self.key.provider(),
                            cause,
                            "no token of this provider can be refreshed until the client's configuration is corrected"
                        );
                        RefreshEvent::Misconfigured { until, cause }
                    }
                    _ => RefreshEvent::BackingOff { until, cause: cause.clone() },
                };
                let back_off = BackOff { until, cause: cause.clone(), tries };
                (Progress::BackingOff(back_off), event, RefreshError::BackingOff { until, cause })
            }
        };
        match self.note(old, &progress, mark.id, version).await {
            Ok(true) => {}
            Ok(false) => return Ok(Next::LookAgain),
            // The claim stays, and whoever takes it over finds out the same.
            Err(failed) => tracing::warn!(error = &failed as &dyn std::error::Error, "a failed refresh was not noted"),
        }
        self.observe(&event);
        Ok(Next::Done(Err(error)))
    }

    /// Writes down over the claim why the refresh failed. `false` says that the record is no longer the claimed one.
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

    /// Stores the new token over the claim it was redeemed under. Not before it is stored, or somebody has logged out or
    /// in, does it end: until then the new token lives here only, and the old refresh token is spent.
    async fn commit(&self, old: OAuth2Token, redeemed: OAuth2Token, mut version: Version) -> Next {
        let answer = self.provider.kept(&old, &redeemed);
        let mut new = successor(&old, &old, &answer);
        let mut pause = FIRST_RETRY;
        loop {
            let stored = Stored { token: Token::OAuth2(new.clone()), progress: self.need.progress() };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Ok(version) => {
                    self.observe_refresh(&old, &new);
                    return Next::Done(self.look_at(&old, &redeemed, new, version).await);
                }
                Err(TokensError::Storage(StorageError::Conflict)) => match self.tokens.load(&self.key).await {
                    Ok(None) => {
                        self.observe(&RefreshEvent::Dropped);
                        self.tell(Err(RefreshError::NotConnected));
                        // Nobody waits for it, and it may fail.
                        let _ = timeout(self.policy.request_timeout(), self.provider.revoke(&new)).await;
                        return Next::Done(Err(RefreshError::NotConnected));
                    }
                    Ok(Some(found)) => {
                        let Token::OAuth2(token) = found.value.token else {
                            return Next::Done(Err(RefreshError::WrongKind));
                        };
                        match Standing::of(&token, &old, &new) {
                            Standing::Stored => {
                                self.observe_refresh(&old, &token);
                                return Next::Done(self.look_at(&old, &redeemed, token, found.version).await);
                            }
                            // The application has changed it, or another process has taken this one for dead.
                            Standing::Waiting => {
                                (new, version) = (successor(&old, &token, &answer), found.version);
                                continue;
                            }
                            Standing::Other => {
                                self.observe(&RefreshEvent::Adopted);
                                return Next::Done(Ok(Found { token, redeemed: false }));
                            }
                        }
                    }
                    Err(error) => self.keep(&new, &error),
                },
                // What the answer does not hold is given up first.
                Err(error) if is_final(&error) && new != answer => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a refreshed token is stored without members"
                    );
                    new = answer.clone();
                    continue;
                }
                Err(error) if is_final(&error) => {
                    self.give_up(old, version, &error).await;
                    return Next::Done(Ok(Found { token: new, redeemed: true }));
                }
                Err(error) => self.keep(&new, &error),
            }
            sleep(pause).await;
            pause = LONGEST_RETRY.min(pause * 2);
        }
    }

    /// What comes of a token that is stored: it is given out, or deleted if it turns out to be somebody else's.
    async fn look_at(&self, old: &OAuth2Token, redeemed: &OAuth2Token, new: OAuth2Token, version: Version) -> Outcome {
        let look = timeout(self.policy.request_timeout(), self.provider.look_at(old, redeemed));
        let verdict = look.await.unwrap_or_else(|_| Verdict::Doubtful { cause: "no answer in time".to_owned() });
        match verdict {
            Verdict::Good => {}
            Verdict::Doubtful { cause } => self.observe(&RefreshEvent::Doubtful { cause }),
            Verdict::Foreign { cause } => {
                // Where the storage fails, the next one to look finds a token that is not theirs, so it is tried hard.
                self.delete(version).await;
                self.observe(&RefreshEvent::Foreign { cause });
                self.tell(Err(RefreshError::NotConnected));
                let _ = timeout(self.policy.request_timeout(), self.provider.revoke(&new)).await;
                return Err(RefreshError::NotConnected);
            }
        }
        Ok(Found { token: new, redeemed: true })
    }

    /// Deletes the record, unless it has changed meanwhile.
    async fn delete(&self, version: Version) {
        let mut pause = FIRST_RETRY;
        loop {
            match self.tokens.delete(&self.key, Some(version)).await {
                Ok(_) | Err(TokensError::Storage(StorageError::Conflict)) => return,
                Err(error) if is_final(&error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a token of somebody else is not deleted"
                    );
                    return;
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a token of somebody else stays for now");
                }
            }
            sleep(pause).await;
            pause = LONGEST_RETRY.min(pause * 2);
        }
    }

    /// Writes down that the refresh token is spent, where the storage will never take its successor.
    async fn give_up(&self, old: OAuth2Token, mut version: Version, error: &TokensError) {
        self.observe(&RefreshEvent::NotStored);
        tracing::error!(
            provider = self.key.provider(),
            error = error as &dyn std::error::Error,
            "a refreshed token cannot be stored; the user must authorize again"
        );
        let spent = Token::OAuth2(old);
        let progress = Progress::Dead { reason: DeadReason::AnswerLost, since: self.policy.clock.now() };
        let mut token = spent.clone();
        let failed = loop {
            let stored = Stored { token, progress: progress.clone() };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Ok(_) => return,
                Err(TokensError::Storage(StorageError::Conflict)) => {}
                Err(failed) => break failed,
            }
            match self.tokens.load(&self.key).await {
                Ok(Some(found)) if have_same_credentials(&found.value.token, &spent) => {
                    (token, version) = (found.value.token, found.version);
                }
                Ok(_) => return,
                Err(failed) => break failed,
            }
        };
        tracing::warn!(error = &failed as &dyn std::error::Error, "a spent refresh token was not noted");
    }

    /// Serves a token that could not be stored yet.
    fn keep(&self, new: &OAuth2Token, error: &TokensError) {
        if self.outcome.borrow().is_none() {
            self.observe(&RefreshEvent::NotStored);
            tracing::error!(
                provider = self.key.provider(),
                error = error as &dyn std::error::Error,
                "a refreshed token could not be stored; it is served from memory and tried again"
            );
            self.tell(Ok(Found { token: new.clone(), redeemed: true }));
        }
    }

    fn observe_refresh(&self, old: &OAuth2Token, new: &OAuth2Token) {
        self.observe(&RefreshEvent::Refreshed);
        let change = old.scope.as_ref().map(|scope| ScopeChange::between(scope, new.scope.as_deref()));
        if let Some(change) = change.filter(|change| !change.is_empty()) {
            self.observe(&RefreshEvent::ScopeChanged(change));
        }
    }

    fn tell(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    fn observe(&self, event: &RefreshEvent) {
        tracing::info!(provider = self.key.provider(), event = event.name(), "token refresh");
        // A bug in there must not cost a token that is not stored yet.
        let told = catch_unwind(AssertUnwindSafe(|| (self.observer)(&self.key, event)));
        if told.is_err() {
            tracing::error!(event = event.name(), "the observer of token refreshes panicked");
        }
    }
}

/// Whether the storage would answer the same for ever.
fn is_final(error: &TokensError) -> bool {
    let TokensError::Storage(error) = error else { return false };
    matches!(error, StorageError::TooLarge { .. } | StorageError::KeyTooLong { .. } | StorageError::Unsupported(_))
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
