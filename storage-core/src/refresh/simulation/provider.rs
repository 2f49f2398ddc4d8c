use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::books::{LIFE, Link, link_of, token};
use super::process::Life;
use super::world::{Bug, Weather, World};
use crate::refresh::{Lease, Redeem, RedeemError};
use crate::time::Clock;
use crate::token::OAuth2Token;

/// What one process reaches the provider with.
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    pub(super) clock: Clock,
}

#[async_trait]
impl Redeem for Client {
    async fn redeem(&self, old: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        self.life.step().await;
        let link = link_of(old);
        self.world.books().called(self.world.start.elapsed(), link);
        // A request that is given up may have arrived all the same, if it left.
        let sent = Arc::new(AtomicBool::new(false));
        let mut doubt = Doubt { world: &self.world, link, sent: Arc::clone(&sent), armed: true };
        let mut answer = self.send(link, lease, &sent).await;
        if self.world.bug == Bug::TriesTwice && matches!(answer, Err(RedeemError::Unknown { .. })) {
            answer = self.send(link, lease, &sent).await;
        }
        self.life.step().await;
        doubt.armed = matches!(answer, Err(RedeemError::Unknown { .. }));
        if let Ok(new) = &answer {
            self.world.books().received(self.life.number, link_of(new));
        }
        answer
    }

    async fn revoke(&self, _: &OAuth2Token) {
        self.life.step().await;
    }
}

impl Client {
    async fn send(&self, link: Link, lease: &Lease, sent: &Arc<AtomicBool>) -> Result<OAuth2Token, RedeemError> {
        let (sender, answer) = oneshot::channel();
        let request = Request {
            world: Arc::clone(&self.world),
            link,
            clock: self.clock.clone(),
            lease: lease.clone(),
            sent: Arc::clone(sent),
            asleep: self.life.is_suspended(link),
        };
        tokio::spawn(request.run(sender));
        match answer.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }
}

/// A request that is about to leave. Its process may stand still before, and goes on where it was.
struct Request {
    world: Arc<World>,
    link: Link,
    clock: Clock,
    lease: Lease,
    sent: Arc<AtomicBool>,
    asleep: Duration,
}

impl Request {
    async fn run(self, sender: oneshot::Sender<Result<OAuth2Token, RedeemError>>) {
        let Self { world, link, clock, lease, sent, asleep } = self;
        sleep(asleep).await;
        if lease.is_over() && world.bug != Bug::IgnoresLease {
            world.books().not_sent(world.start.elapsed(), link);
            let _ = sender.send(Err(RedeemError::LeaseOver));
            return;
        }
        if sender.is_closed() && !lease.is_over() {
            // The process had given it up by then, and has noted so.
            world.books().excuse(link);
        }
        sent.store(true, Ordering::SeqCst);
        world.books().sent(world.start.elapsed(), link);
        serve(world, link, clock, sender).await;
    }
}

/// The request on its way, which nobody can call back.
async fn serve(world: Arc<World>, link: Link, clock: Clock, sender: oneshot::Sender<Result<OAuth2Token, RedeemError>>) {
    let unknown = || Err(RedeemError::Unknown { cause: "reset".to_owned(), retry_after: None });
    sleep(world.up_to(Duration::from_millis(1500))).await;
    if world.strikes(20) {
        sleep(world.up_to(Duration::from_secs(40))).await;
    }
    if world.strikes(50) {
        let retry_after = (world.below(2) == 0).then(|| world.up_to(Duration::from_secs(60)));
        let _ = sender.send(Err(RedeemError::NotRedeemed { cause: "503".to_owned(), retry_after }));
        return;
    }
    if world.strikes(20) {
        let _ = sender.send(unknown());
        return;
    }
    // In calm weather clocks are all that differs: twenty minutes at most, and the margin.
    let earliest = match world.weather {
        Weather::Calm => LIFE - Duration::from_secs(1200 + 60 + 1),
        Weather::Storm => Duration::ZERO,
    };
    let granted = world.books().spend(world.start.elapsed(), link, earliest);
    sleep(world.up_to(Duration::from_millis(1500))).await;
    if world.strikes(30) {
        let _ = sender.send(unknown());
        return;
    }
    if world.strikes(20) {
        return;
    }
    let answer = match granted {
        Some(new) => Ok(token(new, clock.now())),
        None => Err(RedeemError::Dead { cause: "invalid_grant".to_owned() }),
    };
    let _ = sender.send(answer);
}

/// Leaves an excuse behind for sending the same refresh token once more.
struct Doubt<'a> {
    world: &'a World,
    link: Link,
    sent: Arc<AtomicBool>,
    armed: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.armed && self.sent.load(Ordering::SeqCst) {
            self.world.books().excuse(self.link);
        }
    }
}
