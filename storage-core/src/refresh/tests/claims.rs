//! Claims that are no longer needed, or do not fit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::bench::{Bench, Process, timed};
use super::edits::{edit, read, write};
use super::ledger::with_ledger;
use super::provider::{Behavior, LATENCY, TOKEN_LIFETIME};
use super::storage::{Fault, FaultyStorage};
use crate::progress::{BackOff, Claim, Progress, Stored, Tries};
use crate::refresh::RefreshError;
use crate::storage::{Precondition, TokenStorage};
use crate::token::{OAuth2Token, Subject};
use crate::tokens::Tokens;

/// A provider that does not rotate the refresh token, and a login during the refresh that returns no refresh token.
#[tokio::test(start_paused = true)]
async fn login_that_retains_the_refresh_token_is_not_claimed() {
    let bench = Bench::expired().await;
    let (mut token, version) = read(&bench).await;
    token.subject = Some(Subject { issuer: "https://example".to_owned(), subject: "alice".to_owned() });
    write(&bench, token.clone(), version).await.unwrap();
    bench.provider.script([Behavior::GrantWithoutRotation]);
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    let login = OAuth2Token {
        access_token: "login".into(),
        refresh_token: None,
        expires_at: Some(bench.now().saturating_add(TOKEN_LIFETIME)),
        ..token
    };
    bench.tokens().put_login(&bench.key, &login.into()).await.unwrap();
    assert_eq!(caller.await.unwrap().unwrap(), "login");
    process.finish().await;
    let stored = bench.stored().await.unwrap().value;
    assert_eq!((bench.access().await.as_str(), stored.progress), ("login", Progress::Idle));
    assert_eq!(process.seen(), ["adopted"]);
}

/// The record was changed during the refresh, and the provider returned the same tokens with a new expiry.
#[tokio::test(start_paused = true)]
async fn new_expiry_of_the_same_token_is_stored_after_an_edit() {
    let bench = Bench::expired().await;
    bench.provider.script([Behavior::Prolong]);
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    edit(&bench, "note").await;
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-0");
    process.finish().await;
    let stored = bench.stored().await.unwrap().value;
    assert_eq!(stored.progress, Progress::Idle);
    let token = read(&bench).await.0;
    assert!(token.expires_at.unwrap() > bench.now());
    assert!(token.extra.get("note").is_some());
}

/// A request whose record has this token, which has expired.
async fn expired_request() -> (Bench, Process) {
    let bench = Bench::new();
    let token = bench.provider.login(&bench.clock(0));
    let process = of_request(&bench.process(), &Stored::idle(token.into())).await;
    advance(TOKEN_LIFETIME).await;
    (bench, process)
}

/// A request to a process, with this record in its cookie.
async fn of_request(process: &Process, stored: &Stored) -> Process {
    let storage = Arc::new(FaultyStorage::request_bound());
    let tokens = Tokens::dangerous_plaintext(Arc::clone(&storage) as Arc<dyn TokenStorage>);
    tokens.save(&process.key, stored, Precondition::Always).await.unwrap();
    Process { tokens, storage, ..process.clone() }
}

async fn stored(request: &Process) -> Stored {
    request.tokens.load(&request.key).await.unwrap().unwrap().value
}

#[tokio::test(start_paused = true)]
async fn token_is_refreshed_in_a_cookie_without_room_for_a_claim() {
    let (bench, request) = expired_request().await;
    request.storage.next_writes([Fault::TooLarge]);
    assert_eq!(request.usable().await.unwrap(), "access-0-1");
    let Stored { token, progress } = stored(&request).await;
    assert_eq!(token.as_oauth2().unwrap().refresh_token, Some("refresh-0-1".into()));
    assert_eq!((progress, bench.provider.calls_and_replays()), (Progress::Idle, (1, 0)));
}

