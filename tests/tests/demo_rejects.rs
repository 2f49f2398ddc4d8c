//! The demo rejects forged, replayed, stolen and denied logins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::thread;

use reqwest::StatusCode;
use support::{Acme, Browser, Page};
use url::Url;

#[test]
fn a_callback_counts_once() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    let callback = acme.callback(&alice, "alice");
    let first = alice.open(&callback);
    assert!(first.status().is_success(), "{}", first.text());

    let again = alice.open(&callback);
    assert!(again.status().is_success(), "it has the outcome of the first one: {}", again.text());

    assert_eq!(acme.redemptions(), 1);
    assert_eq!(acme.subject(&alice), "alice", "the first login is unchanged");
}

#[test]
fn concurrent_callbacks_count_once() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    let callback = acme.callback(&alice, "alice");

    let pages: Vec<Page> = thread::scope(|scope| {
        let openings: Vec<_> = (0..8).map(|_| scope.spawn(|| alice.open(&callback))).collect();
        openings.into_iter().map(|opening| opening.join().unwrap()).collect()
    });

    for page in pages {
        assert!(page.status().is_success(), "{}", page.text());
    }
    assert_eq!(acme.redemptions(), 1);
    assert_eq!(acme.subject(&alice), "alice");
}

#[test]
fn forged_callbacks_are_rejected_without_effect() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    let callback = acme.callback(&alice, "alice");
    let (_, state) = callback.query_pairs().find(|(name, _)| name == "state").unwrap();
    let stateless = without(&callback, "state");

    for forgery in [
        with(&stateless, "state", ""),
        with(&stateless, "state", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        with(&stateless, "state", &format!("{state}=")),
        with(&callback, "state", &state),
        with(&callback, "code", "another"),
        with(&without(&stateless, "code"), "error", "access_denied"),
        stateless,
    ] {
        assert_refused(&alice.open(forgery));
    }
    assert_eq!(acme.redemptions(), 0);

    let page = alice.open(&callback);
    assert!(page.status().is_success(), "after the forgeries, the real callback failed: {}", page.text());
    assert_eq!(acme.subject(&alice), "alice");
}

#[test]
fn a_callback_without_a_code_is_refused() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    let callback = acme.callback(&alice, "alice");

    assert_refused(&alice.open(without(&callback, "code")));

    assert_eq!(acme.redemptions(), 0);
    assert!(!acme.is_connected(&alice));
}

#[test]
fn a_callback_is_refused_in_another_browser() {
    let Some(acme) = Acme::start() else { return };
    let (alice, bob) = (Browser::new(), Browser::new());
    let callback = acme.callback(&bob, "bob");

    assert_refused(&alice.open(&callback));
    acme.begin(&alice);
    assert_refused(&alice.open(&callback));

    assert_eq!(acme.redemptions(), 0);
    assert!(!acme.is_connected(&alice));
}

#[test]
fn a_denial_is_shown_and_changes_nothing() {
    let Some(acme) = Acme::start() else { return };
    let alice = Browser::new();
    let refuse = || {
        let page = acme.begin(&alice);
        acme.provider.sign_in_and_cancel(&alice, page, "alice")
    };

    assert_refused(&refuse());
    assert!(!acme.is_connected(&alice));
    assert_eq!(acme.redemptions(), 0);

    acme.connect(&alice, "alice");
    let page = acme.begin(&alice);
    assert_refused(&alice.follow(&page, "Cancel"));
    assert_eq!(acme.subject(&alice), "alice", "the existing connection is unchanged");
}

#[test]
fn errors_of_the_provider_are_shown_as_text() {
    let Some(acme) = Acme::start() else { return };
    let hostile = "<script>alert(1)</script>\r\nINFO forged line\0";
    for (error, description) in [("access_denied", hostile), ("server_error", hostile), (hostile, "why")] {
        let alice = Browser::new();
        let callback = without(&acme.callback(&alice, "alice"), "code");
        let callback = with(&with(&callback, "error", error), "error_description", description);

        let page = alice.open(&callback);

        assert_page(&page);
        assert!(page.status().is_client_error() || page.status() == StatusCode::BAD_GATEWAY, "{}", page.status());
        assert!(!page.body.contains("<script"), "{}", page.body);
        assert!(error != hostile || page.text().contains("<script>alert(1)</script>"), "{}", page.text());
        assert!(!acme.is_connected(&alice));
    }
    let log = String::from_utf8(acme.files.log()).unwrap();
    assert!(log.contains("<script>alert(1)</script>"), "the error is not in the log");
    assert!(!log.lines().any(|line| line.starts_with("INFO forged line")), "a forged line in the log");
}

#[test]
fn the_redirect_after_a_login_stays_on_the_site() {
    let Some(acme) = Acme::start() else { return };
    for next in ["https://evil.test/", "//evil.test", "/\\evil.test", "/\t/evil.test", "http:evil.test", "javascript:1"]
    {
        let alice = Browser::new();
        alice.open(acme.demo.url("/"));
        let start = Url::parse_with_params(&acme.demo.url("/login/acme"), [("next", next)]).unwrap();
        let page = acme.provider.sign_in_and_consent(&alice, alice.open(&start), "alice");
        assert_eq!(page.url().as_str(), acme.demo.url("/"), "{next:?}");
        assert!(acme.is_connected(&alice), "{next:?}");
    }
}

/// The demo has rejected the request with a client error and a page with a link or a form.
fn assert_refused(page: &Page) {
    assert!(page.status().is_client_error(), "{} for {}: {}", page.status(), page.url().path(), page.text());
    assert_page(page);
}

/// The page has a text, and a link or a form to continue with.
fn assert_page(page: &Page) {
    let content_type = page.headers()["content-type"].to_str().unwrap();
    assert!(content_type.starts_with("text/html"), "{content_type}");
    assert!(page.text().len() > 20, "the page has no text: {:?}", page.text());
    assert!(
        page.body.contains("<a ") || page.body.contains("<form"),
        "the page has no link and no form: {}",
        page.body
    );
}

fn with(url: &Url, name: &str, value: &str) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair(name, value);
    url
}

fn without(url: &Url, name: &str) -> Url {
    let rest: Vec<_> = url.query_pairs().into_owned().filter(|(found, _)| found != name).collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(rest);
    url
}
