//! Stores a new token.
//!
//! Until the token is stored, only this process has it, and the old refresh token is spent. Therefore a failed write is
//! retried until it succeeds, or until a logout or a login makes the token obsolete. If the storage can never accept
//! the whole token, a smaller one is stored, and its refresh token matters most.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::protocol::Refresh;
use super::single_flight::{RefreshResult, Refreshed};
use super::successor::{Relation, successor};
use super::{RefreshError, RefreshEvent, Verdict};
use crate::error::{StorageError, TokensError};
use crate::progress::{DeadReason, Progress, Stored, have_same_credentials};
use crate::record::{Version, Versioned};
use crate::scope_change::ScopeChange;
use crate::storage::Precondition;
use crate::token::{Extra, OAuth2Token, Token};

/// The pause before the first retry of a write. Each further pause is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(10);
/// How often a record may change while its token is being deleted.
const MAX_CHANGES: u32 = 100;

impl Refresh {
    /// Stores the new token over the claim under which it was redeemed. Returns when the token is stored, or when the
    /// user has logged out or in.
    pub(super) async fn commit(
        &self,
        old: OAuth2Token,
        redeemed: OAuth2Token,
        mut version: Version,
        claim: u64,
    ) -> RefreshResult {
        let to_store = self.provider.to_store(&old, &redeemed);
        let (mut parts, mut stored_token) = (Parts::All, old.clone());
        let mut new = parts.select(&old, &stored_token, &to_store);
        let mut pause = FIRST_RETRY;
        loop {
            let stored = Stored { token: Token::OAuth2(new.clone()), progress: self.need.progress() };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Ok(version) => {
                    self.observe_refresh(&old, &new);
                    return self.verify(&old, &redeemed, new, version).await;
                }
                Err(TokensError::Storage(StorageError::Conflict)) => match self.tokens.load(&self.key).await {
                    Ok(found) => match self.after_conflict(found, &old, &redeemed, &new, claim).await {
                        Next::Done(outcome) => return outcome,
                        Next::Merge(token, found) => {
                            new = parts.select(&old, &token, &to_store);
                            (stored_token, version) = (token, found);
                            continue;
                        }
                    },
                    Err(error) => self.serve_from_memory(&new, &old, &error),
                },
                Err(error) if is_final(&error) => {
                    let mut fewer = parts.fewer().map(|parts| (parts, parts.select(&old, &stored_token, &to_store)));
                    if let Some((fewer, smaller)) = fewer.find(|(_, smaller)| *smaller != new) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a refreshed token is stored without some of its members");
                        (parts, new) = (fewer, smaller);
                        continue;
                    }
                    let refreshed = Refreshed::redeemed(new, &old);
                    self.mark_spent(old, version, &error).await;
                    return Ok(refreshed);
                }
                Err(error) => self.serve_from_memory(&new, &old, &error),
            }
            sleep(pause).await;
            pause = MAX_RETRY.min(pause * 2);
        }
    }

    /// What to do after the record was found to be another one than the claimed one.
    async fn after_conflict(
        &self,
        found: Option<Versioned<Stored>>,
        old: &OAuth2Token,
        redeemed: &OAuth2Token,
        new: &OAuth2Token,
        claim: u64,
    ) -> Next {
        let Some(Versioned { value: Stored { token, progress }, version }) = found else {
            self.observe(&RefreshEvent::Dropped);
            self.publish(Err(RefreshError::NotConnected));
            // Best-effort: no caller waits for the result.
            let _ = timeout(self.policy.request_timeout(), self.provider.revoke(new)).await;
            return Next::Done(Err(RefreshError::NotConnected));
        };
        let Token::OAuth2(token) = token else { return Next::Done(Err(RefreshError::WrongKind)) };
        let is_claimed = matches!(progress, Progress::Claimed(found) if found.id == claim);
        match Relation::of(&token, old, new) {
            // A provider may issue the same token with a new expiry. While the record contains the claim, that is not stored.
            Relation::Same if !is_claimed => {
                self.observe_refresh(old, &token);
                Next::Done(self.verify(old, redeemed, token, version).await)
            }
            // The application has changed the record, or another process has taken over our claim.
            Relation::Same | Relation::Predecessor => Next::Merge(token, version),
            Relation::Unrelated => {
                if is_claimed {
                    self.release(&token, claim, version).await;
                }
                self.observe(&RefreshEvent::Adopted);
                Next::Done(Ok(Refreshed::found(token)))
            }
        }
    }

    /// Removes the claim from a record whose token is used instead of the new one, such as the token of a login that
    /// retained the refresh token.
    async fn release(&self, token: &OAuth2Token, claim: u64, version: Version) {
        if let Err(error) = self.store_progress(token.clone(), &Progress::Idle, claim, version).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the claim of a refresh could not be removed, and lasts until its lease ends");
        }
    }

    /// Verifies a token after it was stored. Deletes it if it must not be used.
    async fn verify(
        &self,
        old: &OAuth2Token,
        redeemed: &OAuth2Token,
        new: OAuth2Token,
        version: Version,
    ) -> RefreshResult {
        let verdict = timeout(self.policy.request_timeout(), self.provider.verify(old, redeemed)).await;
        let timed_out = |_| Verdict::Unverified { cause: "the verification timed out".to_owned() };
        let verdict = verdict.unwrap_or_else(timed_out);
        let event = match verdict {
            Verdict::Accepted => return Ok(Refreshed::redeemed(new, old)),
            Verdict::Unverified { cause } => {
                self.observe(&RefreshEvent::Unverified { cause });
                return Ok(Refreshed::redeemed(new, old));
            }
            Verdict::Ended => RefreshEvent::Dropped,
            Verdict::DifferentSubject { cause } => RefreshEvent::DifferentSubject { cause },
        };
        if self.outcome.borrow().is_some() {
            // The token was published while it could not be stored.
            self.publish(Err(RefreshError::NotConnected));
        }
        // The deletion is retried, because the next caller would get a token that must not be used.
        self.delete(&new, version).await;
        self.observe(&event);
        self.publish(Err(RefreshError::NotConnected));
        let _ = timeout(self.policy.request_timeout(), self.provider.revoke(&new)).await;
        Err(RefreshError::NotConnected)
    }

    /// Deletes the record if it still contains this token. The record may have a newer version, because the application
    /// has changed it, or because it was resealed or moved to another storage during the verification.
    async fn delete(&self, new: &OAuth2Token, mut version: Version) {
        let (mut pause, mut changes) = (FIRST_RETRY, 0);
        loop {
            let failed = match self.tokens.delete(&self.key, Some(version)).await {
                Ok(true) => return,
                Ok(false) | Err(TokensError::Storage(StorageError::Conflict)) => match self.version_of(new).await {
                    Ok(Some(found)) if changes < MAX_CHANGES => {
                        (version, changes) = (found, changes + 1);
                        continue;
                    }
                    Ok(Some(_)) => StorageError::Conflict.into(),
                    Err(TokensError::Storage(
                        error @ (StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }),
                    )) => error.into(),
                    // The token is gone. What this process cannot read was written by another one.
                    Ok(None) | Err(_) => return,
                },
                Err(error) => error,
            };
            let is_contended = matches!(failed, TokensError::Storage(StorageError::Conflict));
            let gives_up = is_contended || is_final(&failed);
            log_undeleted(&failed, gives_up);
            if gives_up {
                return;
            }
            sleep(pause).await;
            pause = MAX_RETRY.min(pause * 2);
        }
    }

    /// The version of the record if it contains this token.
    async fn version_of(&self, new: &OAuth2Token) -> Result<Option<Version>, TokensError> {
        let found = self.tokens.load(&self.key).await?;
        let is_new =
            |token: &OAuth2Token| token.access_token == new.access_token && token.refresh_token == new.refresh_token;
        Ok(found.filter(|found| found.value.token.as_oauth2().is_some_and(is_new)).map(|found| found.version))
    }

    /// Marks the refresh token as spent, because the storage will never accept its successor.
    async fn mark_spent(&self, old: OAuth2Token, mut version: Version, error: &TokensError) {
        self.observe(&RefreshEvent::NotStored);
        tracing::error!(
            provider = self.key.provider(),
            error = error as &dyn std::error::Error,
            "a refreshed token cannot be stored; the user must authorize again"
        );
        let spent = Token::OAuth2(old);
        let progress = Progress::Dead { reason: DeadReason::ResponseLost, since: self.policy.clock.now() };
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
        tracing::warn!(error = &failed as &dyn std::error::Error, "a spent refresh token could not be marked as spent");
    }

    /// Publishes a token that could not be stored yet.
    fn serve_from_memory(&self, new: &OAuth2Token, old: &OAuth2Token, error: &TokensError) {
        if self.outcome.borrow().is_none() {
            self.observe(&RefreshEvent::NotStored);
            tracing::error!(
                provider = self.key.provider(),
                error = error as &dyn std::error::Error,
                "a refreshed token could not be stored; it is served from memory while the write is retried"
            );
            self.publish(Ok(Refreshed::redeemed(new.clone(), old)));
        }
    }

    /// Reports a refresh, and a change of the scopes.
    fn observe_refresh(&self, old: &OAuth2Token, new: &OAuth2Token) {
        self.observe(&RefreshEvent::Refreshed);
        let change = old.scope.as_ref().map(|scope| ScopeChange::between(scope, new.scope.as_deref()));
        if let Some(change) = change.filter(|change| !change.is_empty()) {
            self.observe(&RefreshEvent::ScopeChanged(change));
        }
    }
}

