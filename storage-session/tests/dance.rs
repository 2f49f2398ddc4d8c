//! The whole dance with request-bound storages: connect, call, refresh, disconnect.
#![cfg(all(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use oauth_dance::testing::{CLIENT, Endpoint, LoggedRequest, ScriptedResponse, TestClock, TestProvider};
use oauth_dance::{
    ApiError, ConnectError, Connected, ConnectedRejection, Connections, KeyRing, LoginError, OAuth, ProviderName, User,
};
use oauth_dance_core::{SealingKey, StorageError, TokensError};
use oauth_dance_session::{CookieTokens, SessionTokens};
use support::{Browser, Page, serve};
use url::Url;

struct Acme;

impl ProviderName for Acme {
    const NAME: &'static str = "acme";
}

/// The same provider, with tokens bound to a key.
struct Bound;

impl ProviderName for Bound {
    const NAME: &'static str = "bound";
}

async fn me(acme: Connected<Acme>) -> Result<String, ApiError> {
    acme.userinfo().send().await?.success()?.text()
}

async fn me_bound(bound: Connected<Bound>) -> Result<String, ApiError> {
    bound.userinfo().send().await?.success()?.text()
}

async fn status(connections: Connections, Path(name): Path<String>) -> Result<String, ConnectedRejection> {
    let found = connections.connection(&name).await.map_err(|error| connections.reject(&name, error))?;
    Ok(if found.is_some() { "connected".to_owned() } else { "not connected".to_owned() })
}

async fn disconnect(connections: Connections, Path(name): Path<String>) -> Result<String, ConnectedRejection> {
    let done = connections.disconnect(&name).await.map_err(|error| connections.reject(&name, error))?;
    Ok(format!("{} {:?}", done.removed, done.revocation))
}

/// Calls the API like a background job.
async fn job(State(oauth): State<OAuth>) -> String {
    let alice = User::new("alice");
    let error = oauth.client("acme", &alice).await.unwrap_err();
    assert!(oauth.connection("acme", &alice).await.is_err() && oauth.disconnect("acme", &alice).await.is_err());
    match oauth.tokens().get(&alice.key("acme").unwrap()).await.unwrap_err() {
        TokensError::Storage(StorageError::Unsupported(advice)) if error.code() == "storage_failed" => {
            advice.to_owned()
        }
        other => format!("{error:?} {other:?}"),
    }
}

/// Where the tokens are stored.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Cookie,
    Session014,
    Session015,
    Nowhere,
}

const ALL: [Kind; 3] = [Kind::Cookie, Kind::Session014, Kind::Session015];

struct World {
    provider: Arc<TestProvider>,
    clock: TestClock,
    browser: Browser,
    oauth: OAuth,
}

async fn world(kind: Kind) -> World {
    world_of(kind, Arc::new(TestProvider::start().await.unwrap()), KeyRing::generate()).await
}

async fn world_of(kind: Kind, provider: Arc<TestProvider>, keys: KeyRing) -> World {
    let (clock, base) = (TestClock::new(), "https://app.example");
    let mut bound = provider.provider("bound");
    bound.dpop = true;
    let oauth = OAuth::per_request(base, keys.clone())
        .provider(bound.client(CLIENT.0, CLIENT.1))
        .provider(provider.registration("acme"))
        .provider(provider.registration("other"))
        .clock(clock.clock())
        .anonymous_users()
        .build()
        .unwrap();
    let app: Router = Router::new()
        .route("/", get(|| async { "home" }))
        .route("/me", get(me))
        .route("/me/bound", get(me_bound))
        .route("/status/{name}", get(status))
        .route("/disconnect/{name}", get(disconnect))
        .route("/job", get(job))
        .merge(oauth.routes())
        .layer(oauth.layer())
        .with_state(oauth.clone());
    let app = match kind {
        Kind::Cookie => app.layer(CookieTokens::new(base, keys).with_clock(clock.clock())),
        Kind::Session014 => {
            use tower_sessions_0_14::cookie::{Key, SameSite};
            use tower_sessions_0_14::{MemoryStore, SessionManagerLayer};
            let store = MemoryStore::default();
            let sessions = SessionManagerLayer::new(store.clone()).with_signed(Key::generate());
            app.layer(SessionTokens::new(store)).layer(sessions.with_same_site(SameSite::Lax))
        }
        Kind::Session015 => {
            use tower_sessions::cookie::{Key, SameSite};
            use tower_sessions::{MemoryStore, SessionManagerLayer};
            let store = MemoryStore::default();
            let sessions = SessionManagerLayer::new(store.clone()).with_signed(Key::generate());
            app.layer(SessionTokens::new(store)).layer(sessions.with_same_site(SameSite::Lax))
        }
        Kind::Nowhere => app,
    };
    let browser = Browser::new(&serve(app).await, true);
    World { provider, clock, browser, oauth }
}

