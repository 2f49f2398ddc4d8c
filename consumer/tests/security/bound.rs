//! Tokens bound to a key (RFC 9449).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use oauth_dance::testing::{Endpoint, LoggedRequest, ScriptedResponse, TestProvider};
use oauth_dance::{
    ApiClient, ApiError, ConfigError, KeyRing, MemoryStorage, OAuth, Provider, RevocationRequest, TokenHeader,
    TokenStorage as _, User,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Browser, Setup, Site, world};

pub(crate) const HOUR: Duration = Duration::from_secs(3601);

pub(crate) fn alice() -> User {
    User::new("alice")
}

pub(crate) fn bound(provider: &TestProvider) -> Provider {
    let mut acme = provider.provider("acme");
    acme.dpop = true;
    acme
}

/// A provider that issues only bound tokens, and an application that requests them.
pub(crate) async fn bound_world() -> (TestProvider, Site) {
    let provider = TestProvider::start().await.unwrap();
    let site = site(&provider, Setup::default()).await;
    provider.configure(|settings| {
        settings.requires_dpop = true;
        settings.clock = site.clock.clock();
    });
    (provider, site)
}

async fn site(provider: &TestProvider, setup: Setup) -> Site {
    let registration = bound(provider).client("test-client", "test-secret");
    setup.start(|builder| builder.provider(registration).timeout(Duration::from_secs(2))).await
}

/// Header and claims of the proof in a request.
pub(crate) fn proof(request: &LoggedRequest) -> (Value, Value) {
    let proof = request.header("dpop").unwrap_or_else(|| panic!("no proof: {} {}", request.method, request.path));
    let decoded = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let parts: Vec<_> = proof.split('.').collect();
    (decoded(parts[0]), decoded(parts[1]))
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

pub(crate) fn thumbprint(jwk: &Value) -> String {
    hash(&format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]))
}

pub(crate) async fn userinfo_status(client: &ApiClient) -> StatusCode {
    client.userinfo().send().await.unwrap().status()
}

#[tokio::test]
async fn tr_18_every_request_has_a_proof_with_its_login_s_key() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    let posted = client.post("/notes?a=1#b").query(&[("c", "d")]).json(&json!({"x": 1})).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::OK);
    let before = site.token("alice").await.unwrap();
    site.clock.advance(HOUR);
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    let after = site.token("alice").await.unwrap();
    assert_eq!(after.dpop_key, before.dpop_key);
    assert_ne!(after.access_token, before.access_token);
    assert_eq!(after.token_type, "DPoP");
    site.oauth.disconnect("acme", &alice()).await.unwrap();

    let requests = provider.requests();
    let requested = requests.iter().find(|request| request.endpoint == Endpoint::Authorization).unwrap();
    let key = requested.parameter("dpop_jkt").unwrap();
    let mut identifiers = HashSet::new();
    let sent: Vec<_> = requests.iter().filter(|request| request.endpoint != Endpoint::Authorization).collect();
    let kinds: Vec<_> = sent.iter().map(|request| request.endpoint).collect();
    let (token, userinfo, revocation) = (Endpoint::Token, Endpoint::Userinfo, Endpoint::Revocation);
    assert_eq!(kinds, [token, userinfo, Endpoint::Api, token, userinfo, revocation, revocation]);
    for request in sent {
        let (header, claims) = proof(request);
        assert_eq!(thumbprint(&header["jwk"]), key);
        assert_eq!(claims["htm"], request.method.as_str());
        assert_eq!(claims["htu"], format!("{}{}", provider.url(), request.path));
        assert!(identifiers.insert(claims["jti"].as_str().unwrap().to_owned()));
        let token = request.header("authorization").and_then(|value| value.strip_prefix("DPoP "));
        let presents = matches!(request.endpoint, Endpoint::Userinfo | Endpoint::Api);
        assert_eq!(token.is_some(), presents);
        assert_eq!(claims.get("ath"), token.map(|token| Value::from(hash(token))).as_ref());
    }

    browser.login("acme").await;
    let requested = provider.requests_to(Endpoint::Authorization).pop().unwrap();
    assert_ne!(requested.parameter("dpop_jkt"), Some(key), "each login has a key of its own");
}

