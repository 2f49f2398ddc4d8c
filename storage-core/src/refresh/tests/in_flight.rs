//! The task of a refresh, and what happens if callers, the application or the runtime end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, sleep, timeout};

use super::bench::{Bench, timed};
use super::provider::{Behavior, LATENCY, TOKEN_LIFETIME};
use super::storage::Fault;
use crate::refresh::{Lease, RedeemError, RefreshError, Refresher};

#[tokio::test(start_paused = true)]
async fn dropping_a_caller_at_any_time_loses_no_token() {
    for moment in 0..260 {
        let bench = Bench::expired().await;
        let process = bench.process();
        let caller = timeout(Duration::from_millis(moment), process.usable()).await;
        let started = process.refresher.in_flight.count() > 0 || caller.is_ok();
        process.finish().await;
        let expected = if started { "access-0-1" } else { "access-0-0" };
        assert_eq!(bench.access().await, expected, "dropped after {moment} ms");
        assert_eq!(process.usable().await.unwrap(), "access-0-1");
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn finish_waits_for_refreshes_in_flight() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::GrantAfter(Duration::from_secs(5))]);
    let caller = process.spawn_usable();
    sleep(Duration::from_millis(10)).await;
    caller.abort();
    let ((), took) = timed(process.finish()).await;
    assert!(took >= Duration::from_secs(5), "{took:?}");
    assert_eq!(bench.access().await, "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn next_caller_succeeds_after_a_panic() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Panic]);
    let callers: Vec<_> = (0..5).map(|_| process.spawn_usable()).collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(RefreshError::Interrupted)));
    }
    process.finish().await;
    let (token, took) = timed(process.usable()).await;
    assert_eq!(token.unwrap(), "access-0-1");
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
    assert_eq!(process.seen(), ["taken_over", "refreshed"]);
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_observer_loses_no_token() {
    let bench = Bench::expired().await;
    let mut process = bench.process();
    process.refresher = process.refresher.with_observer(|_, _| panic!("a bug in the application's observer"));
    process.storage.next_writes([Fault::None, Fault::Unavailable]);
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    process.finish().await;
    assert_eq!(bench.access().await, "access-0-1");
}

#[test]
fn shut_down_runtime_is_an_error_and_no_deadlock() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let bench = runtime.block_on(Bench::connected());
    let handle = runtime.handle().clone();
    drop(runtime);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (refresher, tokens) = (Refresher::new(), bench.tokens());
        let rejected = "access-0-0".into();
        let provider = bench.process().provider;
        let outcome = handle.block_on(refresher.refresh_rejected(&rejected, &tokens, &bench.key, &provider));
        sender.send((outcome, refresher.in_flight.count())).unwrap();
    });
    let (outcome, in_flight) = receiver.recv_timeout(Duration::from_secs(20)).expect("the call returns");
    assert!(matches!(outcome, Err(RefreshError::Interrupted)), "{outcome:?}");
    assert_eq!(in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn caller_with_a_stronger_need_gets_another_refresh() {
    let bench = Bench::expired().await;
    let process = bench.process();
    process.storage.next_writes([Fault::None, Fault::Unavailable, Fault::Unavailable]);
    assert_eq!(process.usable().await.unwrap(), "access-0-1", "the unstored token is served");
    assert_eq!(process.refresher.in_flight.count(), 1);
    // The API rejects even that token, so the refresh in flight does not help.
    assert_eq!(process.refresh_rejected("access-0-1").await.unwrap(), "access-0-2");
    process.finish().await;
    assert_eq!(bench.provider.calls_and_replays(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn unchanged_access_token_causes_one_call() {
    struct Same;
    #[async_trait::async_trait]
    impl crate::Redeem for Same {
        async fn redeem(&self, token: &crate::OAuth2Token, _: &Lease) -> Result<crate::OAuth2Token, RedeemError> {
            sleep(LATENCY).await;
            let mut same = token.clone();
            same.refresh_token = Some(format!("{}+", token.refresh_token.as_ref().unwrap().expose()).into());
            Ok(same)
        }
        async fn revoke(&self, _: &crate::OAuth2Token) {}
    }
    let bench = Bench::connected().await;
    let mut process = bench.process();
    process.provider = Arc::new(Same);
    assert_eq!(process.refresh_rejected("access-0-0").await.unwrap(), "access-0-0");
    let connection = process.connection().await.unwrap();
    let token = connection.token.as_oauth2().unwrap();
    assert_eq!(token.refresh_token.as_ref().unwrap().expose(), "refresh-0-0+");
}

#[tokio::test(start_paused = true)]
async fn caller_returns_in_bounded_time_whatever_hangs() {
    let bench = Bench::expired().await;
    let process = bench.process();
    process.storage.next_writes([Fault::DieBefore]);
    let (outcome, took) = timed(process.usable()).await;
    assert!(matches!(outcome, Err(RefreshError::Busy)), "{outcome:?}");
    assert!(took <= Duration::from_secs(81), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn abandoned_claim_is_taken_over_in_the_background() {
    let bench = Bench::connected().await;
    let (dead, mut alive) = (bench.process(), bench.process());
    alive.refresher = alive.refresher.with_margin(Duration::from_secs(300));
    dead.storage.next_writes([Fault::DieAfter]);
    let _ = timeout(Duration::from_secs(1), dead.refresh_rejected("access-0-0")).await;
    advance(TOKEN_LIFETIME - Duration::from_secs(120)).await;
    assert_eq!(alive.usable().await.unwrap(), "access-0-0");
    alive.finish().await;
    assert_eq!(alive.usable().await.unwrap(), "access-0-1");
    assert_eq!(alive.seen(), ["taken_over", "refreshed"]);
}

#[tokio::test(start_paused = true)]
async fn request_bound_storages_never_share_an_outcome() {
    let bench = Bench::expired().await;
    let process = bench.process();
    process.usable().await.unwrap();
    process.finish().await;
    let provider = Arc::clone(&process.provider);
    for number in 1..50 {
        // A storage may get the address of the previous one.
        let own = crate::Tokens::dangerous_plaintext(crate::MemoryStorage::new());
        let mut token = bench.provider.login(&bench.clock(0));
        token.expires_at = Some(bench.now());
        own.put(&bench.key, &token.into(), crate::Precondition::Always).await.unwrap();
        let token = process.refresher.usable(&own, &bench.key, &provider).await.unwrap();
        assert_eq!(token.access_token.expose(), format!("access-{number}-1"));
    }
}
