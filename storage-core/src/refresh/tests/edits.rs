//! The application edits a token during a refresh. Neither the edit nor the refreshed token may be lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::bench::{Bench, Process};
use super::provider::{Behavior, LATENCY, TOKEN_LIFETIME};
use super::storage::Fault;
use crate::error::{StorageError, TokensError};
use crate::progress::Progress;
use crate::record::{Version, Versioned};
use crate::refresh::{ConnectionState, DeadReason, RefreshError};
use crate::storage::Precondition;
use crate::token::{Extra, OAuth2Token, Token};
use crate::{KeyRing, SealingKey, Tokens};

pub(super) async fn read(bench: &Bench) -> (OAuth2Token, Version) {
    match bench.tokens().get(&bench.key).await.unwrap().unwrap() {
        Versioned { value: Token::OAuth2(token), version } => (token, version),
        found => panic!("{found:?}"),
    }
}

pub(super) async fn write(bench: &Bench, token: OAuth2Token, version: Version) -> Result<Version, TokensError> {
    bench.tokens().put(&bench.key, &token.into(), Precondition::Version(version)).await
}

fn noted(mut token: OAuth2Token, note: &str) -> OAuth2Token {
    let mut members = token.extra.as_map().clone();
    members.insert(note.to_owned(), "value".into());
    token.extra = Extra::from(members);
    token
}

/// Changes one member of the stored token, as an application does.
pub(super) async fn edit(bench: &Bench, note: &str) {
    let (token, version) = read(bench).await;
    write(bench, noted(token, note), version).await.unwrap();
}

async fn notes(bench: &Bench) -> Vec<String> {
    read(bench).await.0.extra.names().map(ToOwned::to_owned).collect()
}

fn is_conflict<T>(outcome: &Result<T, TokensError>) -> bool {
    matches!(outcome, Err(TokensError::Storage(StorageError::Conflict)))
}

/// Moments from before the claim is acknowledged until just before the commit.
const MOMENTS: [Duration; 4] =
    [Duration::from_micros(3500), Duration::from_millis(50), LATENCY, Duration::from_millis(203)];

