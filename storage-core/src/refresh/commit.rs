//! Storing a new token, which lives in this process only until it is stored.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::flight::{Found, Outcome};
use super::protocol::Refresh;
use super::state::{DeadReason, Progress, Stored};
use super::successor::{Standing, have_same_credentials, successor};
use super::{RefreshError, RefreshEvent, Verdict};
use crate::error::{StorageError, TokensError};
use crate::record::Version;
use crate::scope_change::ScopeChange;
use crate::storage::Precondition;
use crate::token::{OAuth2Token, Token};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

impl Refresh {
    /// Stores the new token over the claim it was redeemed under. Not before it is stored, or somebody has logged out or
    /// in, does it end: until then the new token lives here only, and the old refresh token is spent.
    pub(super) async fn commit(&self, old: OAuth2Token, redeemed: OAuth2Token, mut version: Version) -> Outcome {
        let answer = self.provider.kept(&old, &redeemed);
        let mut new = successor(&old, &old, &answer);
        let mut pause = FIRST_RETRY;
        loop {
            let stored = Stored { token: Token::OAuth2(new.clone()), progress: self.need.progress() };
            match self.tokens.save(&self.key, &stored, Precondition::Version(version)).await {
                Ok(version) => {
                    self.observe_refresh(&old, &new);
                    return self.look_at(&old, &redeemed, new, version).await;
                }
                Err(TokensError::Storage(StorageError::Conflict)) => match self.tokens.load(&self.key).await {
                    Ok(None) => {
                        self.observe(&RefreshEvent::Dropped);
                        self.tell(Err(RefreshError::NotConnected));
                        // Nobody waits for it, and it may fail.
                        let _ = timeout(self.policy.request_timeout(), self.provider.revoke(&new)).await;
                        return Err(RefreshError::NotConnected);
                    }
                    Ok(Some(found)) => {
                        let Token::OAuth2(token) = found.value.token else {
                            return Err(RefreshError::WrongKind);
                        };
                        match Standing::of(&token, &old, &new) {
                            Standing::Stored => {
                                self.observe_refresh(&old, &token);
                                return self.look_at(&old, &redeemed, token, found.version).await;
                            }
                            // The application has changed it, or another process has taken this one for dead.
                            Standing::Waiting => {
                                (new, version) = (successor(&old, &token, &answer), found.version);
                                continue;
                            }
                            Standing::Other => {
                                self.observe(&RefreshEvent::Adopted);
                                return Ok(Found { token, redeemed: false });
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
                    return Ok(Found { token: new, redeemed: true });
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
}

/// Whether the storage would answer the same for ever.
fn is_final(error: &TokensError) -> bool {
    let TokensError::Storage(error) = error else { return false };
    matches!(error, StorageError::TooLarge { .. } | StorageError::KeyTooLong { .. } | StorageError::Unsupported(_))
}
