//! The entry point of the refresh protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::{Connection, ConnectionState};
use super::event::Observer;
use super::need::Need;
use super::policy::Policy;
use super::protocol::Refresh;
use super::single_flight::{InFlight, RefreshResult, Refreshed};
use super::{Redeem, RefreshError, RefreshEvent};
use crate::key::TokenKey;
use crate::progress::{DeadReason, Progress, Stored};
use crate::record::{Version, Versioned};
use crate::secret::Secret;
use crate::time::Clock;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// Returns usable tokens, and refreshes them if necessary. Each refresh token is redeemed exactly once, even if many
/// callers and processes need it at the same time.
///
/// A clone is cheap and shares the refreshes in flight. Create one refresher for all users and providers. The
/// [module](crate::refresh) describes the protocol.
///
/// ```
/// # use std::time::Duration;
/// # use oauth_dance_core::{Clock, Lease, RedeemError, async_trait};
/// use std::sync::Arc;
///
/// use oauth_dance_core::{
///     KeyRing, MemoryStorage, OAuth2Token, Precondition, Redeem, Refresher, Timestamp, TokenKey, Tokens,
/// };
/// # struct Example;
/// # #[async_trait]
/// # impl Redeem for Example {
/// #     async fn redeem(&self, token: &OAuth2Token, _: &Lease) -> Result<OAuth2Token, RedeemError> {
/// #         let mut new = token.clone();
/// #         new.access_token = "second".into();
/// #         new.expires_at = Some(Clock::system().now().saturating_add(Duration::from_secs(3600)));
/// #         Ok(new)
/// #     }
/// #     async fn revoke(&self, _: &OAuth2Token) {}
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
/// let key = TokenKey::new("example", "alice")?;
/// let mut token = OAuth2Token::bearer("first");
/// token.refresh_token = Some("refresh".into());
/// token.expires_at = Some(Timestamp::from_unix_seconds(1_700_000_000));
/// tokens.put(&key, &token.into(), Precondition::Always).await?;
///
/// let refresher = Refresher::new();
/// let provider: Arc<dyn Redeem> = Arc::new(Example); // see `Redeem`
/// let usable = refresher.usable(&tokens, &key, &provider).await?;
/// assert_eq!(usable.access_token, "second".into());
///
/// refresher.finish().await; // before the process exits
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Refresher {
    pub(super) policy: Policy,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) observer: Observer,
    pub(super) ledger: Option<Tokens>,
}

impl Refresher {
    /// A refresher on the system clock. A token request takes at most 20 seconds, and the margin is one minute.
    pub fn new() -> Self {
        Self { policy: Policy::new(), in_flight: Arc::default(), observer: Arc::new(|_, _| {}), ledger: None }
    }

