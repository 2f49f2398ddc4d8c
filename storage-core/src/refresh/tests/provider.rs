//! A provider with single-use refresh tokens, which revokes the whole grant when a refresh token is replayed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::refresh::{Lease, Redeem, RedeemError, Verdict};
use crate::secret::Secret;
use crate::time::Clock;
use crate::token::OAuth2Token;

pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// The latency of one direction to the provider.
pub(crate) const LATENCY: Duration = Duration::from_millis(100);

/// What the provider does with one request. Without a script, it grants the request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behavior {
    Grant,
    /// Grants, without a new refresh token.
    GrantWithoutRotation,
    /// Grants the same tokens with a new expiry.
    Prolong,
    /// Grants, with an extra member.
    GrantWithProfile,
    /// Grants, after this long.
    GrantAfter(Duration),
    /// Responds `invalid_grant` to any refresh token.
    Dead,
    /// Refuses temporarily.
    Refuse {
        retry_after: Option<Duration>,
    },
    /// Refuses the refresh token with an unknown error.
    RefuseUnexplained,
    /// Responds with status 500 without checking the refresh token.
    Break,
    /// Responds `invalid_client`.
    Misconfigured,
    /// The request is lost in transit.
    LoseRequest,
    /// The refresh token is spent, and the response is lost.
    SpendAndLose,
    /// The refresh token is spent, and no response ever comes.
    Hang,
    Panic,
}

#[derive(Debug, Default)]
pub(crate) struct Provider {
    state: Mutex<ProviderState>,
}

#[derive(Debug, Default)]
pub(crate) struct ProviderState {
    grants: Vec<Grant>,
    pub(crate) scripted: VecDeque<Behavior>,
    /// How often a token request was prepared.
    pub(crate) prepared: u32,
    /// Token requests that were sent.
    pub(crate) calls: u32,
    pub(crate) redemptions: u32,
    /// Refresh tokens that were sent again after they were spent.
    pub(crate) replays: u32,
    /// Access tokens that were revoked on request.
    pub(crate) revoked: Vec<String>,
    /// The result of verifying a new token.
    pub(crate) verdict: Option<Verdict>,
    /// How long the verification takes.
    pub(crate) verified_after: Duration,
}

#[derive(Debug)]
struct Grant {
    generation: u32,
    alive: bool,
}

impl Provider {
    pub(crate) fn state(&self) -> MutexGuard<'_, ProviderState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn script(&self, behaviors: impl IntoIterator<Item = Behavior>) {
        self.state().scripted.extend(behaviors);
    }

    pub(crate) fn calls_and_replays(&self) -> (u32, u32) {
        let state = self.state();
        (state.calls, state.replays)
    }

    /// Starts a new grant and returns its first token.
    pub(crate) fn login(&self, clock: &Clock) -> OAuth2Token {
        let mut state = self.state();
        state.grants.push(Grant { generation: 0, alive: true });
        token(state.grants.len() - 1, 0, clock)
    }

    fn spend(&self, refresh_token: &str, clock: &Clock) -> Result<OAuth2Token, RedeemError> {
        let mut state = self.state();
        let (number, generation) = parse(refresh_token);
        let grant = &mut state.grants[number];
        let dead = Err(RedeemError::Dead { cause: "invalid_grant".to_owned() });
        if !grant.alive {
            return dead;
        }
        if grant.generation != generation {
            grant.alive = false;
            state.replays += 1;
            return dead;
        }
        grant.generation += 1;
        let mut new = token(number, grant.generation, clock);
        new.id_token = Some("to be verified, and not stored".into());
        state.redemptions += 1;
        Ok(new)
    }
}

fn token(grant: usize, generation: u32, clock: &Clock) -> OAuth2Token {
    let mut token = OAuth2Token::bearer(format!("access-{grant}-{generation}"));
    token.refresh_token = Some(format!("refresh-{grant}-{generation}").into());
    token.expires_at = Some(clock.now().saturating_add(TOKEN_LIFETIME));
    token.issued_at = Some(clock.now());
    token
}

fn parse(refresh_token: &str) -> (usize, u32) {
    let mut parts = refresh_token.split('-').skip(1);
    (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap())
}

/// One process's client of the provider.
pub(crate) struct Client {
    pub(crate) provider: Arc<Provider>,
    pub(crate) clock: Clock,
}

#[async_trait]
impl Redeem for Client {
    async fn prepare(&self) -> Result<(), RedeemError> {
        self.provider.state().prepared += 1;
        Ok(())
    }

    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let refresh_token = token.refresh_token.as_ref().map(Secret::expose).unwrap();
        let behavior = {
            let mut state = self.provider.state();
            state.calls += 1;
            state.scripted.pop_front().unwrap_or(Behavior::Grant)
        };
        // The time to open the connection.
        sleep(LATENCY).await;
        if lease.is_expired() {
            let mut state = self.provider.state();
            state.calls -= 1;
            state.scripted.push_front(behavior);
            return Err(RedeemError::LeaseExpired);
        }
        let spend = || self.provider.spend(refresh_token, &self.clock);
        let granted = match behavior {
            Behavior::Grant => spend(),
            Behavior::GrantWithoutRotation => {
                let mut new = token.clone();
                new.access_token = format!("{}+", token.access_token.expose()).into();
                new.expires_at = Some(self.clock.now().saturating_add(TOKEN_LIFETIME));
                Ok(new)
            }
            Behavior::Prolong => {
                let mut new = token.clone();
                new.expires_at = Some(self.clock.now().saturating_add(TOKEN_LIFETIME));
                Ok(new)
            }
            Behavior::GrantWithProfile => spend().map(|mut new| {
                new.extra = serde_json::Map::from_iter([("profile".to_owned(), "large".into())]).into();
                new
            }),
            Behavior::GrantAfter(time) => {
                sleep(time).await;
                spend()
            }
            Behavior::Dead => Err(RedeemError::Dead { cause: "invalid_grant".to_owned() }),
            Behavior::Refuse { retry_after } => Err(RedeemError::NotRedeemed { cause: "503".to_owned(), retry_after }),
            Behavior::RefuseUnexplained => {
                Err(RedeemError::Refused { cause: "unauthorized_client".to_owned(), retry_after: None })
            }
            Behavior::Break => Err(RedeemError::Unusable { cause: "500".to_owned(), retry_after: None }),
            Behavior::Misconfigured => Err(RedeemError::Misconfigured { cause: "invalid_client".to_owned() }),
            Behavior::LoseRequest => Err(RedeemError::Unknown { cause: "reset".to_owned(), retry_after: None }),
            Behavior::SpendAndLose => {
                drop(spend());
                Err(RedeemError::Unknown { cause: "reset".to_owned(), retry_after: None })
            }
            Behavior::Hang => {
                drop(spend());
                std::future::pending().await
            }
            Behavior::Panic => panic!("a bug in the application's Redeem"),
        };
        sleep(LATENCY).await;
        granted
    }

    fn to_store(&self, _: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let mut stored = new.clone();
        stored.id_token = None;
        stored
    }

    async fn verify(&self, _: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        let (verdict, after) = {
            let state = self.provider.state();
            (state.verdict.clone().filter(|_| new.id_token.is_some()), state.verified_after)
        };
        sleep(after).await;
        verdict.unwrap_or(Verdict::Accepted)
    }

    async fn revoke(&self, token: &OAuth2Token) {
        let next = {
            let mut state = self.provider.state();
            state.revoked.push(token.access_token.expose().to_owned());
            state.scripted.pop_front()
        };
        if matches!(next, Some(Behavior::Hang)) {
            std::future::pending::<()>().await;
        }
    }
}
