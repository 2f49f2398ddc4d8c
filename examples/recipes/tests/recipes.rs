//! Each recipe, as a visitor sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod browser;

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::post;
use browser::{Browser, Page};
use oauth_dance::testing::{Endpoint, IdTokenSignature, ScriptedResponse, TestProvider};
use oauth_dance::{KeyRing, MemoryStorage, Registration, TokenStorage};
use oauth_dance_example_recipes::people::{Id, Identity, People};
use oauth_dance_example_recipes::tenants::Tenant;
use oauth_dance_example_recipes::{
    anonymous, association, bot, create_or_login, linking, sessions, sessions_alone, several, tenants, with_axum_login,
};
use tower_sessions::Session;

const BASE: &str = "http://localhost:3000";

async fn provider() -> (TestProvider, Registration) {
    let provider = TestProvider::start().await.unwrap();
    let github = provider.registration("github");
    (provider, github)
}

/// The sign-in of an application for tests: it signs in any user that the test names.
fn own_pages() -> Router {
    let sign_in = |session: Session, Path(id): Path<Id>| async move {
        sessions::sign_in(&session, id).await.unwrap();
        Redirect::to("/")
    };
    let sign_out = |session: Session| async move { sessions::sign_out(&session).await.unwrap() };
    Router::new().route("/sign-in/{id}", post(sign_in)).route("/sign-out", post(sign_out))
}

