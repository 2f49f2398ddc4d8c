//! Pushed authorization requests (RFC 9126).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::Response;
use http::StatusCode;
use oauth_dance::testing::{Client, Endpoint, LoggedRequest, ScriptedResponse, TestProvider};
use oauth_dance::{ClientAuthentication, FailedLogin, Hooks, LoginError, Provider, TokenEndpointError};
use url::Url;

use crate::support::{Browser, Ear, Setup, Site};

/// A provider that accepts only pushed requests, with this name.
fn pushing(provider: &TestProvider, name: &str) -> Provider {
    provider.configure(|settings| settings.requires_pushed_requests = true);
    let mut pushing = provider.provider(name);
    pushing.pushed_authorization_request_endpoint = Some(format!("{}/par", provider.url()));
    pushing
}

async fn site(provider: Provider) -> Site {
    let registration = provider.client("test-client", "test-secret");
    Setup::default().start(|builder| builder.provider(registration).timeout(Duration::from_secs(2))).await
}

fn parameters(url: &Url) -> HashMap<String, String> {
    url.query_pairs().into_owned().collect()
}

fn count(request: &LoggedRequest, name: &str) -> usize {
    request.form.iter().filter(|(found, _)| found == name).count()
}

#[tokio::test]
async fn ar_15_the_browser_carries_only_a_reference() {
    let provider = TestProvider::start().await.unwrap();
    let mut acme = pushing(&provider, "acme").with_scopes(["one", "two"]);
    acme.authorization_endpoint = format!("{}/authorize?tenant=a&state=x", provider.url());
    acme.authorization_params.insert("login_hint".to_owned(), "carol".to_owned());
    let site = site(acme).await;
    let alice = Browser::signed_in(&site, "alice");

    let requested = alice.start("acme").await;
    let sent = provider.requests_to(Endpoint::PushedRequest).pop().unwrap();
    let carried = parameters(&requested);
    assert_eq!(requested.query_pairs().count(), 3);
    assert_eq!((carried["tenant"].as_str(), carried["client_id"].as_str()), ("a", "test-client"));
    assert!(carried["request_uri"].starts_with("urn:ietf:params:oauth:request_uri:"));

    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "test-client"),
        ("redirect_uri", site.oauth.redirect_uri("acme").unwrap().as_str()),
        ("scope", "one two"),
        ("code_challenge_method", "S256"),
        ("login_hint", "carol"),
    ] {
        assert_eq!(sent.field(name), Some(value));
    }
    assert_eq!((sent.field("state").unwrap().len(), sent.field("code_challenge").unwrap().len()), (43, 43));
    assert_eq!(sent.form.len(), 8, "{:?}", sent.form);
    assert!(sent.header("authorization").unwrap().starts_with("Basic ") && sent.query.is_empty());
    assert!(sent.headers.get("cookie").is_none() && sent.headers.get("dpop").is_none());

    let callback = alice.approve(&requested).await;
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    let client = site.oauth.client("acme", &oauth_dance::User::new("alice")).await.unwrap();
    assert_eq!(client.userinfo().send().await.unwrap().json::<serde_json::Value>().unwrap()["sub"], "carol");
}

#[tokio::test]
async fn ar_15_a_request_uri_works_once() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(pushing(&provider, "acme")).await;
    let alice = Browser::signed_in(&site, "alice");
    let (one, two) = (alice.start("acme").await, alice.start("acme").await);
    assert_ne!(parameters(&one)["request_uri"], parameters(&two)["request_uri"]);
    alice.approve(&one).await;
    let again = reqwest::get(one).await.unwrap();
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn tr_02_a_push_authenticates_the_client_once() {
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| {
        settings.clients.insert("public".to_owned(), Client::public());
    });
    let mut body = pushing(&provider, "body");
    body.client_authentication = ClientAuthentication::Body;
    for (registration, id, secrets) in [
        (body.client("test-client", "test-secret"), "test-client", 1),
        (pushing(&provider, "public").public_client("public"), "public", 0),
    ] {
        let name = registration.name().to_owned();
        let site = Setup::default().start(|builder| builder.provider(registration)).await;
        let requested = Browser::signed_in(&site, "alice").start(&name).await;
        assert_eq!(parameters(&requested)["client_id"], id);
        let sent = provider.requests_to(Endpoint::PushedRequest).pop().unwrap();
        assert_eq!((count(&sent, "client_id"), count(&sent, "client_secret")), (1, secrets), "{name}");
        assert!(sent.header("authorization").is_none());
    }
}

