//! Tokens in the cookies of a real browser, which has to accept the prefix, the sizes and the removal of every chunk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::process::Command;

use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use oauth_dance_core::{KeyRing, Precondition, Record, RequestStorage, StorageError, TokenKey};
use oauth_dance_session::CookieTokens;
use serde_json::{Value, json};
use support::{E2E, has_chromium, has_node_package};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

#[test]
fn chromium_has_exactly_the_chunks_of_the_last_write() {
    if !has_node_package("playwright-core") || !has_chromium() {
        return;
    }
    let runtime = Runtime::new().unwrap();
    let port = runtime.block_on(serve());
    // Browsers trust `localhost` without TLS, so it can set `Secure` cookies.
    let address = format!("http://localhost:{port}");
    let run = Command::new("node").args(["cookie-chunks.mjs", &address]).current_dir(E2E).output().unwrap();
    let visits: Value = serde_json::from_slice(&run.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&run.stderr)));

    let expected = [
        ("put", 1),
        ("10", 1),
        ("put", 3),
        ("8000", 3),
        ("put", 2),
        ("4500", 2),
        ("too large", 2),
        ("4500", 2),
        ("put", 1),
        ("10", 1),
        ("deleted", 0),
        ("none", 0),
    ];
    let visits = visits.as_array().unwrap();
    assert_eq!(visits.len(), expected.len());
    for (visit, (said, chunks)) in visits.iter().zip(expected) {
        assert_eq!(visit["said"], said, "{visit}");
        let cookies = visit["cookies"].as_array().unwrap();
        assert_eq!(cookies.len(), chunks, "{visit}");
        for (index, cookie) in cookies.iter().enumerate() {
            let name = format!("__Host-oauth-dance-tokens.{index}");
            let strict = json!({"name": name, "secure": true, "httpOnly": true, "sameSite": "Lax", "path": "/"});
            assert_eq!(*cookie, strict);
        }
    }
}

/// Serves an application that stores one record, and returns its port.
async fn serve() -> u16 {
    let tokens = CookieTokens::new("https://app.example", KeyRing::generate()).with_limit(12 * 1024);
    let app = Router::new()
        .route("/put/{size}", get(put))
        .route("/get", get(read))
        .route("/delete", get(delete))
        .route("/favicon.ico", get(|| async {}))
        .layer(tokens);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

fn key() -> TokenKey {
    TokenKey::new("github", "alice").unwrap()
}

async fn put(Extension(storage): Extension<RequestStorage>, Path(size): Path<usize>) -> &'static str {
    match storage.storage().put(&key(), &Record::new(vec![7; size]), Precondition::Always).await {
        Ok(_) => "put",
        Err(StorageError::TooLarge { .. }) => "too large",
        Err(error) => panic!("{error}"),
    }
}

async fn read(Extension(storage): Extension<RequestStorage>) -> String {
    let found = storage.storage().get(&key()).await.unwrap();
    found.map_or("none".to_owned(), |found| found.value.payload.len().to_string())
}

async fn delete(Extension(storage): Extension<RequestStorage>) -> &'static str {
    if storage.storage().delete(&key(), None).await.unwrap() { "deleted" } else { "nothing" }
}