/// What to do after a conflict.
enum Next {
    Done(RefreshResult),
    /// Store the new token over this token and version.
    Merge(OAuth2Token, Version),
}

/// Which parts of a new token to store, from all of them to the minimum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Parts {
    All,
    /// All parts except the members that the application added.
    Response,
    /// All parts except the members that the response added.
    AsBefore,
    /// No extra members.
    Tokens,
}

impl Parts {
    /// The smaller selections to try if this one is too large.
    fn fewer(self) -> impl Iterator<Item = Self> {
        [Self::Response, Self::AsBefore, Self::Tokens].into_iter().filter(move |fewer| *fewer > self)
    }

    /// The token to store: these parts of `new`, merged with `stored`.
    fn select(self, old: &OAuth2Token, stored: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let tokens = || OAuth2Token { extra: Extra::default(), id_token: None, ..new.clone() };
        match self {
            Self::All => successor(old, stored, new),
            Self::Response => new.clone(),
            Self::AsBefore => OAuth2Token { id_token: stored.id_token.clone(), ..successor(old, stored, &tokens()) },
            Self::Tokens => tokens(),
        }
    }
}

/// Logs that a token that must not be used is still stored.
fn log_undeleted(error: &TokensError, gives_up: bool) {
    let next = if gives_up { "" } else { "; the deletion is retried" };
    let error = error as &dyn std::error::Error;
    tracing::error!(error, "a token that must not be used could not be deleted{next}");
}

/// Whether a retry can never succeed.
fn is_final(error: &TokensError) -> bool {
    let TokensError::Storage(error) = error else { return false };
    matches!(error, StorageError::TooLarge { .. } | StorageError::KeyTooLong { .. } | StorageError::Unsupported(_))
}
