//! Makes redemptions exact where tokens live in requests, whose storages know nothing of each other.
//!
//! Two requests of one browser carry the same cookie, and with it the same refresh token. A ledger is a storage that
//! they do share: under the hash of a spent token it keeps the token's successor, sealed, for some minutes. It is filled
//! by the same protocol as any other storage, so that one of the requests redeems and the others adopt, also one that
//! comes late, from a browser that got the answers in the wrong order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::flight::Found;
use super::{DeadReason, Lease, Need, Redeem, RedeemError, RefreshError, Refresher, Verdict};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::secret::Secret;
use crate::storage::Precondition;
use crate::token::{Extra, OAuth2Token, Token};
use crate::tokens::Tokens;

/// How many successors a late request may be behind. A ledger forgets sooner.
const MOST_GENERATIONS: usize = 100;
/// How many outdated records to free at a time.
const PURGED: usize = 100;

/// One generation of a token: the hash of its secrets.
pub(super) type Generation = [u8; 32];

pub(super) fn generation(token: &OAuth2Token) -> Generation {
    let refresh_token = token.refresh_token.as_ref().map(Secret::expose).unwrap_or_default();
    let access_token = token.access_token.expose();
    let length = access_token.len() as u64;
    Sha256::new()
        .chain_update(length.to_be_bytes())
        .chain_update(access_token)
        .chain_update(refresh_token)
        .finalize()
        .into()
}

/// Redeems at the provider what nobody else has redeemed.
pub(super) struct OncePerGeneration {
    pub(super) ledger: Tokens,
    pub(super) refresher: Refresher,
    pub(super) provider_name: String,
    pub(super) provider: Arc<dyn Redeem>,
}

#[async_trait]
impl Redeem for OncePerGeneration {
    /// The lease that counts is the one on the entry of the ledger.
    async fn redeem(&self, token: &OAuth2Token, _: &Lease) -> Result<OAuth2Token, RedeemError> {
        let mut token = token.clone();
        for _ in 0..MOST_GENERATIONS {
            let found = self.successor_of(&token).await?;
            if found.redeemed || !found.token.is_expired_at(self.refresher.policy.clock.now()) {
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

    fn kept(&self, old: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        self.provider.kept(old, new)
    }

    async fn look_at(&self, old: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        self.provider.look_at(old, new).await
    }
}

/// The provider as the ledger sees it.
///
/// A new token is looked at by whoever keeps it, and stays in the ledger whole and whatever they find, so that the old one
/// is not redeemed again. And an entry that is gone was lost rather than given up: its token is kept here and not revoked.
struct Ledgered {
    provider: Arc<dyn Redeem>,
    /// Of the token in the request, for a provider that wants to see them.
    extra: Extra,
    answer: Mutex<Option<Result<OAuth2Token, RedeemError>>>,
}

impl Ledgered {
    fn answer(&self) -> MutexGuard<'_, Option<Result<OAuth2Token, RedeemError>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Redeem for Ledgered {
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let token = OAuth2Token { extra: self.extra.clone(), ..token.clone() };
        let answer = self.provider.redeem(&token, lease).await;
        *self.answer() = Some(answer.clone());
        answer
    }

    async fn revoke(&self, _: &OAuth2Token) {}
}

impl OncePerGeneration {
    async fn successor_of(&self, token: &OAuth2Token) -> Result<Found, RedeemError> {
        let generation = generation(token);
        let key = TokenKey::for_generation(&self.provider_name, URL_SAFE_NO_PAD.encode(generation))
            .map_err(|error| ledger_failed(&error))?;
        match self.ledger.put(&key, &without_extra(token), Precondition::Absent).await {
            Ok(_) | Err(TokensError::Storage(StorageError::Conflict | StorageError::Ambiguous { .. })) => {}
            Err(error) => return Err(ledger_failed(&error)),
        }
        let provider = Arc::clone(&self.provider);
        let ledgered = Arc::new(Ledgered { provider, extra: token.extra.clone(), answer: Mutex::default() });
        let provider: Arc<dyn Redeem> = Arc::clone(&ledgered) as _;
        let found = self.refresher.refresh(&self.ledger, &key, &provider, Need::After(generation)).await;
        let answer = ledgered.answer().take();
        let token = match (found, answer) {
            (Ok(found), _) => return Ok(found),
            (Err(RefreshError::NotConnected), Some(Ok(token))) => token,
            // An entry says less about it than the provider.
            (Err(_), Some(Err(told @ (RedeemError::Refused { .. } | RedeemError::Misconfigured { .. })))) => {
                return Err(told);
            }
            (Err(error), _) => return Err(self.meaning(error)),
        };
        // The ledger forgot it in the meantime. For the others it is put there again.
        if let Err(error) = self.ledger.put(&key, &Token::OAuth2(token.clone()), Precondition::Always).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the ledger lost a token, and takes it no more");
        }
        Ok(Found { token, redeemed: true })
    }

    /// What an entry of the ledger says about the refresh token. To ask again costs nothing, whatever has become of it.
    fn meaning(&self, error: RefreshError) -> RedeemError {
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

    /// Frees what is too old, so that an application which never purges does not fill its storage.
    fn purge(&self) {
        let storage = Arc::clone(self.ledger.storage());
        tokio::spawn(async move {
            if let Err(error) = storage.purge(PURGED).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "old records of the ledger were not purged");
            }
        });
    }
}

/// What an entry begins with. The other members are each cookie's own, and stay there.
fn without_extra(token: &OAuth2Token) -> Token {
    Token::OAuth2(OAuth2Token { extra: Extra::default(), ..token.clone() })
}

fn ledger_failed(error: &dyn std::fmt::Display) -> RedeemError {
    not_redeemed(format!("the ledger failed: {error}"))
}

fn not_redeemed(cause: impl Into<String>) -> RedeemError {
    RedeemError::NotRedeemed { cause: cause.into(), retry_after: None }
}
