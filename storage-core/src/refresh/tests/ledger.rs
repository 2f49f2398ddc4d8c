//! Tokens that are stored in requests, and the ledger with which each refresh token is redeemed once.

use std::time::Duration;

use tokio::time::{advance, sleep};

use super::bench::{Bench, Process};
use super::provider::{Behavior, LATENCY, TOKEN_LIFETIME};
use super::storage::{Fault, FaultyStorage};
use crate::refresh::{ConnectionState, DeadReason, RefreshError, Verdict};
use crate::storage::{Filter, PageRequest, Precondition, TokenStorage as _};
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// A request to a process, with this token in its cookie.
async fn request(process: &Process, token: &OAuth2Token) -> Process {
    let tokens = Tokens::dangerous_plaintext(FaultyStorage::request_bound());
    tokens.put(&process.key, &Token::from(token.clone()), Precondition::Always).await.unwrap();
    Process { tokens, ..process.clone() }
}

/// A process whose ledger is the shared storage, with a retention of ten minutes.
pub(super) fn with_ledger(process: Process) -> Process {
    let ledger = process.tokens.clone().with_retention(Duration::from_secs(600));
    Process { refresher: process.refresher.clone().with_ledger(ledger), ..process }
}

/// The token that the cookie has after the request.
async fn cookie(request: &Process) -> OAuth2Token {
    let found = request.tokens.get(&request.key).await.unwrap().unwrap().value;
    found.as_oauth2().unwrap().clone()
}

async fn expired() -> (Bench, OAuth2Token) {
    let bench = Bench::new();
    let token = bench.provider.login(&bench.clock(0));
    advance(TOKEN_LIFETIME).await;
    (bench, token)
}

/// This is a declared limit of such storages, and the reason for a ledger.
#[tokio::test(start_paused = true)]
async fn concurrent_requests_lose_the_grant_without_a_ledger() {
    let (bench, token) = expired().await;
    let process = bench.process();
    let (one, two) = (request(&process, &token).await, request(&process, &token).await);
    let _ = tokio::join!(one.usable(), two.usable());
    assert_eq!(bench.provider.state().replays, 1);
}

#[tokio::test(start_paused = true)]
async fn token_request_is_prepared_behind_a_ledger() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    request(&process, &token).await.usable().await.unwrap();
    assert_eq!(bench.provider.state().prepared, 1);

    // The ledger has the successor, so the provider is not needed.
    request(&process, &token).await.usable().await.unwrap();
    assert_eq!(bench.provider.state().prepared, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_browser_share_one_redemption() {
    let (bench, token) = expired().await;
    let processes: Vec<_> = (0..4).map(|_| with_ledger(bench.process())).collect();
    let mut requests = Vec::new();
    for number in 0..40 {
        requests.push(request(&processes[number % 4], &token).await);
    }
    let in_flight: Vec<_> = requests.iter().map(Process::spawn_usable).collect();
    for usable in in_flight {
        assert_eq!(usable.await.unwrap().unwrap(), "access-0-1");
    }
    for request in &requests {
        assert_eq!(cookie(request).await.refresh_token, Some("refresh-0-1".into()));
    }
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    for process in processes {
        process.finish().await;
    }
}

/// Responses arrived in the wrong order, so the browser is several generations behind.
#[tokio::test(start_paused = true)]
async fn older_generation_finds_the_newest() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    let mut newest = token.clone();
    for generation in 1..=3 {
        let request = request(&process, &newest).await;
        assert_eq!(request.usable().await.unwrap(), format!("access-0-{generation}"));
        newest = cookie(&request).await;
        advance(if generation < 3 { TOKEN_LIFETIME } else { TOKEN_LIFETIME / 2 }).await;
    }
    let calls = bench.provider.state().calls;
    let late = request(&process, &token).await;
    assert_eq!(late.usable().await.unwrap(), "access-0-3");
    assert_eq!((bench.provider.calls_and_replays()), (calls, 0));

    // The newest token has expired as well. It is redeemed once, however old the token of the request is.
    advance(TOKEN_LIFETIME / 2).await;
    let (late, current) = (request(&process, &token).await, request(&process, &newest).await);
    let (one, two) = tokio::join!(late.usable(), current.usable());
    assert_eq!((one.unwrap(), two.unwrap()), ("access-0-4".to_owned(), "access-0-4".to_owned()));
    assert_eq!(bench.provider.calls_and_replays(), (calls + 1, 0));
}

