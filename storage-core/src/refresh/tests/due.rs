//! Refreshes of all tokens that are due, by any number of replicas.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, sleep, timeout};

use super::bench::{Bench, Process, timed};
use super::provider::{Behavior, TOKEN_LIFETIME};
use super::storage::Fault;
use crate::key::TokenKey;
use crate::progress::{BackOff, Claim, DeadReason, Progress, Stored, Tries};
use crate::record::Record;
use crate::refresh::{Due, DueReport, Redeem, RefreshError};
use crate::storage::{Filter, Precondition, TokenStorage};
use crate::token::OAuth2Token;

const TEN_MINUTES: Duration = Duration::from_secs(600);

fn key(provider: &str, user: usize) -> TokenKey {
    TokenKey::new(provider, format!("user{user}")).unwrap()
}

/// Connects this many users of a provider.
async fn connect(bench: &Bench, provider: &str, users: usize) {
    for user in 0..users {
        let token = bench.provider.login(&bench.clock(0));
        bench.tokens().put(&key(provider, user), &token.into(), Precondition::Always).await.unwrap();
    }
}

async fn pass(process: &Process, due: &Due) -> DueReport {
    let provider = Arc::clone(&process.provider);
    process.refresher.refresh_due(&process.tokens, due, |_| Some(Arc::clone(&provider))).await.unwrap()
}

fn report(refreshed: u64, adopted: u64, skipped: u64, failed: u64, postponed: u64) -> DueReport {
    DueReport { refreshed, adopted, skipped, failed, postponed }
}

#[tokio::test(start_paused = true)]
async fn concurrent_replicas_redeem_every_token_once() {
    let bench = Bench::new();
    // More tokens than fit one page.
    connect(&bench, "example", 250).await;
    advance(TOKEN_LIFETIME - Duration::from_secs(60)).await;
    let due = Due::expiring_within(TEN_MINUTES);
    let replicas = [bench.process(), bench.process(), bench.process_with_skew(100)];
    let (a, b, c) = tokio::join!(pass(&replicas[0], &due), pass(&replicas[1], &due), pass(&replicas[2], &due));
    assert_eq!(a.refreshed + b.refreshed + c.refreshed, 250);
    assert_eq!((a.failed, b.failed, c.failed), (0, 0, 0));
    assert_eq!(bench.provider.calls_and_replays(), (250, 0));
    assert_eq!(pass(&replicas[0], &due).await, DueReport::default(), "no token is due");
}

