//! Crashes, logouts and logins during a refresh.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::bench::{Bench, Process, timed};
use super::provider::{Behavior, LATENCY};
use super::storage::Fault;
use crate::error::TokensError;
use crate::progress::{Claim, Progress, Stored, Tries};
use crate::refresh::{ConnectionState, DeadReason, RefreshError, RefreshEvent};
use crate::token::Token;

const LEASE: Duration = Duration::from_secs(30);

/// Starts a refresh in a process that `kill` has scripted to die within a second.
async fn victim(bench: &Bench, kill: impl FnOnce(&Process)) -> Process {
    let process = bench.process();
    kill(&process);
    assert!(timeout(Duration::from_secs(1), process.usable()).await.is_err(), "the process dies");
    process.die();
    process
}

#[tokio::test(start_paused = true)]
async fn crash_before_the_claim_loses_nothing() {
    let bench = Bench::expired().await;
    victim(&bench, |process| process.storage.next_writes([Fault::DieBefore])).await;
    let (token, took) = timed(bench.process().usable()).await;
    assert_eq!((token.unwrap().as_str(), took.as_secs()), ("access-0-1", 0));
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn crash_after_the_claim_delays_by_one_lease() {
    for skew in [0, -600, 600] {
        let bench = Bench::expired().await;
        victim(&bench, |process| process.storage.next_writes([Fault::DieAfter])).await;
        let next = bench.process_with_skew(skew);
        let (token, took) = timed(next.refresh_rejected("access-0-0")).await;
        assert_eq!(token.unwrap(), "access-0-1");
        assert!(took >= LEASE && took < LEASE + Duration::from_secs(1), "{took:?}");
        assert_eq!(next.seen(), ["taken_over", "refreshed"]);
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn crash_after_sending_is_reported_after_one_retry() {
    let bench = Bench::expired().await;
    bench.provider.script([Behavior::Hang]);
    victim(&bench, |_| {}).await;
    let next = bench.process();
    assert_eq!(next.connection().await.unwrap().state, ConnectionState::Refreshing);
    sleep(LEASE).await;
    assert_eq!(next.connection().await.unwrap().state, ConnectionState::OutcomeUnknown);
    expect_dead(&next, DeadReason::ResponseLost).await;
    expect_dead(&next, DeadReason::ResponseLost).await;
    assert_eq!(bench.provider.calls_and_replays(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn crash_after_receiving_is_reported_after_one_retry() {
    let bench = Bench::expired().await;
    victim(&bench, |process| process.storage.next_writes([Fault::None, Fault::DieBefore])).await;
    expect_dead(&bench.process(), DeadReason::ResponseLost).await;
    assert_eq!(bench.provider.calls_and_replays(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn crash_after_the_commit_loses_nothing() {
    let bench = Bench::expired().await;
    victim(&bench, |process| process.storage.next_writes([Fault::None, Fault::DieAfter])).await;
    let (token, took) = timed(bench.process().usable()).await;
    assert_eq!((token.unwrap().as_str(), took.as_secs()), ("access-0-1", 0));
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

async fn expect_dead(process: &Process, expected: DeadReason) {
    let outcome = process.usable().await;
    assert!(
        matches!(outcome, Err(RefreshError::NeedsAuthorization { reason, .. }) if reason == expected),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn exactly_one_waiter_takes_over() {
    let bench = Bench::expired().await;
    victim(&bench, |process| process.storage.next_writes([Fault::DieAfter])).await;
    let waiters: Vec<_> = (0..8).map(|_| bench.process()).collect();
    let callers: Vec<_> = waiters.iter().map(Process::spawn_usable).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    }
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn longer_lease_of_another_process_is_respected() {
    let bench = Bench::expired().await;
    for (lease, expected) in [(120, 120), (u64::MAX / 1000, 610)] {
        let mut stored = bench.stored().await.unwrap().value;
        let lease = Duration::from_secs(lease);
        stored.progress = Progress::Claimed(Claim::new(bench.now(), lease, Tries::default()));
        bench.store(&stored).await;
        let process = bench.process();
        let start = tokio::time::Instant::now();
        let mut outcome = Err(RefreshError::Busy);
        for _ in 0..20 {
            outcome = process.refresh_rejected(&bench.access().await).await;
            if !matches!(outcome, Err(RefreshError::Busy)) {
                break;
            }
        }
        assert_eq!(start.elapsed().as_secs(), expected);
        assert_eq!(outcome.unwrap(), bench.access().await);
    }
}

#[tokio::test(start_paused = true)]
async fn lease_is_always_longer_than_the_request() {
    for timeout in [0, 1, 20, 10_000_000, u64::MAX] {
        let bench = Bench::expired().await;
        let mut process = bench.process();
        process.refresher = process.refresher.with_request_timeout(Duration::from_secs(timeout));
        bench.provider.script([Behavior::Hang]);
        let caller = process.spawn_usable();
        sleep(LATENCY / 2).await;
        let Some(Progress::Claimed(claim)) = bench.stored().await.map(|found| found.value.progress) else {
            assert_eq!(timeout, 0, "only a request with a timeout of zero has ended by now");
            continue;
        };
        let (outcome, took) = timed(caller).await;
        assert!(matches!(outcome.unwrap(), Err(RefreshError::BackingOff { .. })));
        assert!(took + Duration::from_secs(9) < claim.lease, "{took:?} {:?}", claim.lease);
    }
}

#[tokio::test(start_paused = true)]
async fn logout_during_a_refresh_revokes_the_new_token() {
    let bench = Bench::expired().await;
    let process = bench.process();
    // The revocation never ends, and no caller waits for it.
    bench.provider.script([Behavior::Grant, Behavior::Hang]);
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    bench.logout().await;
    let (outcome, took) = timed(caller).await;
    assert!(matches!(outcome.unwrap(), Err(RefreshError::NotConnected)));
    assert!(took < Duration::from_secs(1), "{took:?}");
    process.finish().await;
    assert!(bench.stored().await.is_none());
    assert_eq!(bench.provider.state().revoked, ["access-0-1"]);
    assert_eq!(process.seen(), ["dropped"]);
}

#[tokio::test(start_paused = true)]
async fn login_during_a_refresh_wins_without_revocation() {
    for logout_first in [false, true] {
        let bench = Bench::expired().await;
        let process = bench.process();
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        if logout_first {
            bench.logout().await;
        }
        bench.login().await;
        assert_eq!(caller.await.unwrap().unwrap(), "access-1-0");
        process.finish().await;
        assert_eq!(bench.access().await, "access-1-0");
        assert!(bench.provider.state().revoked.is_empty());
        assert_eq!(process.seen(), ["adopted"]);
    }
}

#[tokio::test(start_paused = true)]
async fn login_wins_over_a_refresh_that_fails() {
    let behaviors = [Behavior::Dead, Behavior::Refuse { retry_after: None }, Behavior::LoseRequest];
    for behavior in behaviors {
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([behavior]);
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        bench.login().await;
        assert_eq!(caller.await.unwrap().unwrap(), "access-1-0");
        assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn logout_remains_when_the_refresh_fails() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Dead]);
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    bench.logout().await;
    assert!(matches!(caller.await.unwrap(), Err(RefreshError::NotConnected)));
    assert!(bench.stored().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn owner_of_a_lost_claim_still_stores_the_successor() {
    let bench = Bench::expired().await;
    let (slow, other) = (bench.process(), bench.process());
    // The process loses the storage while it has the only valid token.
    slow.storage.next_writes([Fault::None, Fault::SlowRequest(Duration::from_secs(60))]);
    let first = slow.spawn_usable();
    sleep(Duration::from_secs(1)).await;
    let _ = other.usable().await;
    assert_eq!(other.seen(), ["taken_over", "needs_authorization"]);
    assert_eq!(first.await.unwrap().unwrap(), "access-0-1");
    assert_eq!(bench.access().await, "access-0-1");
    assert_eq!(other.usable().await.unwrap(), "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn reseal_during_a_refresh_changes_nothing() {
    for (behavior, event) in [(Behavior::Grant, "refreshed"), (Behavior::Dead, "needs_authorization")] {
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([behavior]);
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        let claimed = bench.stored().await.unwrap().value;
        bench.store(&claimed).await;
        let (outcome, took) = timed(caller).await;
        assert_eq!(outcome.unwrap().is_ok(), event == "refreshed");
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(process.seen(), [event]);
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_refreshed_are_reported() {
    let bench = Bench::new();
    let process = bench.process();
    assert!(matches!(process.usable().await, Err(RefreshError::NotConnected)));
    assert!(process.connection().await.is_none());

    let mut token = bench.login().await;
    token.refresh_token = None;
    bench.store(&Stored::idle(token.into())).await;
    let rejected = process.refresh_rejected("access-0-0").await;
    let now = bench.now();
    assert!(
        matches!(rejected, Err(RefreshError::NeedsAuthorization { reason: DeadReason::NoRefreshToken, since }) if since <= now)
    );
    sleep(super::provider::TOKEN_LIFETIME).await;
    expect_dead(&process, DeadReason::NoRefreshToken).await;

    bench.store(&Stored::idle(Token::OAuth1(crate::OAuth1Token::new("t", "s")))).await;
    assert!(matches!(process.usable().await, Err(RefreshError::WrongKind)));
    assert_eq!(bench.provider.calls_and_replays().0, 0);
    assert_eq!(process.events(), Vec::<RefreshEvent>::new());
}

#[tokio::test(start_paused = true)]
async fn unreadable_record_is_an_error_and_remains() {
    let bench = Bench::expired().await;
    let process = bench.process();
    let record = crate::Record::new("{garbage");
    crate::TokenStorage::put(&bench.shared, &bench.key, &record, crate::Precondition::Always).await.unwrap();
    match process.usable().await {
        Err(RefreshError::Storage(error)) => assert!(matches!(*error, TokensError::Malformed { .. })),
        outcome => panic!("{outcome:?}"),
    }
    let found = crate::TokenStorage::get(&bench.shared, &bench.key).await.unwrap().unwrap();
    assert_eq!(found.value.payload, record.payload);
}
