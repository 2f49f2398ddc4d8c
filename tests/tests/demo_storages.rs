//! The demo with each storage that it supports: connect, call the API, restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use reqwest::StatusCode;
use support::{Acme, Browser, Canaries, DemoFiles, OidcProvider, free_port, missing};
use url::Url;

#[test]
fn memory() {
    let Some(acme) = start("memory:".to_owned()) else { return };
    let alice = connected(&acme);
    assert!(!acme.restart().is_connected(&alice), "it was in memory");
}

#[test]
fn session() {
    let Some(acme) = start("session:".to_owned()) else { return };
    let alice = connected(&acme);
    assert!(!acme.restart().is_connected(&alice), "it was in a session in memory");
}

#[test]
fn cookie() {
    let Some(acme) = start("cookie:".to_owned()) else { return };
    let alice = connected(&acme);
    assert_eq!(acme.restart().subject(&alice), "alice");
}

#[test]
fn postgres() {
    on_a_server("POSTGRES_URL");
}

#[test]
fn mysql() {
    on_a_server("MYSQL_URL");
}

#[test]
fn redis() {
    on_a_server("REDIS_URL");
}

#[test]
fn redis_cluster() {
    on_a_server("REDIS_CLUSTER_URL");
}

#[test]
fn redis_sentinel() {
    on_a_server("REDIS_SENTINEL_URL");
}

/// Every process finds the tokens, even one that starts later, and no log contains the password.
fn on_a_server(variable: &str) {
    let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) else {
        missing(variable);
        return;
    };
    let Some(acme) = start(url.clone()) else { return };
    let alice = connected(&acme);

    let other = acme.files.start_on(free_port());
    let (status, response) = alice.json(other.url("/me/acme"));
    assert_eq!(status, StatusCode::OK, "{response}");
    drop(other);
    let acme = acme.restart();
    assert_eq!(acme.subject(&alice), "alice");

    let password = Url::parse(&url).ok().and_then(|url| url.password().map(str::to_owned));
    if let Some(password) = password {
        let mut canaries = Canaries::default();
        canaries.add("password of the storage", &password);
        assert_eq!(canaries.found_in(&acme.files.log()), [""; 0]);
    }
}

fn start(storage: String) -> Option<Acme> {
    let files = DemoFiles::new().with_storage(storage.leak());
    let provider = OidcProvider::start(&files.redirect_uri())?;
    let files = files.with_provider(&provider);
    let demo = files.start();
    Some(Acme { provider, files, demo })
}

fn connected(acme: &Acme) -> Browser {
    let alice = Browser::new();
    acme.connect(&alice, "alice");
    assert_eq!(acme.subject(&alice), "alice");
    alice
}
