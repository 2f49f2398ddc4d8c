//! Many users and many providers: no user has access to another user's token.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Client, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{BeforeLogin, BoxError, ConnectError, Due, Hooks, OAuth2Token, OAuthBuilder, Revocation, User};
use oauth_dance_core::Precondition;

use crate::support::{Browser, Setup, Site, with_parameter, world};

/// Requests the provider's account with the local user's name.
struct SameName;

#[async_trait::async_trait]
impl Hooks for SameName {
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        let user = login.user.map(|user| user.id().to_owned());
        login.params.extend(user.map(|user| ("login_hint".to_owned(), user)));
        Ok(())
    }
}

const NAMES: [&str; 3] = ["acme", "beta", "gamma"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mu_01_mu_02_mu_04_users_see_only_their_own_tokens() {
    let providers = [
        TestProvider::start().await.unwrap(),
        TestProvider::start().await.unwrap(),
        TestProvider::start().await.unwrap(),
    ];
    let registrations: Vec<_> = providers.iter().zip(NAMES).map(|(one, name)| one.registration(name)).collect();
    let configure =
        |builder: OAuthBuilder| registrations.into_iter().fold(builder.hooks(SameName), OAuthBuilder::provider);
    let site = Setup::default().start(configure).await;
    let mut rounds = tokio::task::JoinSet::new();
    for user in ["alice", "bob", "carol"] {
        for name in NAMES {
            let browser = Browser::signed_in(&site, user);
            let oauth = site.oauth.clone();
            rounds.spawn(async move {
                for _ in 0..8 {
                    assert_eq!(browser.login(name).await.status, StatusCode::SEE_OTHER);
                    let page = browser.get(&format!("/me/{name}")).await;
                    assert_eq!(page.json()["sub"], user, "in a handler");
                    let client = oauth.client(name, &User::new(user)).await.unwrap();
                    let me: serde_json::Value = client.userinfo().send().await.unwrap().json().unwrap();
                    assert_eq!(me["sub"], user, "in a job");
                }
            });
        }
    }
    while let Some(round) = rounds.join_next().await {
        round.unwrap();
    }
    let secrets = |provider: &TestProvider| -> HashSet<String> {
        let requests = provider.requests();
        let headers = requests.iter().filter_map(|request| request.header("authorization"));
        let bearer = headers.filter(|value| value.starts_with("Bearer ")).map(str::to_owned);
        bearer.chain(requests.iter().filter_map(|request| request.field("code").map(str::to_owned))).collect()
    };
    let [one, two, three] = providers.each_ref().map(secrets);
    assert!(one.len() >= 24 * 2);
    assert!(one.is_disjoint(&two) && two.is_disjoint(&three) && one.is_disjoint(&three));
}

#[tokio::test]
async fn mu_03_a_login_with_another_account_replaces_all() {
    let (provider, site) = world().await;
    let browser = Browser::signed_in(&site, "alice");
    provider.configure(|settings| settings.user = "first account".to_owned());
    browser.login("acme").await;
    assert!(site.refresh_token("alice").await.is_some());
    provider.configure(|settings| {
        settings.user = "second account".to_owned();
        settings.refresh_tokens = false;
    });
    provider.next_token_response(ScriptedResponse::normal().without("scope").without("expires_in"));
    browser.login("acme").await;
    let token = site.token("alice").await.unwrap();
    assert_eq!((token.refresh_token, token.scope, token.expires_at), (None, None, None));
    assert_eq!(browser.get("/me/acme").await.json()["sub"], "second account");
}

#[tokio::test]
async fn mu_05_a_visitor_s_login_belongs_to_no_other_user() {
    let (provider, site) = world().await;
    let browser = Browser::of(&site);
    let callback = browser.stopped_at_callback("acme").await;
    browser.set_cookie("who", "alice");
    assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::CONFLICT);
    assert_eq!(site.access_token("alice").await, None);
    assert!(provider.requests_to(Endpoint::Token).is_empty());
}