#[tokio::test(start_paused = true)]
async fn edits_during_a_refresh_are_retained() {
    for moment in MOMENTS {
        let bench = Bench::expired().await;
        let (process, other) = (bench.process(), bench.process());
        let (caller, waiter) = (process.spawn_usable(), other.spawn_usable());
        sleep(moment).await;
        for note in ["one", "two", "three"] {
            edit(&bench, note).await;
        }
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1", "{moment:?}");
        assert_eq!(waiter.await.unwrap().unwrap(), "access-0-1", "{moment:?}");
        process.finish().await;
        other.finish().await;
        assert_eq!(bench.provider.calls_and_replays(), (1, 0), "{moment:?}");
        assert_eq!(bench.access().await, "access-0-1");
        assert_eq!(notes(&bench).await, ["one", "three", "two"]);
        let mut seen = [process.seen(), other.seen()].concat();
        seen.sort_unstable();
        assert_eq!(seen, ["adopted", "refreshed"], "{moment:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn edit_before_a_refresh_is_retained() {
    let bench = Bench::expired().await;
    edit(&bench, "before").await;
    let process = bench.process();
    process.usable().await.unwrap();
    process.refresh_rejected("access-0-1").await.unwrap();
    assert_eq!((bench.access().await.as_str(), notes(&bench).await), ("access-0-2", vec!["before".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn edit_of_an_outdated_version_conflicts() {
    let bench = Bench::expired().await;
    let (before_claim, first) = read(&bench).await;
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    assert!(is_conflict(&write(&bench, before_claim, first).await));
    let (before_commit, second) = read(&bench).await;
    caller.await.unwrap().unwrap();
    process.finish().await;
    assert!(is_conflict(&write(&bench, before_commit, second).await));
    assert_eq!(bench.access().await, "access-0-1");
    bench.logout().await;
    let (token, version) = (OAuth2Token::bearer("back"), second);
    assert!(is_conflict(&write(&bench, token, version).await), "no token is stored after a logout");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn another_refresh_token_wins_over_a_refresh() {
    for refresh_token in [Some("another"), None] {
        let bench = Bench::expired().await;
        let process = bench.process();
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        let (mut token, version) = read(&bench).await;
        token.access_token = "another".into();
        token.refresh_token = refresh_token.map(Into::into);
        token.expires_at = Some(bench.now().saturating_add(TOKEN_LIFETIME));
        write(&bench, token, version).await.unwrap();
        assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
        assert_eq!(caller.await.unwrap().unwrap(), "another");
        process.finish().await;
        assert_eq!((bench.access().await.as_str(), process.seen()), ("another", vec!["adopted"]));
    }
}

#[tokio::test(start_paused = true)]
async fn successor_is_stored_over_another_access_token() {
    let bench = Bench::expired().await;
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    let (mut token, version) = read(&bench).await;
    token.access_token = "exchanged".into();
    token.expires_at = Some(bench.now().saturating_add(TOKEN_LIFETIME));
    write(&bench, token, version).await.unwrap();
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    assert_eq!(read(&bench).await.0.refresh_token.unwrap().expose(), "refresh-0-1");
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn edit_is_retained_when_the_refresh_fails() {
    let behaviors =
        [Behavior::Dead, Behavior::Refuse { retry_after: None }, Behavior::LoseRequest, Behavior::SpendAndLose];
    for behavior in behaviors {
        let bench = Bench::expired().await;
        bench.provider.script([behavior]);
        let process = bench.process();
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        edit(&bench, "one").await;
        edit(&bench, "two").await;
        assert!(caller.await.unwrap().is_err());
        process.finish().await;
        assert_eq!(notes(&bench).await.len(), 2, "{behavior:?}");
        let progress = bench.stored().await.unwrap().value.progress;
        match (behavior, &progress) {
            (Behavior::Dead, Progress::Dead { .. }) => {}
            (Behavior::Refuse { .. }, Progress::BackingOff(found)) => assert!(!found.tries.maybe_spent),
            (_, Progress::BackingOff(found)) => assert!(found.tries.maybe_spent),
            _ => panic!("{behavior:?} {progress:?}"),
        }
        edit(&bench, "three").await;
        assert_eq!(bench.stored().await.unwrap().value.progress, progress, "an edit does not change the state");
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));

        let (mut token, version) = read(&bench).await;
        token.refresh_token = Some("another".into());
        write(&bench, token, version).await.unwrap();
        assert_eq!(
            bench.stored().await.unwrap().value.progress,
            Progress::Idle,
            "the state does not apply to another refresh token"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn edit_is_retained_when_a_commit_is_interrupted() {
    let later = Duration::from_millis(20);
    for fault in [Fault::ResponseLost, Fault::RequestLost, Fault::DelayedWrite(later), Fault::SlowResponse(later)] {
        let bench = Bench::expired().await;
        let process = bench.process();
        process.storage.next_writes([Fault::None, fault]);
        let caller = process.spawn_usable();
        // The commit was interrupted, and its retry is later than this.
        sleep(Duration::from_millis(215)).await;
        edit(&bench, "note").await;
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1", "{fault:?}");
        process.finish().await;
        assert_eq!((bench.access().await.as_str(), notes(&bench).await), ("access-0-1", vec!["note".to_owned()]));
        assert_eq!(bench.provider.calls_and_replays(), (1, 0), "{fault:?}");
        assert_eq!(process.seen().last(), Some(&"refreshed"), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn edit_is_retained_when_a_claim_is_interrupted() {
    for fault in [Fault::ResponseLost, Fault::RequestLost, Fault::DelayedWrite(Duration::from_millis(20))] {
        let bench = Bench::expired().await;
        let process = bench.process();
        process.storage.next_writes([fault]);
        let caller = process.spawn_usable();
        sleep(Duration::from_millis(5)).await;
        edit(&bench, "note").await;
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1", "{fault:?}");
        assert_eq!(notes(&bench).await, ["note"]);
        assert_eq!(bench.provider.calls_and_replays(), (1, 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn edits_do_not_prolong_an_abandoned_claim() {
    let bench = Bench::expired().await;
    let dead = bench.process();
    dead.storage.next_writes([Fault::DieAfter]);
    drop(dead.spawn_usable());
    sleep(Duration::from_millis(5)).await;
    let next = bench.process();
    let caller = next.spawn_usable();
    for second in 0..29 {
        sleep(Duration::from_secs(1)).await;
        edit(&bench, &second.to_string()).await;
    }
    sleep(Duration::from_secs(3)).await;
    assert!(caller.is_finished(), "the claim is taken over one lease after it was first seen");
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    assert_eq!((next.seen(), notes(&bench).await.len()), (vec!["taken_over", "refreshed"], 29));
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn edit_is_retained_while_a_token_is_in_memory() {
    let bench = Bench::expired().await;
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    process.storage.set_down(true);
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    edit(&bench, "note").await;
    process.storage.set_down(false);
    process.finish().await;
    assert_eq!((bench.access().await.as_str(), notes(&bench).await), ("access-0-1", vec!["note".to_owned()]));
    assert_eq!(bench.provider.calls_and_replays(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dead_connection_stays_dead_when_edited() {
    let bench = Bench::expired().await;
    bench.provider.script([Behavior::Dead]);
    let process = bench.process();
    expect_dead(&process).await;
    edit(&bench, "note").await;
    expect_dead(&process).await;
    assert_eq!(bench.provider.calls_and_replays(), (1, 0), "a spent refresh token is not sent again");
    bench.login().await;
    assert_eq!(process.connection().await.unwrap().state, ConnectionState::Valid);
}

async fn expect_dead(process: &Process) {
    let outcome = process.usable().await;
    assert!(
        matches!(outcome, Err(RefreshError::NeedsAuthorization { reason: DeadReason::Refused, .. })),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_conditional_writes_read_the_record_first() {
    let bench = Bench::connected().await;
    let process = bench.process();
    let reads = || process.storage.read.load(Ordering::SeqCst);
    let (token, _) = read(&bench).await;
    let put = async |when| process.tokens.put(&bench.key, &token.clone().into(), when).await;
    let version = put(Precondition::Always).await.unwrap();
    assert!(is_conflict(&put(Precondition::Absent).await));
    assert_eq!(reads(), 0);
    put(Precondition::Version(version)).await.unwrap();
    assert_eq!(reads(), 1);
    assert!(is_conflict(&put(Precondition::Version(version)).await));
    process.storage.set_down(true);
    let down = put(Precondition::Version(version)).await;
    assert!(matches!(down, Err(TokensError::Storage(StorageError::Unavailable { .. }))), "{down:?}");
}

#[tokio::test(start_paused = true)]
async fn refresh_continues_after_a_reseal() {
    for (behavior, event) in [(Behavior::Grant, "refreshed"), (Behavior::Dead, "needs_authorization")] {
        let bench = Bench::expired().await;
        let (old, new) = (SealingKey::generate(), SealingKey::generate());
        let first = Tokens::sealed(bench.shared.clone(), KeyRing::new(old.clone()).with_older(new.clone()));
        let second = Tokens::sealed(bench.shared.clone(), KeyRing::new(new).with_older(old));
        let (token, _) = read(&bench).await;
        first.put(&bench.key, &token.into(), Precondition::Always).await.unwrap();

        bench.provider.script([behavior]);
        let mut process = bench.process();
        process.tokens = first;
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        assert!(second.reseal(&bench.key).await.unwrap());
        assert_eq!(caller.await.unwrap().is_ok(), event == "refreshed");
        assert_eq!((process.seen(), bench.provider.calls_and_replays()), (vec![event], (1, 0)));
        let stored = second.load(&bench.key).await.unwrap().unwrap().value;
        assert_eq!(stored.progress == Progress::Idle, event == "refreshed");
    }
}

#[tokio::test(start_paused = true)]
async fn edits_are_dropped_when_the_token_is_too_large() {
    let bench = Bench::expired().await;
    edit(&bench, "note").await;
    let process = bench.process();
    process.storage.next_writes([Fault::None, Fault::TooLarge]);
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!((bench.access().await, notes(&bench).await.len()), ("access-0-1".to_owned(), 0));
    assert_eq!(process.seen(), ["refreshed"]);
}

#[tokio::test(start_paused = true)]
async fn members_are_dropped_when_the_response_is_too_large() {
    let bench = Bench::expired().await;
    edit(&bench, "note").await;
    bench.provider.script([Behavior::GrantWithProfile]);
    let process = bench.process();
    process.storage.next_writes([Fault::None, Fault::TooLarge, Fault::TooLarge]);
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!((bench.access().await, notes(&bench).await), ("access-0-1".to_owned(), vec!["note".to_owned()]));
    assert_eq!(process.seen(), ["refreshed"]);
}

#[tokio::test(start_paused = true)]
async fn spent_token_is_marked_when_it_is_never_stored() {
    let bench = Bench::expired().await;
    let process = bench.process();
    let slow = Fault::SlowRequest(Duration::from_secs(1));
    process.storage.next_writes([Fault::None, Fault::TooLarge, slow]);
    let caller = process.spawn_usable();
    sleep(Duration::from_secs(1)).await;
    edit(&bench, "note").await;
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
    process.finish().await;
    assert_eq!(notes(&bench).await, ["note"]);
    let progress = bench.stored().await.unwrap().value.progress;
    assert!(matches!(progress, Progress::Dead { reason: DeadReason::ResponseLost, .. }), "{progress:?}");
}
