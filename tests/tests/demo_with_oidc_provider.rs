//! The demo with a certified provider: connect, call the API, restart, refresh, disconnect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashMap;

use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, REFERRER_POLICY};
use support::{Acme, Browser, Canaries, Hop, Page, free_port};

#[test]
fn a_connection_survives_a_restart() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    assert!(!acme.is_connected(&alice));

    acme.connect(&alice, "alice");
    assert!(acme.is_connected(&alice));
    assert_eq!(acme.subject(&alice), "alice");

    let acme = acme.restart();
    assert!(acme.is_connected(&alice));
    assert_eq!(acme.subject(&alice), "alice");
    assert_eq!((acme.redemptions(), acme.refreshes()), (1, 0));
}

#[test]
fn a_connection_survives_a_crash() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    acme.connect(&alice, "alice");

    let Acme { provider, files, demo } = acme;
    demo.kill();
    let demo = files.start();
    let acme = Acme { provider, files, demo };

    assert_eq!(acme.subject(&alice), "alice");
}

#[test]
fn two_processes_serve_the_same_users() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    let other = acme.files.start_on(free_port());
    assert!(!other.is_connected(&alice));

    acme.connect(&alice, "alice");

    assert!(other.is_connected(&alice));
    let (status, response) = alice.json(other.url("/me/acme"));
    assert_eq!(status, StatusCode::OK, "{response}");
}

#[test]
fn users_see_only_their_own_connection() {
    let Some(acme) = Acme::start() else { return };
    let (alice, bob, carol) = (Browser::new(), Browser::new(), Browser::new());

    acme.connect(&alice, "alice");
    acme.connect(&bob, "bob");

    assert_eq!(acme.subject(&alice), "alice");
    assert_eq!(acme.subject(&bob), "bob");
    assert!(!acme.is_connected(&carol));
    assert_eq!(acme.me(&carol).0, StatusCode::UNAUTHORIZED);
}

#[test]
fn the_dance_follows_the_standards() {
    let Some(acme) = Acme::start() else { return };
    let page = acme.connect(&Browser::new(), "alice");

    let start = hop(&page, &acme.demo.url("/login/acme"));
    assert!(matches!(start.status.as_u16(), 302 | 303), "{}", start.status);
    assert_is_private(start);

    let request: HashMap<_, _> = hop(&page, &acme.provider.url("/auth?")).url.query_pairs().into_owned().collect();
    assert_eq!(request["response_type"], "code");
    assert_eq!(request["redirect_uri"], acme.files.redirect_uri());
    assert_eq!(request["scope"], "openid offline_access email");
    assert_eq!(request["prompt"], "consent");
    assert_eq!(request["code_challenge_method"], "S256");
    assert_eq!(request["code_challenge"].len(), 43);
    assert!(request["state"].len() >= 22, "{}", request["state"]);

    let callback = hop(&page, &acme.files.redirect_uri());
    assert_eq!(callback.status, StatusCode::SEE_OTHER);
    assert_is_private(callback);

    let redemption = &acme.provider.token_requests("authorization_code")[0];
    assert_eq!(redemption["status"], 200);
    assert_eq!(redemption["authorization"], "Basic");
    assert_eq!(redemption["clientSecretInBody"], false);
    assert_eq!(redemption["cookie"], false);
    let verifier = redemption["codeVerifierLength"].as_u64().unwrap();
    assert!((43..=128).contains(&verifier), "{verifier}");
}

#[test]
fn two_tabs_finish_in_any_order() {
    let Some(acme) = Acme::start() else { return };
    let first = Browser::new();
    first.open(acme.demo.url("/"));
    let second = first.clone();

    let first_page = acme.begin(&first);
    let second_page = acme.begin(&second);
    for (tab, page) in [(&second, second_page), (&first, first_page)] {
        let page = acme.provider.sign_in_and_consent(tab, page, "alice");
        assert_eq!(page.status(), StatusCode::OK, "{}: {}", page.url(), page.text());
        assert_eq!(page.url().as_str(), acme.demo.url("/"));
    }

    assert_eq!(acme.redemptions(), 2);
    assert_eq!(acme.subject(&first), "alice");
}

#[test]
fn an_expired_token_is_refreshed_once() {
    let Some(acme) = Acme::start() else { return };
    acme.provider.set_access_token_ttl(1);
    let alice = Browser::new();
    acme.connect(&alice, "alice");
    wait_until_expired(&acme);

    // Long enough for one call, because the provider counts whole seconds.
    acme.provider.set_access_token_ttl(4);
    assert_eq!(acme.subject(&alice), "alice");
    assert_eq!(acme.refreshes(), 1);
    wait_until_expired(&acme);

    // The next refresh needs the refresh token that the first one has issued.
    acme.provider.set_access_token_ttl(3600);
    let acme = acme.restart();
    assert_eq!(acme.subject(&alice), "alice");
    assert_eq!(acme.subject(&alice), "alice");
    assert_eq!(acme.refreshes(), 2);
    for refresh in acme.provider.token_requests("refresh_token") {
        assert_eq!(refresh["status"], 200, "{refresh}");
    }
}