/// An application deletes a user: all accounts are disconnected, and none is refreshed again.
#[tokio::test]
async fn mu_06_a_deleted_user_s_tokens_are_deleted() {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    let (alice, bob) = (User::new("alice"), User::new("bob"));
    for user in [&alice, &alice.clone().with_account("work"), &bob] {
        provider.connect(&site.oauth, "acme", user).await.unwrap();
    }
    for account in site.oauth.accounts(&alice).await.unwrap() {
        let gone = site.oauth.disconnect(&account.provider, &account.user).await.unwrap();
        assert_eq!((gone.removed, gone.revocation), (true, Revocation::Done));
    }
    assert!(site.oauth.accounts(&alice).await.unwrap().is_empty());

    let orphan = alice.key("no-longer-configured").unwrap();
    site.oauth.tokens().put(&orphan, &OAuth2Token::bearer("token").into(), Precondition::Always).await.unwrap();
    for account in site.oauth.accounts(&alice).await.unwrap() {
        let gone = site.oauth.disconnect(&account.provider, &account.user).await.unwrap();
        assert_eq!((gone.removed, gone.revocation), (true, Revocation::NotPossible), "it is forgotten too");
    }
    let again = site.oauth.disconnect("no-longer-configured", &alice).await;
    assert!(matches!(again, Err(ConnectError::UnknownProvider(_))), "{again:?}");

    site.clock.advance(Duration::from_secs(3601));
    let report = site.oauth.refresh_due(&Due::expiring_within(Duration::from_secs(600))).await.unwrap();
    assert_eq!(report.refreshed, 1, "bob's");
    assert!(matches!(site.oauth.client("acme", &alice).await, Err(ConnectError::NotConnected)));
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
}

#[tokio::test]
async fn mu_07_a_provider_can_be_registered_twice() {
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| {
        settings.clients.insert("second".to_owned(), Client::confidential("second secret"));
    });
    let second = provider.provider("second").client("second", "second secret");
    let site = Site::with(&provider, |builder| builder.provider(second)).await;
    let browser = Browser::signed_in(&site, "alice");
    for (name, user) in [("acme", "private"), ("second", "work")] {
        provider.configure(|settings| settings.user = user.to_owned());
        browser.login(name).await;
    }
    assert_eq!(browser.get("/me/acme").await.json()["sub"], "private");
    assert_eq!(browser.get("/me/second").await.json()["sub"], "work");
    site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    assert_eq!(browser.get("/me/second").await.json()["sub"], "work");
}

#[tokio::test]
async fn mu_07_tenants_and_similar_users_are_separate() {
    let (provider, site) = world().await;
    let users = [
        User::new("alice"),
        User::new("Alice"),
        User::new("alice "),
        User::new("alice").in_tenant("t"),
        User::new("t:alice"),
        User::new("a").in_tenant("t:alice"),
        User::new("*"),
        User::new("0"),
        User::new("\n'; DROP TABLE users; --"),
        User::new("a\u{301}"),
        User::new("\u{e1}"),
        User::new("x".repeat(10_000)),
    ];
    let mut tokens = HashSet::new();
    for user in &users {
        let token = provider.connect(&site.oauth, "acme", user).await.unwrap();
        tokens.insert(token.access_token.expose().to_owned());
    }
    for user in &users {
        let client = site.oauth.client("acme", user).await.unwrap();
        assert!(tokens.remove(client.token().secret().expose()), "{user:?} has a token of their own");
    }
    assert!(site.oauth.client("acme", &User::new("")).await.is_err());
    assert!(site.oauth.client("acme", &User::new("alice").in_tenant("")).await.is_err());
}

/// RFC 9700 section 4.4: the attacker's provider sends the browser on to the honest one.
#[tokio::test]
async fn mu_08_a_mixed_up_code_is_not_sent() {
    let (honest, attacker) = (TestProvider::start().await.unwrap(), TestProvider::start().await.unwrap());
    let site = Site::with(&honest, |builder| builder.provider(attacker.registration("attacker"))).await;
    let alice = Browser::signed_in(&site, "alice");
    let authorization = alice.start("attacker").await;
    let honest_callback = site.oauth.redirect_uri("acme").unwrap();
    let mut swapped = with_parameter(&authorization, "redirect_uri", Some(honest_callback.as_str()));
    swapped.set_port(Some(honest.address().unwrap().port())).unwrap();

    // The honest provider's code arrives with the state that the attacker knows, at either callback.
    let callback = alice.approve(&swapped).await;
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::BAD_REQUEST);
    let moved = callback.as_str().replace("/login/acme/", "/login/attacker/");
    honest.configure(|settings| settings.issuer_parameter = true);
    let with_issuer = format!("{moved}&iss={}", honest.url());
    assert_eq!(alice.get(&with_issuer).await.status, StatusCode::BAD_REQUEST);
    assert!(attacker.requests().is_empty(), "the attacker never sees the code");
    assert!(honest.requests_to(Endpoint::Token).is_empty());
}
