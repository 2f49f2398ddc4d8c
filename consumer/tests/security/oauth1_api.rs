//! Signed API calls of OAuth 1.0a, with a provider that checks every signature.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ApiClient, ApiError, ConnectError, ConnectionState, OAuth2Token, User};
use oauth_dance_core::{Filter, PageRequest, Precondition, Token};
use serde_json::{Value, json};

use super::oauth1_dance::{credentials, world};
use crate::support::{Browser, Ear, Site};

fn alice() -> User {
    User::new("alice")
}

async fn connected() -> (TestProvider, Site, ApiClient) {
    let (provider, site) = world().await;
    provider.connect_oauth1(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    (provider, site, client)
}

#[tokio::test]
async fn o1_06_special_characters_are_signed_as_they_are_sent() {
    let (_provider, _site, client) = connected().await;
    let odd = [
        ("b", "2"),
        ("a", "1"),
        ("a", "0"),
        ("a", "1"),
        ("sp", "x y+z"),
        ("empty", ""),
        ("\u{fc} '()*!~", "%&=;,/?:@[]#$\"\\\u{1F511}\r\n\0"),
    ];
    let sent = json!(odd);
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = client.request(method.clone(), "/notes/%C3%BC%20x?x=%2B&y=a+b").query(&odd).form(&odd);
        let response: Value = request.send().await.unwrap().success().unwrap().json().unwrap();
        assert_eq!(response["form"], sent, "{method}");
        assert_eq!(response["query"].as_array().unwrap().len(), odd.len() + 2, "{method}");
    }
}

#[tokio::test]
async fn o1_07_only_forms_are_signed() {
    let (_provider, _site, client) = connected().await;
    let json = client.post("/notes").query(&[("q", "1")]).json(&json!({ "oauth_token": "not ours", "a": [1] }));
    assert_eq!(json.send().await.unwrap().status(), StatusCode::OK);
    let text =
        client.put("/notes").header(header::CONTENT_TYPE, HeaderValue::from_static("text/plain")).body("a=1&b=2");
    assert_eq!(text.send().await.unwrap().status(), StatusCode::OK);
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");
    let form = client.post("/notes").header(header::CONTENT_TYPE, kind).body("a=1&b=%2B+x&a");
    let response: Value = form.send().await.unwrap().success().unwrap().json().unwrap();
    assert_eq!(response["form"], json!([["a", "1"], ["b", "+ x"], ["a", ""]]));
}

#[tokio::test]
async fn o1_08_a_repeated_request_is_signed_again() {
    let (provider, _site, client) = connected().await;
    for _ in 0..20 {
        client.get("/notes").send().await.unwrap().success().unwrap();
    }
    let sent = provider.requests_to(Endpoint::Api)[0].header("authorization").unwrap().to_owned();
    let replayed = reqwest::Client::new().get(format!("{}/api/notes", provider.url())).header("authorization", sent);
    assert_eq!(replayed.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "the provider does check nonces");
}

#[tokio::test]
async fn o1_12_signatures_are_not_sent_elsewhere() {
    let (provider, _site, client) = connected().await;
    let ear = Ear::listen().await;
    for to in [format!("{}/", ear.url), format!("{}/api/elsewhere", provider.url())] {
        provider.clear_requests();
        provider.next_response(Endpoint::Api, ScriptedResponse::redirect(307, &to));
        assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(provider.requests().len(), 1, "not even on the same origin");
    }
    for url in [format!("{}/", ear.url), provider.url().replace("//", "//user@")] {
        assert!(matches!(client.get(&url).send().await, Err(ApiError::ForeignOrigin)), "{url}");
    }
    assert_eq!(ear.connections(), 0);
    let own = client.get("/x").header(header::AUTHORIZATION, HeaderValue::from_static("mine")).send().await;
    assert!(matches!(own, Err(ApiError::Request(_))));
}

