//! The provider of the simulation, and the network to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::oracle::{TOKEN_LIFETIME, TokenId, token, token_id};
use super::process::Process;
use super::world::{Bug, Faults, World};
use crate::refresh::{Lease, Redeem, RedeemError};
use crate::time::Clock;
use crate::token::OAuth2Token;

/// One process's client of the provider.
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    pub(super) clock: Clock,
}

#[async_trait]
impl Redeem for Client {
    async fn redeem(&self, old: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        self.process.step().await;
        let id = token_id(old);
        self.world.oracle().called(self.world.start.elapsed(), id);
        // A request that timed out may still have arrived, if it left.
        let sent = Arc::new(AtomicBool::new(false));
        let mut guard = AllowReplayOnDrop { world: &self.world, id, sent: Arc::clone(&sent), armed: true };
        let mut redeemed = self.send(id, lease, &sent).await;
        if self.world.bug == Bug::Retries && matches!(redeemed, Err(RedeemError::Unknown { .. })) {
            redeemed = self.send(id, lease, &sent).await;
        }
        self.process.step().await;
        guard.armed = matches!(redeemed, Err(RedeemError::Unknown { .. }));
        if let Ok(new) = &redeemed {
            self.world.oracle().received(self.process.number, token_id(new));
        }
        redeemed
    }

    async fn revoke(&self, _: &OAuth2Token) {
        self.process.step().await;
    }
}

impl Client {
    async fn send(&self, id: TokenId, lease: &Lease, sent: &Arc<AtomicBool>) -> Result<OAuth2Token, RedeemError> {
        let (sender, response) = oneshot::channel();
        let request = Request {
            world: Arc::clone(&self.world),
            id,
            clock: self.clock.clone(),
            lease: lease.clone(),
            sent: Arc::clone(sent),
            suspended: self.process.suspend(id),
        };
        tokio::spawn(request.run(sender));
        match response.await {
            Ok(response) => response,
            Err(_) => std::future::pending().await,
        }
    }
}

/// A request that is about to leave. Its process may be suspended before.
struct Request {
    world: Arc<World>,
    id: TokenId,
    clock: Clock,
    lease: Lease,
    sent: Arc<AtomicBool>,
    suspended: Duration,
}

impl Request {
    async fn run(self, sender: oneshot::Sender<Result<OAuth2Token, RedeemError>>) {
        let Self { world, id, clock, lease, sent, suspended } = self;
        sleep(suspended).await;
        if lease.is_expired() && world.bug != Bug::IgnoresLease {
            world.oracle().not_sent(world.start.elapsed(), id);
            let _ = sender.send(Err(RedeemError::LeaseExpired));
            return;
        }
        if sender.is_closed() && !lease.is_expired() {
            // The request had timed out in the process, which has stored the failure.
            world.oracle().allow_replay(id);
        }
        sent.store(true, Ordering::SeqCst);
        world.oracle().sent(world.start.elapsed(), id);
        serve(world, id, clock, sender).await;
    }
}

/// A request in transit, which cannot be recalled.
async fn serve(
    world: Arc<World>,
    id: TokenId,
    clock: Clock,
    sender: oneshot::Sender<Result<OAuth2Token, RedeemError>>,
) {
    let unknown = || Err(RedeemError::Unknown { cause: "reset".to_owned(), retry_after: None });
    sleep(world.up_to(Duration::from_millis(1500))).await;
    if world.has_fault(20) {
        sleep(world.up_to(Duration::from_secs(40))).await;
    }
    if world.has_fault(50) {
        let retry_after = (world.below(2) == 0).then(|| world.up_to(Duration::from_secs(60)));
        let _ = sender.send(Err(RedeemError::NotRedeemed { cause: "503".to_owned(), retry_after }));
        return;
    }
    if world.has_fault(20) {
        let _ = sender.send(unknown());
        return;
    }
    // Without faults, only the clocks differ: by twenty minutes at most, plus the margin.
    let earliest = match world.faults {
        Faults::Off => TOKEN_LIFETIME - Duration::from_secs(1200 + 60 + 1),
        Faults::On => Duration::ZERO,
    };
    let granted = world.oracle().spend(world.start.elapsed(), id, earliest);
    sleep(world.up_to(Duration::from_millis(1500))).await;
    if world.has_fault(30) {
        let _ = sender.send(unknown());
        return;
    }
    if world.has_fault(20) {
        return;
    }
    let response = match granted {
        Some(new) => Ok(token(new, clock.now())),
        None => Err(RedeemError::Dead { cause: "invalid_grant".to_owned() }),
    };
    let _ = sender.send(response);
}

/// Allows one more replay of a refresh token, because its response was lost.
struct AllowReplayOnDrop<'a> {
    world: &'a World,
    id: TokenId,
    sent: Arc<AtomicBool>,
    armed: bool,
}

impl Drop for AllowReplayOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed && self.sent.load(Ordering::SeqCst) {
            self.world.oracle().allow_replay(self.id);
        }
    }
}
