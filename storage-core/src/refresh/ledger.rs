//! Redeems each refresh token once if the storages of requests are independent of each other, or have no atomic writes.
//!
//! Two concurrent requests of one browser carry the same cookie, and therefore the same refresh token. A ledger is a
//! storage that all requests share. For a few minutes, it stores the successor of each spent token, sealed, under a
//! hash of the spent token. Its entries are written by the same protocol: one request redeems the refresh token, and
//! the other requests adopt the result. So does a late request of a browser that received the responses in the wrong
//! order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::need::{Need, generation};
use super::single_flight::Refreshed;
use super::{Lease, Redeem, RedeemError, RefreshError, Refresher, Verdict};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::DeadReason;
use crate::storage::Precondition;
use crate::token::{Extra, OAuth2Token, Token};
use crate::tokens::Tokens;

/// The number of generations that a late request may be behind. The retention of a ledger ends much earlier.
const MAX_GENERATIONS: usize = 100;
/// The number of outdated records that are removed at a time.
const PURGE_LIMIT: usize = 100;

/// Redeems a refresh token at the provider unless the ledger has its successor.
struct RedeemOnce {
    ledger: Tokens,
    refresher: Refresher,
    provider_name: String,
    provider: Arc<dyn Redeem>,
}

impl Refresher {
    /// The provider, behind the ledger if the storage needs one.
    ///
    /// If the storage is bound to a request, other requests do not see its claims. If its preconditions are not atomic,
    /// two processes can write a claim at the same time.
    pub(super) fn redeem_once(&self, tokens: &Tokens, key: &TokenKey, provider: &Arc<dyn Redeem>) -> Arc<dyn Redeem> {
        let capabilities = tokens.storage().capabilities();
        let needs_ledger = capabilities.request_bound || !capabilities.atomic;
        let Some(ledger) = self.ledger.clone().filter(|_| needs_ledger) else {
            return Arc::clone(provider);
        };
        Arc::new(RedeemOnce {
            ledger,
            // Events of a ledger entry are not events of a connection.
            refresher: Self { ledger: None, observer: Arc::new(|_, _| {}), ..self.clone() },
            provider_name: key.provider().to_owned(),
            provider: Arc::clone(provider),
        })
    }
}

#[async_trait]
impl Redeem for RedeemOnce {
    fn can_redeem(&self, token: &OAuth2Token) -> bool {
        self.provider.can_redeem(token)
    }

    // `prepare` does nothing here, because the provider is not needed if the ledger already has the successor.

    /// Ignores the given lease, because the lease on the ledger entry applies.
    async fn redeem(&self, token: &OAuth2Token, _: &Lease) -> Result<OAuth2Token, RedeemError> {
        let mut token = token.clone();
        for _ in 0..MAX_GENERATIONS {
            let found = self.successor_of(&token).await?;
            if found.is_redeemed() || !found.token.is_expired_at(self.refresher.policy.clock.now()) {
                self.purge();
                return Ok(found.token);
            }
            token = found.token;
        }
        Err(not_redeemed("the token is too many generations old"))
    }

    async fn revoke(&self, token: &OAuth2Token) {
        self.provider.revoke(token).await;
    }

    fn to_store(&self, old: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        self.provider.to_store(old, new)
    }

    async fn verify(&self, old: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        self.provider.verify(old, new).await
    }
}

/// The provider behind one entry of the ledger.
///
/// The ledger stores a new token completely and without verification, so that the old one is not redeemed again. The
/// request verifies the token later. If an entry disappears, the ledger has lost it, because no user can log out of a
/// ledger. The token is therefore returned from memory, and not revoked.
struct LedgerProvider {
    provider: Arc<dyn Redeem>,
    /// The extra members of the token in the request, for a provider that needs them.
    extra: Extra,
    /// The result of the redemption, if this process has redeemed the token.
    redeemed: Mutex<Option<Result<OAuth2Token, RedeemError>>>,
}