impl World {
    /// Logs in at the provider. Returns the response of the callback.
    async fn login(&self, name: &str) -> Page {
        self.browser.get(&self.callback(name).await).await
    }

    /// The callback URL of a login that is complete except for the callback.
    async fn callback(&self, name: &str) -> String {
        let start = self.browser.get(&format!("/login/{name}?next=/me")).await;
        assert_eq!(start.status, StatusCode::SEE_OTHER, "{start:?}");
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let response = http.get(start.header("location")).send().await.unwrap();
        let callback = Url::parse(response.headers()["location"].to_str().unwrap()).unwrap();
        format!("{}?{}", callback.path(), callback.query().unwrap())
    }
}

#[tokio::test]
async fn dpop_key_is_stored_with_its_token() {
    for kind in ALL {
        let world = world(kind).await;
        let clock = world.clock.clock();
        world.provider.configure(|settings| settings.clock = clock);
        assert_eq!(world.login("bound").await.status, StatusCode::SEE_OTHER);
        for _ in 0..3 {
            assert_eq!(world.browser.get("/me/bound").await.body, r#"{"sub":"test-user"}"#);
            world.clock.advance(Duration::from_secs(3601));
        }
        let requests = [Endpoint::Token, Endpoint::Userinfo].map(|endpoint| world.provider.requests_to(endpoint));
        assert_eq!(requests.each_ref().map(Vec::len), [3, 3]);
        // The header of a proof contains the public key, and nothing else that differs.
        let head = |request: &LoggedRequest| request.header("dpop").unwrap().split_once('.').unwrap().0.to_owned();
        let heads: HashSet<String> = requests.iter().flatten().map(head).collect();
        assert_eq!(heads.len(), 1, "one key from the login on");
    }
}

#[tokio::test]
async fn connect_call_refresh_disconnect() {
    for kind in ALL {
        let world = world(kind).await;
        let first = world.browser.get("/me").await;
        assert!(first.header("location").starts_with("/login/acme?next="), "{first:?}");
        let callback = world.login("acme").await;
        assert_eq!((callback.status, callback.header("location")), (StatusCode::SEE_OTHER, "/me"), "{callback:?}");
        assert_eq!(world.browser.get("/me").await.body, r#"{"sub":"test-user"}"#);
        world.login("other").await;
        for name in ["acme", "other"] {
            assert_eq!(world.browser.get(&format!("/status/{name}")).await.body, "connected");
        }

        world.clock.advance(Duration::from_secs(3601));
        for _ in 0..3 {
            assert_eq!(world.browser.get("/me").await.status, StatusCode::OK);
        }
        assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 3, "two logins, one stored refresh");
        assert_eq!(world.provider.counters().families_revoked, 0);

        assert_eq!(world.browser.get("/disconnect/acme").await.body, "true Done");
        assert_eq!(world.browser.get("/status/acme").await.body, "not connected");
        assert_eq!(world.browser.get("/status/other").await.body, "connected");
        assert_eq!(world.browser.get("/disconnect/acme").await.body, "false NotPossible");
    }
}

/// A token that is about to expire is refreshed in the background if the result can be stored, and otherwise before the
/// response. The new token is not lost, and the spent refresh token is not sent again.
#[tokio::test]
async fn early_refresh_is_stored() {
    for kind in ALL {
        let world = world(kind).await;
        world.login("acme").await;
        world.clock.advance(Duration::from_secs(3595));
        world.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(300)));
        for _ in 0..3 {
            assert_eq!(world.browser.get("/me").await.status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 2, "a login and one refresh");
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(world.browser.get("/me").await.status, StatusCode::OK);
        assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 2, "the refreshed token is there");
        assert_eq!(world.provider.counters().families_revoked, 0);
    }
}

