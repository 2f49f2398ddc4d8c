//! One redemption for any number of callers.

use std::time::Duration;

use tokio::time::{advance, sleep};

use super::bench::{Bench, Process};
use super::provider::{Behavior, TOKEN_LIFETIME};

const BEFORE_MARGIN: Duration = Duration::from_secs(3600 - 61);
const WITHIN_MARGIN: Duration = Duration::from_secs(3600 - 29);

#[tokio::test(start_paused = true)]
async fn fresh_token_is_returned_unchanged() {
    let bench = Bench::connected().await;
    let process = bench.process();
    advance(BEFORE_MARGIN).await;
    assert_eq!(process.usable().await.unwrap(), "access-0-0");
    process.finish().await;
    assert_eq!((bench.provider.state().calls, process.seen()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn expiring_token_is_served_and_refreshed_once() {
    let bench = Bench::connected().await;
    let process = bench.process();
    advance(WITHIN_MARGIN).await;
    for _ in 0..20 {
        assert_eq!(process.usable().await.unwrap(), "access-0-0");
    }
    process.finish().await;
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    process.finish().await;
    assert_eq!((bench.provider.state().calls, process.seen()), (1, vec!["refreshed"]));
}

#[tokio::test(start_paused = true)]
async fn expired_token_is_refreshed_first() {
    let bench = Bench::expired().await;
    let process = bench.process();
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.access().await, "access-0-1");
    process.finish().await;
    assert_eq!((bench.provider.state().calls, process.seen()), (1, vec!["refreshed"]));
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_one_redemption() {
    let bench = Bench::expired().await;
    let process = bench.process();
    let callers: Vec<_> = (0..100).map(|_| process.spawn_usable()).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    }
    process.finish().await;
    assert_eq!((bench.provider.state().calls, process.seen()), (1, vec!["refreshed"]));
}

#[tokio::test(start_paused = true)]
async fn many_processes_share_one_redemption() {
    let bench = Bench::expired().await;
    let processes: Vec<_> = (0..8).map(|_| bench.process()).collect();
    let callers: Vec<_> = processes.iter().flat_map(|process| (0..5).map(|_| process.spawn_usable())).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    }
    let mut seen: Vec<_> = processes.iter().flat_map(Process::seen).collect();
    seen.sort_unstable();
    assert_eq!(seen, [vec!["adopted"; 7], vec!["refreshed"]].concat());
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn clocks_ten_minutes_apart_lose_no_token() {
    let bench = Bench::connected().await;
    let (ahead, behind) = (bench.process_with_skew(600), bench.process_with_skew(-600));
    for _ in 0..600 {
        let (one, two) = tokio::join!(ahead.usable(), behind.usable());
        assert!(one.is_ok() && two.is_ok());
        sleep(Duration::from_secs(60)).await;
    }
    let state = bench.provider.state();
    // Ten hours, in which every refresh may be up to twenty minutes early.
    assert!((10..=15).contains(&state.redemptions), "{}", state.redemptions);
    assert_eq!((state.calls, state.replays), (state.redemptions, 0));
}

#[tokio::test(start_paused = true)]
async fn only_the_rejected_token_is_replaced() {
    let bench = Bench::connected().await;
    let process = bench.process();
    assert_eq!(process.refresh_rejected("access-0-0").await.unwrap(), "access-0-1");
    assert_eq!(process.refresh_rejected("access-0-0").await.unwrap(), "access-0-1", "another token is stored already");
    process.finish().await;
    assert_eq!(bench.provider.state().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn many_rejections_of_one_token_cause_one_refresh() {
    let bench = Bench::connected().await;
    let processes: Vec<_> = (0..4).map(|_| bench.process()).collect();
    let callers: Vec<_> = processes
        .iter()
        .flat_map(|process| (0..10).map(|_| process.clone()))
        .map(|process| tokio::spawn(async move { process.refresh_rejected("access-0-0").await }))
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    }
    assert_eq!(bench.provider.state().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn unrotated_refresh_token_is_retained() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::GrantWithoutRotation, Behavior::GrantWithoutRotation]);
    assert_eq!(process.usable().await.unwrap(), "access-0-0+");
    advance(TOKEN_LIFETIME).await;
    assert_eq!(process.usable().await.unwrap(), "access-0-0++");
    let connection = process.connection().await.unwrap();
    let token = connection.token.as_oauth2().unwrap();
    assert_eq!(token.refresh_token.as_ref().unwrap().expose(), "refresh-0-0");
    assert_eq!(token.issued_at.unwrap(), bench.now());
}

#[tokio::test(start_paused = true)]
async fn refreshes_of_different_keys_are_independent() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::GrantAfter(Duration::from_secs(10)), Behavior::Grant]);
    let alice = process.spawn_usable();
    sleep(Duration::from_secs(1)).await;

    let mut bob = process.clone();
    bob.key = crate::TokenKey::new("example", "bob").unwrap();
    let mut token = bench.provider.login(&bench.clock(0));
    token.expires_at = Some(bench.now());
    bench.tokens().put(&bob.key, &token.into(), crate::Precondition::Always).await.unwrap();
    assert_eq!(bob.usable().await.unwrap(), "access-1-1");
    assert!(!alice.is_finished());
    assert_eq!(alice.await.unwrap().unwrap(), "access-0-1");
}
