//! A process is suspended while it owns a claim, by a signal or with its virtual machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::bench::{Bench, Process, timed};
use super::provider::LATENCY;
use crate::progress::{DeadReason, Progress, Stored};
use crate::refresh::{Lease, RefreshError};
use crate::time::Clock;
use crate::token::Token;

/// The length of a suspension in seconds. It is longer than a lease.
const MINUTE: u64 = 60;

/// A process whose wall clock advances while its monotonic clock stands still, as during a suspension.
fn suspendable(bench: &Bench) -> (Process, Arc<AtomicU64>) {
    let jumped = Arc::new(AtomicU64::new(0));
    let (jump, clock) = (Arc::clone(&jumped), bench.clock(0));
    let clock = Clock::new(move || clock.now().saturating_add(Duration::from_secs(jump.load(Ordering::SeqCst))));
    (bench.process_with_clock(clock), jumped)
}

#[tokio::test(start_paused = true)]
async fn suspended_process_finds_the_successor() {
    let bench = Bench::expired().await;
    let (process, jumped) = suspendable(&bench);
    let caller = process.spawn_usable();
    sleep(LATENCY / 2).await;
    jumped.store(MINUTE, Ordering::SeqCst);
    // In the meantime, another machine has taken over and redeems the refresh token.
    let awake = bench.process();
    let claimed = bench.stored().await.unwrap().value;
    bench.store(&Stored::idle(claimed.token)).await;
    assert_eq!(awake.usable().await.unwrap(), "access-0-1");
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn suspended_process_claims_again() {
    let bench = Bench::expired().await;
    let (process, jumped) = suspendable(&bench);
    let caller = process.spawn_usable();
    sleep(LATENCY / 2).await;
    jumped.store(MINUTE, Ordering::SeqCst);
    let (outcome, took) = timed(caller).await;
    assert_eq!(outcome.unwrap().unwrap(), "access-0-1");
    assert!(took < Duration::from_secs(1), "a process does not wait for its own claim: {took:?}");
    assert_eq!((bench.provider.calls_and_replays(), process.seen()), ((1, 0), vec!["refreshed"]));
}

#[tokio::test(start_paused = true)]
async fn renewed_claim_was_not_sent() {
    let bench = Bench::expired().await;
    let (process, jumped) = suspendable(&bench);
    bench.provider.script([super::provider::Behavior::Dead]);
    let caller = process.spawn_usable();
    sleep(LATENCY / 2).await;
    jumped.store(MINUTE, Ordering::SeqCst);
    let outcome = caller.await.unwrap();
    assert!(
        matches!(outcome, Err(RefreshError::NeedsAuthorization { reason: DeadReason::Refused, .. })),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn logout_during_a_suspension_wins() {
    let bench = Bench::expired().await;
    let (process, jumped) = suspendable(&bench);
    let caller = process.spawn_usable();
    sleep(LATENCY / 2).await;
    jumped.store(MINUTE, Ordering::SeqCst);
    bench.logout().await;
    assert!(matches!(caller.await.unwrap(), Err(RefreshError::NotConnected)));
    assert_eq!(bench.provider.calls_and_replays(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn repeated_suspensions_end_as_busy() {
    let bench = Bench::expired().await;
    let steps = AtomicU64::new(0);
    let clock = bench.clock(0);
    let process = bench.process_with_clock(Clock::new(move || {
        clock.now().saturating_add(Duration::from_secs(steps.fetch_add(MINUTE, Ordering::SeqCst)))
    }));
    let (outcome, took) = timed(process.usable()).await;
    assert!(matches!(outcome, Err(RefreshError::Busy)), "{outcome:?}");
    assert!(took < Duration::from_secs(81), "{took:?}");
    assert_eq!(bench.provider.calls_and_replays(), (0, 0));
    let Some(Stored { token: Token::OAuth2(_), progress: Progress::Claimed(claim) }) =
        bench.stored().await.map(|found| found.value)
    else {
        panic!()
    };
    assert!(!claim.tries.maybe_spent);
}

#[tokio::test(start_paused = true)]
async fn lease_ends_on_the_clock_that_is_ahead() {
    let length = Duration::from_secs(30);
    for (steady, wall, expected) in
        [(0, 0, false), (27, 26, false), (28, 28, true), (0, 27, true), (28, 0, true), (0, 3600, true)]
    {
        let seconds = Arc::new(AtomicU64::new(1_000_000));
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || crate::Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        let lease = Lease::start(length, &clock);
        tokio::time::advance(Duration::from_secs(steady)).await;
        seconds.fetch_add(wall, Ordering::SeqCst);
        assert_eq!(lease.is_expired(), expected, "{steady} {wall}");
        seconds.store(0, Ordering::SeqCst);
        assert_eq!(lease.is_expired(), steady >= 28, "a wall clock that was set back is ignored");
    }
}
