//! Tabs of one browser refresh the same token, with and without a ledger.
#![cfg(feature = "tower-sessions-0_15")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestClock, TestProvider};
use oauth_dance::{ApiError, Connected, KeyRing, MemoryStorage, OAuth, ProviderName, TokenStorage};
use oauth_dance_session::{CookieTokens, SessionTokens};
use support::{Browser, serve};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_sessions::cookie::{Key, SameSite};
use tower_sessions::session::{Id, Record};
use tower_sessions::{MemoryStore, SessionManagerLayer, SessionStore, session_store};
use url::Url;

const BASE: &str = "https://app.example";
const HOUR: Duration = Duration::from_secs(3601);

struct Acme;

impl ProviderName for Acme {
    const NAME: &'static str = "acme";
}

async fn me(acme: Connected<Acme>) -> Result<String, ApiError> {
    acme.userinfo().send().await?.success()?.text()
}

/// A session store on the network: other requests and processes write while it loads a record.
#[derive(Clone, Debug, Default)]
struct SlowStore(MemoryStore);

#[async_trait]
impl SessionStore for SlowStore {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        self.0.create(record).await
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.0.save(record).await
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let found = self.0.load(id).await;
        sleep(Duration::from_millis(20)).await;
        found
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.0.delete(id).await
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Cookie,
    Session,
}

/// Two processes of one application, and a browser that is connected and whose access token has expired.
struct World {
    provider: TestProvider,
    clock: TestClock,
    processes: Vec<Arc<Browser>>,
}

impl World {
    async fn new(kind: Kind, ledger: Option<Arc<dyn TokenStorage>>) -> Self {
        let (provider, clock, keys) = (TestProvider::start().await.unwrap(), TestClock::new(), KeyRing::generate());
        provider.configure(|settings| settings.clock = clock.clock());
        let (store, signing) = (SlowStore::default(), Key::generate());
        let mut processes = Vec::new();
        for _ in 0..2 {
            let mut builder = OAuth::per_request(BASE, keys.clone()).provider(provider.registration("acme"));
            if let Some(ledger) = &ledger {
                builder = builder.ledger(Arc::clone(ledger));
            }
            let oauth = builder.clock(clock.clock()).anonymous_users().build().unwrap();
            let app = Router::new().route("/me", get(me)).merge(oauth.routes()).with_state(oauth);
            let app = match kind {
                Kind::Cookie => app.layer(CookieTokens::new(BASE, keys.clone()).with_clock(clock.clock())),
                Kind::Session => {
                    let sessions = SessionManagerLayer::new(store.clone()).with_signed(signing.clone());
                    app.layer(SessionTokens::new(store.clone())).layer(sessions.with_same_site(SameSite::Lax))
                }
            };
            processes.push(Arc::new(Browser::new(&serve(app).await, true)));
        }
        let world = Self { provider, clock, processes };
        world.login().await;
        world.clock.advance(HOUR);
        world
    }

    async fn login(&self) {
        let browser = &self.processes[0];
        let start = browser.get("/login/acme").await;
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let response = http.get(start.header("location")).send().await.unwrap();
        let callback = Url::parse(response.headers()["location"].to_str().unwrap()).unwrap();
        let done = browser.get(&format!("{}?{}", callback.path(), callback.query().unwrap())).await;
        assert_eq!(done.status, StatusCode::SEE_OTHER, "{done:?}");
        self.share_cookies();
    }

    /// Both processes serve the same browser.
    fn share_cookies(&self) {
        let jar = self.processes[0].jar.lock().unwrap().clone();
        *self.processes[1].jar.lock().unwrap() = jar;
    }

    /// Sends this many concurrent requests. Returns their statuses.
    async fn tabs(&self, many: usize) -> Vec<StatusCode> {
        self.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(200)));
        let mut tabs = JoinSet::new();
        for tab in 0..many {
            let browser = Arc::clone(&self.processes[tab % 2]);
            tabs.spawn(async move { browser.get("/me").await.status });
        }
        tabs.join_all().await
    }

    fn refreshes(&self) -> u64 {
        self.provider.counters().refreshes
    }
}