#[test]
fn disconnecting_revokes_and_deletes_the_token() {
    let Some(acme) = Acme::start() else { return };
    let (alice, bob) = (Browser::new(), Browser::new());
    let page = acme.connect(&alice, "alice");
    let access_token = acme.provider.seen("accessTokens").remove(0);
    acme.connect(&bob, "bob");
    assert_eq!(acme.provider.userinfo_status(&access_token), 200);

    let page = alice.press(&page, "/disconnect/acme");

    assert_eq!(page.status(), StatusCode::OK, "{}", page.text());
    assert!(!acme.is_connected(&alice));
    assert_eq!(acme.me(&alice).0, StatusCode::UNAUTHORIZED);
    let revocations = acme.provider.requests("/token/revocation");
    assert!(!revocations.is_empty());
    for revocation in &revocations {
        assert_eq!((&revocation["status"], &revocation["authorization"]), (&200.into(), &"Basic".into()));
    }
    assert_eq!(acme.provider.userinfo_status(&access_token), 401);

    let acme = acme.restart();
    assert!(!acme.is_connected(&alice));
    assert_eq!(acme.subject(&bob), "bob");
}

#[test]
fn a_link_does_not_disconnect() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    acme.connect(&alice, "alice");

    let page = alice.open(acme.demo.url("/disconnect/acme"));

    assert!(page.status().is_client_error(), "{}", page.status());
    assert!(acme.is_connected(&alice));
}

#[test]
fn no_secret_reaches_the_log_the_database_or_a_page() {
    let Some(acme) = Acme::start() else { return };
    acme.provider.set_access_token_ttl(1);
    let alice = Browser::new();
    let page = acme.connect(&alice, "alice");
    wait_until_expired(&acme);
    acme.provider.set_access_token_ttl(3600);
    acme.subject(&alice);
    let home = alice.open(acme.demo.url("/"));
    let denied = acme.begin(&alice);
    let denied = acme.provider.sign_in_and_cancel(&alice, denied, "alice");
    let stored = acme.files.database();
    alice.press(&home, "/disconnect/acme");
    let acme = acme.restart();

    let mut secrets = acme.provider.secrets();
    for (kind, count) in
        [("codes", 1), ("codeVerifiers", 1), ("accessTokens", 2), ("refreshTokens", 2), ("idTokens", 2)]
    {
        assert_eq!(secrets.count(kind), count, "{kind}");
    }
    add_keys(&mut secrets, &acme.files.key_file());
    assert_eq!(secrets.found_in(&stored), Vec::<String>::new(), "in the database");
    assert_eq!(secrets.found_in(&acme.files.database()), Vec::<String>::new(), "in the database after disconnecting");
    for page in [&page, &home, &denied] {
        assert_eq!(secrets.found_in(page.body.as_bytes()), Vec::<String>::new(), "on {}", page.url());
        assert_eq!(secrets.found_in(page.set_cookies().join("\n").as_bytes()), Vec::<String>::new(), "in a cookie");
    }

    add_states_and_cookies(&mut secrets, &page);
    add_states_and_cookies(&mut secrets, &denied);
    let log = acme.files.log();
    assert!(String::from_utf8_lossy(&log).contains("TRACE"), "the log is not at level TRACE");
    assert_eq!(secrets.found_in(&log), Vec::<String>::new(), "in the log");
}

fn hop<'a>(page: &'a Page, prefix: &str) -> &'a Hop {
    let found = page.hops.iter().find(|hop| hop.url.as_str().starts_with(prefix));
    found.unwrap_or_else(|| panic!("no request to {prefix}"))
}

fn assert_is_private(hop: &Hop) {
    let header = |name| hop.headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert!(header(CACHE_CONTROL).contains("no-store"), "{}", hop.url.path());
    assert_eq!(header(REFERRER_POLICY), "no-referrer", "{}", hop.url.path());
}

fn wait_until_expired(acme: &Acme) {
    acme.provider.wait_until_refused(acme.provider.seen("accessTokens").last().unwrap());
}

fn add_keys(secrets: &mut Canaries, key_file: &str) {
    let words = key_file.split(|character: char| character.is_whitespace() || "\"',:".contains(character));
    let keys: Vec<_> = words.filter(|word| word.len() >= 32).collect();
    assert!(!keys.is_empty(), "no key in the key file");
    keys.into_iter().for_each(|key| secrets.add("key", key));
}

fn add_states_and_cookies(secrets: &mut Canaries, page: &Page) {
    for hop in &page.hops {
        for (_, state) in hop.url.query_pairs().filter(|(name, _)| name == "state") {
            secrets.add("state", &state);
        }
    }
    for cookie in page.set_cookies() {
        let value = cookie.split(';').next().and_then(|pair| pair.split_once('=')).map_or("", |(_, value)| value);
        if value.len() >= 16 {
            secrets.add("cookie", value);
        }
    }
}