    /// Reads the time from another clock. Leases are still measured on tokio's clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.policy.clock = clock;
        self
    }

    /// Sets how long a token request may take. The default is 20 seconds, and the maximum is ten minutes.
    ///
    /// A lease is ten seconds longer. After a process has died, other processes wait for the rest of its lease, so a
    /// longer timeout also delays them longer.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.policy = self.policy.with_request_timeout(timeout);
        self
    }

    /// Sets how long before its expiry an access token is refreshed. The default is one minute.
    ///
    /// The actual time is between the half and the whole of this margin, and at most a quarter of the token's lifetime.
    /// It differs between tokens, so that tokens that were issued together are not refreshed together.
    #[must_use]
    pub fn with_margin(mut self, margin: Duration) -> Self {
        self.policy.margin = margin;
        self
    }

    /// Calls a function for every event, such as to log it. The function must not block, because the refresh waits for
    /// it. A panic of the function is logged and has no other effect.
    #[must_use]
    pub fn with_observer(self, observer: impl Fn(&TokenKey, &RefreshEvent) + Send + Sync + 'static) -> Self {
        Self { observer: Arc::new(observer), ..self }
    }

    /// Redeems each refresh token once, even if the storage is [bound to a
    /// request](crate::Capabilities::request_bound) or has no [atomic](crate::Capabilities::atomic) writes.
    ///
    /// Without a ledger, two concurrent requests of one browser redeem the same refresh token. A provider that rotates
    /// refresh tokens then revokes the grant. Any other storage does not need the ledger, and does not use it.
    ///
    /// The ledger stores the successor of each spent token under a hash of the spent token. All processes have to share
    /// the ledger. Its [retention](Tokens::with_retention) limits how late a request with an old cookie may arrive.
    /// Choose a few minutes.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use oauth_dance_core::{KeyRing, MemoryStorage, Refresher, Tokens};
    ///
    /// let shared = MemoryStorage::new(); // in production, a storage that all processes share
    /// let ledger = Tokens::sealed(shared, KeyRing::generate()).with_retention(Duration::from_secs(600));
    /// let refresher = Refresher::new().with_ledger(ledger);
    /// # let _ = refresher;
    /// ```
    #[must_use]
    pub fn with_ledger(self, ledger: Tokens) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// Returns an access token that has not expired.
    ///
    /// A token that has expired is refreshed first. A token that is about to expire is returned as it is, and refreshed
    /// in the background. If the storage is bound to a request, both are refreshed first, because a write in the
    /// background would be lost.
    ///
    /// # Errors
    /// [`RefreshError`], which has a variant for each action of the caller. While a refresh fails temporarily, an
    /// access token that has not expired is still returned.
    ///
    /// # Cancel safety
    /// The refresh runs in a task of its own. Dropping this future neither aborts the refresh nor loses a token.
    pub async fn usable(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
    ) -> Result<OAuth2Token, RefreshError> {
        if let Some(Token::OAuth2(token)) = self.cached(tokens, key).map(Arc::unwrap_or_clone) {
            return Ok(token);
        }
        let (token, progress, _) = match load(tokens, key).await {
            Err(error @ RefreshError::Storage(_)) => {
                return self.unstored(tokens, key).map(|unstored| unstored.token).ok_or(error);
            }
            found => found?,
        };
        if let Progress::Dead { reason: DeadReason::Rejected, since } = progress {
            return Err(RefreshError::NeedsAuthorization { reason: DeadReason::Rejected, since });
        }
        let now = self.policy.clock.now();
        let is_due = self.policy.is_due(&token, now, self.policy.margin);
        // The API may have rejected a token that is not due. Only the token that was redeemed is replaced, because
        // another one may be of a newer login.
        let is_replaced = |unstored: &Refreshed| is_due || unstored.replaces.as_ref() == Some(&token.access_token);
        if let Some(unstored) = self.unstored(tokens, key).filter(is_replaced) {
            return Ok(unstored.token);
        }
        if !is_due {
            return Ok(token);
        }
        if token.is_expired_at(now) {
            return Ok(self.refresh(tokens, key, provider, Need::Unexpired).await?.token);
        }
        let may_start = match progress {
            Progress::Idle | Progress::Replaced => provider.can_redeem(&token),
            // The owner of the claim may have died.
            Progress::Claimed(_) => true,
            Progress::BackingOff(back_off) => !back_off.is_in_force(now),
            Progress::Dead { .. } => false,
        };
        if !may_start {
            return Ok(token);
        }
        if tokens.storage().capabilities().request_bound {
            // A write after the response would be lost.
            let refreshed = self.refresh(tokens, key, provider, Need::NotDue(self.policy.margin)).await;
            return Ok(refreshed.map_or(token, |refreshed| refreshed.token));
        }
        drop(self.join(tokens, key, provider, Need::NotDue(self.policy.margin)));
        Ok(token)
    }

    /// Looks up the token in the [cache](crate::Tokens#method.with_cache), and shares it without a copy. Reads no storage.
    ///
    /// Returns `None` if there is no cache, if it does not contain the token, if the token is due for a refresh, or if the
    /// user must authorize again. Then call [`usable`](Self::usable) or [`credentials`](Self::credentials), which begin
    /// with the same look-up. The token may be of either kind. A write of another process may be seen late.
    pub fn cached(&self, tokens: &Tokens, key: &TokenKey) -> Option<Arc<Token>> {
        // Any other state in the cache may be outdated.
        tokens.cached(key).filter(|token| match &**token {
            Token::OAuth2(token) => {
                let is_due = self.policy.is_due(token, self.policy.clock.now(), self.policy.margin);
                !is_due && self.unstored(tokens, key).is_none()
            }
            Token::OAuth1(_) => true,
        })
    }

    /// Returns another token than the one that the provider's API has rejected: the stored token if it differs, or a
    /// refreshed token.
    pub(super) async fn refresh_rejected(
        &self,
        rejected: &Secret,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
    ) -> Result<OAuth2Token, RefreshError> {
        Ok(self.refresh(tokens, key, provider, Need::OtherThan(rejected.clone())).await?.token)
    }

    /// Returns the stored token, expired or not, and its state. `None` if no token is stored. Refreshes nothing, so it
    /// can be used for a page that lists connections.
    ///
    /// # Errors
    /// [`RefreshError::Storage`] if the storage failed or the token cannot be read.
    pub async fn connection(&self, tokens: &Tokens, key: &TokenKey) -> Result<Option<Connection>, RefreshError> {
        let Some(Versioned { value: Stored { token, progress }, .. }) = tokens.load(key).await? else {
            return Ok(None);
        };
        let now = self.policy.clock.now();
        let due = token.as_oauth2().is_some_and(|token| self.policy.is_due(token, now, self.policy.margin));
        let state = ConnectionState::of(&token, &progress, due, now);
        Ok(Some(Connection { token, state }))
    }

    /// Waits until no refresh is in flight in this process. Call this before the process exits, so that no new token is
    /// lost.
    ///
    /// While the storage is unavailable, this waits until it is back. Set a timeout.
    ///
    /// # Cancel safety
    /// Dropping this future has no effect on the refreshes.
    pub async fn finish(&self) {
        self.in_flight.wait_until_idle().await;
    }

    /// Waits for a refresh of this key until the token meets the need.
    pub(super) async fn refresh(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
        need: Need,
    ) -> Result<Refreshed, RefreshError> {
        let refreshed = async {
            loop {
                let mut outcome = self.join(tokens, key, provider, need.clone());
                let is_new = outcome.borrow().is_none();
                let found = match outcome.wait_for(Option::is_some).await {
                    Ok(outcome) => outcome.clone(),
                    Err(_) => return Err(RefreshError::Interrupted),
                };
                match found {
                    // No refresh can return a better token than one that was just redeemed, even one without a
                    // lifetime.
                    Some(Ok(found)) if found.is_redeemed() && is_new || need.is_met_by(&found.token, &self.policy) => {
                        return Ok(found);
                    }
                    Some(Err(error)) => return Err(error),
                    // The refresh was started for a weaker need than this caller's. Another one can start when it has
                    // ended.
                    _ => while outcome.changed().await.is_ok() {},
                }
            }
        };
        timeout(self.policy.max_wait(), refreshed).await.unwrap_or(Err(RefreshError::Busy))
    }

    /// A token that only this process has, because the storage has not accepted it yet.
    fn unstored(&self, tokens: &Tokens, key: &TokenKey) -> Option<Refreshed> {
        let refreshed = self.in_flight.unstored_token(tokens, key)?;
        Need::Unexpired.is_met_by(&refreshed.token, &self.policy).then_some(refreshed)
    }

    /// Joins the refresh of this key, or starts one.
    fn join(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
        need: Need,
    ) -> watch::Receiver<Option<RefreshResult>> {
        self.in_flight.join(tokens, key, |outcome| {
            let refresh = Refresh {
                tokens: tokens.clone(),
                key: key.clone(),
                provider: self.redeem_once(tokens, key, provider),
                need,
                policy: self.policy.clone(),
                observer: Arc::clone(&self.observer),
                has_ledger: self.ledger.is_some(),
                outcome,
            };
            refresh.run()
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

/// Reads a token of OAuth 2.0 and the state of its refresh.
pub(super) async fn load(tokens: &Tokens, key: &TokenKey) -> Result<(OAuth2Token, Progress, Version), RefreshError> {
    match tokens.load(key).await? {
        Some(Versioned { value: Stored { token: Token::OAuth2(token), progress }, version }) => {
            Ok((token, progress, version))
        }
        Some(_) => Err(RefreshError::WrongKind),
        None => Err(RefreshError::NotConnected),
    }
}
