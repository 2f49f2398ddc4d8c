//! The page at the end of a loopback login in a real browser: what it shows, and that its extra requests do no harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod support;

use std::process::Command;

use oauth_dance::testing::{Client, TestProvider};
use oauth_dance::{Connector, KeyRing, LoginError, MemoryStorage, TokenKey};
use serde_json::Value;
use support::{E2E, has_chromium, has_node_package};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_shows_the_end_of_the_login() {
    if !has_node_package("playwright-core") || !has_node_package("axe-core") || !has_chromium() {
        return;
    }
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| _ = settings.clients.insert("program".to_owned(), Client::public()));
    let mut acme = provider.provider("acme");
    acme.title = "Acme <b>&amp;</b> Co".to_owned();
    let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
        .provider(acme.public_client("program"))
        .build()
        .unwrap();
    let me = TokenKey::new("acme", "me").unwrap();

    let login = connector.loopback_login(&me).start().await.unwrap();
    let (report, ended) = tokio::join!(visit(login.url().to_owned()), login.finish());
    ended.unwrap();
    assert_eq!(report["errors"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!((&report["status"], &report["heading"]), (&200.into(), &"Acme <b>&amp;</b> Co is connected".into()));
    assert!(report["text"].as_str().unwrap().contains("You can close this window."), "{report:#}");
    assert!(connector.connection(&me).await.unwrap().is_some());
    assert_eq!(provider.counters().codes_redeemed, 1);

    provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    let login = connector.loopback_login(&me).start().await.unwrap();
    let (report, ended) = tokio::join!(visit(login.url().to_owned()), login.finish());
    assert!(matches!(ended, Err(LoginError::Denied)));
    assert_eq!(report["status"], 403, "{report:#}");
    assert!(report["text"].as_str().unwrap().contains("Access was denied at the provider."), "{report:#}");
}

/// Opens a URL in Chromium. Returns what it shows.
async fn visit(url: String) -> Value {
    tokio::task::spawn_blocking(move || {
        let run = Command::new("node").args(["page.mjs", &url]).current_dir(E2E).output().unwrap();
        serde_json::from_slice(&run.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&run.stderr)))
    })
    .await
    .unwrap()
}
