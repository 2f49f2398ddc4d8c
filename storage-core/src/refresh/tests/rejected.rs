//! The provider's API rejects an access token before its expiry.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::bench::{Bench, Process};
use super::provider::{Behavior, LATENCY};
use super::storage::Fault;
#[cfg(feature = "cache")]
use crate::Cache;
use crate::progress::{Progress, Stored};
use crate::refresh::{ConnectionState, DeadReason, RefreshError, RefreshEvent, Rejection};
use crate::token::Token;

const BOTH: [Rejection; 2] = [Rejection::Unexplained, Rejection::InvalidToken];

/// A token with a lifetime of one hour, halfway through it.
async fn half_used() -> Bench {
    let bench = Bench::connected().await;
    advance(Duration::from_secs(1800)).await;
    bench
}

/// A token that was just issued and cannot be refreshed.
async fn without_refresh_token() -> Bench {
    let bench = Bench::new();
    let mut token = bench.login().await;
    token.refresh_token = None;
    bench.store(&Stored::idle(token.into())).await;
    bench
}

/// Calls an API that rejects every token, and expects that no connection is marked dead.
async fn rejected_call(process: &Process, rejection: Rejection) {
    let used = process.usable().await.unwrap();
    process.replace_rejected(&used, rejection).await.unwrap();
}