/// A refreshed token that does not fit is used for its own request. The next request requires a login, and neither waits
/// nor sends the spent refresh token.
#[tokio::test]
async fn too_large_refreshed_token_ends_the_connection() {
    let world = world(Kind::Cookie).await;
    world.login("acme").await;
    world.clock.advance(Duration::from_secs(3601));
    world.provider.next_token_response(ScriptedResponse::normal().member("refresh_token", "x".repeat(65_536)));
    assert_eq!(world.browser.get("/me").await.status, StatusCode::OK);
    let next = world.browser.get("/me").await;
    assert!(next.header("location").starts_with("/login/acme?next="), "{next:?}");
    assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 2);
    world.login("acme").await;
    assert_eq!(world.browser.get("/me").await.status, StatusCode::OK);
}

/// A browser that disconnects during a refresh leaves no task that retries the write indefinitely.
#[tokio::test]
async fn disconnected_browser_leaves_no_token() {
    for kind in ALL {
        let world = world(kind).await;
        world.login("acme").await;
        world.clock.advance(Duration::from_secs(3601));
        world.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(300)));
        assert!(tokio::time::timeout(Duration::from_millis(100), world.browser.get("/me")).await.is_err());
        tokio::time::timeout(Duration::from_secs(5), world.oauth.finish()).await.expect("no refresh is in flight");
        assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 2);
        if kind != Kind::Cookie {
            assert_eq!(world.browser.get("/me").await.status, StatusCode::OK, "a session has stored the token");
            assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 2);
        }
    }
}

#[tokio::test]
async fn other_browsers_have_no_access() {
    for kind in ALL {
        let world = world(kind).await;
        world.login("acme").await;
        let other = Browser::new(world.browser.url(), true);
        assert_eq!(other.get("/status/acme").await.body, "not connected");
        assert_eq!(other.get("/me").await.status, StatusCode::SEE_OTHER);
    }
}

/// The next user of the same browser cannot use the tokens of the previous one.
#[tokio::test]
async fn next_user_of_a_browser_has_no_access() {
    for kind in ALL {
        let world = world(kind).await;
        world.login("acme").await;
        world.browser.jar.lock().unwrap().retain(|name, _| !name.contains("oauth-dance-user"));
        assert_eq!(world.browser.get("/status/acme").await.body, "not connected");
        world.login("acme").await;
        assert_eq!(world.browser.get("/status/acme").await.body, "connected");
    }
}

#[tokio::test]
async fn callback_works_once() {
    let world = world(Kind::Cookie).await;
    let cookies_of_the_start = {
        let start = world.browser.get("/login/acme").await;
        (world.browser.cookie_header(), start.header("location").to_owned())
    };
    let (cookies, location) = cookies_of_the_start;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let response = http.get(location).send().await.unwrap();
    let callback = Url::parse(response.headers()["location"].to_str().unwrap()).unwrap();
    let callback = format!("{}?{}", callback.path(), callback.query().unwrap());
    assert_eq!(world.browser.send(&callback, cookies.as_bytes()).await.status, StatusCode::SEE_OTHER);
    let again = world.browser.send(&callback, cookies.as_bytes()).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 1);
}

