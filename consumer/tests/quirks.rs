//! What providers do differently, over real HTTP: each quirk where it is used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method};
use oauth_dance::testing::{Endpoint, LoggedRequest, ScriptedResponse, TestProvider};
use oauth_dance::{ApiError, OfflineAccess, Provider, Revocation, RevocationRequest, TokenHeader, TokenRequest, User};
use support::{Browser, Setup, Site};

/// A provider, and an application that knows it with these changes.
async fn changed(change: impl FnOnce(&mut Provider)) -> (TestProvider, Site) {
    let server = TestProvider::start().await.unwrap();
    let mut provider = server.provider("acme");
    change(&mut provider);
    let (id, secret) = oauth_dance::testing::CLIENT;
    let registration = provider.client(id, secret);
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    (server, site)
}

async fn log_in(site: &Site) {
    let page = Browser::signed_in(site, "alice").login("acme").await;
    assert!(page.status.is_redirection() || page.status.is_success(), "{}", page.text());
}

async fn client(site: &Site) -> oauth_dance::ApiClient {
    site.oauth.client("acme", &User::new("alice")).await.unwrap()
}

fn only(server: &TestProvider, endpoint: Endpoint) -> LoggedRequest {
    let mut requests = server.requests_to(endpoint);
    assert_eq!(requests.len(), 1, "{endpoint:?}");
    requests.remove(0)
}

