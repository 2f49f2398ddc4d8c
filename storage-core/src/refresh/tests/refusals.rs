//! Refusals with unknown errors, and errors of the configuration.

use std::time::Duration;

use tokio::time::sleep;

use super::bench::{Bench, Process};
use super::provider::Behavior;
use crate::progress::Progress;
use crate::progress::{MIN_REFUSAL_PERIOD, MIN_REFUSALS, MIN_UNUSABLE_PERIOD};
use crate::refresh::{ConnectionState, DeadReason, RefreshError, RefreshEvent};
use crate::time::Timestamp;

/// Longer than any pause between two tries.
const HOURS: Duration = Duration::from_secs(2 * 3600);

/// Whether the user is asked to authorize again.
async fn asks_the_user(process: &Process) -> Option<Timestamp> {
    match process.usable().await {
        Err(RefreshError::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since }) => Some(since),
        Err(RefreshError::BackingOff { .. }) => None,
        outcome => panic!("{outcome:?}"),
    }
}

/// A connection whose refresh token was refused for half a day.
async fn refused_for_long() -> (Bench, Process, Timestamp) {
    let bench = Bench::expired().await;
    let (process, since) = (bench.process(), bench.now());
    bench.provider.script([Behavior::RefuseUnexplained; 7]);
    for _ in 0..6 {
        assert_eq!(asks_the_user(&process).await, None);
        sleep(HOURS).await;
    }
    assert!(matches!(process.connection().await.unwrap().state, ConnectionState::Expiring), "the next use retries");
    assert!(asks_the_user(&process).await.is_some());
    (bench, process, since)
}

#[tokio::test(start_paused = true)]
async fn user_is_asked_after_refusals_over_half_a_day() {
    let (bench, process, since) = refused_for_long().await;
    assert_eq!(asks_the_user(&process).await, Some(since), "the provider is not asked in between");
    assert_eq!(bench.provider.calls_and_replays(), (7, 0));
    let expected = ConnectionState::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since };
    assert_eq!(process.connection().await.unwrap().state, expected);
    assert_eq!(process.seen(), [vec!["refused"; 7], vec!["needs_authorization"]].concat());
    let RefreshEvent::Refused { cause, .. } = &process.events()[0] else { panic!() };
    assert_eq!(cause, "unauthorized_client");
}

#[tokio::test(start_paused = true)]
async fn success_after_refusals_restores_the_connection() {
    let (bench, process, _) = refused_for_long().await;
    bench.provider.script([Behavior::RefuseUnexplained; 2]);
    for _ in 0..2 {
        sleep(HOURS).await;
        assert!(asks_the_user(&process).await.is_some());
    }
    assert_eq!(
        process.seen().iter().filter(|name| **name == "needs_authorization").count(),
        1,
        "the user is asked once"
    );
    sleep(HOURS).await;
    assert_eq!(bench.process().usable().await.unwrap(), "access-0-1");
    assert_eq!(process.connection().await.unwrap().state, ConnectionState::Valid);
    assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle, "the refusals are reset");
}

#[tokio::test(start_paused = true)]
async fn login_resets_refusals_and_an_edit_does_not() {
    let (bench, process, since) = refused_for_long().await;
    let found = bench.tokens().get(&bench.key).await.unwrap().unwrap();
    let when = crate::Precondition::Version(found.version);
    bench.tokens().put(&bench.key, &found.value, when).await.unwrap();
    assert_eq!(asks_the_user(&process).await, Some(since));
    bench.login().await;
    assert_eq!(process.usable().await.unwrap(), "access-1-0");
}

#[tokio::test(start_paused = true)]
async fn many_refusals_in_a_short_time_do_not_ask_the_user() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::RefuseUnexplained; 1000]);
    let start = tokio::time::Instant::now();
    while start.elapsed() < MIN_REFUSAL_PERIOD - HOURS {
        assert_eq!(asks_the_user(&process).await, None);
        sleep(Duration::from_secs(60)).await;
    }
    let calls = bench.provider.calls_and_replays().0;
    assert!((10..40).contains(&calls), "{calls} calls: a refused token is tried about once an hour");
}

