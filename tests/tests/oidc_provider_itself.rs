//! Tests the harness of the other tests: a complete dance with the real OpenID provider, without this library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;
use support::{Browser, OidcProvider, Page};
use url::Url;

/// No server listens there, because the browser stops before it.
const REDIRECT_URI: &str = "http://127.0.0.1:9/login/acme/authorized";

/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

#[test]
fn a_whole_dance_by_hand() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    let code = authorization_code(&provider, "alice");

    let tokens = granted(redeem(&provider, &code, VERIFIER));
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 3600);
    let access_token = tokens["access_token"].as_str().unwrap();
    let refresh_token = tokens["refresh_token"].as_str().unwrap();

    let userinfo = Client::new().get(provider.url("/me")).bearer_auth(access_token).send().unwrap();
    let userinfo: Value = userinfo.error_for_status().unwrap().json().unwrap();
    assert_eq!(userinfo["sub"], "alice");
    assert_eq!(userinfo["email"], "alice@example.test");

    let renewed = granted(refresh(&provider, refresh_token));
    assert_ne!(renewed["access_token"], tokens["access_token"]);
    assert_ne!(renewed["refresh_token"], tokens["refresh_token"], "refresh tokens rotate");

    assert_eq!(refused(refresh(&provider, refresh_token)), (400, "invalid_grant".to_owned()));
    let family = refresh(&provider, renewed["refresh_token"].as_str().unwrap());
    assert_eq!(refused(family), (400, "invalid_grant".to_owned()), "a reuse revokes the whole family");
    assert_eq!(provider.userinfo_status(renewed["access_token"].as_str().unwrap()), 401);
}

#[test]
fn the_log_contains_requests_but_no_secrets() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    let code = authorization_code(&provider, "alice");
    let tokens = granted(redeem(&provider, &code, VERIFIER));
    let access_token = tokens["access_token"].as_str().unwrap();
    assert_eq!(provider.userinfo_status(access_token), 200);
    granted(refresh(&provider, tokens["refresh_token"].as_str().unwrap()));

    let log = provider.log();
    assert_eq!(log.len(), 3, "{log:?}");
    assert_eq!(log[0]["grantType"], "authorization_code");
    assert_eq!(log[0]["authorization"], "Basic");
    assert_eq!(log[0]["clientSecretInBody"], false);
    assert_eq!(log[0]["codeVerifierLength"], VERIFIER.len());
    assert_eq!(log[0]["status"], 200);
    assert_eq!(log[1]["path"], "/me");
    assert_eq!(log[1]["authorization"], "Bearer");
    assert_eq!(log[2]["grantType"], "refresh_token");
    assert_eq!(provider.token_requests("authorization_code").len(), 1);
    assert_eq!(provider.token_requests("refresh_token").len(), 1);

    let secrets = provider.secrets();
    assert_eq!(provider.seen("codes"), [code]);
    assert_eq!(provider.seen("codeVerifiers"), [VERIFIER]);
    assert_eq!(secrets.count("accessTokens"), 2);
    assert_eq!(secrets.count("refreshTokens"), 2);
    assert_eq!(secrets.found_in(Value::Array(log).to_string().as_bytes()), Vec::<String>::new());
    assert!(secrets.found_in(access_token.as_bytes()).contains(&"accessTokens, plain".to_owned()));
}

#[test]
fn secrets_are_found_in_every_encoding() {
    let mut canaries = support::Canaries::default();
    canaries.add("canary", "S3cret/with+odd=bytes");
    for (disguise, text) in [
        ("plain", "S3cret/with+odd=bytes"),
        ("form-encoded", "S3cret%2Fwith%2Bodd%3Dbytes"),
        ("hexadecimal", "5333637265742f776974682b6f64643d6279746573"),
        ("backwards", "setyb=ddo+htiw/terc3S"),
        ("base64", "UzNjcmV0L3dpdGgrb2RkPWJ5dGVz"),
        ("base64", "ezpTM2NyZXQvd2l0aCtvZGQ9Ynl0ZXN9"),
        ("base64", "e1MzY3JldC93aXRoK29kZD1ieXRlc30="),
    ] {
        let found = canaries.found_in(format!("before {text} after").as_bytes());
        assert!(found.contains(&format!("canary, {disguise}")), "{disguise} {text}: {found:?}");
    }
    assert!(canaries.found_in(b"S3cret/with+odd=byte").is_empty());
}

