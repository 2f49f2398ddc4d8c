//! Callbacks that the browser interrupts, repeats, or sends to another process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestClock, TestProvider};
use oauth_dance::{Authorized, BoxError, Decision, Hooks, KeyRing, OAuthBuilder, Repeated, User};
use tokio::time::timeout;

use crate::support::{Browser, FragileStorage, Setup, Site, world};

fn redeemed(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Token).len()
}

/// Delays the next token response, so that the browser can disconnect in the meantime.
fn slow(provider: &TestProvider) {
    provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(200)));
}

/// Waits until the site has nothing in flight.
async fn finished(site: &Site) {
    timeout(Duration::from_secs(5), site.oauth.finish()).await.expect("a login ends by itself");
}

#[tokio::test]
async fn a_login_completes_after_the_browser_disconnects() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    slow(&provider);
    alice.hang_up(callback.as_str(), || redeemed(&provider) == 1).await;
    assert_eq!(site.access_token("alice").await, None, "it is still in flight");
    finished(&site).await;
    assert!(site.access_token("alice").await.is_some(), "the process waited for it");
    assert_eq!(alice.get("/required").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_callback_sent_twice_at_once_connects_once() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let authorization = alice.get("/login/acme?next=/required").await;
    let callback = alice.approve(&authorization.location().parse().unwrap()).await;
    slow(&provider);
    alice.hang_up(callback.as_str(), || redeemed(&provider) == 1).await;
    let page = alice.get(callback.as_str()).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/required"));
    assert_eq!(alice.get("/required").await.status, StatusCode::OK);
    assert_eq!(redeemed(&provider), 1);
    assert_eq!(provider.counters().families_revoked, 0);
}

#[tokio::test]
async fn a_new_user_s_lost_cookie_is_sent_again() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    for leaves_early in [true, false] {
        let browser = Browser::of(&site);
        let callback = browser.stopped_at_callback("acme").await;
        let before = redeemed(&provider);
        if leaves_early {
            slow(&provider);
            browser.hang_up(callback.as_str(), || redeemed(&provider) == before + 1).await;
        } else {
            let cookies = browser.cookie_header();
            Browser::of(&site).get_with(callback.as_str(), &[("cookie", &cookies)]).await;
        }
        assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
        assert_eq!(browser.get("/me/acme").await.status, StatusCode::OK, "the browser is the user who has the token");
        assert_eq!(redeemed(&provider), before + 1);

        let user = browser.cookies().into_iter().find(|(name, _)| name.contains("user")).unwrap();
        assert_eq!(browser.get(callback.as_str()).await.set_cookies(), Vec::<&str>::new(), "it has everything");
        assert_eq!(browser.cookies().get(&user.0), Some(&user.1));
    }
}

/// Two processes of one application.
async fn two_processes(provider: &TestProvider) -> (Site, Site, TestClock) {
    let (keys, clock) = (KeyRing::generate(), TestClock::new());
    let storage = Arc::new(FragileStorage::with_clock(clock.clock()));
    let start = || {
        let base = Some("https://app.example".to_owned());
        let (storage, keys, clock) = (storage.clone(), keys.clone(), clock.clone());
        let setup = Setup { base, storage, keys, clock, ..Setup::default() };
        setup.start(|builder| builder.provider(provider.registration("acme")).anonymous_users())
    };
    (start().await, start().await, clock)
}

/// The same browser, routed to the other process by a load balancer.
fn moved_to(site: &Site, browser: &Browser) -> Browser {
    let moved = Browser::of(site);
    browser.cookies().iter().for_each(|(name, value)| moved.set_cookie(name, value));
    moved
}

#[tokio::test]
async fn another_process_gets_the_outcome_of_the_first() {
    let provider = TestProvider::start().await.unwrap();
    let (one, two, clock) = two_processes(&provider).await;
    let browser = Browser::of(&one);
    let callback = browser.stopped_at_callback("acme").await;
    slow(&provider);
    browser.hang_up(callback.as_str(), || redeemed(&provider) == 1).await;
    let elsewhere = moved_to(&two, &browser);
    assert_eq!(elsewhere.get(callback.as_str()).await.status, StatusCode::SEE_OTHER, "it waited");
    assert_eq!(elsewhere.get("/me/acme").await.status, StatusCode::OK);

    clock.advance(Duration::from_secs(60));
    let later = moved_to(&two, &browser);
    assert_eq!(later.get(callback.as_str()).await.status, StatusCode::SEE_OTHER, "and a minute later");
    assert_eq!(later.get("/me/acme").await.status, StatusCode::OK);
    assert_eq!(redeemed(&provider), 1);
}