#[tokio::test]
async fn tr_18_a_stolen_token_is_useless() {
    let (provider, site) = bound_world().await;
    Browser::signed_in(&site, "alice").login("acme").await;
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    let stolen = site.access_token("alice").await.unwrap();
    let seen = provider.requests_to(Endpoint::Userinfo).pop().unwrap();

    let (http, url) = (reqwest::Client::new(), format!("{}/userinfo", provider.url()));
    let replayed = seen.header("dpop").unwrap();
    for request in [
        http.get(&url).bearer_auth(&stolen),
        http.get(&url).header("authorization", format!("DPoP {stolen}")),
        http.get(&url).header("authorization", format!("DPoP {stolen}")).header("dpop", replayed),
    ] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn tr_18_the_key_is_never_visible() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    let start = browser.get("/login/acme").await;
    let cookies = browser.cookie_header();
    let callback = browser.approve(&start.location().parse().unwrap()).await;
    let end = browser.get(callback.as_str()).await;
    let token = site.token("alice").await.unwrap();
    let key = token.dpop_key.clone().unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(key.expose()).unwrap();

    let record = site.storage.get(&alice().key("acme").unwrap()).await.unwrap().unwrap().value;
    let (_, sealed) = cookies.split_once("oauth-dance-login-").unwrap();
    let sealed = sealed.split_once('=').unwrap().1.split(';').next().unwrap();
    let sealed = URL_SAFE_NO_PAD.decode(sealed).unwrap();
    let printed = format!("{token:?} {:?}", site.oauth.connection("acme", &alice()).await.unwrap());
    let logged = format!("{:?}", provider.requests());
    for seen in [start.text(), end.text(), cookies, callback.to_string(), printed, logged] {
        assert!(!seen.contains(key.expose()));
    }
    for seen in [record.payload.to_vec(), sealed] {
        assert!(!seen.windows(32).any(|window| window == bytes));
        assert!(!seen.windows(key.expose().len()).any(|window| window == key.expose().as_bytes()));
    }
}

#[tokio::test]
async fn tr_20_a_token_that_is_not_bound_is_rejected() {
    let (provider, site) = bound_world().await;
    let browser = Browser::signed_in(&site, "alice");
    let responses = [
        ScriptedResponse::normal().member("token_type", "Bearer"),
        ScriptedResponse::normal().member("token_type", "bearer"),
        ScriptedResponse::normal().without("token_type"),
        ScriptedResponse::normal().member("token_type", Value::Null),
        ScriptedResponse::normal().member("token_type", "mac"),
    ];
    for response in &responses {
        provider.next_token_response(response.clone());
        assert_eq!(browser.login("acme").await.status, StatusCode::BAD_GATEWAY);
        assert!(site.token("alice").await.is_none());
    }
    provider.next_token_response(ScriptedResponse::normal().member("token_type", "dpop"));
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);

    // The refresh token is spent, so the new one is stored, and its access token is never presented without a proof.
    site.clock.advance(HOUR);
    provider.next_token_response(responses[0].clone());
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    let stored = site.token("alice").await.unwrap();
    assert!(stored.dpop_key.is_some() && stored.token_type == "Bearer");
    provider.clear_requests();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    for request in provider.requests_to(Endpoint::Userinfo) {
        assert!(request.header("authorization").unwrap().starts_with("DPoP ") && request.header("dpop").is_some());
    }
}