#[tokio::test(start_paused = true)]
async fn failure_is_stored_without_its_cause_if_there_is_no_room() {
    let (bench, request) = expired_request().await;
    bench.provider.script([Behavior::Refuse { retry_after: Some(Duration::from_secs(60)) }]);
    // The claim, the pause in its place, and the failure.
    request.storage.next_writes([Fault::TooLarge, Fault::None, Fault::TooLarge]);
    for _ in 0..2 {
        let error = request.usable().await.unwrap_err();
        assert!(matches!(error, RefreshError::BackingOff { .. }), "{error:?}");
    }
    let progress = stored(&request).await.progress;
    assert!(matches!(&progress, Progress::BackingOff(BackOff { cause, .. }) if cause.is_empty()), "{progress:?}");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

/// The record changes during a refresh that could not be claimed, so its failure cannot be stored.
#[tokio::test(start_paused = true)]
async fn unclaimed_refresh_token_is_sent_once() {
    let (bench, request) = expired_request().await;
    bench.provider.script([Behavior::SpendAndLose]);
    request.storage.next_writes([Fault::TooLarge]);
    let caller = request.spawn_usable();
    sleep(LATENCY).await;
    let found = request.tokens.load(&request.key).await.unwrap().unwrap();
    request.tokens.save(&request.key, &found.value, Precondition::Always).await.unwrap();
    assert!(matches!(caller.await.unwrap(), Err(RefreshError::BackingOff { .. })));
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

/// In a shared storage, a claim proves that the storage accepts the new token.
/// Without room for a failure, every request would send the refresh token again.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_if_a_cookie_has_no_room_for_a_failure() {
    let (bench, request) = expired_request().await;
    request.storage.next_writes([Fault::TooLarge, Fault::TooLarge]);
    let error = request.usable().await.unwrap_err();
    assert!(matches!(error, RefreshError::Storage(_)), "{error:?}");
    assert_eq!(bench.provider.calls_and_replays(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_if_a_shared_storage_rejects_the_claim() {
    let bench = Bench::expired().await;
    let process = bench.process();
    process.storage.next_writes([Fault::TooLarge]);
    let error = process.usable().await.unwrap_err();
    assert!(matches!(error, RefreshError::Storage(_)), "{error:?}");
    assert_eq!(bench.provider.state().calls, 0);
}

const LEASE: Duration = Duration::from_secs(30);
/// Less than any lease.
const SOON: Duration = Duration::from_secs(1);

/// The record of an expired token, whose response was sent before the refresh ended.
fn claimed(bench: &Bench) -> Stored {
    let mut token = bench.provider.login(&bench.clock(0));
    token.expires_at = Some(bench.now());
    Stored { token: token.into(), progress: Progress::Claimed(Claim::new(bench.now(), LEASE, Tries::default())) }
}

#[tokio::test(start_paused = true)]
async fn outdated_claim_in_a_cookie_is_taken_over_at_once() {
    let bench = Bench::new();
    let record = claimed(&bench);
    advance(LEASE + SOON).await;
    let request = of_request(&bench.process(), &record).await;
    let (found, duration) = timed(request.usable()).await;
    assert_eq!(found.unwrap(), "access-0-1");
    assert!(duration < SOON, "{duration:?}");
    assert_eq!(request.seen(), ["taken_over", "refreshed"]);
}

/// The token request of the earlier request may still be in flight, so the refresh token is not sent.
#[tokio::test(start_paused = true)]
async fn recent_claim_in_a_cookie_is_respected_without_a_ledger() {
    let bench = Bench::new();
    let record = claimed(&bench);
    advance(LEASE - SOON).await;
    let request = of_request(&bench.process(), &record).await;
    let caller = request.spawn_usable();
    sleep(SOON / 2).await;
    assert_eq!(bench.provider.state().calls, 0);
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
}

/// Two requests with the same claim in their cookies.
#[tokio::test(start_paused = true)]
async fn claim_in_a_cookie_is_taken_over_at_once_with_a_ledger() {
    let bench = Bench::new();
    let record = claimed(&bench);
    let process = with_ledger(bench.process());
    let (one, two) = (of_request(&process, &record).await, of_request(&process, &record).await);
    let (found, duration) = timed(async { tokio::join!(one.usable(), two.usable()) }).await;
    assert_eq!((found.0.unwrap(), found.1.unwrap()), ("access-0-1".to_owned(), "access-0-1".to_owned()));
    assert!(duration < SOON, "{duration:?}");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

/// A shared record may be changed by the owner of the claim, whose clock may be wrong.
#[tokio::test(start_paused = true)]
async fn shared_claim_is_respected_whatever_its_time() {
    let bench = Bench::new();
    bench.store(&claimed(&bench)).await;
    advance(LEASE + SOON).await;
    let process = with_ledger(bench.process());
    let caller = process.spawn_usable();
    sleep(LEASE - SOON).await;
    assert_eq!(bench.provider.state().calls, 0);
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
}
