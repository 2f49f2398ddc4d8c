//! Disconnecting: deletion here, and revocation at the provider.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Revocation, TokenStorage as _, User};
use oauth_dance_core::Precondition;

use crate::support::{Browser, FragileStorage, Setup, Site, world};

#[tokio::test]
async fn lo_01_both_tokens_are_revoked() {
    let (provider, site) = world().await;
    let alice = User::new("alice");
    let token = provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let client = site.oauth.client("acme", &alice).await.unwrap();
    let done = site.oauth.disconnect("acme", &alice).await.unwrap();
    assert_eq!((done.removed, done.revocation), (true, Revocation::Done));
    let sent: Vec<_> = provider.requests_to(Endpoint::Revocation);
    let sent_tokens: Vec<_> = sent.iter().map(|sent| (sent.field("token"), sent.field("token_type_hint"))).collect();
    let refresh_token = token.refresh_token.unwrap();
    assert_eq!(
        sent_tokens,
        [
            (Some(refresh_token.expose()), Some("refresh_token")),
            (Some(token.access_token.expose()), Some("access_token")),
        ]
    );
    assert!(sent.iter().all(|sent| sent.header("authorization").unwrap().starts_with("Basic ")));
    assert_eq!(client.userinfo().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn lo_01_an_access_token_alone_is_revoked() {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.refresh_tokens = false);
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let client = site.oauth.client("acme", &alice).await.unwrap();
    assert_eq!(site.oauth.disconnect("acme", &alice).await.unwrap().revocation, Revocation::Done);
    assert_eq!(provider.requests_to(Endpoint::Revocation).len(), 1);
    assert_eq!(client.userinfo().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn lo_01_an_access_token_ended_by_the_grant_is_revoked() {
    let (provider, site) = world().await;
    let alice = User::new("alice");
    for (response, expected) in [(400, Revocation::Done), (503, Revocation::Failed)] {
        provider.connect(&site.oauth, "acme", &alice).await.unwrap();
        provider.next_response(Endpoint::Revocation, ScriptedResponse::normal());
        provider.next_response(Endpoint::Revocation, ScriptedResponse::error(response, "invalid_token"));
        assert_eq!(site.oauth.disconnect("acme", &alice).await.unwrap().revocation, expected);
    }
}

/// Twitch revokes access tokens only, and refuses any other token.
#[tokio::test]
async fn lo_01_the_access_token_is_revoked_in_any_case() {
    let (provider, site) = world().await;
    let alice = User::new("alice");
    for (status, body) in [
        (400, r#"{"status":400,"message":"Invalid token"}"#),
        (400, r#"{"error":"unsupported_token_type"}"#),
        (404, ""),
    ] {
        let token = provider.connect(&site.oauth, "acme", &alice).await.unwrap();
        let client = site.oauth.client("acme", &alice).await.unwrap();
        provider.clear_requests();
        provider.next_response(Endpoint::Revocation, ScriptedResponse::status(status).body(body));
        let done = site.oauth.disconnect("acme", &alice).await.unwrap();
        assert_eq!(done.revocation, Revocation::Failed, "the refresh token may still be valid");
        let sent = provider.requests_to(Endpoint::Revocation);
        assert_eq!(sent.last().unwrap().field("token"), Some(token.access_token.expose()), "{status} {body}");
        assert_eq!(client.userinfo().send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{status} {body}");
    }
}

#[tokio::test]
async fn lo_02_any_success_is_success() {
    let (provider, site) = world().await;
    let alice = User::new("alice");
    for response in [
        ScriptedResponse::status(200),
        ScriptedResponse::status(204),
        ScriptedResponse::status(200).body("<html>bye</html>"),
    ] {
        provider.connect(&site.oauth, "acme", &alice).await.unwrap();
        provider.next_response(Endpoint::Revocation, response);
        assert_eq!(site.oauth.disconnect("acme", &alice).await.unwrap().revocation, Revocation::Done);
    }
    let nothing = site.oauth.disconnect("acme", &alice).await.unwrap();
    assert_eq!((nothing.removed, nothing.revocation), (false, Revocation::NotPossible));
}

#[tokio::test]
async fn lo_03_lo_04_the_token_is_deleted_in_every_case() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.timeout(Duration::from_millis(250))).await;
    let alice = User::new("alice");
    let browser = Browser::signed_in(&site, "alice");
    for response in [
        ScriptedResponse::status(503).header("retry-after", "60"),
        ScriptedResponse::error(400, "unsupported_token_type"),
        ScriptedResponse::status(500).body("<html>"),
        ScriptedResponse::closed(),
        ScriptedResponse::normal().hanging(),
        ScriptedResponse::endless(),
        ScriptedResponse::redirect(307, "http://127.0.0.1:9/"),
    ] {
        let token = provider.connect(&site.oauth, "acme", &alice).await.unwrap();
        provider.next_response(Endpoint::Revocation, response);
        let since = Instant::now();
        let page = browser.post("/disconnect/acme", "", &[]).await;
        assert!(since.elapsed() < Duration::from_secs(2));
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.body, "Disconnected { removed: true, revocation: Failed }");
        assert!(!page.text().contains(token.access_token.expose()));
        assert_eq!(site.access_token("alice").await, None);
    }
}

/// Disconnecting reads the token to revoke it, and a refresh may replace it before it is deleted.
#[tokio::test]
async fn lo_01_a_token_that_was_just_refreshed_is_revoked() {
    let provider = TestProvider::start().await.unwrap();
    let storage = Arc::new(FragileStorage::default());
    let setup = Setup { storage: Arc::clone(&storage) as _, ..Setup::default() };
    let site = setup.start(|builder| builder.provider(provider.registration("acme"))).await;
    let alice = User::new("alice");
    let key = alice.key("acme").unwrap();
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let before = storage.get(&key).await.unwrap().unwrap().value;
    let newer = provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let after = storage.get(&key).await.unwrap().unwrap().value;
    storage.put(&key, &before, Precondition::Always).await.unwrap();

    *storage.meanwhile.lock().unwrap() = Some(after);
    let done = site.oauth.disconnect("acme", &alice).await.unwrap();
    assert_eq!((done.removed, done.revocation), (true, Revocation::Done));
    assert!(storage.get(&key).await.unwrap().is_none());
    let sent_tokens = provider.requests_to(Endpoint::Revocation);
    assert!(sent_tokens.iter().any(|sent| sent.field("token") == Some(newer.access_token.expose())));
}

#[tokio::test]
async fn lo_05_without_an_endpoint_nothing_is_sent() {
    let provider = TestProvider::start().await.unwrap();
    let mut plain = provider.provider("acme");
    plain.revocation_endpoint = None;
    let registration = plain.client("test-client", "test-secret");
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let done = site.oauth.disconnect("acme", &alice).await.unwrap();
    assert_eq!((done.removed, done.revocation), (true, Revocation::NotPossible));
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn lo_09_other_connections_are_unaffected() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.provider(provider.registration("beta"))).await;
    let users = ["alice", "bob"].map(User::new);
    for user in &users {
        for name in ["acme", "beta"] {
            provider.connect(&site.oauth, name, user).await.unwrap();
        }
    }
    site.oauth.disconnect("acme", &users[0]).await.unwrap();
    assert!(site.oauth.client("acme", &users[0]).await.is_err());
    for (name, user) in [("beta", &users[0]), ("acme", &users[1]), ("beta", &users[1])] {
        let client = site.oauth.client(name, user).await.unwrap();
        assert_eq!(client.userinfo().send().await.unwrap().status(), StatusCode::OK);
    }
}
