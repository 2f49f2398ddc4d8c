//! The nonces that servers want in proofs (RFC 9449 sections 8 and 9).

use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{Answer, Endpoint, TestProvider};
use oauth_dance::{ApiError, ConnectError, ConnectionState};
use serde_json::{Value, json};

use crate::bound::{HOUR, alice, bound, bound_world, proof, thumbprint, userinfo_status};
use crate::support::{Browser, Setup};

#[tokio::test]
async fn tr_19_a_nonce_is_given_when_it_is_wanted_and_kept() {
    let (provider, site) = bound_world().await;
    provider.configure(|settings| settings.dpop_nonce = Some("one".to_owned()));
    let login = Browser::signed_in(&site, "alice").login("acme").await;
    assert_eq!(login.status, StatusCode::SEE_OTHER);
    let sent = provider.requests_to(Endpoint::Token);
    let nonces: Vec<_> = sent.iter().map(|request| proof(request).1.get("nonce").cloned()).collect();
    assert_eq!(nonces, [None, Some("one".into())]);
    assert_eq!(sent[0].form, sent[1].form);
    let counters = provider.counters();
    assert_eq!((counters.codes_redeemed, counters.families_revoked), (1, 0));

    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    assert_eq!(provider.requests_to(Endpoint::Userinfo).len(), 1, "the nonce of that origin is known");

    provider.configure(|settings| settings.dpop_nonce = Some("two".to_owned()));
    let answer = client.post("/notes").query(&[("a", "b")]).json(&json!({"x": [1]})).send().await.unwrap();
    assert_eq!(answer.json::<Value>().unwrap()["body"], r#"{"x":[1]}"#);
    let sent = provider.requests_to(Endpoint::Api);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].body, sent[1].body);
    assert_eq!((&proof(&sent[0]).1["nonce"], &proof(&sent[1]).1["nonce"]), (&"one".into(), &"two".into()));

    provider.configure(|settings| settings.dpop_nonce = Some("three".to_owned()));
    let refresh_token = site.refresh_token("alice").await.unwrap();
    provider.clear_requests();
    site.clock.advance(HOUR);
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 2);
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    let counters = provider.counters();
    assert_eq!(counters.redemptions[&refresh_token], 1);
    assert_eq!((counters.refreshes, counters.families_revoked), (1, 0));
}

/// The next requests of an endpoint are refused with nonces that are new each time.
fn never_content(provider: &TestProvider, endpoint: Endpoint) {
    for nonce in 0..8 {
        let answer = match endpoint {
            Endpoint::Token | Endpoint::PushedRequest => Answer::error(400, "use_dpop_nonce"),
            _ => Answer::status(401).header("www-authenticate", "DPoP error=\"use_dpop_nonce\""),
        };
        provider.next_answer(endpoint, answer.header("dpop-nonce", &format!("nonce-{nonce}")));
    }
}

#[tokio::test]
async fn tr_19_a_server_that_is_never_content_gets_two_requests() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    never_content(&provider, Endpoint::Token);
    assert_eq!(browser.login("acme").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 2);
    provider.clear_answers();

    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    never_content(&provider, Endpoint::Userinfo);
    let answer = client.userinfo().send().await.unwrap();
    assert_eq!((answer.status(), provider.requests_to(Endpoint::Userinfo).len()), (StatusCode::UNAUTHORIZED, 2));
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 2, "the token is not to blame, and is not refreshed");
    provider.clear_answers();

    // A refresh token that was never looked at is not spent.
    site.clock.advance(HOUR);
    never_content(&provider, Endpoint::Token);
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::BackingOff { .. }), "{error:?}");
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 4);
    provider.clear_answers();
    site.clock.advance(HOUR);
    let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap();
    assert_eq!(found.state, ConnectionState::Expiring, "and not in doubt");
    assert!(site.oauth.client("acme", &alice()).await.is_ok());
}

