//! Failures of the provider and of the storage.

use std::time::Duration;

use tokio::time::{advance, sleep};

use super::bench::{Bench, Process, timed};
use super::provider::{Behavior, LATENCY, TOKEN_LIFETIME};
use super::storage::Fault;
use crate::progress::{BackOff, Progress, Tries};
use crate::refresh::{ConnectionState, DeadReason, RefreshError, RefreshEvent, Verdict};
use crate::time::Timestamp;

async fn until_of(process: &Process) -> Timestamp {
    match process.usable().await {
        Err(RefreshError::BackingOff { until, .. }) => until,
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn dead_grant_causes_one_call_until_the_next_login() {
    let bench = Bench::expired().await;
    let processes = [bench.process(), bench.process()];
    bench.provider.script([Behavior::Dead]);
    let since = bench.now();
    for process in processes.iter().cycle().take(10) {
        let outcome = process.usable().await;
        assert!(
            matches!(outcome, Err(RefreshError::NeedsAuthorization { reason: DeadReason::Refused, since: at }) if at == since),
            "{outcome:?}"
        );
        sleep(Duration::from_secs(600)).await;
    }
    let dead = ConnectionState::NeedsAuthorization { reason: DeadReason::Refused, since };
    assert_eq!(processes[1].connection().await.unwrap().state, dead);
    assert_eq!(processes[0].seen(), ["needs_authorization"]);
    assert_eq!((bench.provider.calls_and_replays().0, processes[1].seen().len()), (1, 0));

    bench.login().await;
    assert_eq!(processes[0].usable().await.unwrap(), "access-1-0");
    sleep(TOKEN_LIFETIME).await;
    assert_eq!(processes[1].usable().await.unwrap(), "access-1-1");
}

#[tokio::test(start_paused = true)]
async fn loser_of_a_race_adopts_the_winners_token() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Dead]);
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    // A writer that does not follow the protocol was faster.
    let mut winner = bench.provider.login(&bench.clock(0));
    winner.access_token = "winner".into();
    bench.store(&crate::progress::Stored::idle(winner.into())).await;
    assert_eq!(caller.await.unwrap().unwrap(), "winner");
    assert_eq!(bench.stored().await.unwrap().value.progress, Progress::Idle);
    assert_eq!(bench.provider.calls_and_replays().0, 1);
}