#[tokio::test]
async fn another_process_uses_and_refreshes_with_the_same_key() {
    let provider = TestProvider::start().await.unwrap();
    let (storage, keys) = (Arc::new(MemoryStorage::new()), KeyRing::generate());
    let setup = || Setup { storage: storage.clone(), keys: keys.clone(), ..Setup::default() };
    let (one, two) = (site(&provider, setup()).await, site(&provider, setup()).await);
    provider.configure(|settings| {
        settings.requires_dpop = true;
        settings.clock = two.clock.clock();
    });
    Browser::signed_in(&one, "alice").login("acme").await;
    let before = one.token("alice").await.unwrap();

    two.clock.advance(HOUR);
    let client = two.oauth.client("acme", &alice()).await.unwrap();
    assert_eq!(userinfo_status(&client).await, StatusCode::OK);
    let after = two.token("alice").await.unwrap();
    assert!(after.dpop_key.is_some() && after.dpop_key == before.dpop_key);
    assert_ne!(after.refresh_token, before.refresh_token);
    let keys: HashSet<_> = [Endpoint::Token, Endpoint::Userinfo]
        .into_iter()
        .flat_map(|endpoint| provider.requests_to(endpoint))
        .map(|request| thumbprint(&proof(&request).0["jwk"]))
        .collect();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn the_option_can_be_changed_with_connected_users() {
    let (provider, plain) = world().await;
    let (storage, keys) = (Arc::new(MemoryStorage::new()), KeyRing::generate());
    drop(plain);
    let setup = || Setup { storage: storage.clone(), keys: keys.clone(), ..Setup::default() };
    let registration = provider.registration("acme");
    let plain = setup().start(|builder| builder.provider(registration)).await;
    provider.connect(&plain.oauth, "acme", &alice()).await.unwrap();

    // An earlier token is used unchanged, and bound when it is refreshed.
    let on = site(&provider, setup()).await;
    assert_eq!(userinfo_status(&on.oauth.client("acme", &alice()).await.unwrap()).await, StatusCode::OK);
    provider.configure(|settings| settings.clock = on.clock.clock());
    on.clock.advance(HOUR);
    assert_eq!(userinfo_status(&on.oauth.client("acme", &alice()).await.unwrap()).await, StatusCode::OK);
    let bound = on.token("alice").await.unwrap();
    assert!(bound.dpop_key.is_some() && bound.token_type == "DPoP");

    // It stays bound.
    plain.clock.advance(HOUR);
    assert_eq!(userinfo_status(&plain.oauth.client("acme", &alice()).await.unwrap()).await, StatusCode::OK);
    plain.clock.advance(HOUR);
    provider.configure(|settings| settings.clock = plain.clock.clock());
    assert_eq!(userinfo_status(&plain.oauth.client("acme", &alice()).await.unwrap()).await, StatusCode::OK);
    assert_eq!(plain.token("alice").await.unwrap().dpop_key, bound.dpop_key);
}

#[tokio::test]
async fn a_login_from_before_the_option_gets_a_bound_token() {
    let provider = TestProvider::start().await.unwrap();
    let (storage, keys) = (Arc::new(MemoryStorage::new()), KeyRing::generate());
    let base = || Some("http://127.0.0.1:9".to_owned());
    let setup = || Setup { base: base(), storage: storage.clone(), keys: keys.clone(), ..Setup::default() };
    let registration = provider.registration("acme");
    let (off, on) = (setup().start(|builder| builder.provider(registration)).await, site(&provider, setup()).await);

    for (starts, ends) in [(&off, &on), (&on, &off)] {
        let before = Browser::signed_in(starts, "alice");
        let callback = before.stopped_at_callback("acme").await;
        let after = Browser::signed_in(ends, "alice");
        for (name, value) in before.cookies() {
            after.set_cookie(&name, &value);
        }
        assert_eq!(after.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
        assert!(ends.token("alice").await.unwrap().dpop_key.is_some());
    }
}

#[tokio::test]
async fn a_redirect_is_returned_if_the_request_has_a_proof() {
    let (provider, site) = bound_world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    provider
        .next_response(Endpoint::Api, ScriptedResponse::redirect(302, &format!("{}/api/elsewhere", provider.url())));
    let response = client.get("/here").send().await.unwrap();
    assert_eq!((response.status(), provider.requests_to(Endpoint::Api).len()), (StatusCode::FOUND, 1));
}

#[tokio::test]
async fn callers_cannot_set_the_proof() {
    let (provider, site) = bound_world().await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    for name in ["DPoP", "dpop", "authorization"] {
        let name = HeaderName::try_from(name).unwrap();
        let request = client.get("/x").header(name, HeaderValue::from_static("x"));
        assert!(matches!(request.send().await, Err(ApiError::Request(_))));
    }
    assert!(provider.requests_to(Endpoint::Api).is_empty());
}

#[tokio::test]
async fn lo_01_a_revocation_with_the_token_has_a_proof() {
    for (revocation, method) in [(RevocationRequest::Post, Method::POST), (RevocationRequest::Delete, Method::DELETE)] {
        let provider = TestProvider::start().await.unwrap();
        let mut acme = bound(&provider);
        acme.quirks.revocation = revocation;
        let registration = acme.client("test-client", "test-secret");
        let site = Setup::default().start(|builder| builder.provider(registration)).await;
        let token = provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
        site.oauth.disconnect("acme", &alice()).await.unwrap();
        let sent = provider.requests_to(Endpoint::Revocation).pop().unwrap();
        assert_eq!(sent.header("authorization"), Some(format!("DPoP {}", token.access_token.expose()).as_str()));
        let (_, claims) = proof(&sent);
        assert_eq!(claims["htm"], method.as_str());
        assert_eq!(claims["ath"], hash(token.access_token.expose()));
    }
}

#[tokio::test]
async fn a_configuration_without_protection_is_rejected() {
    let provider = TestProvider::start().await.unwrap();
    let builder = |acme: Provider| {
        OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
            .provider(acme.client("test-client", "test-secret"))
            .anonymous_users()
    };
    let refused = |outcome: Result<OAuth, ConfigError>| {
        matches!(outcome.unwrap_err(), ConfigError::Invalid { field: "dpop", .. })
    };
    assert!(builder(bound(&provider)).build().is_ok());
    assert!(refused(builder(bound(&provider)).dangerous_plaintext_tokens().build()), "a key in plain text");
    let mut named = bound(&provider);
    named.quirks.token_header = TokenHeader::Named("x-token".to_owned());
    assert!(refused(builder(named).build()));
    let mut jkt = bound(&provider);
    jkt.authorization_params.insert("dpop_jkt".to_owned(), "mine".to_owned());
    assert!(builder(jkt).build().is_err());
}