/// The first response may be lost with its cookie or session, for example if a provider's page opens the callback
/// twice and cancels the first request.
#[tokio::test]
async fn repeated_callback_stores_a_lost_token() {
    for kind in ALL {
        let world = world(kind).await;
        let callback = world.callback("acme").await;
        assert_eq!(
            world.browser.send(&callback, world.browser.cookie_header().as_bytes()).await.status,
            StatusCode::SEE_OTHER
        );
        assert_eq!(world.browser.get(&callback).await.header("location"), "/me");
        assert_eq!(world.browser.get("/me").await.body, r#"{"sub":"test-user"}"#);
        assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 1);

        // A browser that has received the response gets the token only once, so a logout is final.
        assert!(world.browser.get("/disconnect/acme").await.body.starts_with("true"));
        assert_eq!(world.browser.get(&callback).await.status, StatusCode::SEE_OTHER);
        assert_eq!(world.browser.get("/status/acme").await.body, "not connected");
    }
}

/// The browser disconnects while the code is redeemed, so no response can carry the token.
#[tokio::test]
async fn abandoned_callback_is_not_lost() {
    for kind in ALL {
        let world = world(kind).await;
        let callback = world.callback("acme").await;
        world.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(300)));
        world.browser.hang_up(&callback, || !world.provider.requests_to(Endpoint::Token).is_empty()).await;
        assert_eq!(world.browser.get(&callback).await.header("location"), "/me");
        assert_eq!(world.browser.get("/me").await.body, r#"{"sub":"test-user"}"#);
        assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 1);
        assert!(world.provider.requests_to(Endpoint::Revocation).is_empty());
    }
}

/// The token is sealed inside of the cookie, and both use the rotated keys.
#[tokio::test]
async fn cookie_keys_can_be_rotated() {
    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let both = KeyRing::new(new.clone()).with_older(old.clone());
    let provider = Arc::new(TestProvider::start().await.unwrap());
    let mut jar = None;
    for keys in [KeyRing::new(old), both, KeyRing::new(new)] {
        let world = world_of(Kind::Cookie, Arc::clone(&provider), keys).await;
        match jar {
            None => assert_eq!(world.login("acme").await.status, StatusCode::SEE_OTHER),
            Some(jar) => *world.browser.jar.lock().unwrap() = jar,
        }
        assert_eq!(world.browser.get("/me").await.body, r#"{"sub":"test-user"}"#);
        jar = Some(world.browser.cookies());
    }
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
}

/// A token that does not fit results in an error page, and the old one remains. There is no login loop.
#[tokio::test]
async fn token_too_large_for_a_cookie_is_reported() {
    let world = world(Kind::Cookie).await;
    world.login("acme").await;
    let before = world.browser.get("/me").await.body;
    world.provider.next_token_response(ScriptedResponse::normal().member("refresh_token", "x".repeat(65_536)));
    let failed = world.login("acme").await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
    assert!(failed.body.contains("token storage failed"), "{failed:?}");
    assert_eq!(world.browser.get("/me").await.body, before);
}

#[tokio::test]
async fn missing_layer_is_an_error_that_names_the_fix() {
    let world = world(Kind::Nowhere).await;
    for path in ["/me", "/status/acme", "/login/acme", "/disconnect/acme"] {
        let page = world.browser.get(path).await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert!(page.body.contains("CookieTokens") && page.body.contains("wrap these routes"), "{path}: {page:?}");
    }
    assert!(LoginError::NoRequestStorage.to_string().contains("SessionTokens"));
    assert_eq!(LoginError::NoRequestStorage.code(), ConnectError::NoRequestStorage.code());
}

#[tokio::test]
async fn background_job_gets_an_error_about_requests() {
    for kind in ALL {
        let world = world(kind).await;
        let advice = world.browser.get("/job").await.body;
        assert!(advice.contains("without a request") && advice.contains("Connections"), "{advice}");
    }
}