#[tokio::test]
async fn two_tabs_share_one_redemption() {
    for kind in [Kind::Cookie, Kind::Session] {
        let world = World::new(kind, Some(Arc::new(MemoryStorage::new()))).await;
        for round in 1..=4 {
            assert_eq!(world.tabs(10).await, vec![StatusCode::OK; 10]);
            assert_eq!(world.refreshes(), round);
            world.clock.advance(HOUR);
        }
        assert_eq!(world.provider.counters().families_revoked, 0);
    }
}

/// The declared limit of tokens in requests, and the reason for a ledger.
#[tokio::test]
async fn two_tabs_lose_the_grant_without_a_ledger() {
    let world = World::new(Kind::Cookie, None).await;
    world.tabs(10).await;
    assert_eq!(world.provider.counters().families_revoked, 1);
}

/// Two responses arrive in the wrong order, so the browser has the older cookie.
#[tokio::test]
async fn older_cookie_catches_up() {
    let ledger: Arc<dyn TokenStorage> = Arc::new(MemoryStorage::new());
    let world = World::new(Kind::Cookie, Some(ledger)).await;
    let browser = &world.processes[0];
    let old = browser.jar.lock().unwrap().clone();
    for _ in 0..2 {
        assert_eq!(browser.get("/me").await.status, StatusCode::OK);
        world.clock.advance(HOUR);
    }
    *browser.jar.lock().unwrap() = old.clone();
    assert_eq!(browser.get("/me").await.status, StatusCode::OK);
    assert_eq!((world.refreshes(), world.provider.counters().families_revoked), (3, 0));

    *browser.jar.lock().unwrap() = old;
    world.share_cookies();
    assert_eq!(world.tabs(4).await, vec![StatusCode::OK; 4]);
    assert_eq!((world.refreshes(), world.provider.counters().families_revoked), (3, 0));
}

/// The response to a request never reaches the browser.
#[tokio::test]
async fn lost_cookie_loses_no_token() {
    let world = World::new(Kind::Cookie, Some(Arc::new(MemoryStorage::new()))).await;
    let browser = &world.processes[0];
    let before = browser.jar.lock().unwrap().clone();
    assert_eq!(browser.get("/me").await.status, StatusCode::OK);
    *browser.jar.lock().unwrap() = before;
    assert_eq!(browser.get("/me").await.status, StatusCode::OK);
    assert_eq!((world.refreshes(), world.provider.counters().families_revoked), (1, 0));
}

#[tokio::test]
async fn callback_works_once_across_processes() {
    let world = World::new(Kind::Cookie, Some(Arc::new(MemoryStorage::new()))).await;
    let (one, two) = (&world.processes[0], &world.processes[1]);
    let start = one.get("/login/acme").await;
    world.share_cookies();
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let response = http.get(start.header("location")).send().await.unwrap();
    let callback = Url::parse(response.headers()["location"].to_str().unwrap()).unwrap();
    let path = format!("{}?{}", callback.path(), callback.query().unwrap());
    let before = world.provider.requests_to(Endpoint::Token).len();
    let (first, second) = tokio::join!(one.get(&path), two.get(&path));
    let worked = [first.status, second.status].iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    assert_eq!(worked, 2, "{first:?} {second:?}");
    assert_eq!(world.provider.requests_to(Endpoint::Token).len(), before + 1);
}

/// For example, a request-bound storage.
#[tokio::test]
async fn ledger_without_atomic_writes_is_rejected() {
    let builder = || OAuth::per_request(BASE, KeyRing::generate()).anonymous_users();
    let of_a_request = Arc::clone(builder().build().unwrap().tokens().storage());
    let refused = builder().ledger(of_a_request).build().unwrap_err();
    assert!(refused.to_string().contains("no atomic writes"), "{refused}");
}
