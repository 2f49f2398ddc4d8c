//! Parameters and scopes of one login, and the granted scopes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{
    Authorized, BeforeLogin, BoxError, ConfigError, Decision, Hooks, KeyRing, MemoryStorage, OAuth, Provider,
    RefreshEvent, ScopeChange, TokenKey, User,
};
use serde_json::Value;
use url::Url;

use crate::support::{Browser, Page, Setup, Site};

const HOUR: Duration = Duration::from_secs(3601);

/// A provider with parameters that links may set.
fn choosing(provider: &TestProvider) -> Provider {
    let mut acme = provider.provider("acme");
    acme.login_params = vec!["prompt".to_owned(), "login_hint".to_owned(), "max_age".to_owned()];
    acme.authorization_params.insert("prompt".to_owned(), "consent".to_owned());
    acme
}

async fn site(provider: Provider, hooks: impl Hooks) -> Site {
    let registration = provider.client("test-client", "test-secret");
    Setup::default().start(|builder| builder.provider(registration).hooks(hooks)).await
}

struct Quiet;

impl Hooks for Quiet {}

fn parameters(page: &Page) -> HashMap<String, String> {
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
    Url::parse(page.location()).unwrap().query_pairs().into_owned().collect()
}

#[tokio::test]
async fn links_of_the_application_set_allowed_parameters() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Quiet).await;
    let alice = Browser::signed_in(&site, "alice");

    let usual = parameters(&alice.get("/login/acme").await);
    assert_eq!((usual["prompt"].as_str(), usual.contains_key("login_hint")), ("consent", false));

    let link = "/login/acme?prompt=select_account+login&login_hint=a%26b%3Dc&acr_values=high&next=/notes";
    let requested = parameters(&alice.get_with(link, &[("sec-fetch-site", "same-origin")]).await);
    assert_eq!((requested["prompt"].as_str(), requested["login_hint"].as_str()), ("select_account login", "a&b=c"));
    assert!(!requested.contains_key("acr_values") && !requested.contains_key("next"), "it is not allowed");

    let own = [("sec-fetch-site", "same-origin")];
    let posted = parameters(&alice.post("/login/acme", "prompt=login&max_age=0", &own).await);
    assert_eq!((posted["prompt"].as_str(), posted["max_age"].as_str()), ("login", "0"));
}

#[tokio::test]
async fn another_site_cannot_set_parameters() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Quiet).await;
    let link = "/login/acme?prompt=none&login_hint=eve";
    let visitor = Browser::of(&site);
    for headers in
        [[("sec-fetch-site", "cross-site")], [("sec-fetch-site", "same-site")], [("referer", "https://e.x/")]]
    {
        let requested = parameters(&visitor.get_with(link, &headers).await);
        assert_eq!((requested["prompt"].as_str(), requested.contains_key("login_hint")), ("consent", false));
    }

    // A signed-in user is asked for confirmation first, and the other site's parameters are dropped.
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.get_with(link, &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.text().contains("eve") && !page.text().contains("prompt"));
}

#[tokio::test]
async fn parameters_of_a_request_are_limited_and_unique() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Quiet).await;
    let alice = Browser::signed_in(&site, "alice");
    for link in [
        "/login/acme?prompt=login&prompt=none".to_owned(),
        "/login/acme?prompt=login&%70rompt=none".to_owned(),
        format!("/login/acme?login_hint={}", "x".repeat(513)),
    ] {
        let page = alice.get(&link).await;
        assert_eq!((page.status, page.location()), (StatusCode::BAD_REQUEST, ""));
    }
    let requested = parameters(&alice.get("/login/acme?prompt=&login_hint=").await);
    assert_eq!(
        (requested["prompt"].as_str(), requested.contains_key("login_hint")),
        ("consent", false),
        "empty is not there"
    );
}

#[tokio::test]
async fn parameters_of_the_protocol_cannot_be_allowed() {
    let provider = TestProvider::start().await.unwrap();
    for parameter in ["state", "scope", "redirect_uri", "request_uri", "code_challenge", "nonce", "dpop_jkt", "next"] {
        let mut acme = provider.provider("acme");
        acme.login_params = vec![parameter.to_owned()];
        let built = OAuth::builder("http://localhost", MemoryStorage::new(), KeyRing::generate())
            .provider(acme.client("id", "secret"))
            .anonymous_users()
            .build();
        assert!(matches!(built, Err(ConfigError::Invalid { field: "login_params", .. })), "{parameter}");
    }
}

/// The requested scopes, and how the granted ones differ.
type Granted = (Vec<String>, ScopeChange);

/// Requests more scopes for some users, rejects silent logins, and records its arguments.
#[derive(Clone, Default)]
struct Recorder {
    logins: Arc<Mutex<Vec<Granted>>>,
    refreshes: Arc<Mutex<Vec<RefreshEvent>>>,
}