/// Records the codes of failures, and their causes.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Hooks for Failures {
    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        let LoginError::PushedRequest(cause) = failure.error else { panic!("{:?}", failure.error) };
        self.0.lock().unwrap().push(match cause {
            TokenEndpointError::Refused { code, .. } => code.clone(),
            TokenEndpointError::Status { status, .. } => status.as_u16().to_string(),
            TokenEndpointError::Timeout => "timeout".to_owned(),
            TokenEndpointError::Transport(_) => "transport".to_owned(),
            TokenEndpointError::InvalidResponse(_) => "answer".to_owned(),
            other => panic!("{other:?}"),
        });
        None
    }
}

#[tokio::test]
async fn ar_15_without_a_reference_no_login_starts() {
    let provider = TestProvider::start().await.unwrap();
    let (failures, ear) = (Failures::default(), Ear::listen().await);
    let (hooks, registration) = (failures.clone(), pushing(&provider, "acme").client("test-client", "test-secret"));
    let setup = Setup::default();
    let limit = Duration::from_millis(700);
    let site = setup.start(|builder| builder.provider(registration).hooks(hooks).timeout(limit)).await;
    let alice = Browser::signed_in(&site, "alice");

    for (answer, cause) in [
        (ScriptedResponse::error(400, "invalid_request"), "invalid_request"),
        (ScriptedResponse::error(401, "invalid_client"), "invalid_client"),
        (ScriptedResponse::error(400, "use_dpop_nonce").header("dpop-nonce", "n"), "use_dpop_nonce"),
        (ScriptedResponse::status(404), "404"),
        (ScriptedResponse::status(405), "405"),
        (ScriptedResponse::status(429).header("retry-after", "1"), "429"),
        (ScriptedResponse::status(500).body("<html>oops</html>"), "500"),
        (ScriptedResponse::redirect(307, &ear.url), "307"),
        (ScriptedResponse::redirect(302, &ear.url), "302"),
        (ScriptedResponse::status(200).body("<html>hello</html>"), "answer"),
        (ScriptedResponse::normal().without("request_uri"), "answer"),
        (ScriptedResponse::normal().member("expires_in", 0), "answer"),
        (ScriptedResponse::normal().truncated(), "transport"),
        (ScriptedResponse::normal().lost(), "transport"),
        (ScriptedResponse::huge(8 << 20).with_status(201), "answer"),
        (ScriptedResponse::normal().hanging(), "timeout"),
        (ScriptedResponse::normal().dripping(Duration::from_millis(100)), "timeout"),
    ] {
        provider.next_response(Endpoint::PushedRequest, answer);
        let start = Instant::now();
        let page = alice.get("/login/acme").await;
        assert!(start.elapsed() < limit * 3, "{cause}");
        let expected = if cause == "timeout" { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
        assert_eq!((page.status, page.location()), (expected, ""), "{cause}");
        assert!(page.set_cookies().is_empty(), "{cause}");
        assert_eq!(failures.0.lock().unwrap().pop().as_deref(), Some(cause));
    }
    assert_eq!(provider.requests_to(Endpoint::PushedRequest).len(), 17, "nothing is pushed twice");
    assert!(provider.requests_to(Endpoint::Authorization).is_empty());
    assert_eq!(ear.connections(), 0);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn ar_15_a_slow_or_unusual_response_is_accepted() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(pushing(&provider, "acme")).await;
    let alice = Browser::signed_in(&site, "alice");
    for answer in [
        ScriptedResponse::normal().after(Duration::from_millis(500)),
        ScriptedResponse::normal().without("expires_in"),
        ScriptedResponse::normal().member("expires_in", "60").with_status(200),
    ] {
        provider.next_response(Endpoint::PushedRequest, answer);
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    }
}
