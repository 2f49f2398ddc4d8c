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

/// Since when the user must authorize again. `None` if the refresh is only retried.
async fn requires_the_user(process: &Process) -> Option<Timestamp> {
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
        assert_eq!(requires_the_user(&process).await, None);
        sleep(HOURS).await;
    }
    assert!(matches!(process.connection().await.unwrap().state, ConnectionState::Expiring), "the next use retries");
    assert!(requires_the_user(&process).await.is_some());
    (bench, process, since)
}

#[tokio::test(start_paused = true)]
async fn user_is_required_after_half_a_day_of_refusals() {
    let (bench, process, since) = refused_for_long().await;
    assert_eq!(requires_the_user(&process).await, Some(since), "no request is sent in between");
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
        assert!(requires_the_user(&process).await.is_some());
    }
    assert_eq!(process.seen().iter().filter(|name| **name == "needs_authorization").count(), 1, "it is reported once");
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
    assert_eq!(requires_the_user(&process).await, Some(since));
    bench.login().await;
    assert_eq!(process.usable().await.unwrap(), "access-1-0");
}

#[tokio::test(start_paused = true)]
async fn many_refusals_in_a_short_time_are_not_enough() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::RefuseUnexplained; 1000]);
    let start = tokio::time::Instant::now();
    while start.elapsed() < MIN_REFUSAL_PERIOD - HOURS {
        assert_eq!(requires_the_user(&process).await, None);
        sleep(Duration::from_secs(60)).await;
    }
    let calls = bench.provider.calls_and_replays().0;
    assert!((10..40).contains(&calls), "{calls} calls: a refused token is tried about once an hour");
}

#[tokio::test(start_paused = true)]
async fn few_refusals_over_a_long_time_are_not_enough() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::RefuseUnexplained; 10]);
    for _ in 1..MIN_REFUSALS {
        assert_eq!(requires_the_user(&process).await, None);
        sleep(MIN_REFUSAL_PERIOD).await;
    }
    assert!(requires_the_user(&process).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn only_definite_refusals_count() {
    let temporary = [Behavior::Misconfigured, Behavior::LoseRequest, Behavior::Refuse { retry_after: None }];
    for behavior in temporary {
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([behavior; 50]);
        for _ in 0..50 {
            assert_eq!(requires_the_user(&process).await, None, "{behavior:?}");
            sleep(HOURS).await;
        }
        assert_eq!(process.usable().await.unwrap(), "access-0-1", "{behavior:?}");

        // Between refusals, these failures neither count nor reset the count.
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([Behavior::RefuseUnexplained, behavior, behavior, Behavior::RefuseUnexplained, behavior]);
        for _ in 0..5 {
            assert_eq!(requires_the_user(&process).await, None, "{behavior:?}");
            sleep(MIN_REFUSAL_PERIOD).await;
        }
        bench.provider.script([Behavior::RefuseUnexplained]);
        assert!(requires_the_user(&process).await.is_some(), "{behavior:?}");
    }
}

/// A provider that permanently fails for one user. It receives no more requests than after refusals, and never fewer
/// than about one an hour.
#[tokio::test(start_paused = true)]
async fn user_is_required_after_a_week_of_broken_responses() {
    let bench = Bench::expired().await;
    let (process, since) = (bench.process(), bench.now());
    bench.provider.script(std::iter::repeat_n(Behavior::Break, 10_000));
    let start = tokio::time::Instant::now();
    while start.elapsed() < MIN_UNUSABLE_PERIOD - HOURS {
        assert_eq!(requires_the_user(&process).await, None);
        sleep(HOURS).await;
    }
    sleep(HOURS).await;
    assert_eq!(requires_the_user(&process).await, Some(since));
    let expected = ConnectionState::NeedsAuthorization { reason: DeadReason::RefusedRepeatedly, since };
    assert_eq!(process.connection().await.unwrap().state, expected);
    assert_eq!(process.seen().iter().filter(|name| **name == "needs_authorization").count(), 1);
    let calls = bench.provider.calls_and_replays().0;
    for _ in 0..60 {
        assert_eq!(requires_the_user(&process).await, Some(since));
        sleep(Duration::from_secs(60)).await;
    }
    assert!(bench.provider.calls_and_replays().0 <= calls + 2, "the refresh is retried about once an hour");
    bench.provider.state().scripted.clear();
    sleep(HOURS).await;
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
}

#[tokio::test(start_paused = true)]
async fn days_of_broken_responses_do_not_require_the_user() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Break; 40]);
    for _ in 0..40 {
        assert_eq!(requires_the_user(&process).await, None);
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
    assert_eq!(requires_the_user(&process).await, Some(since));
    assert_eq!(process.seen().iter().filter(|name| **name == "needs_authorization").count(), 1);
}
