//! What one login asks for in particular, and what is granted of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Answer, Endpoint, TestProvider};
use oauth_dance::{
    Authorized, BeforeLogin, BoxError, ConfigError, Decision, Hooks, KeyRing, MemoryStorage, OAuth, Provider,
    RefreshEvent, ScopeChange, TokenKey, User,
};
use serde_json::Value;
use url::Url;

use crate::support::{Browser, Page, Setup, Site};

const HOUR: Duration = Duration::from_secs(3601);

/// A provider whose logins may be asked for the account chooser.
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
async fn a_link_of_the_application_asks_to_be_asked_again() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Quiet).await;
    let alice = Browser::signed_in(&site, "alice");

    let usual = parameters(&alice.get("/login/acme").await);
    assert_eq!((usual["prompt"].as_str(), usual.contains_key("login_hint")), ("consent", false));

    let link = "/login/acme?prompt=select_account+login&login_hint=a%26b%3Dc&acr_values=high&next=/notes";
    let asked = parameters(&alice.get_with(link, &[("sec-fetch-site", "same-origin")]).await);
    assert_eq!((asked["prompt"].as_str(), asked["login_hint"].as_str()), ("select_account login", "a&b=c"));
    assert!(!asked.contains_key("acr_values") && !asked.contains_key("next"), "it is not allowed");

    let own = [("sec-fetch-site", "same-origin")];
    let posted = parameters(&alice.post("/login/acme", "prompt=login&max_age=0", &own).await);
    assert_eq!((posted["prompt"].as_str(), posted["max_age"].as_str()), ("login", "0"));
}

#[tokio::test]
async fn another_site_has_no_say_in_what_is_asked() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Quiet).await;
    let link = "/login/acme?prompt=none&login_hint=eve";
    let visitor = Browser::of(&site);
    for headers in
        [[("sec-fetch-site", "cross-site")], [("sec-fetch-site", "same-site")], [("referer", "https://e.x/")]]
    {
        let asked = parameters(&visitor.get_with(link, &headers).await);
        assert_eq!((asked["prompt"].as_str(), asked.contains_key("login_hint")), ("consent", false));
    }

    // Who is signed in is asked first, and what the other site wanted is gone by then.
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.get_with(link, &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.text().contains("eve") && !page.text().contains("prompt"));
}

#[tokio::test]
async fn what_a_request_sets_is_bounded_and_comes_once() {
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
    let asked = parameters(&alice.get("/login/acme?prompt=&login_hint=").await);
    assert_eq!((asked["prompt"].as_str(), asked.contains_key("login_hint")), ("consent", false), "empty is not there");
}

#[tokio::test]
async fn what_belongs_to_the_protocol_cannot_be_allowed() {
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

/// The scopes that were asked for, and how those that were granted differ.
type Granted = (Vec<String>, ScopeChange);

/// Asks some users for more than usual, refuses silent logins, and keeps what it is told.
#[derive(Clone, Default)]
struct Told {
    logins: Arc<Mutex<Vec<Granted>>>,
    refreshes: Arc<Mutex<Vec<RefreshEvent>>>,
}

#[async_trait::async_trait]
impl Hooks for Told {
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
        self.logins.lock().unwrap().push((login.asked.to_vec(), login.scope_change()));
        Ok(Decision::store())
    }

    fn refresh(&self, _: &TokenKey, event: &RefreshEvent) {
        self.refreshes.lock().unwrap().push(event.clone());
    }
}

#[tokio::test]
async fn a_hook_sees_what_a_request_sets() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(choosing(&provider), Told::default()).await;
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.get("/login/acme?prompt=none").await;
    assert_eq!((page.status, page.location()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
    assert_eq!(parameters(&alice.get("/login/acme?prompt=login").await)["prompt"], "login");
}

fn scopes(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn tr_11_a_hook_is_told_what_was_asked_and_what_was_granted() {
    let provider = TestProvider::start().await.unwrap();
    let hooks = Told::default();
    let site = site(provider.provider("acme").with_scopes(["read", "write"]), hooks.clone()).await;
    for (user, granted, asked, missing, additional) in [
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
        provider.next_token_answer(match granted {
            Some(scope) => Answer::normal().member("scope", scope),
            None => Answer::normal().without("scope"),
        });
        let page = Browser::signed_in(&site, user).login("acme").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "it is no error");
        let (told, change) = hooks.logins.lock().unwrap().pop().unwrap();
        assert_eq!((told, change.missing), (scopes(asked), scopes(missing)), "{granted:?}");
        assert_eq!(change.additional, scopes(additional), "{granted:?}");
        let stored = site.token(user).await.unwrap().scope;
        assert_eq!(stored, granted.map(|scope| scopes(&scope.replace(',', " "))), "what was granted is stored");
    }
}

#[tokio::test]
async fn scopes_without_end_cost_no_login() {
    let provider = TestProvider::start().await.unwrap();
    let site = site(provider.provider("acme"), Told::default()).await;
    assert_eq!(Browser::signed_in(&site, "many").login("acme").await.status, StatusCode::SEE_OTHER);
    let asked = provider.requests_to(Endpoint::Authorization).pop().unwrap();
    assert!(asked.parameter("scope").unwrap().len() > 4096);
}

#[tokio::test]
async fn tr_11_a_scope_that_changes_with_a_refresh_is_reported() {
    let provider = TestProvider::start().await.unwrap();
    let hooks = Told::default();
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
        provider.next_token_answer(Answer::normal().member("scope", granted));
        site.oauth.client("acme", &alice).await.unwrap();
        assert_eq!(site.token("alice").await.unwrap().scope, Some(scopes(stored)));
        site.oauth.finish().await;
        let told = std::mem::take(&mut *hooks.refreshes.lock().unwrap());
        let names: Vec<_> = told.iter().map(RefreshEvent::name).collect();
        if missing.is_empty() && additional.is_empty() {
            assert_eq!(names, ["refreshed"]);
            continue;
        }
        assert_eq!(names, ["refreshed", "scope_changed"]);
        let RefreshEvent::ScopeChanged(change) = &told[1] else { panic!("{told:?}") };
        assert_eq!((&change.missing, &change.additional), (&scopes(missing), &scopes(additional)));
    }
}
