//! An access token that the API rejects before it expires.

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ApiClient, OAuth2Token, User};
use oauth_dance_core::{Precondition, Token};
use tokio::task::JoinSet;

use crate::support::{Site, world};

fn rejection() -> ScriptedResponse {
    ScriptedResponse::error(401, "invalid_token").header("www-authenticate", "Bearer error=\"invalid_token\"")
}

async fn connected() -> (TestProvider, Site, ApiClient) {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &User::new("alice")).await.unwrap();
    let client = site.oauth.client("acme", &User::new("alice")).await.unwrap();
    (provider, site, client)
}

fn calls_and_refreshes(provider: &TestProvider) -> (usize, usize) {
    (provider.requests_to(Endpoint::Api).len(), provider.requests_to(Endpoint::Token).len())
}

#[tokio::test]
async fn ac_05_a_rejected_token_is_replaced_once() {
    let (provider, site, client) = connected().await;
    let before = site.access_token("alice").await.unwrap();
    provider.next_response(Endpoint::Api, rejection());
    let response = client.put("/notes/1").header(http::header::ETAG, "x".parse().unwrap()).json(&["text"]);
    let response = response.send().await.unwrap().success().unwrap();
    assert_eq!(response.json::<serde_json::Value>().unwrap()["body"], "[\"text\"]");
    assert_eq!(calls_and_refreshes(&provider), (2, 1));

    let calls = provider.requests_to(Endpoint::Api);
    let after = site.access_token("alice").await.unwrap();
    assert_ne!(before, after);
    assert_eq!(calls[0].header("authorization"), Some(format!("Bearer {before}").as_str()));
    assert_eq!(calls[1].header("authorization"), Some(format!("Bearer {after}").as_str()));
    assert_eq!((calls[1].method.as_str(), calls[1].header("etag")), ("PUT", Some("x")));
    assert_eq!(provider.counters().families_revoked, 0);
}

#[tokio::test]
async fn ac_05_a_second_rejection_is_returned_to_the_caller() {
    let (provider, _site, client) = connected().await;
    provider.next_response(Endpoint::Api, rejection());
    provider.next_response(Endpoint::Api, rejection());
    let response = client.get("/notes").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().contains_key("www-authenticate"));
    assert_eq!(calls_and_refreshes(&provider), (2, 1));
}

/// Another process has refreshed the token since this client was created: the stored one is tried, and nothing is redeemed.
#[tokio::test]
async fn ac_05_an_already_replaced_token_is_not_refreshed() {
    let (provider, site, client) = connected().await;
    let newer = provider.connect(&site.oauth, "acme", &User::new("alice")).await.unwrap();
    provider.next_response(Endpoint::Api, rejection());
    client.get("/notes").send().await.unwrap().success().unwrap();
    assert_eq!(calls_and_refreshes(&provider), (2, 0));
    let repeated = format!("Bearer {}", newer.access_token.expose());
    assert_eq!(provider.requests_to(Endpoint::Api)[1].header("authorization"), Some(repeated.as_str()));
}

#[tokio::test]
async fn ac_05_many_rejected_calls_share_one_refresh() {
    let (provider, site, client) = connected().await;
    let rejected = site.access_token("alice").await.unwrap();
    for _ in 0..20 {
        provider.next_response(Endpoint::Api, rejection());
    }
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { client.get("/notes").send().await.unwrap().status() });
    }
    calls.join_all().await;
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
    assert_eq!(provider.counters().families_revoked, 0);
    assert_ne!(site.access_token("alice").await.unwrap(), rejected);
}

/// There is no other token, so the caller gets the API's response, and the stored token is not lost.
#[tokio::test]
async fn ac_05_without_another_token_the_response_is_returned() {
    let (provider, site) = world().await;
    let user = User::new("alice");
    let key = user.key("acme").unwrap();
    let token = Token::from(OAuth2Token::bearer("old"));
    site.oauth.tokens().put(&key, &token, Precondition::Always).await.unwrap();
    let client = site.oauth.client("acme", &user).await.unwrap();
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(calls_and_refreshes(&provider), (1, 0));
    assert_eq!(site.access_token("alice").await.as_deref(), Some("old"));

    let fresh = provider.connect(&site.oauth, "acme", &user).await.unwrap();
    let client = site.oauth.client("acme", &user).await.unwrap();
    provider.next_response(Endpoint::Api, rejection());
    provider.next_token_response(ScriptedResponse::status(503));
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.token("alice").await.unwrap().refresh_token, fresh.refresh_token);
}

