//! Refreshing an access token that has expired.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Client, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ConnectError, ConnectionState, OAuth, User};
use serde_json::Value;

use crate::support::{Browser, Site, world};

const HOUR: Duration = Duration::from_secs(3601);

fn alice() -> User {
    User::new("alice")
}

/// A user whose access token has expired.
async fn expired() -> (TestProvider, Site) {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    site.clock.advance(HOUR);
    (provider, site)
}

fn refreshes(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Token).len()
}

#[tokio::test]
async fn an_expired_token_is_refreshed_once() {
    let (provider, site) = expired().await;
    let before = site.access_token("alice").await;
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(client.userinfo().send().await.unwrap().status(), StatusCode::OK);
    assert_ne!(site.access_token("alice").await, before);
    site.oauth.client("acme", &alice()).await.unwrap();
    let sent = provider.requests_to(Endpoint::Token);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].field("grant_type"), Some("refresh_token"));
    assert_eq!(sent[0].field("scope"), None);
}

#[tokio::test]
async fn rf_04_a_new_refresh_token_replaces_the_old() {
    let (provider, site) = expired().await;
    let mut seen = vec![site.refresh_token("alice").await.unwrap()];
    for _ in 0..3 {
        site.oauth.client("acme", &alice()).await.unwrap();
        seen.push(site.refresh_token("alice").await.unwrap());
        site.clock.advance(HOUR);
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
    let counters = provider.counters();
    assert!(counters.redemptions.values().all(|times| *times == 1));
    assert_eq!((counters.refreshes, counters.families_revoked), (3, 0));
}

#[tokio::test]
async fn rf_04_without_a_new_refresh_token_the_old_remains() {
    let (provider, site) = expired().await;
    provider.configure(|settings| settings.rotation = false);
    let old = site.refresh_token("alice").await;
    for response in [
        ScriptedResponse::normal(),
        ScriptedResponse::normal().member("refresh_token", Value::Null),
        ScriptedResponse::normal().member("refresh_token", ""),
        ScriptedResponse::normal().member("refresh_token", 0),
    ] {
        provider.next_token_response(response);
        site.oauth.client("acme", &alice()).await.unwrap();
        assert_eq!(site.refresh_token("alice").await, old);
        site.clock.advance(HOUR);
    }
    assert_eq!(provider.counters().refreshes, 4);
}

#[tokio::test]
async fn rf_04_a_token_without_a_lifetime_still_expires() {
    let (provider, site) = expired().await;
    provider.configure(|settings| settings.rotation = false);
    provider.next_token_response(ScriptedResponse::normal().without("expires_in"));
    site.oauth.client("acme", &alice()).await.unwrap();
    site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(refreshes(&provider), 1, "not all the time");
    site.clock.advance(HOUR);
    site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(refreshes(&provider), 2, "but again, some day");
}

#[tokio::test]
async fn rf_05_a_lifetime_of_zero_causes_no_loop() {
    let (provider, site) = expired().await;
    provider.configure(|settings| settings.access_token_lifetime = Duration::ZERO);
    for _ in 1..4 {
        site.oauth.client("acme", &alice()).await.unwrap();
        assert_eq!(refreshes(&provider), 1, "it is taken not to say");
    }
}

/// The login that it would lead to would bring the same token again.
#[tokio::test]
async fn an_expired_token_alone_causes_no_loop() {
    let (provider, site) = world().await;
    let browser = Browser::signed_in(&site, "alice");
    for (member, value) in [("expires_in", Value::from(0)), ("expires_in", (-1).into()), ("expires_at", 1.into())] {
        let response =
            ScriptedResponse::normal().without("refresh_token").without("expires_in").member(member, value.clone());
        provider.next_token_response(response);
        assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
        assert_eq!(browser.get("/required").await.status, StatusCode::OK, "{member} {value}");
    }
}

#[tokio::test]
async fn retry_after_with_an_error_is_respected() {
    for (status, code) in [(429, "slow_down"), (400, "temporarily_unavailable"), (503, "temporarily_unavailable")] {
        let (provider, site) = expired().await;
        provider.next_token_response(ScriptedResponse::error(status, code).header("retry-after", "1800"));
        let now = site.clock.clock().now();
        let error = site.oauth.client("acme", &alice()).await.unwrap_err();
        let ConnectError::BackingOff { until, .. } = error else { panic!("{error:?}") };
        assert!(until >= now.saturating_add(Duration::from_secs(1800)), "{status} {code}");

        let page = Browser::signed_in(&site, "alice").get_with("/required", &[("accept", "*/*")]).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        let wait: u64 = page.header("retry-after").parse().unwrap();
        assert!((1799..=3600).contains(&wait), "{wait}");
    }
}

/// The provider may have spent the refresh token before the gateway failed, whatever the gateway responds.
#[tokio::test]
async fn an_error_of_a_gateway_may_hide_a_rotation() {
    for response in [
        ScriptedResponse::normal().map_body(|_| br#"{"error":"server_error"}"#.to_vec()).with_status(502),
        ScriptedResponse::normal().map_body(|_| br#"{"error":"temporarily_unavailable"}"#.to_vec()).with_status(503),
        ScriptedResponse::normal().map_body(|_| b"<html>".to_vec()).with_status(504),
    ] {
        let (provider, site) = expired().await;
        provider.next_token_response(response);
        assert!(matches!(site.oauth.client("acme", &alice()).await, Err(ConnectError::BackingOff { .. })));
        site.clock.advance(HOUR);
        let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap();
        assert_eq!(found.state, ConnectionState::OutcomeUnknown);
    }
}

#[tokio::test]
async fn rf_06_a_dead_grant_leads_to_the_login() {
    let (provider, site) = expired().await;
    provider.revoke_all_of("alice");
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::NeedsAuthorization { .. }), "{error:?}");
    assert!(site.refresh_token("alice").await.is_some(), "nothing is thrown away");

    let browser = Browser::signed_in(&site, "alice");
    let page = browser.get("/required").await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/login/acme?next=%2Frequired"));
    assert_eq!(browser.get_with("/required", &[("accept", "*/*")]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/required").await.status, StatusCode::OK);
}

#[tokio::test]
async fn rf_07_a_temporary_failure_loses_nothing() {
    let (provider, site) = expired().await;
    let before = (site.access_token("alice").await, site.refresh_token("alice").await);
    let responses = [
        ScriptedResponse::status(500).body("<html>oops</html>"),
        ScriptedResponse::status(502),
        ScriptedResponse::status(503).header("retry-after", "30"),
        ScriptedResponse::status(429).header("retry-after", "soon"),
        ScriptedResponse::error(400, "temporarily_unavailable"),
        ScriptedResponse::status(400)
            .body(r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#),
        ScriptedResponse::status(200).body("<html>maintenance</html>"),
        ScriptedResponse::closed(),
    ];
    for (tries, response) in responses.into_iter().enumerate() {
        provider.next_token_response(response);
        let error = site.oauth.client("acme", &alice()).await.unwrap_err();
        assert!(matches!(error, ConnectError::BackingOff { .. }), "{error:?}");
        assert_eq!((site.access_token("alice").await, site.refresh_token("alice").await), before);
        let error = site.oauth.client("acme", &alice()).await.unwrap_err();
        assert!(matches!(error, ConnectError::BackingOff { .. }), "{error:?}");
        assert_eq!(refreshes(&provider), tries + 1, "the provider is left alone for a while");
        site.clock.advance(HOUR);
    }
    site.oauth.client("acme", &alice()).await.unwrap();
}

#[tokio::test]
async fn rf_07_a_good_token_works_while_the_provider_is_down() {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    provider.next_token_response(ScriptedResponse::status(500));
    site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(refreshes(&provider), 0);
}

#[tokio::test]
async fn rf_08_a_lost_response_leads_to_the_login() {
    let (provider, site) = expired().await;
    provider.next_token_response(ScriptedResponse::normal().lost());
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::BackingOff { .. }), "{error:?}");
    let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap();
    assert!(matches!(found.state, ConnectionState::BackingOff { .. }), "{:?}", found.state);
    assert_eq!(refreshes(&provider), 1);
    site.clock.advance(HOUR);
    let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap();
    assert_eq!(found.state, ConnectionState::OutcomeUnknown);
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(error.needs_login(), "{error:?}");
    assert_eq!(provider.counters().families_revoked, 1);
    let browser = Browser::signed_in(&site, "alice");
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/required").await.status, StatusCode::OK);
}

#[tokio::test]
async fn rf_09_a_wrong_client_secret_ends_no_connection() {
    let (provider, site) = expired().await;
    provider.next_token_response(ScriptedResponse::error(401, "invalid_client"));
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(!error.needs_login(), "{error:?}");
    assert!(matches!(error, ConnectError::BackingOff { cause, .. } if cause.contains("invalid_client")));
    site.clock.advance(HOUR);
    site.oauth.client("acme", &alice()).await.unwrap();
}

#[tokio::test]
async fn rf_10_a_refresh_token_is_sent_only_to_its_provider() {
    let (one, two) = (TestProvider::start().await.unwrap(), TestProvider::start().await.unwrap());
    two.configure(|settings| {
        settings.clients.insert("two".to_owned(), Client::confidential("secret of two"));
    });
    let beta = two.provider("beta").client("two", "secret of two");
    let site = Site::with(&one, |builder| builder.provider(beta)).await;
    let browser = Browser::signed_in(&site, "alice");
    browser.login("acme").await;
    browser.login("beta").await;
    site.clock.advance(HOUR);
    for name in ["acme", "beta"] {
        site.oauth.client(name, &alice()).await.unwrap();
    }
    for provider in [&one, &two] {
        assert_eq!(refreshes(provider), 2);
        let counters = provider.counters();
        assert_eq!((counters.refreshes, counters.families_revoked), (1, 0));
    }
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen");
}

/// Neither the body nor the query of the call that caused the refresh.
#[tokio::test]
async fn rf_10_a_refresh_contains_nothing_of_the_call() {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
    let call = client.post("/notes").query(&[("q", "private")]).json(&serde_json::json!({ "text": "private" }));
    call.send().await.unwrap().success().unwrap();

    let refresh = provider.requests_to(Endpoint::Token).pop().unwrap();
    let fields: Vec<_> = refresh.form.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(fields, ["grant_type", "refresh_token"]);
    assert!(refresh.query.is_empty() && !String::from_utf8_lossy(&refresh.body).contains("private"));
}

#[tokio::test]
async fn one_user_s_expiry_does_not_affect_others() {
    let (provider, site) = world().await;
    let browsers = ["alice", "bob"].map(|user| Browser::signed_in(&site, user));
    browsers[0].login("acme").await;
    provider.next_token_response(ScriptedResponse::normal().without("expires_in").without("refresh_token"));
    browsers[1].login("acme").await;
    site.clock.advance(HOUR);
    for _ in 0..2 {
        site.oauth.client("acme", &User::new("alice")).await.unwrap();
        site.oauth.client("acme", &User::new("bob")).await.unwrap();
    }
    assert_eq!(provider.counters().refreshes, 1, "alice's");
}

#[tokio::test]
async fn rf_11_a_dropped_caller_loses_nothing() {
    let (provider, site) = expired().await;
    let before = site.refresh_token("alice").await;
    provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(150)));
    let gone = tokio::time::timeout(Duration::from_millis(50), site.oauth.client("acme", &alice())).await;
    assert!(gone.is_err(), "the caller waits no longer");
    until(async || site.refresh_token("alice").await != before).await;
    site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!((refreshes(&provider), provider.counters().families_revoked), (1, 0));
}

