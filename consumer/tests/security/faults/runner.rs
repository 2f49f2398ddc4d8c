//! Runs each scripted response at a login and at a refresh.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::Response;
use http::StatusCode;
use oauth_dance::testing::{CLIENT, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{FailedLogin, Hooks, LoginError, OAuth2Token, OAuthBuilder, Timestamp, TokenEndpointError, User};
use serde_json::Value;

use crate::support::{Browser, Setup, Site};

/// The request of the token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leg {
    Login,
    Refresh,
}

pub(super) type Check = dyn Fn(&OAuth2Token, Leg, Timestamp) -> bool;

pub(super) enum Expected {
    /// An error of this kind at a login; at a refresh a token is stored that passes this check.
    Kept(&'static str, Box<Check>),
    /// A token that passes this check.
    Token(Box<Check>),
    /// An error of this kind.
    Error(&'static str),
}

pub(super) type Row = (&'static str, ScriptedResponse, Expected);

/// Rejected at a login and stored at a refresh.
pub(super) fn kept(kind: &'static str) -> Expected {
    Expected::Kept(kind, Box::new(|token, _, _| token.refresh_token.is_some()))
}

pub(super) fn any_token() -> Expected {
    Expected::Token(Box::new(|_, _, _| true))
}

pub(super) fn token(check: impl Fn(&OAuth2Token, Leg, Timestamp) -> bool + 'static) -> Expected {
    Expected::Token(Box::new(check))
}

/// Records the error of a login.
#[derive(Clone, Default)]
pub(super) struct Noted(pub(super) Arc<Mutex<Option<String>>>);

#[async_trait::async_trait]
impl Hooks for Noted {
    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        let LoginError::Token(error) = failure.error else { panic!("{:?}", failure.error) };
        *self.0.lock().unwrap() = Some(kind(error));
        None
    }
}

pub(super) fn kind(error: &TokenEndpointError) -> String {
    match error {
        TokenEndpointError::Timeout => "timeout".to_owned(),
        TokenEndpointError::Refused { code, .. } => format!("refused: {code}"),
        TokenEndpointError::Status { status, .. } => format!("status {}", status.as_u16()),
        TokenEndpointError::InvalidResponse(_) => "answer".to_owned(),
        _ => "transport".to_owned(),
    }
}

pub(super) async fn run(rows: impl IntoIterator<Item = Row>) {
    let provider = TestProvider::start().await.unwrap();
    let noted = Noted::default();
    let hooks = noted.clone();
    let registration = provider.provider("acme").with_scopes(["read", "write"]).client(CLIENT.0, CLIENT.1);
    let configure =
        |builder: OAuthBuilder| builder.provider(registration).hooks(hooks).timeout(Duration::from_millis(300));
    let site = Setup::default().start(configure).await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    for (name, answer, expected) in rows {
        login(&provider, &site, &noted, name, &answer, &expected).await;
        refresh(&provider, &site, name, &answer, &expected).await;
    }
}

pub(super) async fn login(
    provider: &TestProvider,
    site: &Site,
    noted: &Noted,
    name: &str,
    answer: &ScriptedResponse,
    expected: &Expected,
) {
    let browser = Browser::signed_in(site, "login");
    let user = User::new("login");
    provider.next_token_response(answer.clone());
    let (since, now) = (Instant::now(), site.clock.clock().now());
    let page = browser.login("acme").await;
    assert!(since.elapsed() < Duration::from_secs(3), "{name}: {:?}", since.elapsed());
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1, "{name}: one request");

    let stored = site.token("login").await;
    match expected {
        Expected::Token(check) => {
            assert_eq!(page.status, StatusCode::SEE_OTHER, "{name}: {page:?}");
            let stored = stored.unwrap_or_else(|| panic!("{name}: nothing is stored"));
            assert!(check(&stored, Leg::Login, now), "{name}: {stored:?}");
        }
        Expected::Error(kind) | Expected::Kept(kind, _) => {
            let status = if *kind == "timeout" { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
            assert_eq!(page.status, status, "{name}");
            assert_eq!(noted.0.lock().unwrap().take().as_deref(), Some(*kind), "{name}");
            assert!(stored.is_none(), "{name}: {stored:?} is stored");
            assert!(page.body.len() < 4096 && !page.body.contains("<script"), "{name}: {}", page.body);
            assert!(!page.text().contains(CLIENT.1), "{name}");
        }
    }
    provider.clear_responses();
    provider.clear_requests();
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER, "{name}: the next login");
    site.oauth.disconnect("acme", &user).await.unwrap();
    provider.clear_requests();
}

pub(super) async fn refresh(
    provider: &TestProvider,
    site: &Site,
    name: &str,
    answer: &ScriptedResponse,
    expected: &Expected,
) {
    let user = User::new("refresh");
    let old = provider.connect(&site.oauth, "acme", &user).await.unwrap();
    site.clock.advance(Duration::from_secs(3601));
    provider.next_token_response(answer.clone());
    let (since, now) = (Instant::now(), site.clock.clock().now());
    let outcome = site.oauth.client("acme", &user).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{name}: {:?}", since.elapsed());
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1, "{name}: one request");

    let stored = site.token("refresh").await.unwrap();
    match (expected, outcome) {
        (Expected::Token(check) | Expected::Kept(_, check), Ok(client)) => {
            assert!(check(&stored, Leg::Refresh, now), "{name}: {stored:?}");
            assert_eq!(client.token().as_oauth2(), Some(&stored), "{name}");
        }
        (Expected::Error("refused: invalid_grant"), Err(error)) => assert!(error.needs_login(), "{name}: {error:?}"),
        (Expected::Error(_), Err(error)) => {
            assert!(!error.needs_login() && error.status().is_server_error(), "{name}: {error:?}");
            assert_eq!(stored, old, "{name}: the old token is kept");
            assert!(!format!("{error:?} {error}").contains(CLIENT.1), "{name}: {error:?}");
        }
        (_, outcome) => panic!("{name}: {outcome:?}"),
    }
    provider.clear_responses();
    provider.clear_requests();
    site.oauth.disconnect("acme", &user).await.unwrap();
    provider.clear_requests();
}

pub(super) fn edited(from: &'static str, to: impl Into<String>) -> ScriptedResponse {
    let to = to.into();
    ScriptedResponse::normal().map_body(move |body| {
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains(from), "{body}");
        body.replacen(from, &to, 1).into_bytes()
    })
}

pub(super) fn as_form(body: &[u8]) -> Vec<u8> {
    let Value::Object(members) = serde_json::from_slice(body).unwrap() else { panic!() };
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in members {
        form.append_pair(&name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    form.finish().into_bytes()
}