fn is_user(page: &Page, who: &str) -> bool {
    page.status == StatusCode::OK && page.body == format!(r#"{{"sub":"{who}"}}"#)
}

/// The value of the session's cookie.
fn session_id(browser: &Browser) -> String {
    browser.cookies().get("id").cloned().expect("there is a session")
}

#[tokio::test]
async fn each_anonymous_browser_is_a_user() {
    let (provider, github) = provider().await;
    let app = anonymous::router(BASE, MemoryStorage::new(), KeyRing::generate(), github).unwrap();
    let (mut one, mut two) = (Browser::of(&app, BASE), Browser::of(&app, BASE));

    assert_eq!(one.get("/").await.body, "Connect at /login/github.");
    assert!(one.cookies().is_empty(), "a visit stores nothing");
    let sent = one.get("/me").await;
    assert_eq!(sent.location(), "/login/github?next=%2Fme");
    let back = one.log_in_from(sent.location(), "alice").await;
    assert_eq!(back.location(), "/me");
    two.log_in("github", "bob").await;
    assert!(is_user(&one.get("/me").await, "alice") && is_user(&two.get("/me").await, "bob"));

    assert_eq!(one.post_from_elsewhere("/forget").await.status, StatusCode::FORBIDDEN);
    assert_eq!(one.post("/forget").await.location(), "/");
    assert_eq!(one.get("/").await.body, "Connect at /login/github.");
    assert_eq!(two.get("/").await.body, "You are connected.");
    assert_eq!(provider.requests_to(Endpoint::Revocation).len(), 2, "the refresh token and the access token");
}

#[tokio::test]
async fn an_account_is_connected_to_the_signed_in_user() {
    let (provider, github) = provider().await;
    let app = association::router(BASE, MemoryStorage::new(), KeyRing::generate(), github, own_pages()).unwrap();
    let mut browser = Browser::of(&app, BASE);

    assert_eq!(browser.get("/login/github").await.location(), "/sign-in", "visitors sign in first");
    assert!(provider.requests().is_empty());
    browser.post("/sign-in/1").await;
    assert_eq!(browser.log_in("github", "alice").await.status, StatusCode::SEE_OTHER);
    assert!(is_user(&browser.get("/me").await, "alice"));

    let mut laptop = Browser::of(&app, BASE);
    laptop.post("/sign-in/1").await;
    assert!(is_user(&laptop.get("/me").await, "alice"), "the token belongs to the user, not to the browser");
    laptop.post("/sign-in/2").await;
    assert_eq!(laptop.get("/me").await.status, StatusCode::SEE_OTHER, "another user is not connected");

    browser.post("/sign-out").await;
    assert_eq!(browser.get("/me").await.status, StatusCode::SEE_OTHER);
    browser.post("/sign-in/1").await;
    assert!(is_user(&browser.get("/me").await, "alice"), "signing out deletes no token");
    assert_eq!(browser.post_from_elsewhere("/disconnect").await.status, StatusCode::FORBIDDEN);
    browser.post("/disconnect").await;
    assert_eq!(browser.get("/me").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_login_creates_a_user_once() {
    let (provider, github) = provider().await;
    let people = People::default();
    let providers = [github, provider.registration("google")];
    let app = create_or_login::router(
        BASE,
        MemoryStorage::new(),
        KeyRing::generate(),
        providers,
        people.clone(),
        Router::new(),
    )
    .unwrap();
    let (mut one, mut two) = (Browser::of(&app, BASE), Browser::of(&app, BASE));

    assert_eq!(one.get("/").await.body, "Sign in at /login/github.");
    assert_eq!(one.log_in("github", "alice").await.location(), "/");
    assert_eq!(one.get("/").await.body, "You are user 1, with 1 ways to sign in.");
    two.log_in("github", "bob").await;
    assert_eq!(two.get("/").await.body, "You are user 2, with 1 ways to sign in.");
    let mut again = Browser::of(&app, BASE);
    again.log_in("github", "alice").await;
    assert_eq!(again.get("/").await.body, "You are user 1, with 1 ways to sign in.");

    // A user of another provider is another user, even with the same address.
    for _ in 0..2 {
        provider.next_response(Endpoint::Userinfo, ScriptedResponse::normal().member("email", "alice@example.com"));
    }
    let mut other = Browser::of(&app, BASE);
    other.log_in("google", "alice").await;
    assert_eq!(other.get("/").await.body, "You are user 3, with 1 ways to sign in.");
    assert_eq!(people.count(), 3);
}

#[tokio::test]
async fn a_login_uses_the_verified_id_token() {
    let provider = TestProvider::start().await.unwrap();
    let people = People::default();
    let corp = [provider.openid_registration("corp")];
    let app =
        create_or_login::router(BASE, MemoryStorage::new(), KeyRing::generate(), corp, people.clone(), Router::new());
    let app = app.unwrap();
    let mut browser = Browser::of(&app, BASE);
    provider.next_id_token(|token| token.signature = IdTokenSignature::None);
    assert_eq!(browser.log_in("corp", "alice").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!((browser.get("/").await.body, people.count()), ("Sign in at /login/github.".to_owned(), 0));

    browser.log_in("corp", "alice").await;
    assert_eq!(browser.get("/").await.body, "You are user 1, with 1 ways to sign in.");
    let subject = format!("{} alice", provider.url());
    assert_eq!(people.identities(1), [Identity { provider: "corp".to_owned(), subject }]);
    assert!(provider.requests_to(Endpoint::Userinfo).is_empty());
}

/// A page that creates a session for a visitor.
fn cart() -> Router {
    Router::new().route("/cart", post(|session: Session| async move { session.insert("cart", 1).await.unwrap() }))
}

#[tokio::test]
async fn a_login_gives_the_session_a_new_id() {
    let (_provider, github) = provider().await;
    let people = People::default();
    let app =
        create_or_login::router(BASE, MemoryStorage::new(), KeyRing::generate(), [github.clone()], people, cart());
    assert_session_fixation_fails(&app.unwrap(), "/", "You are user 1, with 1 ways to sign in.").await;

    type Session014 = axum_login::tower_sessions::Session;
    let cart = post(|session: Session014| async move { session.insert("cart", 1).await.unwrap() });
    let own_pages = Router::new().route("/cart", cart);
    let people = People::default();
    let app = with_axum_login::router(BASE, MemoryStorage::new(), KeyRing::generate(), github, people, own_pages);
    assert_session_fixation_fails(&app.unwrap(), "/me", r#"{"sub":"alice"}"#).await;
}

/// Session fixation: an attacker puts their session into the victim's browser, and waits until the victim signs in.
async fn assert_session_fixation_fails(app: &Router, page: &str, signed_in: &str) {
    let (mut attacker, mut victim) = (Browser::of(app, BASE), Browser::of(app, BASE));
    attacker.post("/cart").await;
    let planted = session_id(&attacker);
    victim.set_cookies(attacker.cookies());
    victim.log_in("github", "alice").await;
    assert_eq!(victim.get(page).await.body, signed_in);
    assert_ne!(session_id(&victim), planted);
    assert_ne!(attacker.get(page).await.body, signed_in);
}

#[tokio::test]
async fn a_login_without_an_identity_signs_no_user_in() {
    let (provider, github) = provider().await;
    let people = People::default();
    let app = create_or_login::router(
        BASE,
        MemoryStorage::new(),
        KeyRing::generate(),
        [github],
        people.clone(),
        Router::new(),
    )
    .unwrap();
    let mut browser = Browser::of(&app, BASE);
    for answer in
        [ScriptedResponse::json(serde_json::json!({ "email": "alice@example.com" })), ScriptedResponse::status(500)]
    {
        provider.next_response(Endpoint::Userinfo, answer);
        assert_eq!(browser.log_in("github", "alice").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(browser.get("/").await.body, "Sign in at /login/github.");
    }
    assert_eq!(people.count(), 0);
}

#[tokio::test]
async fn accounts_are_linked_and_unlinked() {
    let (provider, github) = provider().await;
    let people = People::default();
    let providers = [github, provider.registration("google")];
    let app = linking::router(BASE, MemoryStorage::new(), KeyRing::generate(), providers, people.clone()).unwrap();
    let (mut alice, mut bob) = (Browser::of(&app, BASE), Browser::of(&app, BASE));
    alice.log_in("github", "alice").await;
    bob.log_in("github", "bob").await;

    alice.log_in("google", "alice@work").await;
    assert_eq!(alice.get("/accounts").await.body, "github\ngoogle");
    assert_eq!(people.count(), 2, "linking creates no user");
    assert_eq!(bob.log_in("google", "alice@work").await.status, StatusCode::CONFLICT, "it is hers");
    assert_eq!(bob.get("/accounts").await.body, "github");

    assert_eq!(alice.log_in("google", "alice@home").await.status, StatusCode::CONFLICT, "one at each provider");

    let mut phone = Browser::of(&app, BASE);
    phone.log_in("google", "alice@work").await;
    assert_eq!(phone.get("/accounts").await.body, "github\ngoogle", "she can sign in by either");

    assert_eq!(alice.post_from_elsewhere("/unlink/google").await.status, StatusCode::FORBIDDEN);
    assert_eq!(alice.post("/unlink/google").await.location(), "/accounts");
    assert_eq!(alice.get("/accounts").await.body, "github");
    assert_eq!(alice.post("/unlink/github").await.status, StatusCode::CONFLICT, "it is the last one");
    assert_eq!(Browser::of(&app, BASE).post("/unlink/github").await.status, StatusCode::UNAUTHORIZED);
    bob.log_in("google", "alice@work").await;
    assert_eq!(bob.get("/accounts").await.body, "github\ngoogle", "what was unlinked is free");
    assert!(people.identities(2).contains(&Identity { provider: "google".into(), subject: "alice@work".into() }));
}

#[tokio::test]
async fn a_user_has_several_providers_and_accounts() {
    let (provider, github) = provider().await;
    let providers = [github, provider.registration("google")];
    let storage = MemoryStorage::new();
    let app = several::router(BASE, storage, KeyRing::generate(), providers, own_pages()).unwrap();
    let (mut alice, mut bob) = (Browser::of(&app, BASE), Browser::of(&app, BASE));
    alice.post("/sign-in/1").await;
    bob.post("/sign-in/2").await;
    assert_eq!(alice.get("/connections").await.body, "");
    for (at, who) in [("github", "alice"), ("google", "work"), ("google", "home"), ("google", "work")] {
        alice.log_in(at, who).await;
    }
    bob.log_in("google", "bob").await;
    let connected = "github alice: connected\ngoogle home: connected\ngoogle work: connected\n";
    assert_eq!(alice.get("/connections").await.body, connected);
    for (at, who) in [("github", "alice"), ("google", "work"), ("google", "home")] {
        assert!(is_user(&alice.get(&format!("/connections/{at}/{who}/me")).await, who));
    }

    let page = bob.get("/connections/google/work/me").await;
    assert_eq!(page.location(), "/login/google?next=%2Fconnections%2Fgoogle%2Fwork%2Fme", "it is hers");
    bob.post("/connections/google/work/disconnect").await;
    assert_eq!(alice.get("/connections").await.body, connected);
    assert_eq!(alice.post_from_elsewhere("/connections/google/home/disconnect").await.status, StatusCode::FORBIDDEN);
    alice.post("/connections/google/home/disconnect").await;
    assert_eq!(alice.get("/connections").await.body, "github alice: connected\ngoogle work: connected\n");
    assert_eq!(alice.get("/connections/nobody/x/me").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_bot_is_connected_by_an_administrator() {
    let (provider, _) = provider().await;
    let storage = MemoryStorage::new();
    let slack = provider.registration("slack");
    let app = bot::router(BASE, storage, KeyRing::generate(), slack, 7, own_pages()).unwrap();
    let (mut visitor, mut member, mut administrator) =
        (Browser::of(&app, BASE), Browser::of(&app, BASE), Browser::of(&app, BASE));
    member.post("/sign-in/1").await;
    administrator.post("/sign-in/7").await;

    assert_eq!(visitor.post("/announce").await.status, StatusCode::SERVICE_UNAVAILABLE);
    for browser in [&mut visitor, &mut member] {
        assert_eq!(browser.get("/login/slack").await.status, StatusCode::FORBIDDEN);
    }
    assert!(provider.requests().is_empty());
    administrator.log_in("slack", "the-bot").await;
    for browser in [&mut visitor, &mut member, &mut administrator] {
        let page = browser.post("/announce").await;
        assert!(page.status == StatusCode::OK && page.body.contains("the-bot"), "{page:?}");
    }
    for browser in [&mut visitor, &mut member] {
        assert_eq!(browser.post("/bot/disconnect").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(visitor.get("/bot").await.body, "connected");
    administrator.post("/bot/disconnect").await;
    assert_eq!(visitor.get("/bot").await.body, "not connected");
}

#[tokio::test]
async fn tenants_are_apart() {
    let provider = TestProvider::start().await.unwrap();
    let (one, two) = ("http://one.localhost:3000", "http://two.localhost:3000");
    let tenant = |name: &'static str, base_url: &str| {
        let sign_in = move |session: Session, Path(id): Path<Id>| async move {
            tenants::sign_in(&session, name, id).await.unwrap();
        };
        let own_pages = Router::new().route("/sign-in/{id}", post(sign_in));
        Tenant { name, base_url: base_url.to_owned(), github: provider.registration("github"), own_pages }
    };
    let storage: Arc<dyn TokenStorage> = Arc::new(MemoryStorage::new());
    let app = tenants::router(&storage, &KeyRing::generate(), [tenant("one", one), tenant("two", two)]).unwrap();

    // The same primary key is a different person at each tenant.
    let (mut alice, mut alan) = (Browser::of(&app, one), Browser::of(&app, two));
    alice.post("/sign-in/1").await;
    alan.post("/sign-in/1").await;
    alice.log_in("github", "alice").await;
    assert_eq!(alan.get("/me").await.status, StatusCode::SEE_OTHER);
    alan.log_in("github", "alan").await;
    assert!(is_user(&alice.get("/me").await, "alice") && is_user(&alan.get("/me").await, "alan"));

    let cookies = alice.cookies();
    let mut thief = Browser::of(&app, two);
    thief.set_cookies(cookies);
    assert_eq!(thief.get("/me").await.status, StatusCode::SEE_OTHER, "a session is one tenant's");
    assert_eq!(
        Browser::of(&app, "http://three.localhost:3000").get("/me").await.status,
        StatusCode::MISDIRECTED_REQUEST
    );
}

#[tokio::test]
async fn axum_login_knows_who_is_signed_in() {
    let (_provider, github) = provider().await;
    let people = People::default();
    let app =
        with_axum_login::router(BASE, MemoryStorage::new(), KeyRing::generate(), github, people.clone(), Router::new())
            .unwrap();
    let (mut alice, mut bob) = (Browser::of(&app, BASE), Browser::of(&app, BASE));

    let sent = alice.get("/me").await;
    assert_eq!((sent.status, sent.location()), (StatusCode::TEMPORARY_REDIRECT, "/login/github?next=%2Fme"));
    assert_eq!(alice.log_in_from(sent.location(), "alice").await.location(), "/me");
    bob.log_in("github", "bob").await;
    assert!(is_user(&alice.get("/me").await, "alice") && is_user(&bob.get("/me").await, "bob"));
    assert_eq!(bob.log_in("github", "alice").await.status, StatusCode::CONFLICT, "she is somebody else");
    assert!(is_user(&bob.get("/me").await, "bob"));

    assert_eq!(alice.post_from_elsewhere("/sign-out").await.status, StatusCode::FORBIDDEN);
    alice.post("/sign-out").await;
    assert_eq!(alice.get("/me").await.status, StatusCode::TEMPORARY_REDIRECT);
    alice.log_in("github", "alice").await;
    assert!(is_user(&alice.get("/me").await, "alice"));
    assert_eq!(people.count(), 2);
}

/// The session of a deleted user looks like a visitor's, and may have been planted like one.
#[tokio::test]
async fn a_session_of_a_deleted_user_gets_a_new_id_too() {
    let (_provider, github) = provider().await;
    let people = People::default();
    let app =
        with_axum_login::router(BASE, MemoryStorage::new(), KeyRing::generate(), github, people.clone(), Router::new());
    let app = app.unwrap();
    let (mut attacker, mut victim) = (Browser::of(&app, BASE), Browser::of(&app, BASE));
    attacker.log_in("github", "mallory").await;
    people.delete(1);
    assert_eq!(attacker.get("/me").await.status, StatusCode::TEMPORARY_REDIRECT);

    victim.set_cookies(attacker.cookies());
    victim.log_in("github", "alice").await;
    assert!(is_user(&victim.get("/me").await, "alice"));
    assert_ne!(session_id(&victim), session_id(&attacker));
    assert_eq!(attacker.get("/me").await.status, StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test]
async fn a_session_keeps_the_tokens() {
    let (_provider, github) = provider().await;
    let app = sessions_alone::router(BASE, KeyRing::generate(), github).unwrap();
    let (mut one, mut two) = (Browser::of(&app, BASE), Browser::of(&app, BASE));
    one.log_in("github", "alice").await;
    two.log_in("github", "bob").await;
    assert!(is_user(&one.get("/me").await, "alice") && is_user(&two.get("/me").await, "bob"));
    let before = session_id(&one);
    one.log_in("github", "alice").await;
    assert_ne!(session_id(&one), before, "a login gives the session a new id");

    assert_eq!(one.post_from_elsewhere("/forget").await.status, StatusCode::FORBIDDEN);
    one.post("/forget").await;
    assert_eq!(one.get("/me").await.location(), "/login/github?next=%2Fme");
    assert!(is_user(&two.get("/me").await, "bob"));
}