#[tokio::test(start_paused = true)]
async fn back_off_grows_while_the_provider_is_down() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Refuse { retry_after: None }; 12]);
    let mut pauses = Vec::new();
    for call in 1..=12 {
        let until = until_of(&process).await;
        pauses.push(until.saturating_since(bench.now()).as_secs());
        assert_eq!(until_of(&process).await, until, "no request is sent before");
        assert_eq!(bench.provider.calls_and_replays(), (call, 0));
        advance(until.saturating_since(bench.now())).await;
    }
    for (failed, pause) in pauses.iter().enumerate() {
        let doubled = 300.min(2_u64 << failed.min(20));
        assert!((doubled / 2..=doubled + 1).contains(pause), "{pauses:?}");
    }
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!(process.seen(), [vec!["backing_off"; 12], vec!["refreshed"]].concat());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_up_to_an_hour() {
    for (requested, least, most) in [(90, 90, 93), (7, 7, 10), (0, 1, 4), (1_000_000, 3600, 3603)] {
        let bench = Bench::expired().await;
        let process = bench.process();
        // Late within a second, so that a truncated fraction would be noticed.
        sleep(Duration::from_millis(790)).await;
        bench.provider.script([Behavior::Refuse { retry_after: Some(Duration::from_secs(requested)) }]);
        until_of(&process).await;
        let (_, took) = timed(async {
            while process.usable().await.is_err() {
                sleep(if requested > 1000 { Duration::from_secs(1) } else { Duration::from_millis(100) }).await;
            }
        })
        .await;
        assert!(took >= Duration::from_secs(least) && took <= Duration::from_secs(most + 1), "{requested}: {took:?}");
        assert_eq!(bench.provider.calls_and_replays(), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn valid_token_is_served_while_the_provider_is_down() {
    let bench = Bench::connected().await;
    let process = bench.process();
    bench.provider.script([Behavior::Refuse { retry_after: None }; 100]);
    advance(TOKEN_LIFETIME - Duration::from_secs(29)).await;
    for _ in 0..28 {
        assert_eq!(process.usable().await.unwrap(), "access-0-0");
        sleep(Duration::from_secs(1)).await;
    }
    process.finish().await;
    assert!((2..=5).contains(&bench.provider.calls_and_replays().0));
    bench.provider.state().scripted.clear();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn lost_response_is_reported_and_resolved() {
    for (behavior, expected) in
        [(Behavior::LoseRequest, None), (Behavior::SpendAndLose, Some(DeadReason::ResponseLost))]
    {
        let bench = Bench::expired().await;
        let process = bench.process();
        bench.provider.script([behavior]);
        let until = until_of(&process).await;
        assert!(matches!(process.connection().await.unwrap().state, ConnectionState::BackingOff { .. }));
        advance(until.saturating_since(bench.now())).await;
        assert_eq!(process.connection().await.unwrap().state, ConnectionState::OutcomeUnknown);
        match (process.usable().await, expected) {
            (Ok(token), None) => assert_eq!(token, "access-0-1"),
            (Err(RefreshError::NeedsAuthorization { reason, .. }), Some(expected)) => assert_eq!(reason, expected),
            unexpected => panic!("{unexpected:?}"),
        }
        assert_eq!(bench.provider.calls_and_replays().0, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn unresponsive_provider_times_out() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Hang]);
    let (until, took) = timed(until_of(&process)).await;
    assert!(until > bench.now() && took.as_secs() == 20, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn back_off_of_a_wrong_clock_locks_no_user_out() {
    let bench = Bench::expired().await;
    let process = bench.process();
    let mut stored = bench.stored().await.unwrap().value;
    let until = bench.now().saturating_add(Duration::from_secs(86_400 * 365));
    stored.progress = Progress::BackingOff(BackOff { until, cause: "503".to_owned(), tries: Tries::default() });
    bench.store(&stored).await;
    assert_eq!(process.connection().await.unwrap().state, ConnectionState::Expiring);
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn read_only_storage_is_detected_before_redemption() {
    let bench = Bench::expired().await;
    let process = bench.process();
    process.storage.set_down(true);
    assert!(matches!(process.usable().await, Err(RefreshError::Storage(_))));
    process.storage.reads_down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(process.usable().await, Err(RefreshError::Storage(_))));
    assert_eq!(bench.provider.calls_and_replays().0, 0);
    process.storage.set_down(false);
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
}

#[tokio::test(start_paused = true)]
async fn unstored_token_is_served_and_stored_later() {
    for reads_too in [false, true] {
        let bench = Bench::expired().await;
        let process = bench.process();
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        process.storage.set_down(true);
        process.storage.reads_down.store(reads_too, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
        for _ in 0..20 {
            assert_eq!(process.usable().await.unwrap(), "access-0-1", "served from memory");
            assert_eq!(process.refresh_rejected("access-0-0").await.unwrap(), "access-0-1");
            sleep(Duration::from_secs(60)).await;
        }
        process.storage.set_down(false);
        process.finish().await;
        assert_eq!(bench.access().await, "access-0-1");
        assert_eq!(process.seen(), ["not_stored", "refreshed"]);
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn logout_and_login_win_over_a_token_in_memory() {
    for login in [false, true] {
        let bench = Bench::expired().await;
        let process = bench.process();
        let caller = process.spawn_usable();
        sleep(LATENCY).await;
        process.storage.set_down(true);
        caller.await.unwrap().unwrap();
        bench.logout().await;
        if login {
            bench.login().await;
        }
        process.storage.set_down(false);
        process.finish().await;
        assert_eq!(bench.stored().await.is_some(), login);
        let revoked = bench.provider.state().revoked.len();
        assert_eq!(
            (process.seen(), revoked),
            (vec!["not_stored", ["dropped", "adopted"][usize::from(login)]], usize::from(!login))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn interrupted_claim_is_read_again() {
    let lost = [
        vec![Fault::RequestLost],
        vec![Fault::ResponseLost],
        vec![Fault::DelayedWrite(Duration::from_millis(5))],
        vec![Fault::DelayedWrite(Duration::from_millis(25))],
        vec![Fault::RequestLost, Fault::RequestLost, Fault::ResponseLost],
    ];
    for faults in lost {
        let bench = Bench::expired().await;
        let process = bench.process();
        process.storage.next_writes(faults.clone());
        let (token, took) = timed(process.usable()).await;
        assert_eq!(token.unwrap(), "access-0-1", "{faults:?}");
        assert!(took < Duration::from_secs(1), "{faults:?} {took:?}");
        assert_eq!(process.seen(), ["refreshed"], "{faults:?}");
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn interrupted_commit_is_read_again() {
    let lost =
        [Fault::RequestLost, Fault::ResponseLost, Fault::DelayedWrite(Duration::from_millis(60)), Fault::Unavailable];
    for fault in lost {
        let bench = Bench::expired().await;
        let process = bench.process();
        process.storage.next_writes([Fault::None, fault]);
        assert_eq!(process.usable().await.unwrap(), "access-0-1");
        process.finish().await;
        assert_eq!(bench.access().await, "access-0-1", "{fault:?}");
        assert_eq!(process.seen().last(), Some(&"refreshed"), "{fault:?}: the process recognizes its own write");
        assert_eq!(bench.provider.calls_and_replays(), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_claim_is_renewed_before_use() {
    for slow in [Fault::SlowResponse(Duration::from_secs(11)), Fault::SlowRequest(Duration::from_secs(11))] {
        let bench = Bench::expired().await;
        let process = bench.process();
        process.storage.next_writes([slow]);
        let caller = process.spawn_usable();
        sleep(Duration::from_secs(11)).await;
        assert_eq!(bench.provider.calls_and_replays().0, 0);
        assert_eq!(caller.await.unwrap().unwrap(), "access-0-1");
        assert_eq!(process.seen(), ["refreshed"]);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_storage_ends_as_busy_without_a_call() {
    for fault in [Fault::SlowResponse(Duration::from_secs(11)), Fault::RequestLost, Fault::ResponseLost] {
        let bench = Bench::expired().await;
        let process = bench.process();
        process.storage.next_writes(std::iter::repeat_n(fault, 10_000));
        let outcome = process.usable().await;
        match fault {
            Fault::ResponseLost => assert!(outcome.is_ok(), "the claim is found"),
            _ => assert!(matches!(outcome, Err(RefreshError::Busy)), "{outcome:?}"),
        }
        assert!(process.storage.read.load(std::sync::atomic::Ordering::SeqCst) < 400, "the process does not spin");
        assert_eq!(bench.provider.calls_and_replays().0, u32::from(matches!(fault, Fault::ResponseLost)));
    }
}

#[tokio::test(start_paused = true)]
async fn events_report_the_cause_and_the_retry_time() {
    let bench = Bench::expired().await;
    let process = bench.process();
    bench.provider.script([Behavior::Refuse { retry_after: None }, Behavior::Dead]);
    let until = until_of(&process).await;
    advance(until.saturating_since(bench.now())).await;
    process.usable().await.unwrap_err();
    assert_eq!(
        process.events(),
        [
            RefreshEvent::BackingOff { until, cause: "503".to_owned() },
            RefreshEvent::NeedsAuthorization { reason: DeadReason::Refused },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn unverified_token_is_used_and_reported() {
    let bench = Bench::expired().await;
    bench.provider.state().verdict = Some(Verdict::Unverified { cause: "no keys".to_owned() });
    let process = bench.process();
    assert_eq!(process.usable().await.unwrap(), "access-0-1");
    assert_eq!(bench.access().await, "access-0-1");
    assert_eq!(process.seen(), ["refreshed", "unverified"]);
    let stored = bench.stored().await.unwrap().value.token;
    assert_eq!(stored.as_oauth2().unwrap().id_token, None);
    assert!(bench.provider.state().revoked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn token_of_a_different_subject_is_revoked() {
    let bench = Bench::expired().await;
    bench.provider.state().verdict = Some(Verdict::DifferentSubject { cause: "another subject".to_owned() });
    let process = bench.process();
    assert!(matches!(process.usable().await, Err(RefreshError::NotConnected)));
    process.finish().await;
    assert!(bench.stored().await.is_none());
    assert_eq!(process.seen(), ["refreshed", "different_subject"]);
    assert_eq!(bench.provider.state().revoked, ["access-0-1"]);
}

/// What the token was derived from was removed while it was requested.
#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_is_deleted_and_revoked() {
    let bench = Bench::expired().await;
    bench.provider.state().verdict = Some(Verdict::Ended);
    let process = bench.process();
    assert!(matches!(process.usable().await, Err(RefreshError::NotConnected)));
    process.finish().await;
    assert!(bench.stored().await.is_none());
    assert_eq!(process.seen(), ["refreshed", "dropped"]);
    assert_eq!(bench.provider.state().revoked, ["access-0-1"]);
}
