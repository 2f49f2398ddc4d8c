//! OpenID Connect with the certified npm package `oidc-provider`, configured by its issuer alone: ID tokens, the rotation of
//! refresh tokens, and the end of the session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::HeaderMap;
use oauth_dance::{
    Authorized, BoxError, ConnectError, ConnectedRejection, Connections, Decision, Hooks, Identity, KeyRing,
    MemoryStorage, OAuth, OAuth2Token, Provider, RefreshEvent, SameOrigin, TokenKey, User,
};
use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use support::{Browser, OidcProvider, Page};
use tokio::runtime::Runtime;

const NAME: &str = "corp";

/// What the hooks received.
#[derive(Clone, Default)]
struct Notes {
    identities: Arc<Mutex<Vec<Identity>>>,
    events: Arc<Mutex<Vec<RefreshEvent>>>,
}

#[async_trait::async_trait]
impl Hooks for Notes {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        self.identities.lock().unwrap().push(login.identity.ok_or("nobody was identified")?);
        Ok(Decision::store())
    }

    fn refresh(&self, _: &TokenKey, event: &RefreshEvent) {
        self.events.lock().unwrap().push(event.clone());
    }
}

/// A running application, and a running provider that it knows by its issuer.
struct World {
    provider: OidcProvider,
    oauth: OAuth,
    notes: Notes,
    base: String,
    runtime: Runtime,
}

impl World {
    fn start(change: impl FnOnce(&mut Provider)) -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut client = OidcProvider::client(&format!("{base}/login/{NAME}/authorized"));
        client["post_logout_redirect_uris"] = json!([format!("{base}/login/{NAME}/ended")]);
        let provider = OidcProvider::start_with(&json!({ "clients": [client] }))?;

        let mut known = Provider::openid(NAME, provider.issuer()).with_scopes(["openid", "email", "offline_access"]);
        // Otherwise the provider issues no refresh token.
        known.authorization_params.insert("prompt".to_owned(), "consent".to_owned());
        change(&mut known);
        let notes = Notes::default();
        let oauth = OAuth::builder(&base, MemoryStorage::new(), KeyRing::generate())
            .provider(known.client(OidcProvider::CLIENT_ID, OidcProvider::CLIENT_SECRET))
            .user(|_: HeaderMap| async { Some(User::new("alice")) })
            .hooks(notes.clone())
            .build()
            .unwrap();
        let app = Router::new()
            .route("/", get(home))
            .route("/goodbye", get(|| async { Html("<p>Goodbye</p>") }))
            .route("/me", get(me))
            .route("/logout", post(logout))
            .merge(oauth.routes())
            .with_state(oauth.clone());
        let runtime = Runtime::new().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).unwrap()
        };
        runtime.spawn(async move { axum::serve(listener, app).await });
        Some(Self { provider, oauth, notes, base, runtime })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn connect(&self, browser: &Browser, user: &str) -> Page {
        let page = browser.open(self.url(&format!("/login/{NAME}?next=/")));
        let page = self.provider.sign_in_and_consent(browser, page, user);
        assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/"), "{}", page.text());
        page
    }

    fn token(&self) -> Option<OAuth2Token> {
        let key = User::new("alice").key(NAME).unwrap();
        let found = self.runtime.block_on(self.oauth.tokens().get(&key)).unwrap();
        found.map(|found| found.value.as_oauth2().unwrap().clone())
    }

    fn claims(&self, browser: &Browser) -> Value {
        let (status, claims) = browser.json(self.url("/me"));
        assert_eq!(status, StatusCode::OK, "{claims}");
        claims
    }
}

async fn home() -> Html<&'static str> {
    Html("<form method=post action=/logout><button>Log out</button></form>")
}

async fn me(State(oauth): State<OAuth>) -> Result<Json<Map<String, Value>>, String> {
    let client = oauth.client(NAME, &User::new("alice")).await.map_err(|error: ConnectError| error.to_string())?;
    client.userinfo_claims().await.map(Json).map_err(|error| error.to_string())
}