#[test]
fn authorization_without_pkce_is_refused() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    let mut url = authorization_url(&provider);
    let rest: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| !name.starts_with("code_challenge")).collect();
    url.query_pairs_mut().clear().extend_pairs(rest);

    let page = Browser::new().stopping_before(REDIRECT_URI).open(&url);

    assert_eq!(callback(&page)["error"], "invalid_request");
}

#[test]
fn a_wrong_verifier_is_refused() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    let code = authorization_code(&provider, "alice");

    let response = redeem(&provider, &code, "another-verifier-that-is-long-enough-to-be-valid");

    assert_eq!(refused(response), (400, "invalid_grant".to_owned()));
}

#[test]
fn a_secret_that_is_not_form_encoded_is_refused() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    let code = authorization_code(&provider, "alice");

    let unencoded = redemption(&provider, &code, VERIFIER)
        .basic_auth(OidcProvider::CLIENT_ID, Some(OidcProvider::CLIENT_SECRET))
        .send()
        .unwrap();

    assert!(unencoded.status().is_client_error(), "{}", unencoded.status());
}

#[test]
fn cancelling_returns_access_denied() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    let browser = Browser::new().stopping_before(REDIRECT_URI);
    let page = browser.open(authorization_url(&provider));

    let page = provider.sign_in_and_cancel(&browser, page, "alice");

    let callback = callback(&page);
    assert_eq!(callback["error"], "access_denied");
    assert_eq!(callback["state"], "some-state");
    assert!(provider.log().is_empty());
}

#[test]
fn the_lifetime_of_access_tokens_is_configurable() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    provider.set_access_token_ttl(7);
    let code = authorization_code(&provider, "alice");

    let tokens = granted(redeem(&provider, &code, VERIFIER));

    assert_eq!(tokens["expires_in"], 7);
}

#[test]
fn an_expired_access_token_is_refused_at_once() {
    let Some(provider) = OidcProvider::start(REDIRECT_URI) else { return };
    provider.set_access_token_ttl(2);
    let code = authorization_code(&provider, "alice");
    let start = Instant::now();
    let tokens = granted(redeem(&provider, &code, VERIFIER));
    let access_token = tokens["access_token"].as_str().unwrap();
    assert_eq!(provider.userinfo_status(access_token), 200);

    provider.wait_until_refused(access_token);

    // The provider counts whole seconds.
    let lifetime = start.elapsed();
    assert!(lifetime > Duration::from_secs(1) && lifetime < Duration::from_secs(4), "{lifetime:?}");
}

fn authorization_url(provider: &OidcProvider) -> Url {
    let parameters = [
        ("response_type", "code"),
        ("client_id", OidcProvider::CLIENT_ID),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid offline_access email"),
        ("prompt", "consent"),
        ("state", "some-state"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    Url::parse_with_params(&provider.url("/auth"), parameters).unwrap()
}

fn authorization_code(provider: &OidcProvider, user: &str) -> String {
    let browser = Browser::new().stopping_before(REDIRECT_URI);
    let page = browser.open(authorization_url(provider));
    let page = provider.sign_in_and_consent(&browser, page, user);
    let callback = callback(&page);
    assert_eq!(callback["state"], "some-state");
    assert_eq!(callback["iss"], provider.issuer());
    callback["code"].clone()
}

fn callback(page: &Page) -> HashMap<String, String> {
    let url = page.stopped_before.as_ref().unwrap_or_else(|| panic!("still at {}: {}", page.url(), page.text()));
    url.query_pairs().into_owned().collect()
}

fn redeem(provider: &OidcProvider, code: &str, verifier: &str) -> reqwest::blocking::Response {
    authenticated(redemption(provider, code, verifier))
}

fn redemption(provider: &OidcProvider, code: &str, verifier: &str) -> RequestBuilder {
    Client::new().post(provider.url("/token")).form(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", verifier),
    ])
}

fn refresh(provider: &OidcProvider, refresh_token: &str) -> reqwest::blocking::Response {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    authenticated(Client::new().post(provider.url("/token")).form(&form))
}

/// RFC 6749 section 2.3.1: identifier and secret are form-encoded before they become a Basic credential.
fn authenticated(request: RequestBuilder) -> reqwest::blocking::Response {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let request = request.basic_auth(encode(OidcProvider::CLIENT_ID), Some(encode(OidcProvider::CLIENT_SECRET)));
    request.send().unwrap()
}

fn granted(response: reqwest::blocking::Response) -> Value {
    let status = response.status();
    let body: Value = response.json().unwrap();
    assert!(status.is_success(), "{status}: {body}");
    body
}

fn refused(response: reqwest::blocking::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().unwrap();
    (status, body["error"].as_str().unwrap().to_owned())
}
