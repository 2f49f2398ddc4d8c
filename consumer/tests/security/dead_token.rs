//! An access token that is revoked before it expires, and API responses that reject a request for other reasons.

use std::time::Duration;

use axum::response::IntoResponse as _;
use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{
    ApiClient, ApiError, Connection, ConnectionState, DeadReason, OAuth2Token, Precondition, Token, User,
};

use super::oauth1_dance::{credentials, world as oauth1_world};
use crate::support::{Browser, Setup, Site, world};

fn alice() -> User {
    User::new("alice")
}

async fn connection(site: &Site) -> Connection {
    site.oauth.connection("acme", &alice()).await.unwrap().unwrap()
}

async fn is_dead(site: &Site) -> bool {
    let state = connection(site).await.state;
    matches!(state, ConnectionState::NeedsAuthorization { reason: DeadReason::Rejected | DeadReason::Refused, .. })
}

/// Removes the refresh token, as if the provider had not issued one.
async fn without_refresh_token(site: &Site) -> OAuth2Token {
    let mut token = site.token("alice").await.unwrap();
    token.refresh_token = None;
    let key = alice().key("acme").unwrap();
    site.oauth.tokens().put(&key, &Token::from(token.clone()), Precondition::Always).await.unwrap();
    token
}

/// A user whose token cannot be refreshed and is half an hour old, and a client with it.
async fn unrefreshable() -> (TestProvider, Site, ApiClient) {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    without_refresh_token(&site).await;
    site.clock.advance(Duration::from_secs(1800));
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    (provider, site, client)
}

fn rejects_all(provider: &TestProvider, endpoints: &[Endpoint], response: &ScriptedResponse) {
    for endpoint in endpoints {
        (0..30).for_each(|_| provider.next_response(*endpoint, response.clone()));
    }
}

fn calls(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Api).len() + provider.requests_to(Endpoint::Userinfo).len()
}

#[tokio::test]
async fn a_revoked_token_leads_to_the_login_before_it_expires() {
    for refreshable in [true, false] {
        let (provider, site) = world().await;
        let token = provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
        if !refreshable {
            without_refresh_token(&site).await;
        }
        provider.revoke_all_of("alice");
        let browser = Browser::signed_in(&site, "alice");
        let page = browser.get("/required?page=2").await;
        assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/login/acme?next=%2Frequired%3Fpage%3D2"));
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(is_dead(&site).await);
        assert_eq!(site.access_token("alice").await.as_deref(), Some(token.access_token.expose()), "it is not lost");

        // The next request knows it, in another process too, and for a program.
        provider.clear_requests();
        let setup = Setup { storage: site.storage.clone(), keys: site.keys.clone(), ..Setup::default() };
        let other = setup.start(|builder| builder.provider(provider.registration("acme"))).await;
        for site in [&site, &other] {
            let browser = Browser::signed_in(site, "alice");
            assert_eq!(browser.get("/required").await.location(), "/login/acme?next=%2Frequired");
            let response = browser.get_with("/required", &[("accept", "application/json")]).await;
            assert_eq!(
                (response.status, &response.json()["error"]),
                (StatusCode::UNAUTHORIZED, &"needs_authorization".into())
            );
        }
        assert_eq!(provider.requests().len(), 0, "nothing is sent");

        assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
        assert_eq!(browser.get("/required").await.status, StatusCode::OK);
        assert_eq!(connection(&site).await.state, ConnectionState::Valid);
    }
}