async fn expect_rejected(process: &Process) {
    let outcome = process.usable().await;
    let is_rejected = matches!(outcome, Err(RefreshError::NeedsAuthorization { reason: DeadReason::Rejected, .. }));
    assert!(is_rejected, "{outcome:?}");
    let state = process.connection().await.unwrap().state;
    let is_rejected = matches!(state, ConnectionState::NeedsAuthorization { reason: DeadReason::Rejected, .. });
    assert!(is_rejected, "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn api_that_rejects_all_tokens_causes_few_refreshes() {
    for rejection in BOTH {
        let bench = half_used().await;
        let processes = [bench.process(), bench.process(), bench.process()];
        for process in processes.iter().cycle().take(20) {
            rejected_call(process, rejection).await;
            sleep(Duration::from_secs(29)).await;
        }
        assert_eq!(bench.provider.calls_and_replays(), (1, 0), "{rejection:?}, in almost ten minutes");
        sleep(Duration::from_secs(30)).await;
        rejected_call(&processes[0], rejection).await;
        assert_eq!(bench.provider.calls_and_replays(), (2, 0), "{rejection:?}, after them");
    }
}

#[tokio::test(start_paused = true)]
async fn new_token_stays_after_an_unexplained_rejection() {
    let bench = Bench::connected().await;
    let process = bench.process();
    for skew in [0, -30, 30] {
        let process = bench.process_with_skew(skew);
        assert_eq!(process.replace_rejected("access-0-0", Rejection::Unexplained).await.unwrap(), None);
    }
    assert_eq!(bench.provider.calls_and_replays().0, 0);
    let replaced = process.replace_rejected("access-0-0", Rejection::InvalidToken).await.unwrap();
    assert_eq!(replaced.as_deref(), Some("access-0-1"), "invalid_token is explained");
    assert_eq!(process.replace_rejected("access-0-1", Rejection::InvalidToken).await.unwrap(), None);
    assert_eq!(bench.provider.calls_and_replays().0, 1);
}

/// The clock was a year ahead when the token was issued.
#[tokio::test(start_paused = true)]
async fn token_issued_in_the_future_is_not_always_new() {
    let bench = Bench::connected().await;
    let behind = bench.process_with_skew(-31_536_000);
    let replaced = behind.replace_rejected("access-0-0", Rejection::Unexplained).await.unwrap();
    assert_eq!(replaced.as_deref(), Some("access-0-1"));
}

#[tokio::test(start_paused = true)]
async fn revoked_grant_needs_authorization_before_expiry() {
    for rejection in BOTH {
        let bench = half_used().await;
        let (process, other) = (bench.process(), bench.process());
        bench.provider.script([Behavior::Dead]);
        for _ in 0..3 {
            let outcome = process.replace_rejected("access-0-0", rejection).await;
            assert!(matches!(outcome, Err(RefreshError::NeedsAuthorization { .. })), "{outcome:?}");
        }
        expect_rejected(&other).await;
        assert_eq!(bench.access().await, "access-0-0", "the token is not lost");
        assert_eq!((bench.provider.calls_and_replays().0, process.seen()), (1, vec!["needs_authorization"]));

        bench.login().await;
        assert_eq!(other.usable().await.unwrap(), "access-1-0", "a new login takes precedence");
        let adopted = process.replace_rejected("access-0-0", rejection).await.unwrap();
        assert_eq!(adopted.as_deref(), Some("access-1-0"), "a late rejection of the old token does not count");
        assert_eq!(other.connection().await.unwrap().state, ConnectionState::Valid);
    }
}

/// A background refresh found that the refresh token is dead. The access token is used until the API rejects it.
#[tokio::test(start_paused = true)]
async fn access_token_is_used_until_the_api_rejects_it() {
    let bench = Bench::connected().await;
    let process = bench.process();
    let stored = bench.stored().await.unwrap().value;
    let since = bench.now();
    bench.store(&Stored { progress: Progress::Dead { reason: DeadReason::Refused, since }, ..stored }).await;
    assert_eq!(process.usable().await.unwrap(), "access-0-0");
    assert!(process.replace_rejected("access-0-0", Rejection::Unexplained).await.is_err());
    expect_rejected(&process).await;
    assert_eq!(bench.provider.calls_and_replays().0, 0);
    assert_eq!(process.events(), [], "the need to authorize was reported before");
}

#[tokio::test(start_paused = true)]
async fn explained_rejection_ends_an_unrefreshable_token() {
    let bench = without_refresh_token().await;
    let (process, other) = (bench.process(), bench.process());
    advance(Duration::from_secs(1800)).await;
    assert_eq!(process.replace_rejected("access-0-0", Rejection::Unexplained).await.unwrap(), None);
    assert_eq!(other.usable().await.unwrap(), "access-0-0");
    assert_eq!(other.connection().await.unwrap().state, ConnectionState::Valid);

    assert!(process.replace_rejected("access-0-0", Rejection::InvalidToken).await.is_err());
    expect_rejected(&other).await;
    assert_eq!(bench.access().await, "access-0-0", "the token is not lost");
    assert_eq!(process.events(), [RefreshEvent::NeedsAuthorization { reason: DeadReason::Rejected }]);
    bench.login().await;
    assert_eq!(other.usable().await.unwrap(), "access-1-0");
}

#[tokio::test(start_paused = true)]
async fn rejection_is_not_final_while_a_refresh_may_succeed() {
    let bench = half_used().await;
    let process = bench.process();
    bench.provider.script([Behavior::Refuse { retry_after: None }]);
    for rejection in BOTH {
        let outcome = process.replace_rejected("access-0-0", rejection).await;
        assert!(matches!(outcome, Err(RefreshError::BackingOff { .. })), "{outcome:?}");
    }
    assert_eq!(process.usable().await.unwrap(), "access-0-0");
    assert_eq!(bench.provider.calls_and_replays().0, 1);
    sleep(Duration::from_secs(10)).await;
    assert!(process.replace_rejected("access-0-0", Rejection::Unexplained).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn failed_mark_does_not_change_the_result() {
    let bench = without_refresh_token().await;
    let process = bench.process();
    process.storage.next_writes([Fault::Unavailable]);
    let outcome = process.replace_rejected("access-0-0", Rejection::InvalidToken).await;
    assert!(matches!(outcome, Err(RefreshError::NeedsAuthorization { .. })), "{outcome:?}");
    assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
    assert!(process.replace_rejected("access-0-0", Rejection::InvalidToken).await.is_err());
    expect_rejected(&process).await;
}

#[tokio::test(start_paused = true)]
async fn login_wins_over_the_mark_of_a_rejected_token() {
    let bench = without_refresh_token().await;
    let process = bench.process();
    process.storage.next_writes([Fault::SlowRequest(Duration::from_secs(1))]);
    let marking = tokio::spawn({
        let process = process.clone();
        async move { process.replace_rejected("access-0-0", Rejection::InvalidToken).await }
    });
    sleep(Duration::from_millis(500)).await;
    bench.login().await;
    assert_eq!(marking.await.unwrap().unwrap().as_deref(), Some("access-1-0"));
    assert_eq!(process.usable().await.unwrap(), "access-1-0");
    assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_observer_does_not_reach_the_request() {
    let bench = without_refresh_token().await;
    let mut process = bench.process();
    process.refresher = process.refresher.with_observer(|_, _| panic!("a bug in the application's observer"));
    let outcome = process.replace_rejected("access-0-0", Rejection::InvalidToken).await;
    assert!(matches!(outcome, Err(RefreshError::NeedsAuthorization { .. })), "{outcome:?}");
    expect_rejected(&process).await;
}

/// The storage accepts a claim and then no write, and the rejected token has not expired.
#[tokio::test(start_paused = true)]
async fn unstored_token_is_used_instead_of_the_rejected_one() {
    let bench = half_used().await;
    let process = bench.process();
    process.storage.next_writes([Fault::None]);
    let refreshing = tokio::spawn({
        let process = process.clone();
        async move { process.refresh_rejected("access-0-0").await }
    });
    sleep(LATENCY).await;
    process.storage.writes_down.store(true, Ordering::SeqCst);
    assert_eq!(refreshing.await.unwrap().unwrap(), "access-0-1");
    assert_eq!(bench.access().await, "access-0-0");
    assert_eq!(process.usable().await.unwrap(), "access-0-1");

    // A new login takes precedence, even if it retains the refresh token and its claim, and so does a logout.
    let mut claimed = bench.stored().await.unwrap().value;
    assert!(matches!(claimed.progress, Progress::Claimed(_)));
    if let Token::OAuth2(token) = &mut claimed.token {
        token.access_token = "of a login".into();
    }
    bench.store(&claimed).await;
    assert_eq!(process.usable().await.unwrap(), "of a login");
    bench.login().await;
    assert_eq!(process.usable().await.unwrap(), "access-1-0");
    bench.logout().await;
    assert!(matches!(process.usable().await, Err(RefreshError::NotConnected)));
    process.storage.set_down(false);
    process.finish().await;
    assert!(bench.stored().await.is_none());
}

#[cfg(feature = "cache")]
#[tokio::test(start_paused = true)]
async fn unstored_token_is_used_instead_of_a_cached_one() {
    let bench = half_used().await;
    let mut process = bench.process();
    process.tokens = process.tokens.clone().with_cache(Cache::new(Duration::from_secs(60)));
    assert_eq!(process.usable().await.unwrap(), "access-0-0");
    let refreshing = tokio::spawn({
        let process = process.clone();
        async move { process.refresh_rejected("access-0-0").await }
    });
    sleep(LATENCY).await;
    process.storage.writes_down.store(true, Ordering::SeqCst);
    assert_eq!(process.usable().await.unwrap(), "access-0-0");
    assert!(process.refresher.cached(&process.tokens, &process.key).is_some(), "the token is used during its refresh");
    assert_eq!(refreshing.await.unwrap().unwrap(), "access-0-1");
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    process.storage.set_down(false);
    process.finish().await;
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
}
