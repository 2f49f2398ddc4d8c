//! What applications see: extractors, hooks, clients without a request, and where the routes are.

use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{
    Authorized, BeforeLogin, BoxError, ConnectError, Decision, FailedLogin, Hooks, LoginError, OAuthBuilder, User,
    Users,
};
use url::Url;

use crate::support::{Browser, Setup, Site, code_of, state_of, world};

#[tokio::test]
async fn a_browser_is_redirected_to_the_login_and_returns() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for (path, next) in [
        ("/required", "%2Frequired"),
        ("/required?a=b&c=%20d", "%2Frequired%3Fa%3Db%26c%3D%2520d"),
        ("/nested/tenant%20one/required?x", "%2Fnested%2Ftenant%2520one%2Frequired%3Fx"),
        ("/me/acme", "%2Fme%2Facme"),
    ] {
        let page = alice.get(path).await;
        assert_eq!(
            (page.status, page.location()),
            (StatusCode::SEE_OTHER, format!("/login/acme?next={next}").as_str())
        );
        let start = alice.get(page.location()).await;
        let callback = alice.approve(&Url::parse(start.location()).unwrap()).await;
        let page = alice.get(callback.as_str()).await;
        assert_eq!(page.location(), path);
        assert_eq!(alice.get(path).await.status, StatusCode::OK);
        site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_gets_401_and_json() {
    let (_provider, site) = world().await;
    for browser in [Browser::signed_in(&site, "alice"), Browser::of(&site)] {
        for headers in [[("accept", "application/json")], [("accept", "*/*")]] {
            let page = browser.get_with("/required", &headers).await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED);
            assert_eq!(page.json()["error"], "not_connected");
        }
        let page = browser.post("/required", "", &[]).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "a form is not sent twice");
        assert_eq!(browser.get("/optional").await.body, "not connected");
        assert_eq!(browser.get("/me/nobody").await.status, StatusCode::NOT_FOUND);
    }
}

struct Outage;

#[async_trait::async_trait]
impl Users for Outage {
    async fn current(&self, _parts: &mut http::request::Parts) -> Result<Option<User>, BoxError> {
        Err("the session store is down".into())
    }
}

#[tokio::test]
async fn sc_13_a_failing_user_source_is_an_error() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.users(Outage)).await;
    let browser = Browser::of(&site);
    for path in ["/required", "/optional", "/me/acme", "/login/acme"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert!(!page.body.contains("session store"), "{}", page.body);
    }
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn jobs_have_clients_without_a_request() {
    let (provider, site) = world().await;
    Browser::signed_in(&site, "alice").login("acme").await;
    let oauth = site.oauth.clone();
    let job = tokio::spawn(async move { oauth.client("acme", &User::new("alice")).await });
    let client = job.await.unwrap().unwrap();
    assert_eq!(client.get("/report").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!((client.provider(), provider.requests_to(Endpoint::Api).len()), ("acme", 1));
    let nobody = site.oauth.client("acme", &User::new("bob")).await;
    assert!(matches!(nobody, Err(ConnectError::NotConnected)));
    let unknown = site.oauth.client("nobody", &User::new("alice")).await;
    assert!(matches!(unknown, Err(ConnectError::UnknownProvider(_))));
}

/// Does what a test configures, and records what it saw.
#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<String>>>,
    authorized: Option<Arc<dyn Fn() -> Result<Decision, BoxError> + Send + Sync>>,
}

#[async_trait::async_trait]
impl Hooks for Recorder {
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        self.seen.lock().unwrap().push(format!("{} {:?}", login.parts.uri, login.user.map(User::id)));
        if login.user.is_some_and(|user| user.id() == "banned") {
            return Err("banned".into());
        }
        if login.user.is_some_and(|user| user.id() == "evil") {
            login.params.insert("state".to_owned(), "mine".to_owned());
        }
        login.scopes = vec!["profile".to_owned()];
        login.params.insert("login_hint".to_owned(), "hinted".to_owned());
        Ok(())
    }

    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let me: serde_json::Value = login.client.userinfo().send().await?.json()?;
        let line = format!("{} {} {} {:?}", login.parts.uri, me["sub"], login.next, login.token.scope());
        self.seen.lock().unwrap().push(line);
        self.authorized.as_ref().map_or_else(|| Ok(Decision::store()), |decide| decide())
    }

    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        let line = format!("{} {:?} {}", failure.parts.uri, failure.provider, failure.error.code());
        self.seen.lock().unwrap().push(line);
        matches!(failure.error, LoginError::Denied).then(|| (StatusCode::IM_A_TEAPOT, "our own page").into_response())
    }
}