#[tokio::test(start_paused = true)]
async fn few_refusals_over_a_long_time_do_not_ask_the_user() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::RefuseUnexplained; 10]);
    for _ in 1..MIN_REFUSALS {
        assert_eq!(asks_the_user(&process).await, None);
        sleep(MIN_REFUSAL_PERIOD).await;
    }
    assert!(asks_the_user(&process).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn only_definite_refusals_count() {
    let passing = [Behavior::Misconfigured, Behavior::LoseRequest, Behavior::Refuse { retry_after: None }];
    for answer in passing {
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([answer; 50]);
        for _ in 0..50 {
            assert_eq!(asks_the_user(&process).await, None, "{answer:?}");
            sleep(HOURS).await;
        }
        assert_eq!(process.usable().await.unwrap(), "access-0-1", "{answer:?}");

        // Between refusals, these failures neither count nor reset the count.
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([Behavior::RefuseUnexplained, answer, answer, Behavior::RefuseUnexplained, answer]);
        for _ in 0..5 {
            assert_eq!(asks_the_user(&process).await, None, "{answer:?}");
            sleep(MIN_REFUSAL_PERIOD).await;
        }
        bench.provider.script([Behavior::RefuseUnexplained]);
        assert!(asks_the_user(&process).await.is_some(), "{answer:?}");
    }
}

/// A provider that fails for one user permanently: it is asked no more often than after refusals, and never given up.
#[tokio::test(start_paused = true)]
async fn the_user_is_asked_after_a_week_of_broken_answers() {
    let bench = Bench::expired().await;
    let (process, since) = (bench.process(), bench.now());
    bench.provider.script(std::iter::repeat_n(Behavior::Break, 10_000));
    let start = tokio::time::Instant::now();
    while start.elapsed() < MIN_UNUSABLE_PERIOD - HOURS {
        assert_eq!(asks_the_user(&process).await, None);
        sleep(HOURS).await;
    }
    sleep(HOURS).await;
    assert_eq!(asks_the_user(&process).await, Some(since));
    let expected = ConnectionState::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since };
    assert_eq!(process.connection().await.unwrap().state, expected);
    assert_eq!(process.seen().iter().filter(|name| **name == "needs_authorization").count(), 1);
    let calls = bench.provider.calls_and_replays().0;
    for _ in 0..60 {
        assert_eq!(asks_the_user(&process).await, Some(since));
        sleep(Duration::from_secs(60)).await;
    }
    assert!(bench.provider.calls_and_replays().0 <= calls + 2, "it is tried about once an hour");
    bench.provider.state().scripted.clear();
    sleep(HOURS).await;
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_few_days_of_broken_answers_ask_nobody() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Break; 40]);
    for _ in 0..40 {
        assert_eq!(asks_the_user(&process).await, None);
        sleep(HOURS).await;
    }
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn wrong_configuration_loses_no_connection() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Misconfigured; 500]);
    for _ in 0..500 {
        let outcome = process.usable().await;
        assert!(matches!(outcome, Err(RefreshError::BackingOff { .. })), "{outcome:?}");
        sleep(Duration::from_secs(301)).await;
    }
    assert_eq!(process.seen(), vec!["misconfigured"; 500]);
    assert_eq!(process.usable().await.unwrap(), "access-0-1", "the connection works minutes after the correction");
}

#[tokio::test(start_paused = true)]
async fn refusals_survive_a_takeover() {
    let (bench, process, since) = refused_for_long().await;
    sleep(HOURS).await;
    let dying = bench.process();
    dying.storage.next_writes([super::storage::Fault::DieAfter]);
    drop(dying.spawn_usable());
    sleep(Duration::from_secs(1)).await;
    bench.provider.script([Behavior::RefuseUnexplained]);
    assert_eq!(asks_the_user(&process).await, Some(since));
    assert_eq!(process.seen().iter().filter(|name| **name == "needs_authorization").count(), 1);
}