fn json(request: &LoggedRequest) -> serde_json::Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn one(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

#[tokio::test]
async fn pkce_is_omitted_only_if_the_quirk_is_set() {
    for without in [false, true] {
        let (server, site) = changed(|provider| provider.quirks.without_pkce = without).await;
        let browser = Browser::signed_in(&site, "alice");
        let authorization = browser.start("acme").await;
        let parameter = |name: &str| {
            authorization.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
        };
        assert_eq!(parameter("code_challenge").is_none(), without);
        assert_eq!(parameter("code_challenge_method").is_none(), without);

        server.next_token_response(ScriptedResponse::json(serde_json::json!({"access_token": "a"})));
        let callback = format!("{}?code=c&state={}", parameter("redirect_uri").unwrap(), parameter("state").unwrap());
        browser.get(&callback).await;
        assert_eq!(only(&server, Endpoint::Token).field("code_verifier").is_none(), without);
        assert_eq!(site.access_token("alice").await.as_deref(), Some("a"));
    }
}

#[tokio::test]
async fn scopes_are_requested_with_the_provider_s_parameter() {
    let (server, site) = changed(|provider| {
        provider.scopes = vec!["a".to_owned(), "b".to_owned()];
        provider.scope_separator = ',';
        provider.quirks.scope_parameter = Some("user_scope".to_owned());
        provider.offline_access = OfflineAccess::Scope("offline".to_owned());
    })
    .await;
    log_in(&site).await;
    let authorization = only(&server, Endpoint::Authorization);
    assert_eq!(authorization.parameter("user_scope"), Some("a,b,offline"));
    assert_eq!(authorization.parameter("scope"), None);
}

#[tokio::test]
async fn offline_access_is_requested_by_parameters() {
    let (server, site) =
        changed(|provider| provider.offline_access = OfflineAccess::Params(one("access_type", "offline"))).await;
    log_in(&site).await;
    assert_eq!(only(&server, Endpoint::Authorization).parameter("access_type"), Some("offline"));
}

#[tokio::test]
async fn token_requests_may_be_json_with_more_members() {
    let (server, site) = changed(|provider| {
        provider.quirks.token_request = TokenRequest::Json;
        provider.quirks.token_params = one("expiring", "1");
        provider.quirks.token_headers = one("notion-version", "2025-09-03 {client_id}");
    })
    .await;
    server
        .next_token_response(ScriptedResponse::json(serde_json::json!({"access_token": "a", "token_type": "bearer"})));
    log_in(&site).await;
    let request = only(&server, Endpoint::Token);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert!(request.header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(request.header("notion-version"), Some("2025-09-03 test-client"));
    let members = json(&request);
    assert_eq!((&members["grant_type"], &members["expiring"]), (&"authorization_code".into(), &"1".into()));
    assert!(members["code"].is_string() && members["code_verifier"].is_string());
}

#[tokio::test]
async fn tokens_are_refreshed_at_the_refresh_endpoint() {
    let (server, site) = changed(|provider| {
        provider.quirks.refresh_endpoint = Some(provider.revocation_endpoint.clone().unwrap());
        provider.quirks.api_base_member = Some("instance_url".to_owned());
    })
    .await;
    let base = format!("{}/api/mine", server.url());
    server.next_token_response(ScriptedResponse::json(serde_json::json!({
        "access_token": "a", "refresh_token": "r", "expires_in": 60, "instance_url": base
    })));
    log_in(&site).await;
    site.clock.advance(std::time::Duration::from_secs(61));
    server.next_response(
        Endpoint::Revocation,
        ScriptedResponse::json(serde_json::json!({"access_token": "b", "expires_in": 60})),
    );
    let client = client(&site).await;
    assert_eq!(client.token().secret().expose(), "b");
    assert_eq!(only(&server, Endpoint::Revocation).field("grant_type"), Some("refresh_token"));
    assert_eq!(client.token().extra().get("instance_url"), Some(&base.into()), "said once, and not forgotten");
}

/// What a refresh returns in place of the API base does not take the connection away.
#[tokio::test]
async fn an_unusable_api_base_does_not_replace_the_earlier_one() {
    let (server, site) = changed(|provider| {
        provider.api_base = None;
        provider.quirks.api_base_member = Some("instance_url".to_owned());
    })
    .await;
    let base = format!("{}/api/mine", server.url());
    let response = |instance_url: serde_json::Value| {
        let members = serde_json::json!({
            "access_token": "a", "refresh_token": "r", "expires_in": 60, "instance_url": instance_url
        });
        ScriptedResponse::json(members)
    };
    server.next_token_response(response(base.into()));
    log_in(&site).await;
    for unusable in [serde_json::Value::Null, "".into(), "http://evil.example".into(), 7.into()] {
        site.clock.advance(std::time::Duration::from_secs(61));
        server.next_token_response(response(unusable.clone()));
        server.next_response(Endpoint::Api, ScriptedResponse::status(200));
        let called = client(&site).await.get("/notes").send().await;
        assert!(called.is_ok(), "{unusable}: {called:?}");
        site.oauth.finish().await;
    }
    let paths: Vec<_> = server.requests_to(Endpoint::Api).into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/api/mine/notes"; 4]);

    site.clock.advance(std::time::Duration::from_secs(61));
    server.next_token_response(response(format!("{}/api/moved", server.url()).into()));
    client(&site).await.get("/notes").send().await.unwrap();
    assert_eq!(server.requests_to(Endpoint::Api).last().unwrap().path, "/api/moved/notes");
}

/// As Zoho, Slack and Shopify want it.
#[tokio::test]
async fn tokens_are_presented_in_the_configured_header() {
    for (kind, header, name, value) in [
        (
            "Zoho-oauthtoken",
            TokenHeader::Scheme("Zoho-oauthtoken".to_owned()),
            "authorization",
            "Zoho-oauthtoken T0KEN",
        ),
        ("user", TokenHeader::Bearer, "authorization", "Bearer T0KEN"),
        ("bearer", TokenHeader::Named("X-Shopify-Access-Token".to_owned()), "x-shopify-access-token", "T0KEN"),
    ] {
        let (server, site) = changed(|provider| {
            provider.quirks.token_types = vec!["Zoho-oauthtoken".to_owned(), "user".to_owned()];
            provider.quirks.token_header = header;
        })
        .await;
        server.next_token_response(ScriptedResponse::json(
            serde_json::json!({"access_token": "T0KEN", "token_type": kind}),
        ));
        log_in(&site).await;
        server.next_response(Endpoint::Api, ScriptedResponse::status(200));
        client(&site).await.get("/notes").send().await.unwrap();
        let request = only(&server, Endpoint::Api);
        assert_eq!(request.header(name), Some(value));
        let carrying = request.headers.values().filter(|value| value.to_str().unwrap().contains("T0KEN")).count();
        assert_eq!(carrying, 1, "in one header alone");

        let own = HeaderName::try_from(name).unwrap();
        let forged = client(&site).await.get("/notes").header(own, HeaderValue::from_static("x")).send().await;
        assert!(matches!(forged, Err(ApiError::Request(_))), "{name} is the token's");
    }
}

/// As Salesforce and Zoho say it.
#[tokio::test]
async fn the_api_base_comes_from_the_token_response() {
    let elsewhere = TestProvider::start().await.unwrap();
    let (server, site) = changed(|provider| {
        provider.api_base = None;
        provider.quirks.api_base_member = Some("instance_url".to_owned());
    })
    .await;
    let token = |instance_url: &str| {
        ScriptedResponse::json(serde_json::json!({"access_token": "a", "instance_url": instance_url}))
    };
    server.next_token_response(token(&format!("{}/api", elsewhere.url())));
    log_in(&site).await;
    elsewhere.next_response(Endpoint::Api, ScriptedResponse::status(200));
    client(&site).await.get("/notes").send().await.unwrap();
    assert_eq!(only(&elsewhere, Endpoint::Api).path, "/api/notes");
    assert!(server.requests_to(Endpoint::Api).is_empty());
    let foreign = client(&site).await.get("https://evil.example/notes").send().await;
    assert!(matches!(foreign, Err(ApiError::ForeignOrigin)));

    for bad in ["http://evil.example", "javascript:alert(1)", "https://user:pw@a.example", "7"] {
        server.next_token_response(token(bad));
        log_in(&site).await;
        let refused = client(&site).await.get("/notes").send().await;
        assert!(matches!(refused, Err(ApiError::Url)), "{bad}");
    }
}

#[tokio::test]
async fn api_headers_may_contain_the_client_id() {
    let (server, site) = changed(|provider| {
        provider.api_headers = BTreeMap::from([
            ("client-id".to_owned(), "{client_id}".to_owned()),
            ("user-agent".to_owned(), "web:{client_id}:v1".to_owned()),
        ]);
    })
    .await;
    log_in(&site).await;
    client(&site).await.get("/notes").send().await.unwrap();
    let request = only(&server, Endpoint::Api);
    assert_eq!(request.header("client-id"), Some("test-client"));
    assert_eq!(request.header("user-agent"), Some("web:test-client:v1"));
}

#[tokio::test]
async fn tokens_are_revoked_with_the_configured_request() {
    for (request, method) in [
        (RevocationRequest::Json, Method::POST),
        (RevocationRequest::Post, Method::POST),
        (RevocationRequest::Delete, Method::DELETE),
        (RevocationRequest::DeleteAsClient, Method::DELETE),
    ] {
        let (server, site) = changed(|provider| {
            provider.quirks.revocation = request;
            provider.revocation_endpoint = Some(format!("{}/api/{{client_id}}/token", server_of(provider)));
        })
        .await;
        log_in(&site).await;
        let token = site.access_token("alice").await.unwrap();
        server.next_response(Endpoint::Api, ScriptedResponse::status(204));
        let disconnected = site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
        assert_eq!(disconnected.revocation, Revocation::Done, "{request:?}");

        let revoked = only(&server, Endpoint::Api);
        assert_eq!((&revoked.method, revoked.path.as_str()), (&method, "/api/test-client/token"), "{request:?}");
        let authorization = revoked.header("authorization").unwrap();
        match request {
            RevocationRequest::Json => assert_eq!(json(&revoked), serde_json::json!({"token": token})),
            RevocationRequest::DeleteAsClient => {
                assert_eq!(json(&revoked), serde_json::json!({"access_token": token}));
                assert!(authorization.starts_with("Basic "));
            }
            _ => {
                assert!(revoked.body.is_empty(), "{request:?}");
                assert_eq!(authorization, format!("Bearer {token}"));
            }
        }
    }
}

#[tokio::test]
async fn a_revocation_refused_by_the_api_has_failed() {
    let (server, site) = changed(|provider| {
        provider.quirks.revocation = RevocationRequest::Post;
        provider.revocation_endpoint = Some(format!("{}/api/auth.revoke", server_of(provider)));
    })
    .await;
    log_in(&site).await;
    server.next_response(
        Endpoint::Api,
        ScriptedResponse::json(serde_json::json!({"ok": false, "error": "invalid_auth"})),
    );
    let disconnected = site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    assert_eq!((disconnected.removed, disconnected.revocation), (true, Revocation::Failed));

    // No refresh token was sent, so the grant has not ended with one.
    log_in(&site).await;
    assert!(site.refresh_token("alice").await.is_some());
    server.next_response(Endpoint::Api, ScriptedResponse::status(400));
    let disconnected = site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    assert_eq!(disconnected.revocation, Revocation::Failed);
}

/// The user's own token, and the bot's beside it.
#[tokio::test]
async fn a_token_in_the_configured_member_is_the_user_s() {
    let (server, site) = changed(|provider| {
        provider.quirks.token_member = Some("authed_user".to_owned());
        provider.quirks.token_types = vec!["bot".to_owned(), "user".to_owned()];
    })
    .await;
    server.next_token_response(ScriptedResponse::json(serde_json::json!({
        "ok": true, "access_token": "xoxb", "token_type": "bot",
        "authed_user": {"id": "U1", "access_token": "xoxp", "token_type": "user", "scope": "chat:write"}
    })));
    log_in(&site).await;
    server.next_response(Endpoint::Api, ScriptedResponse::status(200));
    let client = client(&site).await;
    client.get("/notes").send().await.unwrap();
    assert_eq!(only(&server, Endpoint::Api).header("authorization"), Some("Bearer xoxp"));
    assert_eq!(client.token().extra().get("access_token"), Some(&"xoxb".into()), "sealed with the rest");
}

fn server_of(provider: &Provider) -> String {
    provider.token_endpoint.trim_end_matches("/token").to_owned()
}