#[async_trait::async_trait]
impl Hooks for Recorder {
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        if login.params.get("prompt").is_some_and(|prompt| prompt == "none") {
            return Err("not silently".into());
        }
        match login.user.map(User::id) {
            Some("more") => login.scopes.push("admin".to_owned()),
            Some("many") => login.scopes = (0..200).map(|number| format!("https://scope.example/{number}")).collect(),
            _ => {}
        }
        Ok(())
    }

    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        self.logins.lock().unwrap().push((login.requested.to_vec(), login.scope_change()));
        Ok(Decision::store())
    }

    fn refresh(&self, _: &TokenKey, event: &RefreshEvent) {
        self.refreshes.lock().unwrap().push(event.clone());
    }
}

#[tokio::test]
async fn a_hook_sees_the_parameters_of_a_request() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Recorder::default()).await;
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.get("/login/acme?prompt=none").await;
    assert_eq!((page.status, page.location()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
    assert_eq!(parameters(&alice.get("/login/acme?prompt=login").await)["prompt"], "login");
}

fn scopes(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn tr_11_a_hook_sees_requested_and_granted_scopes() {
    let provider = TestProvider::start().await.unwrap();
    let hooks = Recorder::default();
    let site = site(provider.provider("acme").with_scopes(["read", "write"]), hooks.clone()).await;
    for (user, granted, requested, missing, additional) in [
        ("alice", Some("read write"), "read write", "", ""),
        ("alice", Some("write,read"), "read write", "", ""),
        ("alice", Some("read"), "read write", "write", ""),
        ("alice", Some("read write admin"), "read write", "", "admin"),
        ("alice", Some("gist"), "read write", "read write", "gist"),
        ("alice", Some(""), "read write", "read write", ""),
        ("alice", None, "read write", "", ""),
        ("more", Some("read write"), "read write admin", "admin", ""),
        ("more", None, "read write admin", "", ""),
    ] {
        provider.next_token_response(match granted {
            Some(scope) => ScriptedResponse::normal().member("scope", scope),
            None => ScriptedResponse::normal().without("scope"),
        });
        let page = Browser::signed_in(&site, user).login("acme").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "it is no error");
        let (recorded, change) = hooks.logins.lock().unwrap().pop().unwrap();
        assert_eq!((recorded, change.missing), (scopes(requested), scopes(missing)), "{granted:?}");
        assert_eq!(change.additional, scopes(additional), "{granted:?}");
        let stored = site.token(user).await.unwrap().scope;
        assert_eq!(stored, granted.map(|scope| scopes(&scope.replace(',', " "))), "what was granted is stored");
    }
}

#[tokio::test]
async fn very_many_scopes_do_not_fail_a_login() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(provider.provider("acme"), Recorder::default()).await;
    assert_eq!(Browser::signed_in(&site, "many").login("acme").await.status, StatusCode::SEE_OTHER);
    let requested = provider.requests_to(Endpoint::Authorization).pop().unwrap();
    assert!(requested.parameter("scope").unwrap().len() > 4096);
}

#[tokio::test]
async fn tr_11_a_scope_that_changes_with_a_refresh_is_reported() {
    let provider = TestProvider::start().await.unwrap();
    let hooks = Recorder::default();
    let site = site(provider.provider("acme").with_scopes(["read", "write"]), hooks.clone()).await;
    let alice = User::new("alice");
    Browser::signed_in(&site, "alice").login("acme").await;
    for (granted, stored, missing, additional) in [
        (Value::Null, "read write", "", ""),
        ("write read".into(), "write read", "", ""),
        ("read".into(), "read", "write", ""),
        (Value::Null, "read", "", ""),
        ("read admin".into(), "read admin", "", "admin"),
    ] {
        site.clock.advance(HOUR);
        provider.next_token_response(ScriptedResponse::normal().member("scope", granted));
        site.oauth.client("acme", &alice).await.unwrap();
        assert_eq!(site.token("alice").await.unwrap().scope, Some(scopes(stored)));
        site.oauth.finish().await;
        let recorded = std::mem::take(&mut *hooks.refreshes.lock().unwrap());
        let names: Vec<_> = recorded.iter().map(RefreshEvent::name).collect();
        if missing.is_empty() && additional.is_empty() {
            assert_eq!(names, ["refreshed"]);
            continue;
        }
        assert_eq!(names, ["refreshed", "scope_changed"]);
        let RefreshEvent::ScopeChanged(change) = &recorded[1] else { panic!("{recorded:?}") };
        assert_eq!((&change.missing, &change.additional), (&scopes(missing), &scopes(additional)));
    }
}