#[tokio::test]
async fn a_program_gets_401_from_the_first_call() {
    for refreshable in [true, false] {
        let (provider, site) = world().await;
        provider.configure(|settings| settings.secret_prefix = "CANARY".to_owned());
        provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
        if !refreshable {
            without_refresh_token(&site).await;
        }
        let client = site.oauth.client("acme", &alice()).await.unwrap();
        provider.revoke_all_of("alice");
        let program = Browser::signed_in(&site, "alice");
        let response = program.get_with("/required", &[("accept", "*/*")]).await;
        assert_eq!(
            (response.status, &response.json()["error"]),
            (StatusCode::UNAUTHORIZED, &"needs_authorization".into())
        );
        assert!(response.set_cookies().is_empty() && !response.text().contains("CANARY"));

        // A job that started before gets the same error, and an equivalent response.
        let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
        assert!(error.needs_authorization(), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("CANARY"));
        assert_eq!(error.into_response().status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_form_gets_a_page_with_a_link() {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    provider.revoke_all_of("alice");
    let browser = Browser::signed_in(&site, "alice");
    for _ in 0..2 {
        let page = browser.post("/required", "", &[]).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(page.body.contains("href=\"/login/acme\"") && page.header("content-type").contains("html"), "{page:?}");
    }
}

/// The browser is not redirected in a loop: the second time it gets a page with a link.
#[tokio::test]
async fn an_api_that_rejects_every_token_causes_no_loop() {
    let (provider, site) = world().await;
    let invalid = ScriptedResponse::status(401).header("www-authenticate", "Bearer error=\"invalid_token\"");
    rejects_all(&provider, &[Endpoint::Userinfo], &invalid);
    let alice = Browser::signed_in(&site, "alice");
    let mut logins = 0;
    let page = loop {
        let page = alice.get("/required").await;
        if page.status != StatusCode::SEE_OTHER {
            break page;
        }
        logins += 1;
        assert!(logins < 5, "a loop");
        alice.login("acme").await;
        without_refresh_token(&site).await;
    };
    assert_eq!((page.status, logins), (StatusCode::UNAUTHORIZED, 2), "to connect, and once more");
    assert!(page.body.contains("href=\"/login/acme?next=%2Frequired\""), "{page:?}");
    assert_eq!(alice.get("/required").await.status, StatusCode::SEE_OTHER, "who asks again wants to");
}

#[tokio::test]
async fn an_api_that_rejects_every_token_costs_one_refresh() {
    for response in [ScriptedResponse::status(401), ScriptedResponse::error(401, "invalid_token")] {
        let (provider, site) = world().await;
        provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
        rejects_all(&provider, &[Endpoint::Userinfo], &response);
        site.clock.advance(Duration::from_secs(120));
        let browser = Browser::signed_in(&site, "alice");
        for _ in 0..20 {
            assert_eq!(browser.get("/required").await.status, StatusCode::BAD_GATEWAY, "a login would not help");
        }
        assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
        assert_eq!(connection(&site).await.state, ConnectionState::Valid);
    }
}

#[tokio::test]
async fn a_bare_401_does_not_replace_a_new_token() {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    provider.next_response(Endpoint::Api, ScriptedResponse::status(401));
    let error = client.get("/wrong").send().await.unwrap().success().unwrap_err();
    assert!(matches!(error, ApiError::Status { status: StatusCode::UNAUTHORIZED }), "{error:?}");
    assert_eq!((calls(&provider), provider.requests_to(Endpoint::Token).len()), (1, 0));

    provider.next_response(
        Endpoint::Api,
        ScriptedResponse::error(403, "x").header("www-authenticate", "Bearer error=\"invalid_token\""),
    );
    assert_eq!(client.post("/notes").send().await.unwrap().status(), StatusCode::OK, "invalid_token says more");
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
}

/// Some APIs respond with 401 if the scope or the path is wrong.
#[tokio::test]
async fn a_401_for_another_reason_changes_nothing() {
    let (provider, site, client) = unrefreshable().await;
    let scope = ScriptedResponse::status(401).header("www-authenticate", "Bearer error=\"insufficient_scope\"");
    for (response, expected) in
        [(ScriptedResponse::status(401), 2), (ScriptedResponse::error(401, "no_such_path"), 2), (scope, 1)]
    {
        provider.clear_requests();
        provider.next_response(Endpoint::Api, response);
        let error = client.get("/wrong").send().await.unwrap().success().unwrap_err();
        assert!(matches!(error, ApiError::Status { .. }) && !error.needs_authorization(), "{error:?}");
        assert_eq!(error.into_response().status(), StatusCode::BAD_GATEWAY);
        assert_eq!(calls(&provider), expected, "userinfo is called if the reason is unclear");
        assert_eq!(connection(&site).await.state, ConnectionState::Valid);
    }
    for broken in [
        ScriptedResponse::status(503),
        ScriptedResponse::status(403),
        ScriptedResponse::closed(),
        ScriptedResponse::status(404),
    ] {
        provider.next_response(Endpoint::Api, ScriptedResponse::status(401));
        provider.next_response(Endpoint::Userinfo, broken);
        assert_eq!(client.get("/wrong").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(connection(&site).await.state, ConnectionState::Valid);
    }
}

#[tokio::test]
async fn a_bare_401_from_api_and_userinfo_is_the_token_s() {
    let (provider, site, client) = unrefreshable().await;
    rejects_all(&provider, &[Endpoint::Api, Endpoint::Userinfo], &ScriptedResponse::status(401));
    let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
    assert!(error.needs_authorization(), "{error:?}");
    assert!(is_dead(&site).await);
}

#[tokio::test]
async fn a_bare_401_without_userinfo_counts_for_an_old_token() {
    let provider = TestProvider::start().await.unwrap();
    let mut known = provider.provider("acme");
    known.userinfo_endpoint = None;
    let registration = known.client("test-client", "test-secret");
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    without_refresh_token(&site).await;
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    for (seconds, dead) in [(0, false), (59, false), (1, true)] {
        site.clock.advance(Duration::from_secs(seconds));
        provider.next_response(Endpoint::Api, ScriptedResponse::status(401));
        let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
        assert_eq!((error.needs_authorization(), is_dead(&site).await), (dead, dead));
    }
}

#[tokio::test]
async fn oauth1_credentials_are_dead_if_the_client_is_accepted() {
    let (provider, site) = oauth1_world().await;
    provider.connect_oauth1(&site.oauth, "acme", &alice()).await.unwrap();
    let browser = Browser::signed_in(&site, "alice");
    let bare = ScriptedResponse::status(401);
    // The client may be the cause: then none of its requests is accepted.
    provider.next_response(Endpoint::Userinfo, bare.clone());
    provider.next_response(Endpoint::Userinfo, bare.clone());
    provider.next_response(
        Endpoint::TemporaryCredentials,
        ScriptedResponse::status(401).body("oauth_problem=timestamp_refused"),
    );
    assert_eq!(browser.get("/required").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(connection(&site).await.state, ConnectionState::Valid);

    let before = credentials(&site, "alice").await;
    provider.next_response(Endpoint::Userinfo, bare.clone());
    provider.next_response(Endpoint::Userinfo, bare);
    assert_eq!(browser.get("/required").await.location(), "/login/acme?next=%2Frequired");
    assert!(is_dead(&site).await);
    assert_eq!(credentials(&site, "alice").await, before, "they are not lost");
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/required").await.status, StatusCode::OK);
}

/// Another process has a newer token, which was revoked as well: the same call detects both.
#[tokio::test]
async fn a_replaced_and_revoked_token_is_dead_at_once() {
    let (provider, site) = world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    provider.revoke_all_of("alice");
    let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
    assert!(error.needs_authorization(), "{error:?}");
    assert!(is_dead(&site).await);
}