impl LedgerProvider {
    fn redeemed(&self) -> MutexGuard<'_, Option<Result<OAuth2Token, RedeemError>>> {
        self.redeemed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Redeem for LedgerProvider {
    fn can_redeem(&self, token: &OAuth2Token) -> bool {
        self.provider.can_redeem(token)
    }

    async fn prepare(&self) -> Result<(), RedeemError> {
        self.provider.prepare().await
    }

    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let token = OAuth2Token { extra: self.extra.clone(), ..token.clone() };
        let redeemed = self.provider.redeem(&token, lease).await;
        *self.redeemed() = Some(redeemed.clone());
        redeemed
    }

    async fn revoke(&self, _: &OAuth2Token) {}
}

impl RedeemOnce {
    /// Finds the successor of a token in the ledger, or redeems the token.
    async fn successor_of(&self, token: &OAuth2Token) -> Result<Refreshed, RedeemError> {
        let (generation, replaced) = (generation(token), token.access_token.clone());
        let key = TokenKey::for_generation(&self.provider_name, URL_SAFE_NO_PAD.encode(generation))
            .map_err(|error| ledger_failed(&error))?;
        match self.ledger.put(&key, &without_extra(token), Precondition::Absent).await {
            Ok(_) | Err(TokensError::Storage(StorageError::Conflict | StorageError::Ambiguous { .. })) => {}
            Err(error) => return Err(ledger_failed(&error)),
        }
        let provider = Arc::clone(&self.provider);
        let entry = Arc::new(LedgerProvider { provider, extra: token.extra.clone(), redeemed: Mutex::default() });
        let provider: Arc<dyn Redeem> = Arc::clone(&entry) as _;
        let found = self.refresher.refresh(&self.ledger, &key, &provider, Need::SuccessorOf(generation)).await;
        let redeemed = entry.redeemed().take();
        let token = match (found, redeemed) {
            (Ok(found), _) => return Ok(found),
            (Err(RefreshError::NotConnected), Some(Ok(token))) => token,
            // The error of the provider is more precise than the state of the entry.
            (
                Err(_),
                Some(Err(
                    error @ (RedeemError::Refused { .. }
                    | RedeemError::Misconfigured { .. }
                    | RedeemError::Unusable { .. }),
                )),
            ) => return Err(error),
            (Err(error), _) => return Err(self.classify(error)),
        };
        // The ledger has lost the entry. It is written again for other requests.
        if let Err(error) = self.ledger.put(&key, &Token::OAuth2(token.clone()), Precondition::Always).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger lost a token, and the token could not be stored again"
            );
        }
        Ok(Refreshed { token, replaces: Some(replaced) })
    }

    /// What the error of a ledger entry means for the refresh token.
    fn classify(&self, error: RefreshError) -> RedeemError {
        let cause = error.to_string();
        match error {
            RefreshError::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, .. } => not_redeemed(cause),
            RefreshError::NeedsAuthorization { .. } => RedeemError::Dead { cause },
            RefreshError::BackingOff { until, cause } => {
                let retry_after = until.saturating_since(self.refresher.policy.clock.now());
                RedeemError::NotRedeemed { cause, retry_after: Some(retry_after) }
            }
            RefreshError::Storage(error) => ledger_failed(&error),
            _ => not_redeemed(cause),
        }
    }

    /// Removes outdated records in the background, so that the ledger of an application that never purges does not fill
    /// up.
    fn purge(&self) {
        let storage = Arc::clone(self.ledger.storage());
        tokio::spawn(async move {
            if let Err(error) = storage.purge(PURGE_LIMIT).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "outdated records of the ledger could not be purged"
                );
            }
        });
    }
}

/// The initial content of an entry. The extra members belong to a cookie, and are not shared.
fn without_extra(token: &OAuth2Token) -> Token {
    Token::OAuth2(OAuth2Token { extra: Extra::default(), ..token.clone() })
}

fn ledger_failed(error: &dyn std::fmt::Display) -> RedeemError {
    not_redeemed(format!("the ledger failed: {error}"))
}

fn not_redeemed(cause: impl Into<String>) -> RedeemError {
    RedeemError::NotRedeemed { cause: cause.into(), retry_after: None }
}