#[tokio::test(start_paused = true)]
async fn tokens_not_due_or_not_selected_are_skipped() {
    let bench = Bench::new();
    connect(&bench, "example", 3).await;
    connect(&bench, "other", 3).await;
    let process = bench.process();
    let due = Due::expiring_within(TEN_MINUTES);
    advance(TOKEN_LIFETIME - TEN_MINUTES - Duration::from_secs(2)).await;
    assert_eq!(pass(&process, &due).await, DueReport::default());
    advance(TEN_MINUTES).await;
    let only = due.clone().with_filter(Filter::everything().provider("other").expiring_before(bench.now()));
    assert_eq!(pass(&process, &only).await, report(3, 0, 0, 0, 0));
    let none = process.refresher.refresh_due(&process.tokens, &due, |_| None).await.unwrap();
    assert_eq!(none, report(0, 0, 3, 0, 0));
    assert_eq!(bench.provider.calls_and_replays(), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn short_lived_tokens_are_not_refreshed_repeatedly() {
    let bench = Bench::new();
    connect(&bench, "example", 5).await;
    advance(TOKEN_LIFETIME).await;
    let process = bench.process();
    let due = Due::expiring_within(TOKEN_LIFETIME * 10);
    assert_eq!(pass(&process, &due).await.refreshed, 5);
    assert_eq!(pass(&process, &due).await, report(0, 0, 5, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_refreshed_cause_no_call() {
    let bench = Bench::new();
    connect(&bench, "example", 5).await;
    advance(TOKEN_LIFETIME).await;
    let (now, tokens) = (bench.now(), bench.tokens());
    let until = now.saturating_add(Duration::from_secs(60));
    let abandoned = Claim::new(bench.clock(-31).now(), Duration::from_secs(30), Tries::default());
    let states = [
        Progress::Dead { reason: DeadReason::Refused, since: now },
        Progress::BackingOff(BackOff { until, cause: String::new(), tries: Tries::default() }),
        Progress::Claimed(Claim::new(now, Duration::from_secs(30), Tries::default())),
        Progress::Claimed(abandoned),
        Progress::Idle,
    ];
    for (user, progress) in states.into_iter().enumerate() {
        let token = tokens.load(&key("example", user)).await.unwrap().unwrap().value.token;
        tokens.save(&key("example", user), &Stored { token, progress }, Precondition::Always).await.unwrap();
    }
    let mut token = OAuth2Token::bearer("no refresh token");
    token.expires_at = Some(now);
    tokens.put(&key("example", 5), &token.into(), Precondition::Always).await.unwrap();
    let garbage = Record::new("{garbage").with_expires_at(Some(now));
    bench.shared.put(&key("example", 6), &garbage, Precondition::Always).await.unwrap();

    let process = bench.process();
    let found = pass(&process, &Due::expiring_within(TEN_MINUTES)).await;
    assert_eq!(found, report(2, 0, 4, 1, 0), "the idle token, and the one with an abandoned claim");
    assert_eq!(bench.provider.calls_and_replays(), (2, 0));
    assert_eq!(bench.shared.get(&key("example", 6)).await.unwrap().unwrap().value.payload, garbage.payload);
}

#[tokio::test(start_paused = true)]
async fn rate_applies_to_each_provider() {
    let bench = Bench::new();
    connect(&bench, "example", 20).await;
    advance(TOKEN_LIFETIME).await;
    let process = bench.process();
    let due = Due::expiring_within(TEN_MINUTES).with_rate(2).with_concurrency(3);
    let (found, took) = timed(pass(&process, &due)).await;
    assert_eq!(found.refreshed, 20);
    assert!(took >= Duration::from_millis(9500) && took < Duration::from_secs(11), "{took:?}");

    connect(&bench, "example", 20).await;
    connect(&bench, "other", 20).await;
    advance(TOKEN_LIFETIME).await;
    let (found, took) = timed(pass(&process, &due.with_concurrency(8))).await;
    assert_eq!(found.refreshed, 40);
    assert!(took < Duration::from_secs(13), "one provider does not wait for the other: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited() {
    let bench = Bench::new();
    connect(&bench, "example", 12).await;
    advance(TOKEN_LIFETIME).await;
    bench.provider.script([Behavior::GrantAfter(Duration::from_secs(10)); 12]);
    let process = bench.process();
    let due = Due::expiring_within(TEN_MINUTES).with_rate(1000).with_concurrency(4);
    let (found, took) = timed(pass(&process, &due)).await;
    assert_eq!((found.refreshed, took.as_secs()), (12, 30));
}

#[tokio::test(start_paused = true)]
async fn failing_provider_is_skipped_until_the_next_pass() {
    let bench = Bench::new();
    connect(&bench, "example", 50).await;
    advance(TOKEN_LIFETIME).await;
    bench.provider.script([Behavior::Refuse { retry_after: None }; 20]);
    let process = bench.process();
    let due = Due::expiring_within(TEN_MINUTES).with_concurrency(2);
    let found = pass(&process, &due).await;
    let calls = u64::from(bench.provider.calls_and_replays().0);
    assert!((5..=7).contains(&calls), "{calls}");
    assert_eq!(found, report(0, 0, 0, calls, 50 - calls));
    bench.provider.state().scripted.clear();
    sleep(TEN_MINUTES).await;
    assert_eq!(pass(&process, &due).await, report(50, 0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn unused_refresh_tokens_do_not_expire() {
    let day = Duration::from_secs(86_400);
    let bench = Bench::new();
    connect(&bench, "example", 4).await;
    let (one, two) = (bench.process(), bench.process());
    let due = Due::idle_for(day * 20);
    advance(day * 19).await;
    assert_eq!(pass(&one, &due).await, report(0, 0, 4, 0, 0));
    advance(day).await;
    let (a, b) = tokio::join!(pass(&one, &due), pass(&two, &due));
    assert_eq!((a.refreshed + b.refreshed, bench.provider.calls_and_replays()), (4, (4, 0)));
    advance(day * 19).await;
    assert_eq!(pass(&one, &due).await.refreshed, 0);
    advance(day).await;
    assert_eq!(pass(&one, &due).await.refreshed, 4);
}

#[tokio::test(start_paused = true)]
async fn outage_is_an_error_but_one_failed_read_is_not() {
    let bench = Bench::new();
    connect(&bench, "example", 3).await;
    advance(TOKEN_LIFETIME).await;
    let process = bench.process();
    process.storage.set_down(true);
    let down = process.refresher.refresh_due(&process.tokens, &Due::expiring_within(TEN_MINUTES), |_| None).await;
    assert!(matches!(down, Err(RefreshError::Storage(_))), "{down:?}");
    process.storage.set_down(false);
    process.storage.next_reads([Fault::Unavailable]);
    assert_eq!(pass(&process, &Due::expiring_within(TEN_MINUTES)).await, report(2, 0, 0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn keep_refreshing_can_be_dropped_at_any_time() {
    let bench = Bench::new();
    connect(&bench, "example", 10).await;
    let replicas = [bench.process(), bench.process()];
    let due = Due::expiring_within(TEN_MINUTES);
    let lookup = |_: &TokenKey| Some(Arc::clone(&replicas[0].provider)) as Option<Arc<dyn Redeem>>;
    let run = |process: &Process| {
        let (refresher, tokens, due) = (process.refresher.clone(), process.tokens.clone(), due.clone());
        async move { refresher.keep_refreshing(&tokens, &due, Duration::from_secs(120), lookup).await }
    };
    for _ in 0..10 {
        let both = async { tokio::join!(run(&replicas[0]), run(&replicas[1])) };
        assert!(timeout(TOKEN_LIFETIME, both).await.is_err());
        let mut page = bench.tokens().list(&Filter::everything(), crate::PageRequest::default()).await.unwrap();
        assert!(page.entries.drain(..).all(|entry| entry.expires_at.unwrap() > bench.now()));
    }
    let (calls, replays) = bench.provider.calls_and_replays();
    assert!((100..=130).contains(&calls) && replays == 0, "{calls} {replays}");
}
