//! A fleet with the certified npm package `oidc-provider`, which revokes a grant if a refresh token is sent twice.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use oauth_dance::{Clock, KeyRing, OAuth2Token, User};
use oauth_dance_core::{Precondition, Token};
use serde_json::{Value, json};
use url::Url;

use crate::backend::Backend;
use crate::fleet::{Fleet, Size, with_long_timeouts};
use crate::process::Process;
use crate::site::{self, LONG};
use crate::support::{Browser, OidcProvider};
use crate::table::Table;
use crate::worker::{self, At};

/// No server listens there, because the browser stops before it.
const REDIRECT_URI: &str = "http://127.0.0.1:9/login/openid/authorized";
/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const NAME: &str = "openid";
/// The lifetime of an access token in seconds, as the applications know it. The API accepts it for another minute, because a
/// call may take longer on a busy machine.
const LIFE: u64 = 2;

/// Every refresh token is sent once, no grant is revoked, and no caller gets an error.
pub async fn one_redemption(backend: &Backend) {
    let size = Size::from_env();
    let size = Size { keys: 5, time: size.time / 2, ..size };
    // The calls of the provider's harness block.
    let (provider, tokens) = tokio::task::block_in_place(|| {
        let provider = OidcProvider::start_with(
            &json!({ "clients": [OidcProvider::client(REDIRECT_URI)], "clockTolerance": 60 }),
        )?;
        provider.set_access_token_ttl(LIFE);
        let tokens: Vec<_> = (0..size.keys).map(|number| login(&provider, &format!("user-{number}"))).collect();
        Some((provider, tokens))
    })
    .unzip();
    let (Some(provider), Some(tokens)) = (provider, tokens) else { return };
    let keys = site::keys();
    let at = At { name: NAME.to_owned(), url: provider.issuer().to_owned(), is_openid: true };
    let oauth =
        worker::oauth(backend.open().await, KeyRing::parse(&keys).unwrap(), std::slice::from_ref(&at)).build().unwrap();
    let users: Vec<_> = (0..size.keys).map(|number| format!("user-{number}")).collect();
    for (user, token) in users.iter().zip(tokens) {
        let key = User::new(user).key(NAME).unwrap();
        oauth.tokens().put(&key, &Token::from(token), Precondition::Always).await.unwrap();
    }
    let fleet = Fleet::start(&with_long_timeouts(Process::settings(backend, &keys, vec![at])), size.processes).await;

    let report = fleet.run(NAME, &users, &size, LONG).await;

    let (log, seen) =
        tokio::task::block_in_place(|| (provider.token_requests("refresh_token"), provider.seen("refreshTokens")));
    let good = log.iter().filter(|request| request["status"] == 200).count();
    let mut table = Table::new(
        format!(
            "{}: {} processes x {} tasks on {} tokens of {LIFE} s of oidc-provider for {:?}",
            backend.kind.name(),
            size.processes,
            size.tasks,
            size.keys,
            size.time
        ),
        &["calls", "bad calls", "expiries", "redemptions", "refused"],
    );
    let bad: u64 = report.bad.values().sum();
    let expiries = report.seen.claims;
    table.row([&report.good, &bad, &expiries, &good, &(log.len() - good)]);
    table.print();

    assert_eq!(report.bad, BTreeMap::new(), "callers got errors");
    assert_eq!(log.len(), good, "a refresh token was refused");
    assert_eq!(good as u64, expiries, "each expiry cost one redemption");
    assert_eq!(seen.len(), size.keys + good, "each redemption issued a new refresh token");
    assert!(good >= size.keys, "only {good} redemptions");
    for user in &users {
        let client = oauth.client(NAME, &User::new(user)).await.unwrap();
        assert_eq!(client.userinfo().send().await.unwrap().status(), 200, "the grant of {user} is valid");
    }
}

/// A complete dance, without this library.
fn login(provider: &OidcProvider, user: &str) -> OAuth2Token {
    let parameters = [
        ("response_type", "code"),
        ("client_id", OidcProvider::CLIENT_ID),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid offline_access"),
        ("prompt", "consent"),
        ("state", "some-state"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let browser = Browser::new().stopping_before(REDIRECT_URI);
    let page = browser.open(Url::parse_with_params(&provider.url("/auth"), parameters).unwrap());
    let page = provider.sign_in_and_consent(&browser, page, user);
    let callback: HashMap<_, _> = page.stopped_before.unwrap().query_pairs().into_owned().collect();

    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let response = client
        .post(provider.url("/token"))
        .form(&[
            ("grant_type", "authorization_code"),
            ("code", &callback["code"]),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ])
        .basic_auth(encode(OidcProvider::CLIENT_ID), Some(encode(OidcProvider::CLIENT_SECRET)));
    let response: Value = response.send().unwrap().error_for_status().unwrap().json().unwrap();
    let now = Clock::system().now();
    let mut token = OAuth2Token::bearer(response["access_token"].as_str().unwrap());
    token.refresh_token = Some(response["refresh_token"].as_str().unwrap().into());
    token.issued_at = Some(now);
    token.expires_at = Some(now.saturating_add(Duration::from_secs(response["expires_in"].as_u64().unwrap())));
    token
}
