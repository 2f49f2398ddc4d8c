//! What an operator sees of an application: metrics with bounded labels, and spans.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use oauth_dance::User;
use oauth_dance::testing::ScriptedResponse;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use support::{Browser, Log, world};

/// Every counter as a line of its name and labels, and what it counts.
fn counters(metrics: &Snapshotter) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for (key, _, _, value) in metrics.snapshot().into_vec() {
        let DebugValue::Counter(count) = value else { panic!("{key:?} is no counter") };
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        *counters.entry(format!("{} {}", key.key().name(), labels.join(" "))).or_default() += count;
    }
    counters
}

#[tokio::test]
async fn metrics_and_spans_identify_no_user() {
    let recorder = DebuggingRecorder::new();
    let metrics = recorder.snapshotter();
    recorder.install().unwrap();
    let log = Log::default();
    let writer = log.clone();
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone());
    tracing_subscriber::registry().with(layer).init();

    let (provider, site) = world().await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    let browser = Browser::signed_in(&site, "alice-of-wonderland");
    let user = User::new("alice-of-wonderland");
    browser.login("acme").await;
    browser.get("/login/acme/authorized?state=x&code=y").await;
    browser.get("/login/nobody-knows-this-provider").await;
    for response in
        [ScriptedResponse::normal(), ScriptedResponse::status(503), ScriptedResponse::error(400, "invalid_grant")]
    {
        site.clock.advance(Duration::from_secs(3601));
        provider.next_token_response(response);
        let _ = site.oauth.client("acme", &user).await;
    }
    site.oauth.finish().await;

    let counted = counters(&metrics);
    let expected = [
        ("oauth_dance_logins_total provider= outcome=unknown_provider", 1),
        ("oauth_dance_logins_total provider=acme outcome=stored", 1),
        ("oauth_dance_logins_total provider=acme outcome=unknown_attempt", 1),
        ("oauth_dance_refresh_events_total provider=acme event=backing_off", 1),
        ("oauth_dance_refresh_events_total provider=acme event=needs_authorization", 1),
        ("oauth_dance_refresh_events_total provider=acme event=refreshed", 1),
    ];
    assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), count)).into());

    let text = log.text();
    for outcome in ["refreshed", "backing_off", "needs_authorization"] {
        let span = format!("token_refresh{{provider=\"acme\" storage=\"memory\" outcome=\"{outcome}\"}}");
        assert!(text.lines().any(|line| line.contains(&span) && line.contains("close")), "{span} in\n{text}");
    }
    assert!(text.contains(" login: ") && text.contains(" callback: "), "{text}");
    assert!(!text.contains("wonderland"), "{text}");
}
