//! Nonces that servers require in proofs (RFC 9449 sections 8 and 9).

use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ApiError, ConnectError, ConnectionState};
use serde_json::{Value, json};

use crate::bound::{HOUR, alice, bound, bound_world, proof, thumbprint, userinfo_status};
use crate::support::{Browser, Setup};

#[tokio::test]
async fn tr_19_a_required_nonce_is_sent_and_stored() {
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
    let response = client.post("/notes").query(&[("a", "b")]).json(&json!({"x": [1]})).send().await.unwrap();
    assert_eq!(response.json::<Value>().unwrap()["body"], r#"{"x":[1]}"#);
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

/// Refuses the next requests to an endpoint, each with a new nonce.
fn never_content(provider: &TestProvider, endpoint: Endpoint) {
    for nonce in 0..8 {
        let response = match endpoint {
            Endpoint::Token | Endpoint::PushedRequest => ScriptedResponse::error(400, "use_dpop_nonce"),
            _ => ScriptedResponse::status(401).header("www-authenticate", "DPoP error=\"use_dpop_nonce\""),
        };
        provider.next_response(endpoint, response.header("dpop-nonce", &format!("nonce-{nonce}")));
    }
}

#[tokio::test]
async fn tr_19_a_server_that_keeps_refusing_gets_two_requests() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    never_content(&provider, Endpoint::Token);
    assert_eq!(browser.login("acme").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 2);
    provider.clear_responses();

    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    never_content(&provider, Endpoint::Userinfo);
    let response = client.userinfo().send().await.unwrap();
    assert_eq!((response.status(), provider.requests_to(Endpoint::Userinfo).len()), (StatusCode::UNAUTHORIZED, 2));
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 2, "the token is not to blame, and is not refreshed");
    provider.clear_responses();

    // A refresh token in a request that was not processed is not spent.
    site.clock.advance(HOUR);
    never_content(&provider, Endpoint::Token);
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::BackingOff { .. }), "{error:?}");
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 4);
    provider.clear_responses();
    site.clock.advance(HOUR);
    let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap();
    assert_eq!(found.state, ConnectionState::Expiring, "and not in doubt");
    assert!(site.oauth.client("acme", &alice()).await.is_ok());
}

#[tokio::test]
async fn tr_19_only_use_dpop_nonce_causes_a_second_request() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    for response in [
        ScriptedResponse::error(400, "use_dpop_nonce"),
        ScriptedResponse::error(400, "use_dpop_nonce").header("dpop-nonce", ""),
        ScriptedResponse::error(400, "use_dpop_nonce").header("dpop-nonce", &"n".repeat(2000)),
        ScriptedResponse::error(400, "invalid_dpop_proof").header("dpop-nonce", "n"),
        ScriptedResponse::error(400, "invalid_grant").header("dpop-nonce", "n"),
        ScriptedResponse::error(200, "use_dpop_nonce").header("dpop-nonce", "n"),
        ScriptedResponse::error(503, "use_dpop_nonce").header("dpop-nonce", "n"),
        ScriptedResponse::status(401).header("dpop-nonce", "n"),
    ] {
        provider.clear_requests();
        provider.next_token_response(response.clone());
        assert_eq!(browser.login("acme").await.status, StatusCode::BAD_GATEWAY, "{response:?}");
        assert_eq!(provider.requests_to(Endpoint::Token).len(), 1, "{response:?}");
    }
}

#[tokio::test]
async fn tr_19_both_requests_share_one_timeout() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    let late = Duration::from_millis(1200);
    provider.next_token_response(ScriptedResponse::error(400, "use_dpop_nonce").header("dpop-nonce", "n").after(late));
    provider.next_token_response(ScriptedResponse::normal().hanging());
    provider.next_response(
        Endpoint::Api,
        ScriptedResponse::error(401, "use_dpop_nonce").header("dpop-nonce", "n").after(late),
    );
    provider.next_response(Endpoint::Api, ScriptedResponse::normal().hanging());

    let start = Instant::now();
    let (page, response) = tokio::join!(browser.login("acme"), client.get("/x").send());
    assert_eq!(page.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(matches!(response, Err(ApiError::Timeout)));
    assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    for endpoint in [Endpoint::Token, Endpoint::Api] {
        assert_eq!(provider.requests_to(endpoint).len(), 2);
    }
}

#[tokio::test]
async fn tr_19_the_outcome_of_the_second_request_counts() {
    let challenge = || ScriptedResponse::error(400, "use_dpop_nonce").header("dpop-nonce", "n");
    for (second, in_doubt) in [
        (ScriptedResponse::normal().lost(), true),
        (ScriptedResponse::normal().hanging(), true),
        (ScriptedResponse::status(500), true),
        (ScriptedResponse::status(429), false),
        (ScriptedResponse::error(401, "invalid_client"), false),
    ] {
        let (provider, site) = bound_world().await;
        provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
        site.clock.advance(HOUR);
        provider.next_token_response(challenge());
        provider.next_token_response(second.clone());
        site.oauth.client("acme", &alice()).await.unwrap_err();
        assert_eq!(provider.requests_to(Endpoint::Token).len(), 2);
        site.clock.advance(HOUR);
        let found = site.oauth.connection("acme", &alice()).await.unwrap().unwrap().state;
        let expected = if in_doubt { ConnectionState::OutcomeUnknown } else { ConnectionState::Expiring };
        assert_eq!(found, expected, "{second:?}");
    }
}

#[tokio::test]
async fn a_pushed_request_has_a_proof_and_accepts_nonces() {
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
    let requested = browser.start("acme").await;
    let pushed = provider.requests_to(Endpoint::PushedRequest);
    assert_eq!((pushed.len(), requested.query_pairs().count()), (2, 2));
    assert_eq!(pushed[0].form, pushed[1].form, "the attempt stays the same");
    let (header, claims) = proof(&pushed[1]);
    assert_eq!(claims["nonce"], "one");
    assert_eq!(pushed[1].field("dpop_jkt"), Some(thumbprint(&header["jwk"]).as_str()));
    let callback = browser.approve(&requested).await;
    assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1, "the nonce is known by then");

    never_content(&provider, Endpoint::PushedRequest);
    provider.clear_requests();
    let page = browser.get("/login/acme").await;
    assert_eq!((page.status, page.location()), (StatusCode::BAD_GATEWAY, ""));
    assert_eq!(provider.requests_to(Endpoint::PushedRequest).len(), 2);
}
