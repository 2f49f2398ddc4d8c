//! Refreshing a token exactly once, on any storage and any number of processes, with nothing but compare-and-swap.
//!
//! Where refresh tokens rotate (RFC 9700 section 4.14.2), redeeming one twice can make the provider revoke the whole
//! grant. So whoever wants to redeem one first writes a *claim* into the record, conditionally; the one who succeeds
//! redeems, and *commits* the new token conditionally on the claim. Everybody else watches the record.
//!
//! * The claim is written before the refresh token is sent: a storage that takes no writes is found out while nothing is
//!   spent yet.
//! * A claim whose owner died is taken over by whoever has seen it unchanged for as long as its lease, on their own
//!   clock. The token request is shorter than the lease by construction.
//! * A logout or a new login changes the version and so always beats a refresh under way, whose result is dropped.
//! * If the storage fails after the refresh token was spent, the new token is served from memory and written as soon as
//!   the storage is back. The old one is not sent again meanwhile.
//! * [`Refresher::refresh_due`] renews tokens before anybody asks, on as many replicas as there are.
//! * A provider that is down costs nobody a token: the record says until when to leave it alone and why.

mod commit;
mod credentials;
mod due;
mod event;
mod failure;
mod flight;
mod lease;
mod ledger;
mod policy;
mod protocol;
mod redeem;
mod rejected;
#[cfg(test)]
mod simulation;
mod state;
mod successor;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::key::TokenKey;
use crate::record::Versioned;
use crate::secret::Secret;
use crate::time::{Clock, Timestamp};
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;
pub use due::{Due, DueReport};
pub use event::{RefreshError, RefreshEvent};
use flight::{Flights, Found, Outcome};
pub use lease::Lease;
use ledger::{Generation, OncePerGeneration};
use policy::Policy;
use protocol::Refresh;
pub use redeem::{Redeem, RedeemError, Verdict};
pub use rejected::Rejection;
pub(crate) use state::{BackOff, Claim, Progress, Refusals, Stored, Tries};
pub use state::{Connection, ConnectionState, DeadReason};

/// Told about everything that happens.
type Observer = Arc<dyn Fn(&TokenKey, &RefreshEvent) + Send + Sync>;

/// Gives out tokens that can be used, and refreshes them where needed: exactly one redemption, whoever else asks.
///
/// Cloning is cheap; clones share the refreshes under way. See the [module](self) for the protocol.
#[derive(Clone)]
pub struct Refresher {
    policy: Policy,
    flights: Arc<Flights>,
    observer: Observer,
    ledger: Option<Tokens>,
}

impl Refresher {
    /// A refresher on the system's clock, with token requests of at most 20 seconds and a margin of a minute.
    pub fn new() -> Self {
        Self { policy: Policy::new(), flights: Arc::default(), observer: Arc::new(|_, _| {}), ledger: None }
    }

