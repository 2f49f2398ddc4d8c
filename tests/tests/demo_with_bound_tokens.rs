//! The demo with a certified provider that requires pushed authorization requests (RFC 9126) and tokens that are bound to a
//! key (RFC 9449).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::Client;
use serde_json::Value;
use support::{Acme, Browser, Demo, free_port};

#[test]
fn the_browser_carries_a_reference_and_the_token_has_a_key() {
    let Some(acme) = Acme::start_bound() else { return };
    let alice = Browser::new();
    let page = acme.connect(&alice, "alice");
    assert_eq!(acme.subject(&alice), "alice");

    let request = page.hops.iter().find(|hop| hop.url.as_str().starts_with(&acme.provider.url("/auth?"))).unwrap();
    let mut carried: Vec<_> = request.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    carried.sort();
    assert_eq!(carried, ["client_id", "request_uri"]);

    // The provider requires a nonce once. The client sends it from then on.
    let requests = acme.provider.log();
    let replies: Vec<_> = requests.iter().map(|request| (path(request), status(request))).collect();
    assert_eq!(replies, [("/request", 400), ("/request", 201), ("/token", 200), ("/me", 200)]);
    assert_eq!(requests[0]["error"], "use_dpop_nonce");
    assert_eq!(requests[1]["authorization"], "Basic");
    assert_eq!((&requests[2]["tokenType"], &requests[3]["authorization"]), (&"DPoP".into(), &"DPoP".into()));
    assert_eq!(keys(&requests).len(), 1, "{requests:?}");
}

#[test]
fn a_stolen_token_is_refused_without_its_key() {
    let Some(acme) = Acme::start_bound() else { return };
    let alice = Browser::new();
    acme.connect(&alice, "alice");
    let stolen = acme.provider.seen("accessTokens").remove(0);

    assert_eq!(acme.provider.userinfo_status(&stolen), 401);
    let named = Client::new().get(acme.provider.url("/me")).header("authorization", format!("DPoP {stolen}"));
    assert!(named.send().unwrap().status().is_client_error());
    assert_eq!(acme.subject(&alice), "alice");
}

#[test]
fn another_process_refreshes_with_the_same_key() {
    let Some(acme) = Acme::start_bound() else { return };
    acme.provider.set_access_token_ttl(1);
    let alice = Browser::new();
    acme.connect(&alice, "alice");
    let key = keys(&acme.provider.requests("/token"));

    // The refresh token rotates from process to process. The key stays the same.
    let other = acme.files.start_on(free_port());
    // Long enough for one call, because the provider counts whole seconds.
    acme.provider.set_access_token_ttl(4);
    wait_for_refreshes(&acme, &other, &alice, 1);
    acme.provider.set_access_token_ttl(3600);
    wait_for_refreshes(&acme, &acme.demo, &alice, 2);
    let acme = acme.restart();
    assert_eq!(acme.subject(&alice), "alice");

    let granted: Vec<_> =
        acme.provider.token_requests("refresh_token").into_iter().filter(|refresh| status(refresh) == 200).collect();
    assert_eq!(granted.len(), 2);
    assert_eq!(acme.provider.seen("refreshTokens").len(), 3, "each refresh issued a new one");
    assert_eq!((keys(&acme.provider.log()), key.len()), (key, 1));
}

#[test]
fn each_login_has_a_key_and_disconnecting_revokes() {
    let Some(acme) = Acme::start_bound() else { return };
    let (alice, bob) = (Browser::new(), Browser::new());
    let page = acme.connect(&alice, "alice");
    acme.connect(&bob, "bob");
    assert_eq!(keys(&acme.provider.requests("/token")).len(), 2);

    alice.press(&page, "/disconnect/acme");
    let revocations = acme.provider.requests("/token/revocation");
    assert!(!revocations.is_empty() && revocations.iter().all(|revocation| status(revocation) == 200));
    assert!(!acme.is_connected(&alice));
    assert_eq!(acme.subject(&bob), "bob");
}

#[test]
fn no_reference_or_token_reaches_the_log_or_the_database() {
    let Some(acme) = Acme::start_bound() else { return };
    let alice = Browser::new();
    acme.connect(&alice, "alice");
    acme.subject(&alice);

    let secrets = acme.provider.secrets();
    assert_eq!((secrets.count("requestUris"), secrets.count("accessTokens")), (1, 1));
    assert_eq!(secrets.found_in(&acme.files.database()), Vec::<String>::new(), "in the database");
    let log = acme.files.log();
    assert!(String::from_utf8_lossy(&log).contains("TRACE"), "the log is not at level TRACE");
    assert_eq!(secrets.found_in(&log), Vec::<String>::new(), "in the log");
}

fn path(request: &Value) -> &str {
    request["path"].as_str().unwrap()
}

fn status(request: &Value) -> u64 {
    request["status"].as_u64().unwrap()
}

/// The keys in the proofs of these requests. Each request has to have a proof.
fn keys(requests: &[Value]) -> HashSet<String> {
    assert!(!requests.is_empty());
    requests.iter().map(|request| request["jkt"].as_str().unwrap_or_else(|| panic!("{request}")).to_owned()).collect()
}

/// Calls the API through a process until there were that many refreshes in total. The clock of the provider cannot be moved.
fn wait_for_refreshes(acme: &Acme, demo: &Demo, browser: &Browser, refreshes: usize) {
    let until = Instant::now() + Duration::from_secs(15);
    let granted =
        || acme.provider.token_requests("refresh_token").iter().filter(|refresh| status(refresh) == 200).count();
    while granted() < refreshes {
        assert!(Instant::now() < until, "the access token is not refreshed");
        thread::sleep(Duration::from_millis(100));
        let (status, response) = browser.json(demo.url("/me/acme"));
        assert_eq!(status, StatusCode::OK, "{response}");
    }
}