#[tokio::test]
async fn tr_19_only_a_server_that_says_so_gets_a_second_request() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    for answer in [
        Answer::error(400, "use_dpop_nonce"),
        Answer::error(400, "use_dpop_nonce").header("dpop-nonce", ""),
        Answer::error(400, "use_dpop_nonce").header("dpop-nonce", &"n".repeat(2000)),
        Answer::error(400, "invalid_dpop_proof").header("dpop-nonce", "n"),
        Answer::error(400, "invalid_grant").header("dpop-nonce", "n"),
        Answer::error(200, "use_dpop_nonce").header("dpop-nonce", "n"),
        Answer::error(503, "use_dpop_nonce").header("dpop-nonce", "n"),
        Answer::status(401).header("dpop-nonce", "n"),
    ] {
        provider.clear_requests();
        provider.next_token_answer(answer.clone());
        assert_eq!(browser.login("acme").await.status, StatusCode::BAD_GATEWAY, "{answer:?}");
        assert_eq!(provider.requests_to(Endpoint::Token).len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn tr_19_both_requests_have_the_time_of_one() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    let late = Duration::from_millis(1200);
    provider.next_token_answer(Answer::error(400, "use_dpop_nonce").header("dpop-nonce", "n").after(late));
    provider.next_token_answer(Answer::normal().hanging());
    provider.next_answer(Endpoint::Api, Answer::error(401, "use_dpop_nonce").header("dpop-nonce", "n").after(late));
    provider.next_answer(Endpoint::Api, Answer::normal().hanging());

    let start = Instant::now();
    let (page, answer) = tokio::join!(browser.login("acme"), client.get("/x").send());
    assert_eq!(page.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(matches!(answer, Err(ApiError::Timeout)));
    assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    for endpoint in [Endpoint::Token, Endpoint::Api] {
        assert_eq!(provider.requests_to(endpoint).len(), 2);
    }
}

#[tokio::test]
async fn tr_19_what_becomes_of_the_second_request_is_what_counts() {
    let challenge = || Answer::error(400, "use_dpop_nonce").header("dpop-nonce", "n");
    for (second, in_doubt) in [
        (Answer::normal().lost(), true),
        (Answer::normal().hanging(), true),
        (Answer::status(500), true),
        (Answer::status(429), false),
        (Answer::error(401, "invalid_client"), false),
    ] {
        let (provider, site) = bound_world().await;
        provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
        site.clock.advance(HOUR);
        provider.next_token_answer(challenge());
        provider.next_token_answer(second.clone());
        site.oauth.client("acme", &alice()).await.unwrap_err();
        assert_eq!(provider.requests_to(Endpoint::Token).len(), 2);
        site.clock.advance(HOUR);
        let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap().state;
        let expected = if in_doubt { ConnectionState::OutcomeUnknown } else { ConnectionState::Expiring };
        assert_eq!(found, expected, "{second:?}");
    }
}

#[tokio::test]
async fn a_push_is_proved_too_and_takes_nonces() {
    let provider = TestProvider::start().await.unwrap();
    let mut acme = bound(&provider);
    acme.pushed_authorization_request_endpoint = Some(format!("{}/par", provider.url()));
    let registration = acme.client("test-client", "test-secret");
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    provider.configure(|settings| {
        settings.requires_pushed_requests = true;
        settings.requires_dpop = true;
        settings.dpop_nonce = Some("one".to_owned());
    });
    let browser = Browser::signed_in(&site, "alice");
    let asked = browser.start("acme").await;
    let pushed = provider.requests_to(Endpoint::PushedRequest);
    assert_eq!((pushed.len(), asked.query_pairs().count()), (2, 2));
    assert_eq!(pushed[0].form, pushed[1].form, "the attempt stays the same");
    let (header, claims) = proof(&pushed[1]);
    assert_eq!(claims["nonce"], "one");
    assert_eq!(pushed[1].field("dpop_jkt"), Some(thumbprint(&header["jwk"]).as_str()));
    let callback = browser.approve(&asked).await;
    assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1, "the nonce is known by then");

    never_content(&provider, Endpoint::PushedRequest);
    provider.clear_requests();
    let page = browser.get("/login/acme").await;
    assert_eq!((page.status, page.location()), (StatusCode::BAD_GATEWAY, ""));
    assert_eq!(provider.requests_to(Endpoint::PushedRequest).len(), 2);
}