    /// Takes the time from another clock. Leases are counted on tokio's clock all the same.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.policy.clock = clock;
        self
    }

    /// Sets how long a token request may take, ten minutes at most. Leases are ten seconds longer.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.policy = self.policy.with_request_timeout(timeout);
        self
    }

    /// Sets how long before its expiry an access token is refreshed: at most this, at least half of it, and at most a
    /// quarter of its life.
    #[must_use]
    pub fn with_margin(mut self, margin: Duration) -> Self {
        self.policy.margin = margin;
        self
    }

    /// Tells about everything that happens. The function should return at once.
    #[must_use]
    pub fn with_observer(self, observer: impl Fn(&TokenKey, &RefreshEvent) + Send + Sync + 'static) -> Self {
        Self { observer: Arc::new(observer), ..self }
    }

    /// Redeems each token once also where the storage is [bound to a request](crate::Capabilities::request_bound): what
    /// became of a spent token is kept in this ledger, under a hash, which all processes have to share. Its
    /// [retention](Tokens::with_retention) is how late a request with an old cookie may come; make it minutes.
    ///
    /// Without a ledger two requests of a browser at the same time redeem the same refresh token, which ends the grant
    /// at a provider that rotates them.
    #[must_use]
    pub fn with_ledger(self, ledger: Tokens) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// A token that has not expired. One that is about to is returned as it is and refreshed in the background; one that
    /// has is refreshed first. Where the storage is bound to a request, both are refreshed first.
    ///
    /// # Errors
    /// [`RefreshError`].
    ///
    /// # Cancel safety
    /// The refresh runs in a task of its own: dropping this future aborts nothing and loses nothing.
    pub async fn usable(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
    ) -> Result<OAuth2Token, RefreshError> {
        let (token, progress) = match load(tokens, key).await {
            Err(error @ RefreshError::Storage(_)) => return self.kept(tokens, key).ok_or(error),
            found => found?,
        };
        if let Progress::Dead { reason: DeadReason::Rejected, since } = progress {
            return Err(RefreshError::NeedsAuthorization { reason: DeadReason::Rejected, since });
        }
        let now = self.policy.clock.now();
        if !self.policy.is_due(&token, now, self.policy.margin) {
            return Ok(token);
        }
        if let Some(kept) = self.kept(tokens, key) {
            return Ok(kept);
        }
        if token.is_expired_at(now) {
            return Ok(self.refresh(tokens, key, provider, Need::Unexpired).await?.token);
        }
        let may_start = match progress {
            Progress::Idle | Progress::Replaced => token.refresh_token.is_some(),
            // Whoever claimed it may be dead.
            Progress::Claimed(_) => true,
            Progress::BackingOff(back_off) => !back_off.is_in_force(now),
            Progress::Dead { .. } => false,
        };
        if !may_start {
            return Ok(token);
        }
        if tokens.storage().capabilities().request_bound {
            // What is written after the response is lost.
            let refreshed = self.refresh(tokens, key, provider, Need::NotDue(self.policy.margin)).await;
            return Ok(refreshed.map_or(token, |found| found.token));
        }
        drop(self.join(tokens, key, provider, Need::NotDue(self.policy.margin)));
        Ok(token)
    }

    /// A token other than one that the provider's API has just rejected: the stored one if it is another by now, or
    /// else a refreshed one.
    async fn instead_of(
        &self,
        rejected: &Secret,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
    ) -> Result<OAuth2Token, RefreshError> {
        Ok(self.refresh(tokens, key, provider, Need::Other(rejected.clone())).await?.token)
    }

    /// What is stored, expired or not, and how it stands. `None` if nothing is.
    ///
    /// # Errors
    /// [`RefreshError::Storage`].
    pub async fn connection(&self, tokens: &Tokens, key: &TokenKey) -> Result<Option<Connection>, RefreshError> {
        let Some(Versioned { value: Stored { token, progress }, .. }) = tokens.load(key).await? else {
            return Ok(None);
        };
        let now = self.policy.clock.now();
        let due = token.as_oauth2().is_some_and(|token| self.policy.is_due(token, now, self.policy.margin));
        let state = ConnectionState::of(&token, &progress, due, now);
        Ok(Some(Connection { token, state }))
    }

    /// Waits until no refresh is under way in this process: call it before it ends, so that no new token is lost.
    /// While the storage is down that takes until it is back, so set a limit.
    pub async fn finish(&self) {
        self.flights.all_landed().await;
    }

    async fn refresh(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
        need: Need,
    ) -> Result<Found, RefreshError> {
        let landed = async {
            loop {
                let mut outcome = self.join(tokens, key, provider, need.clone());
                let is_news = outcome.borrow().is_none();
                let found = match outcome.wait_for(Option::is_some).await {
                    Ok(outcome) => outcome.clone(),
                    Err(_) => return Err(RefreshError::Interrupted),
                };
                match found {
                    // What was just redeemed is as good as it gets, even if it came with no lifetime.
                    Some(Ok(found)) if found.redeemed && is_news || need.is_met_by(&found.token, &self.policy) => {
                        return Ok(found);
                    }
                    Some(Err(error)) => return Err(error),
                    // It was for less than this caller needs. The next one can start when it has ended.
                    _ => while outcome.changed().await.is_ok() {},
                }
            }
        };
        timeout(self.policy.longest_wait(), landed).await.unwrap_or(Err(RefreshError::Busy))
    }

    /// A token that only this process has, because the storage did not take it yet.
    fn kept(&self, tokens: &Tokens, key: &TokenKey) -> Option<OAuth2Token> {
        self.flights.kept(tokens, key).filter(|kept| Need::Unexpired.is_met_by(kept, &self.policy))
    }

    fn join(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
        need: Need,
    ) -> watch::Receiver<Option<Outcome>> {
        self.flights.join(tokens, key, |outcome| {
            let refresh = Refresh {
                tokens: tokens.clone(),
                key: key.clone(),
                provider: self.once(tokens, key, provider),
                need,
                policy: self.policy.clone(),
                observer: Arc::clone(&self.observer),
                outcome,
            };
            refresh.run()
        })
    }

    /// What redeems the tokens of a storage: the provider, behind the ledger where the storage needs one.
    fn once(&self, tokens: &Tokens, key: &TokenKey, provider: &Arc<dyn Redeem>) -> Arc<dyn Redeem> {
        let Some(ledger) = self.ledger.clone().filter(|_| tokens.storage().capabilities().request_bound) else {
            return Arc::clone(provider);
        };
        Arc::new(OncePerGeneration {
            ledger,
            // What happens to an entry of the ledger is news of no connection.
            refresher: Self { ledger: None, observer: Arc::new(|_, _| {}), ..self.clone() },
            provider_name: key.provider().to_owned(),
            provider: Arc::clone(provider),
        })
    }
}

impl Default for Refresher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher")
            .field("request_timeout", &self.policy.request_timeout())
            .field("margin", &self.policy.margin)
            .finish_non_exhaustive()
    }
}

/// When a caller is content.
#[derive(Clone)]
pub(crate) enum Need {
    /// With a token that has not expired.
    Unexpired,
    /// With a token that is not due to be refreshed within this margin either.
    NotDue(Duration),
    /// With a token obtained at this instant or later.
    Since(Timestamp),
    /// With any token but this one.
    Other(Secret),
    /// With a later token than this, expired or not.
    After(Generation),
}

impl Need {
    fn is_met_by(&self, token: &OAuth2Token, policy: &Policy) -> bool {
        let now = policy.clock.now();
        match self {
            Self::Unexpired => !token.is_expired_at(now),
            Self::NotDue(margin) => !policy.is_due(token, now, *margin),
            Self::Since(instant) => token.issued_at.is_some_and(|issued_at| issued_at >= *instant),
            Self::After(spent) => ledger::generation(token) != *spent,
            Self::Other(rejected) => token.access_token != *rejected && !token.is_expired_at(now),
        }
    }

    /// What is stored with a token that was refreshed for this.
    fn progress(&self) -> Progress {
        match self {
            Self::Other(_) => Progress::Replaced,
            _ => Progress::Idle,
        }
    }
}

async fn load(tokens: &Tokens, key: &TokenKey) -> Result<(OAuth2Token, Progress), RefreshError> {
    match tokens.load(key).await? {
        Some(Versioned { value: Stored { token: Token::OAuth2(token), progress }, .. }) => Ok((token, progress)),
        Some(_) => Err(RefreshError::WrongKind),
        None => Err(RefreshError::NotConnected),
    }
}