#[tokio::test]
async fn rf_14_without_a_refresh_token_nothing_is_sent() {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.refresh_tokens = false);
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    site.clock.advance(HOUR);
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::NeedsAuthorization { .. }), "{error:?}");
    assert_eq!(refreshes(&provider), 0);
}

/// Starts a slow refresh, and waits until the provider has received the request.
async fn slow_refresh(
    provider: &TestProvider,
    oauth: &OAuth,
) -> tokio::task::JoinHandle<Result<oauth_dance::ApiClient, ConnectError>> {
    let before = refreshes(provider);
    provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(150)));
    let oauth = oauth.clone();
    let refreshing = tokio::spawn(async move { oauth.client("acme", &alice()).await });
    until(async || refreshes(provider) > before).await;
    refreshing
}

#[tokio::test]
async fn rf_15_a_logout_during_a_refresh_takes_precedence() {
    let (provider, site) = expired().await;
    let refreshing = slow_refresh(&provider, &site.oauth).await;
    assert!(site.oauth.disconnect("acme", &alice()).await.unwrap().removed);
    let error = refreshing.await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::NotConnected), "{error:?}");
    assert_eq!(site.access_token("alice").await, None);
}

#[tokio::test]
async fn rf_16_a_login_during_a_refresh_takes_precedence() {
    let (provider, site) = expired().await;
    let refreshing = slow_refresh(&provider, &site.oauth).await;
    provider.configure(|settings| settings.user = "other account".to_owned());
    assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
    let login = site.access_token("alice").await;
    let client = refreshing.await.unwrap().unwrap();
    assert_eq!(site.access_token("alice").await, login);
    assert_eq!(Some(client.token().secret().expose().to_owned()), login, "and is what the caller gets");
    let me: Value = client.userinfo().send().await.unwrap().json().unwrap();
    assert_eq!(me["sub"], "other account");
}

#[tokio::test]
async fn a_refresh_works_for_jobs_without_a_request() {
    let (provider, site) = expired().await;
    let oauth = Arc::new(site.oauth.clone());
    let job = tokio::spawn(async move {
        let client = oauth.client("acme", &alice()).await?;
        Ok::<_, ConnectError>(client.get("/report").send().await.unwrap().status())
    });
    assert_eq!(job.await.unwrap().unwrap(), StatusCode::OK);
    assert_eq!(refreshes(&provider), 1);
}