#[tokio::test]
async fn a_failure_is_repeated_unchanged() {
    let provider = TestProvider::start().await.unwrap();
    let (one, two, _) = two_processes(&provider).await;
    type Refusal = (Option<&'static str>, fn() -> ScriptedResponse, &'static str);
    let refusals: [Refusal; 4] = [
        (Some("access_denied"), ScriptedResponse::normal, "denied"),
        (Some("user_cancelled_login"), ScriptedResponse::normal, "denied"),
        (Some("server_error"), ScriptedResponse::normal, "provider_error"),
        (None, || ScriptedResponse::error(400, "invalid_grant"), "failed_before"),
    ];
    for (refuses, answer, code) in refusals {
        provider.configure(|settings| settings.refuses = refuses.map(str::to_owned));
        provider.clear_responses();
        provider.next_token_response(answer());
        let browser = Browser::of(&one);
        let callback = browser.stopped_at_callback("acme").await;
        let elsewhere = moved_to(&two, &browser);
        let first = browser.get(callback.as_str()).await;
        let again = elsewhere.get(callback.as_str()).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{refuses:?}");
        assert!(again.body.contains("href=\"/login/acme\""), "there is a way to start again");
        let program = elsewhere.get_with(callback.as_str(), &[("accept", "application/json")]).await;
        assert_eq!(program.json()["error"], code);
    }
    assert_eq!(redeemed(&provider), 1);
}

#[test]
fn a_process_that_dies_leaves_a_clear_error() {
    let here = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dying = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let provider = here.block_on(TestProvider::start()).unwrap();
    let (keys, clock) = (KeyRing::generate(), TestClock::new());
    let storage = Arc::new(FragileStorage::with_clock(clock.clock()));
    let start = || {
        let base = Some("https://app.example".to_owned());
        let (storage, keys, clock) = (storage.clone(), keys.clone(), clock.clone());
        let setup = Setup { base, storage, keys, clock, ..Setup::default() };
        setup.start(|builder| builder.provider(provider.registration("acme")))
    };
    let (one, two) = (dying.block_on(start()), here.block_on(start()));
    let alice = Browser::signed_in(&one, "alice");
    let elsewhere = Browser::signed_in(&two, "alice");
    let callback = here.block_on(async {
        let callback = alice.stopped_at_callback("acme").await;
        alice.cookies().iter().for_each(|(name, value)| elsewhere.set_cookie(name, value));
        provider.next_token_response(ScriptedResponse::normal().hanging());
        alice.hang_up(callback.as_str(), || redeemed(&provider) == 1).await;
        callback
    });
    dying.shutdown_background();
    here.block_on(async {
        clock.advance(Duration::from_secs(30));
        let page = timeout(Duration::from_secs(5), elsewhere.get(callback.as_str())).await.expect("it knows by now");
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(page.body.contains("interrupted") && page.body.contains("href=\"/login/acme\""), "{}", page.body);
        assert_eq!(redeemed(&provider), 1, "the code is not redeemed twice");
        assert_eq!(elsewhere.login("acme").await.status, StatusCode::SEE_OTHER);
    });
    drop(one);
}

/// Signs users in with its own cookie, and records repeated logins.
#[derive(Clone, Default)]
struct SignsIn {
    repeated: Arc<Mutex<Vec<String>>>,
    panics: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Hooks for SignsIn {
    async fn authorized(&self, _: Authorized<'_>) -> Result<Decision, BoxError> {
        assert!(!self.panics.load(Ordering::SeqCst), "the application has a bug");
        let response = ([(header::SET_COOKIE, "who=eve; Path=/")], "Welcome!").into_response();
        Ok(Decision::store().for_user(User::new("eve")).respond(response))
    }

    async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
        let user = login.user.map(|user| user.id().to_owned()).unwrap_or_default();
        self.repeated.lock().unwrap().push(format!("{user} {}", login.next));
        Ok(None)
    }
}