async fn recorded(
    decide: impl Fn() -> Result<Decision, BoxError> + Send + Sync + 'static,
) -> (TestProvider, Site, Recorder) {
    let provider = TestProvider::start().await.unwrap();
    let hooks = Recorder { authorized: Some(Arc::new(decide)), ..Recorder::default() };
    let site = Site::with(&provider, |builder| builder.hooks(hooks.clone())).await;
    (provider, site, hooks)
}

#[tokio::test]
async fn hooks_see_and_change_a_login() {
    let (provider, site, hooks) = recorded(|| Ok(Decision::store())).await;
    let alice = Browser::signed_in(&site, "alice");
    let start = alice.get("/login/acme?next=/notes").await;
    let callback = alice.approve(&Url::parse(start.location()).unwrap()).await;
    alice.get(callback.as_str()).await;
    let requested = provider.requests_to(Endpoint::Authorization).pop().unwrap();
    assert_eq!((requested.parameter("scope"), requested.parameter("login_hint")), (Some("profile"), Some("hinted")));
    let seen = hooks.seen.lock().unwrap().clone();
    assert_eq!(
        seen,
        ["/login/acme Some(\"alice\")", "/login/acme/authorized \"hinted\" /notes Some([\"profile\"])"],
        "and never a code or a state"
    );
    let token = site.token("alice").await.unwrap();
    assert_eq!(token.scope.as_deref(), Some(&["profile".to_owned()][..]));
}

#[tokio::test]
async fn hooks_stop_a_login_before_it_starts() {
    let (provider, site, hooks) = recorded(|| Ok(Decision::store())).await;
    for (user, code) in [("banned", "hook_failed"), ("evil", "reserved_parameter")] {
        let page = Browser::signed_in(&site, user).get("/login/acme").await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(page.set_cookies().is_empty() && page.location().is_empty());
        assert!(hooks.seen.lock().unwrap().pop().unwrap().ends_with(code));
    }
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn hooks_decide_what_is_stored_for_whom_and_where_to_go() {
    type Row = (fn() -> Result<Decision, BoxError>, u16, &'static str, Option<&'static str>);
    let rows: [Row; 5] = [
        (|| Ok(Decision::store()), 303, "/", Some("alice")),
        (|| Ok(Decision::store().redirect("/welcome")), 303, "/welcome", Some("alice")),
        (|| Ok(Decision::store().for_user(User::new("created")).respond("hello")), 200, "", Some("created")),
        (|| Ok(Decision::discard().redirect("/no")), 303, "/no", None),
        (|| Err("no".into()), 500, "", None),
    ];
    for (decide, status, location, stored) in rows {
        let (_provider, site, _) = recorded(decide).await;
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!((page.status.as_u16(), page.location()), (status, location));
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.set_cookies().len(), 1, "the attempt's cookie goes in every case");
        for user in ["alice", "created"] {
            assert_eq!(site.access_token(user).await.is_some(), stored == Some(user), "{user}");
        }
    }
}

#[tokio::test]
async fn hooks_show_their_own_pages_for_failures() {
    let (provider, site, hooks) = recorded(|| Ok(Decision::store())).await;
    let alice = Browser::signed_in(&site, "alice");
    provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    let page = alice.login("acme").await;
    assert_eq!((page.status, page.body.as_str()), (StatusCode::IM_A_TEAPOT, "our own page"));
    assert_eq!((page.header("cache-control"), page.header("referrer-policy")), ("no-store", "no-referrer"));
    assert_eq!(hooks.seen.lock().unwrap().pop().unwrap(), "/login/acme/authorized Some(\"acme\") denied");

    let page = alice.get("/login/nobody").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(page.body.contains("No provider with that name is configured."));
    assert_eq!(hooks.seen.lock().unwrap().pop().unwrap(), "/login/nobody None unknown_provider");
    let page = alice.get_with("/login/nobody", &[("accept", "application/json")]).await;
    assert_eq!(page.json()["error"], "unknown_provider");
}