#[tokio::test(start_paused = true)]
async fn interrupted_request_loses_no_token() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    let cut = request(&process, &token).await;
    let in_flight = cut.spawn_usable();
    sleep(Duration::from_millis(50)).await;
    in_flight.abort();
    process.finish().await;
    // The cookie of that request never reached the browser.
    assert_eq!(request(&process, &token).await.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn process_that_dies_while_redeeming_is_taken_over() {
    let (bench, token) = expired().await;
    let (dying, other) = (with_ledger(bench.process()), with_ledger(bench.process()));
    bench.provider.script([Behavior::LoseRequest]);
    let dead = request(&dying, &token).await;
    let in_flight = dead.spawn_usable();
    sleep(Duration::from_millis(50)).await;
    dying.die();
    in_flight.abort();

    let waiting = request(&other, &token).await;
    let mut found = waiting.usable().await;
    for _ in 0..20 {
        if found.is_ok() {
            break;
        }
        sleep(Duration::from_secs(10)).await;
        found = waiting.usable().await;
    }
    assert_eq!(found.unwrap(), "access-0-1");
    assert_eq!(bench.provider.state().replays, 0);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_redeemed_while_the_ledger_is_down() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    process.storage.set_down(true);
    let request = request(&process, &token).await;
    let error = request.usable().await.unwrap_err();
    assert!(matches!(&error, RefreshError::BackingOff { cause, .. } if cause.contains("the ledger")), "{error:?}");
    assert_eq!(bench.provider.state().calls, 0);
    assert_eq!(cookie(&request).await, token);

    process.storage.set_down(false);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(request.usable().await.unwrap(), "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn ledger_that_fails_after_redemption_is_written_later() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    process.storage.next_writes([Fault::None, Fault::None, Fault::Unavailable, Fault::Unavailable]);
    assert_eq!(request(&process, &token).await.usable().await.unwrap(), "access-0-1");
    process.finish().await;
    let elsewhere = with_ledger(bench.process());
    assert_eq!(request(&elsewhere, &token).await.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dead_grant_in_a_ledger_causes_one_call() {
    let (bench, token) = expired().await;
    bench.provider.script([Behavior::Dead]);
    let process = with_ledger(bench.process());
    for _ in 0..5 {
        let request = request(&process, &token).await;
        let error = request.usable().await.unwrap_err();
        assert!(matches!(error, RefreshError::NeedsAuthorization { reason: DeadReason::Refused, .. }), "{error:?}");
        let state = request.connection().await.unwrap().state;
        assert!(matches!(state, ConnectionState::NeedsAuthorization { .. }), "{state:?}");
    }
    assert_eq!(bench.provider.state().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn all_requests_back_off_while_the_provider_is_down() {
    let (bench, token) = expired().await;
    bench.provider.script([Behavior::Refuse { retry_after: Some(Duration::from_secs(60)) }]);
    let process = with_ledger(bench.process());
    for _ in 0..5 {
        let error = request(&process, &token).await.usable().await.unwrap_err();
        assert!(matches!(error, RefreshError::BackingOff { .. }), "{error:?}");
    }
    assert_eq!(bench.provider.state().calls, 1);
    sleep(Duration::from_secs(70)).await;
    assert_eq!(request(&process, &token).await.usable().await.unwrap(), "access-0-1");
}

/// Two tabs report a token that the API rejected before its expiry.
#[tokio::test(start_paused = true)]
async fn rejected_token_is_replaced_once() {
    let bench = Bench::new();
    let token = bench.provider.login(&bench.clock(0));
    let process = with_ledger(bench.process());
    let (one, two) = (request(&process, &token).await, request(&process, &token).await);
    let (first, second) = tokio::join!(one.refresh_rejected("access-0-0"), two.refresh_rejected("access-0-0"));
    assert_eq!((first.unwrap(), second.unwrap()), ("access-0-1".to_owned(), "access-0-1".to_owned()));
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn each_generation_is_redeemed_once_without_rotation() {
    let (bench, mut token) = expired().await;
    let process = with_ledger(bench.process());
    for generation in 1..4 {
        bench.provider.script([Behavior::GrantWithoutRotation]);
        let (one, two) = (request(&process, &token).await, request(&process, &token).await);
        let (first, second) = tokio::join!(one.usable(), two.usable());
        assert_eq!(first.unwrap(), second.unwrap());
        assert_eq!(bench.provider.state().calls, generation);
        token = cookie(&one).await;
        advance(TOKEN_LIFETIME).await;
    }
}

/// For example, because the data of the ledger's server was deleted during the token request.
#[tokio::test(start_paused = true)]
async fn lost_ledger_entries_lose_no_token() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    let (one, two) = (request(&process, &token).await, request(&process, &token).await);
    let in_flight = one.spawn_usable();
    sleep(LATENCY + LATENCY / 2).await;
    let entries = bench.shared.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
    assert_eq!(bench.provider.state().redemptions, 1);
    assert!(bench.shared.delete(&entries[0].key, None).await.unwrap());

    assert_eq!(in_flight.await.unwrap().unwrap(), "access-0-1");
    assert_eq!(two.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    assert!(bench.provider.state().revoked.is_empty());
}

/// Every request detects this, and the old refresh token is not sent again.
#[tokio::test(start_paused = true)]
async fn token_of_a_different_subject_is_never_stored() {
    let (bench, token) = expired().await;
    bench.provider.state().verdict = Some(Verdict::DifferentSubject { cause: "another subject".to_owned() });
    let process = with_ledger(bench.process());
    let (one, two) = (request(&process, &token).await, request(&process, &token).await);
    let found = tokio::join!(one.usable(), two.usable());
    assert!(matches!(found, (Err(RefreshError::NotConnected), Err(RefreshError::NotConnected))), "{found:?}");
    assert!(one.tokens.get(&one.key).await.unwrap().is_none() && two.tokens.get(&two.key).await.unwrap().is_none());
    assert!(request(&process, &token).await.usable().await.is_err());
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    assert!(process.seen().contains(&"different_subject"));
}

/// The entries of a ledger belong to no user. They are not listed, and expire on their own.
#[tokio::test(start_paused = true)]
async fn ledger_is_not_listed_and_contains_no_plain_names() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    request(&process, &token).await.usable().await.unwrap();
    assert!(bench.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap().entries.is_empty());
    let raw = bench.shared.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
    assert_eq!(raw.len(), 1);
    assert!(!format!("{:?}", raw[0].key).contains("refresh-0"), "{:?}", raw[0].key);
    let record = bench.shared.get(&raw[0].key).await.unwrap().unwrap().value;
    assert!(record.retain_for.is_some_and(|left| left <= Duration::from_secs(600)));
}

/// The retention of the ledger's entry ends between the tries, so the record of the request counts them.
#[tokio::test(start_paused = true)]
async fn broken_responses_count_through_a_ledger() {
    let (bench, token) = expired().await;
    let process = with_ledger(bench.process());
    let request = request(&process, &token).await;
    bench.provider.script(std::iter::repeat_n(Behavior::Break, 100));
    let mut last = request.usable().await;
    for _ in 0..4 * 7 {
        assert!(matches!(last, Err(RefreshError::BackingOff { .. })), "{last:?}");
        sleep(Duration::from_secs(6 * 3600)).await;
        last = request.usable().await;
    }
    let expected = DeadReason::RefusedRepeatedly;
    assert!(matches!(last, Err(RefreshError::NeedsAuthorization { reason, .. }) if reason == expected), "{last:?}");
}