#[tokio::test]
async fn a_hook_s_response_is_repeated_as_a_redirect() {
    let (provider, hooks) = (TestProvider::start().await.unwrap(), SignsIn::default());
    let site = Site::with(&provider, |builder| builder.hooks(hooks.clone())).await;
    let browser = Browser::of(&site);
    let start = browser.get("/login/acme?next=/required").await;
    let callback = browser.approve(&start.location().parse().unwrap()).await;
    let cookies = browser.cookie_header();
    let lost = Browser::of(&site).get_with(callback.as_str(), &[("cookie", &cookies)]).await;
    assert_eq!((lost.status, lost.body.as_str()), (StatusCode::OK, "Welcome!"));

    let page = browser.get(callback.as_str()).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/required"));
    assert_eq!(browser.get("/required").await.status, StatusCode::OK, "the hook's cookie came again");
    assert_eq!(*hooks.repeated.lock().unwrap(), ["eve /required"]);

    browser.remove_cookie("who");
    assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert!(!browser.cookies().contains_key("who"), "who has signed out stays so");
    assert_eq!(hooks.repeated.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeat_does_not_replace_the_signed_in_user() {
    let (provider, hooks) = (TestProvider::start().await.unwrap(), SignsIn::default());
    let site = Site::with(&provider, |builder| builder.hooks(hooks.clone())).await;
    let browser = Browser::of(&site);
    let callback = browser.stopped_at_callback("acme").await;
    let cookies = browser.cookie_header();
    Browser::of(&site).get_with(callback.as_str(), &[("cookie", &cookies)]).await;
    browser.set_cookie("who", "mallory");
    assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.cookies()["who"], "mallory");
    assert!(hooks.repeated.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_panicking_hook_ends_only_its_own_login() {
    let (provider, hooks) = (TestProvider::start().await.unwrap(), SignsIn::default());
    let site = Site::with(&provider, |builder| builder.hooks(hooks.clone())).await;
    let browser = Browser::of(&site);
    hooks.panics.store(true, Ordering::SeqCst);
    let callback = browser.stopped_at_callback("acme").await;
    for _ in 0..2 {
        let page = timeout(Duration::from_secs(5), browser.get(callback.as_str())).await.expect("it left an outcome");
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(page.body.contains("start again"), "{}", page.body);
    }
    finished(&site).await;
    hooks.panics.store(false, Ordering::SeqCst);
    assert_eq!(browser.login("acme").await.status, StatusCode::OK);
    assert_eq!(redeemed(&provider), 2);
}

async fn fragile(provider: &TestProvider) -> (Site, Arc<FragileStorage>) {
    let storage = Arc::new(FragileStorage::default());
    let setup = Setup { storage: storage.clone(), ..Setup::default() };
    (setup.start(|builder| builder.provider(provider.registration("acme"))).await, storage)
}

#[tokio::test]
async fn a_token_is_stored_after_a_short_outage() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = fragile(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    storage.writes_left.store(1, Ordering::SeqCst);
    let (page, ()) = tokio::join!(alice.get(callback.as_str()), async {
        while redeemed(&provider) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        storage.switch(false);
    });
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert!(site.access_token("alice").await.is_some());
    assert!(provider.requests_to(Endpoint::Revocation).is_empty());
}

/// A hook that names the user. The storage becomes unavailable while it runs.
struct Outage(Arc<FragileStorage>);

#[async_trait::async_trait]
impl Hooks for Outage {
    async fn authorized(&self, _: Authorized<'_>) -> Result<Decision, BoxError> {
        self.0.switch(true);
        Ok(Decision::store().for_user(User::new("alice")))
    }
}

/// At some providers, one revocation ends all grants of the user, including that of the stored token.
#[tokio::test]
async fn an_outage_at_a_sign_in_revokes_nothing() {
    let provider = TestProvider::start().await.unwrap();
    let storage = Arc::new(FragileStorage::default());
    let setup = Setup { storage: storage.clone(), ..Setup::default() };
    let hooks = Outage(storage.clone());
    let site = setup.start(|builder| builder.provider(provider.registration("acme")).hooks(hooks)).await;
    provider.connect(&site.oauth, "acme", &User::new("alice")).await.unwrap();
    let page = Browser::of(&site).login("acme").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    storage.switch(false);
    finished(&site).await;
    assert_eq!(redeemed(&provider), 1);
    assert!(provider.requests_to(Endpoint::Revocation).is_empty());
}

struct Fails;

#[async_trait::async_trait]
impl Hooks for Fails {
    async fn authorized(&self, _: Authorized<'_>) -> Result<Decision, BoxError> {
        Err("the application's database is down".into())
    }
}

/// Some providers issue a refresh token only at the first login, and would issue none at the next.
#[tokio::test]
async fn a_first_token_is_revoked_if_its_hook_fails() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.hooks(Fails)).await;
    for (user, revoked) in [("alice", 2), ("bob", 0)] {
        if user == "bob" {
            provider.connect(&site.oauth, "acme", &User::new("bob")).await.unwrap();
        }
        provider.clear_requests();
        Browser::signed_in(&site, user).login("acme").await;
        finished(&site).await;
        assert_eq!(provider.requests_to(Endpoint::Revocation).len(), revoked, "{user}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_stored_is_revoked() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = fragile(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    storage.writes_left.store(1, Ordering::SeqCst);
    let page = alice.get_with(callback.as_str(), &[("accept", "application/json")]).await;
    assert_eq!((page.status, page.json()["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("storage_failed")));
    assert_eq!(provider.requests_to(Endpoint::Revocation).len(), 2, "the refresh and the access token");

    // Some providers end all of a user's grants with one revocation, so an earlier connection takes precedence.
    storage.switch(false);
    alice.login("acme").await;
    let earlier = site.access_token("alice").await;
    let callback = alice.stopped_at_callback("acme").await;
    storage.writes_left.store(1, Ordering::SeqCst);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SERVICE_UNAVAILABLE);
    storage.switch(false);
    assert_eq!(provider.requests_to(Endpoint::Revocation).len(), 2);
    assert_eq!(site.access_token("alice").await, earlier);
    assert_eq!(alice.get("/required").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_repeat_sends_nothing_to_the_provider() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let cookies = alice.cookie_header();
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    drop(provider);
    let again = alice.get_with(callback.as_str(), &[("cookie", &cookies)]).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    // A request without the attempt's cookie comes from another browser.
    let other = Browser::signed_in(&site, "alice").get(callback.as_str()).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
}