#[tokio::test]
async fn o1_14_neither_secret_is_visible() {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.secret_prefix = "CANARY".to_owned());
    Browser::signed_in(&site, "alice").login("acme").await;
    let page = site.storage.list(&Filter::everything(), PageRequest::default()).await.unwrap();
    assert!(!page.entries.is_empty());
    for entry in &page.entries {
        let record = site.storage.get(&entry.key).await.unwrap().unwrap();
        assert!(!record.value.payload.windows(6).any(|window| window == b"CANARY"));
    }
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    let token = credentials(&site, "alice").await.unwrap();
    assert!(token.token.expose().starts_with("CANARY") && token.token_secret.expose().starts_with("CANARY"));
    provider.next_response(
        Endpoint::Api,
        ScriptedResponse::status(401).body(format!("oauth_problem={}", token.token.expose())),
    );
    let error = client.get("/x").send().await.unwrap().success().unwrap_err();
    let shown = format!("{client:?} {:?} {token:?} {error:?} {error} {:?}", client.token(), site.oauth);
    assert!(!shown.contains("CANARY"), "{shown}");
}

#[tokio::test]
async fn o1_15_a_wrong_clock_is_reported() {
    let (provider, site, client) = connected().await;
    let refused =
        || ScriptedResponse::status(401).body("oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1-2");
    provider.next_response(Endpoint::Api, refused());
    let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
    assert!(matches!(&error, ApiError::Problem { problem, .. } if problem == "timestamp_refused"), "{error:?}");
    assert!(!error.needs_authorization());
    assert!(client.get("/notes").send().await.unwrap().success().is_ok(), "the connection is as it was");
    assert!(site.oauth.client("acme", &alice()).await.is_ok());

    provider.next_response(Endpoint::TemporaryCredentials, refused());
    assert_eq!(Browser::signed_in(&site, "alice").get("/login/acme").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn o1_a_revoked_token_needs_authorization() {
    let (provider, site, client) = connected().await;
    let old = credentials(&site, "alice").await;
    provider.revoke_all_of("alice");
    let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
    assert!(matches!(&error, ApiError::NeedsAuthorization(_)) && error.needs_authorization(), "{error:?}");
    assert_eq!(credentials(&site, "alice").await, old, "the credentials remain stored, for diagnosis");
    let state = site.oauth.connection("acme", &alice()).await.unwrap().unwrap().state;
    assert!(matches!(state, ConnectionState::NeedsAuthorization { .. }), "{state:?}");
    let again = site.oauth.client("acme", &alice()).await;
    assert!(matches!(again, Err(ConnectError::NeedsAuthorization { .. })), "{again:?}");

    let browser = Browser::signed_in(&site, "alice");
    assert_eq!(browser.get("/required").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/required").await.status, StatusCode::OK);
}

/// Some APIs respond with 401 for other reasons: without a reason, the userinfo endpoint is called.
#[tokio::test]
async fn o1_a_bare_401_is_returned_to_the_caller() {
    let (provider, site, client) = connected().await;
    provider.next_response(Endpoint::Api, ScriptedResponse::status(401));
    let error = client.get("/notes").send().await.unwrap().success().unwrap_err();
    assert!(matches!(error, ApiError::Status { status: StatusCode::UNAUTHORIZED }) && !error.needs_authorization());
    assert_eq!(provider.requests_to(Endpoint::Api).len(), 1, "there is no other token to try");
    assert!(site.oauth.client("acme", &alice()).await.is_ok());
    let newer = provider.connect_oauth1(&site.oauth, "acme", &alice()).await.unwrap();
    provider.next_response(Endpoint::Api, ScriptedResponse::status(401).body("oauth_problem=token_revoked"));
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::OK, "the newer one is tried");
    assert_eq!(credentials(&site, "alice").await.unwrap(), newer);
    assert!(site.oauth.client("acme", &alice()).await.is_ok(), "that was the older one");
}

#[tokio::test]
async fn o1_a_token_of_another_protocol_is_not_used() {
    let (provider, site, _client) = connected().await;
    let key = alice().key("acme").unwrap();
    let bearer = Token::from(OAuth2Token::bearer("bearer"));
    site.oauth.tokens().put(&key, &bearer, Precondition::Always).await.unwrap();
    let found = site.oauth.client("acme", &alice()).await;
    assert!(matches!(found, Err(ConnectError::WrongKind)), "{found:?}");

    let site = Site::of(&provider).await;
    provider.connect_oauth1(&site.oauth, "acme", &alice()).await.unwrap();
    let found = site.oauth.client("acme", &alice()).await;
    assert!(matches!(found, Err(ConnectError::WrongKind)), "{found:?}");
    let due = oauth_dance::Due::expiring_within(Duration::from_secs(86_400));
    assert_eq!(site.oauth.refresh_due(&due).await.unwrap().failed, 0);
}