#[tokio::test]
async fn urls_are_right_behind_a_proxy_that_terminates_tls() {
    let provider = TestProvider::start().await.unwrap();
    let setup = Setup { base: Some("https://app.example".to_owned()), ..Setup::default() };
    let site = setup.start(|builder| builder.provider(provider.registration("acme"))).await;
    let alice = Browser::signed_in(&site, "alice");
    let start = alice.get("/login/acme").await;
    assert!(start.set_cookies()[0].starts_with("__Host-") && start.set_cookies()[0].contains("Secure"));
    let url = Url::parse(start.location()).unwrap();
    let redirect_uri = url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    assert_eq!(redirect_uri, "https://app.example/login/acme/authorized");
    let callback = alice.approve(&url).await;
    assert_eq!(alice.get(callback.as_str()).await.location(), "/");
    assert_eq!(alice.get("/required").await.status, StatusCode::OK);

    let own = [("sec-fetch-site", "same-origin"), ("origin", "https://app.example")];
    assert_eq!(alice.post("/login/acme", "", &own).await.status, StatusCode::SEE_OTHER);
    let inner = [("origin", site.listener.as_str())];
    assert_eq!(alice.post("/login/acme", "", &inner).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn urls_are_right_behind_a_proxy_that_strips_a_prefix() {
    let provider = TestProvider::start().await.unwrap();
    let setup = Setup { base: Some("https://app.example/sub/".to_owned()), ..Setup::default() };
    let site = setup.start(|builder| builder.provider(provider.registration("acme"))).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(site.oauth.login_path("acme"), "/sub/login/acme");
    for path in ["/sub/required?a=b", "/sub/nested/x/required"] {
        let page = alice.get(path).await;
        assert!(page.location().starts_with("/sub/login/acme?next=%2Fsub%2F"), "{}", page.location());
        let start = alice.get(page.location()).await;
        let callback = alice.approve(&Url::parse(start.location()).unwrap()).await;
        assert!(callback.as_str().starts_with("https://app.example/sub/login/acme/authorized?"));
        assert_eq!(alice.get(callback.as_str()).await.location(), path);
        site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    }
    assert_eq!(alice.login("acme").await.location(), "/sub/");
    let confirm = alice.get_with("/sub/login/acme", &[("sec-fetch-site", "cross-site")]).await;
    assert!(confirm.body.contains("action=\"/sub/login/acme\"") && confirm.body.contains("href=\"/sub/\""));
    let failure = alice.get("/sub/login/acme/authorized").await;
    assert!(failure.body.contains("href=\"/sub/login/acme\""), "{}", failure.body);
}

#[tokio::test]
async fn routes_can_be_anywhere() {
    let provider = TestProvider::start().await.unwrap();
    let registration = provider.registration("acme");
    let configure = |builder: OAuthBuilder| {
        builder.provider(registration).login_path("/connect/{provider}").callback_path("/back/{provider}")
    };
    let site = Setup::default().start(configure).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.get("/required").await.location(), "/connect/acme?next=%2Frequired");
    let start = alice.get("/connect/acme").await;
    let callback = alice.approve(&Url::parse(start.location()).unwrap()).await;
    assert_eq!(callback.path(), "/back/acme");
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(alice.get("/login/acme").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_redirect_uri_may_lead_through_another_host() {
    let provider = TestProvider::start().await.unwrap();
    let elsewhere = "https://gateway.example/callbacks/acme?app=1";
    let registration = provider.registration("acme").with_redirect_uri(elsewhere);
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    assert_eq!(site.oauth.redirect_uri("acme").unwrap(), elsewhere);
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    assert!(callback.as_str().starts_with(&format!("{elsewhere}&code=")), "{callback}");

    let (code, state) = (code_of(&callback), state_of(&callback));
    let rewritten = format!("/login/acme/authorized?code={code}&state={state}");
    assert_eq!(alice.get(&rewritten).await.status, StatusCode::SEE_OTHER);
    let sent = provider.requests_to(Endpoint::Token).pop().unwrap();
    assert_eq!(sent.field("redirect_uri"), Some(elsewhere));
}

#[tokio::test]
async fn the_counters_can_be_read_from_another_process() {
    let (provider, site) = world().await;
    let token = provider.connect(&site.oauth, "acme", &User::new("alice")).await.unwrap();
    site.clock.advance(std::time::Duration::from_secs(3601));
    provider.next_token_response(ScriptedResponse::normal().lost());
    for _ in 0..2 {
        assert!(site.oauth.client("acme", &User::new("alice")).await.is_err());
        site.clock.advance(std::time::Duration::from_secs(3601));
    }
    let answer = reqwest::get(format!("{}/counters", provider.url())).await.unwrap();
    let counters: oauth_dance::testing::Counters = answer.json().await.unwrap();
    assert_eq!(counters, provider.counters());
    assert_eq!(counters.redemptions[token.refresh_token.unwrap().expose()], 2);
    assert_eq!((counters.refreshes, counters.families_revoked), (1, 1));
}