async fn logout(_: SameOrigin, connections: Connections) -> Result<Response, ConnectedRejection> {
    let there = connections.end_session(NAME, "/goodbye").await;
    let there = there.map_err(|error| connections.reject(NAME, error))?;
    connections.disconnect(NAME).await.map_err(|error| connections.reject(NAME, error))?;
    Ok(there.map_or_else(|| Redirect::to("/").into_response(), IntoResponse::into_response))
}

#[test]
fn a_login_with_the_issuer_alone_identifies_the_user() {
    let Some(world) = World::start(|_| {}) else { return };
    let page = world.connect(&Browser::new(), "alice");

    let request = page.hops.iter().find(|hop| hop.url.as_str().starts_with(&world.provider.url("/auth?"))).unwrap();
    let request: HashMap<_, _> = request.url.query_pairs().into_owned().collect();
    assert!(request["nonce"].len() >= 22);
    let identity = world.notes.identities.lock().unwrap().remove(0);
    assert_eq!((identity.issuer.as_str(), identity.subject.as_str()), (world.provider.issuer(), "alice"));
    assert_eq!(identity.claims["nonce"].as_str(), Some(request["nonce"].as_str()));
    let stored = world.token().unwrap();
    assert_eq!(stored.subject.unwrap().subject, "alice");
    assert!(stored.id_token.is_none(), "it is stored only if configured");
    assert_eq!(world.claims(&Browser::new())["email"], "alice@example.test");
}

#[test]
fn a_refresh_preserves_the_identity() {
    let Some(world) = World::start(|known| known.store_id_token = true) else { return };
    world.provider.set_access_token_ttl(1);
    let browser = Browser::new();
    world.connect(&browser, "alice");
    let before = world.token().unwrap();
    world.provider.wait_until_refused(before.access_token.expose());
    world.provider.set_access_token_ttl(3600);

    assert_eq!(world.claims(&browser)["sub"], "alice");

    let after = world.token().unwrap();
    assert_ne!(after.refresh_token, before.refresh_token);
    assert_ne!(after.id_token, before.id_token, "the refresh returned a new one");
    assert_eq!(after.subject, before.subject);
    assert_eq!(*world.notes.events.lock().unwrap(), [RefreshEvent::Refreshed], "the token is verified");
    assert_eq!(world.provider.seen("idTokens").len(), 2);
}

#[test]
fn logging_out_ends_the_session_at_the_provider() {
    for stores_id_token in [true, false] {
        let Some(world) = World::start(|provider| provider.store_id_token = stores_id_token) else { return };
        let browser = Browser::new();
        let home = world.connect(&browser, "alice");

        let page = browser.press(&home, "/logout");

        let there = page.url().clone();
        assert!(there.as_str().starts_with(&world.provider.url("/session/end?")), "{there}");
        assert_eq!(there.query_pairs().any(|(name, _)| name == "id_token_hint"), stores_id_token);
        assert!(world.token().is_none(), "the token is already deleted here");
        let page = browser.submit(&page.form("Yes, sign me out")).after(page);
        assert_eq!((page.status(), page.url().as_str()), (StatusCode::OK, world.url("/goodbye").as_str()));
        assert!(page.hops.iter().any(|hop| hop.url.path() == format!("/login/{NAME}/ended")));
        // The provider has ended the session of this browser.
        let page = browser.open(world.url(&format!("/login/{NAME}")));
        assert!(page.has_form("Sign-in"), "{}", page.text());
    }
}

#[test]
fn metadata_of_another_issuer_stops_every_login() {
    let Some(world) = World::start(|known| {
        let issuer = known.issuer.take().unwrap();
        known.metadata_url = Some(format!("{issuer}/.well-known/openid-configuration"));
        known.issuer = Some("https://issuer.example".to_owned());
    }) else {
        return;
    };
    let page = Browser::new().open(world.url(&format!("/login/{NAME}")));
    assert_eq!(page.status(), StatusCode::BAD_GATEWAY);
    assert!(world.provider.requests("/token").is_empty());
}