/// Some APIs respond with 403 or 400 to an expired token. Its expiry is known, so it is never sent.
#[tokio::test]
async fn ac_06_an_expired_token_is_never_sent() {
    let (provider, site) = world().await;
    provider.configure(|settings| {
        settings.clock = site.clock.clock();
        settings.access_token_lifetime = Duration::from_secs(2);
    });
    provider.connect(&site.oauth, "acme", &User::new("alice")).await.unwrap();
    let expired = site.access_token("alice").await.unwrap();
    site.clock.advance(Duration::from_secs(3));
    let client = site.oauth.client("acme", &User::new("alice")).await.unwrap();
    client.get("/notes").send().await.unwrap().success().unwrap();
    let calls = provider.requests_to(Endpoint::Api);
    assert_eq!(calls.len(), 1);
    assert!(!calls[0].header("authorization").unwrap().contains(&expired));
}

/// The request may have been processed before the redirect, even if that leads back to the same URL.
#[tokio::test]
async fn ac_08_nothing_is_sent_again_after_a_redirect() {
    for (status, location) in [
        (301, "/api/done"),
        (302, "/api/done"),
        (303, "/api/done"),
        (303, "/api/orders"),
        (307, "/api/v2"),
        (308, "/api/v2"),
    ] {
        let (provider, site, client) = connected().await;
        let before = site.access_token("alice").await;
        provider.next_response(Endpoint::Api, ScriptedResponse::redirect(status, location));
        provider.next_response(Endpoint::Api, rejection());
        let response = client.post("/orders").body("1 piano").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{status} {location}");
        assert_eq!(calls_and_refreshes(&provider), (2, 1), "{status} {location}");
        assert_ne!(site.access_token("alice").await, before, "the next call has a new token");
    }
    let (provider, _site, client) = connected().await;
    provider.next_response(Endpoint::Api, rejection());
    provider.next_response(Endpoint::Api, ScriptedResponse::redirect(303, "/api/done"));
    client.post("/orders").body("1 piano").send().await.unwrap().success().unwrap();
    let paths: Vec<_> = provider.requests_to(Endpoint::Api).iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, ["/api/orders", "/api/orders", "/api/done"], "the first hop itself may reject the token");
}

#[tokio::test]
async fn an_empty_body_has_a_length() {
    let (provider, _site, client) = connected().await;
    for (request, length) in [
        (client.post("/x"), Some("0")),
        (client.put("/x"), Some("0")),
        (client.patch("/x"), Some("0")),
        (client.post("/x").body(""), Some("0")),
        (client.post("/x").form(&[("", ""); 0]), Some("0")),
        (client.post("/x").body("text"), Some("4")),
        (client.get("/x"), None),
        (client.delete("/x"), None),
    ] {
        provider.clear_requests();
        provider.next_response(Endpoint::Api, ScriptedResponse::redirect(307, "/api/y"));
        request.send().await.unwrap().success().unwrap();
        for request in provider.requests() {
            assert_eq!(request.header("content-length"), length, "{} {}", request.method, request.path);
        }
    }
    provider.next_response(Endpoint::Api, ScriptedResponse::redirect(303, "/api/y"));
    client.post("/x").send().await.unwrap().success().unwrap();
    assert_eq!(provider.requests_to(Endpoint::Api).pop().unwrap().header("content-length"), None, "it is a GET now");
}

/// RFC 5849 section 2.1: such a request has its parameters in a header, and some servers respond with 411 without a length.
#[tokio::test]
async fn every_request_of_the_library_has_a_length() {
    let (provider, site) = super::oauth1_dance::world().await;
    let alice = crate::support::Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    for endpoint in [Endpoint::TemporaryCredentials, Endpoint::Token] {
        let request = provider.requests_to(endpoint).pop().unwrap();
        assert_eq!(request.header("content-length"), Some("0"), "{endpoint:?}");
    }

    let (provider, site) = world().await;
    let mut known = provider.provider("acme");
    known.quirks.revocation = oauth_dance::RevocationRequest::Post;
    let registration = known.client("test-client", "test-secret");
    drop(site);
    let site = crate::support::Setup::default().start(|builder| builder.provider(registration)).await;
    provider.connect(&site.oauth, "acme", &User::new("alice")).await.unwrap();
    site.clock.advance(Duration::from_secs(3601));
    site.oauth.client("acme", &User::new("alice")).await.unwrap();
    site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    let requests = provider.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.header("content-length").is_some()), "{requests:?}");
}
