//! A provider with single-use refresh tokens that revokes the whole grant when one comes twice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::refresh::{Lease, Redeem, RedeemError, Verdict};
use crate::secret::Secret;
use crate::time::Clock;
use crate::token::OAuth2Token;

pub(crate) const LIFE: Duration = Duration::from_secs(3600);
/// One way to or from the provider.
pub(crate) const WAY: Duration = Duration::from_millis(100);

/// What the provider does with one request. Without a script it grants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Grant,
    /// Grants, and gives no new refresh token.
    GrantWithoutRotation,
    /// Grants, after this long.
    GrantAfter(Duration),
    /// `invalid_grant`, whatever the refresh token.
    Dead,
    /// Refuses for now.
    Refuse {
        retry_after: Option<Duration>,
    },
    /// Refuses the refresh token with an error that nobody knows.
    RefuseUnexplained,
    /// `invalid_client`.
    Misconfigured,
    /// The request is lost on its way.
    LoseRequest,
    /// The refresh token is spent, and the answer lost.
    SpendAndLose,
    /// The refresh token is spent, and no answer ever comes.
    Hang,
    Panic,
}

#[derive(Debug, Default)]
pub(crate) struct Provider {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    grants: Vec<Grant>,
    pub(crate) script: VecDeque<Answer>,
    /// Token requests that were sent.
    pub(crate) calls: u32,
    pub(crate) redemptions: u32,
    /// Refresh tokens that came again after they were spent.
    pub(crate) replays: u32,
    /// Access tokens that were revoked on request.
    pub(crate) revoked: Vec<String>,
    /// What is found when a new token is looked at.
    pub(crate) verdict: Option<Verdict>,
}

#[derive(Debug)]
struct Grant {
    generation: u32,
    alive: bool,
}

impl Provider {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn will(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().script.extend(answers);
    }

    pub(crate) fn calls_and_replays(&self) -> (u32, u32) {
        let state = self.state();
        (state.calls, state.replays)
    }

    /// A new grant: its number, and its first token.
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
        new.id_token = Some("to be looked at, and not kept".into());
        state.redemptions += 1;
        Ok(new)
    }
}

fn token(grant: usize, generation: u32, clock: &Clock) -> OAuth2Token {
    let mut token = OAuth2Token::bearer(format!("access-{grant}-{generation}"));
    token.refresh_token = Some(format!("refresh-{grant}-{generation}").into());
    token.expires_at = Some(clock.now().saturating_add(LIFE));
    token.issued_at = Some(clock.now());
    token
}

fn parse(refresh_token: &str) -> (usize, u32) {
    let mut parts = refresh_token.split('-').skip(1);
    (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap())
}

/// What one process reaches the provider with.
pub(crate) struct Client {
    pub(crate) provider: Arc<Provider>,
    pub(crate) clock: Clock,
}

#[async_trait]
impl Redeem for Client {
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let refresh_token = token.refresh_token.as_ref().map(Secret::expose).unwrap();
        let answer = {
            let mut state = self.provider.state();
            state.calls += 1;
            state.script.pop_front().unwrap_or(Answer::Grant)
        };
        // The connection is set up.
        sleep(WAY).await;
        if lease.is_over() {
            let mut state = self.provider.state();
            state.calls -= 1;
            state.script.push_front(answer);
            return Err(RedeemError::LeaseOver);
        }
        let spend = || self.provider.spend(refresh_token, &self.clock);
        let granted = match answer {
            Answer::Grant => spend(),
            Answer::GrantWithoutRotation => {
                let mut new = token.clone();
                new.access_token = format!("{}+", token.access_token.expose()).into();
                new.expires_at = Some(self.clock.now().saturating_add(LIFE));
                Ok(new)
            }
            Answer::GrantAfter(time) => {
                sleep(time).await;
                spend()
            }
            Answer::Dead => Err(RedeemError::Dead { cause: "invalid_grant".to_owned() }),
            Answer::Refuse { retry_after } => Err(RedeemError::NotRedeemed { cause: "503".to_owned(), retry_after }),
            Answer::RefuseUnexplained => {
                Err(RedeemError::Refused { cause: "unauthorized_client".to_owned(), retry_after: None })
            }
            Answer::Misconfigured => Err(RedeemError::Misconfigured { cause: "invalid_client".to_owned() }),
            Answer::LoseRequest => Err(RedeemError::Unknown { cause: "reset".to_owned(), retry_after: None }),
            Answer::SpendAndLose => {
                drop(spend());
                Err(RedeemError::Unknown { cause: "reset".to_owned(), retry_after: None })
            }
            Answer::Hang => {
                drop(spend());
                std::future::pending().await
            }
            Answer::Panic => panic!("a bug in the application's Redeem"),
        };
        sleep(WAY).await;
        granted
    }

    fn kept(&self, _: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let mut kept = new.clone();
        kept.id_token = None;
        kept
    }

    async fn look_at(&self, _: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        let verdict = self.provider.state().verdict.clone().filter(|_| new.id_token.is_some());
        verdict.unwrap_or(Verdict::Good)
    }

    async fn revoke(&self, token: &OAuth2Token) {
        let next = {
            let mut state = self.provider.state();
            state.revoked.push(token.access_token.expose().to_owned());
            state.script.pop_front()
        };
        if matches!(next, Some(Answer::Hang)) {
            std::future::pending::<()>().await;
        }
    }
}
