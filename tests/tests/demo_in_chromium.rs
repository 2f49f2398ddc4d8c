//! The demo in a real browser, with its own provider, and with screenshots before and after connecting.
//!
//! `OAUTH_DANCE_SCREENSHOTS` names a folder for the screenshots, which get one folder for each storage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{DemoFiles, E2E, has_chromium, has_node_package};
use tempfile::TempDir;

#[test]
fn a_person_connects_calls_the_api_and_disconnects() {
    visit(&DemoFiles::new(), "sqlite", "oauth-dance-user");
}

#[test]
fn a_person_connects_with_tokens_in_a_cookie() {
    visit(&DemoFiles::new().with_storage("cookie:"), "cookie", "oauth-dance-tokens.0");
}

#[test]
fn a_person_connects_with_tokens_in_a_session() {
    visit(&DemoFiles::new().with_storage("session:"), "session", "oauth-dance-demo-session");
}

/// A complete visit. At its end, the browser has a cookie whose name starts with `cookie`.
fn visit(files: &DemoFiles, storage: &str, cookie: &str) {
    if !has_node_package("playwright-core") || !has_node_package("axe-core") || !has_chromium() {
        return;
    }
    let demo = files.start();
    let temporary = TempDir::new().unwrap();
    let pictures = std::env::var_os("OAUTH_DANCE_SCREENSHOTS").map_or(temporary.path().to_owned(), PathBuf::from);
    let pictures = pictures.join(storage);
    std::fs::create_dir_all(&pictures).unwrap();

    let run = Command::new("node")
        .args(["browser.mjs".as_ref(), demo.url("/").as_ref(), pictures.as_os_str()])
        .current_dir(E2E)
        .output()
        .unwrap();

    let report: Value = serde_json::from_slice(&run.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&run.stderr)));
    assert_eq!(report["ok"], true, "{report:#}\nthe demo's log:\n{}", tail(&files.log()));
    assert!(run.status.success());
    for name in ["before", "login", "consent", "after", "api"] {
        assert_is_picture(&pictures.join(format!("{name}.png")));
        assert_is_picture(&pictures.join(format!("{name}-narrow.png")));
    }
    assert_ne!(picture(&pictures, "before.png"), picture(&pictures, "after.png"));
    let cookies = report["cookies"].as_array().unwrap();
    assert!(cookies.iter().any(|found| found["name"].as_str().unwrap().starts_with(cookie)), "{cookies:?}");
    assert_cookies_are_out_of_reach(cookies);
}

/// No cookie of the demo or its provider is readable by scripts, or sent with the forms of other sites.
fn assert_cookies_are_out_of_reach(cookies: &[Value]) {
    assert!(!cookies.is_empty());
    for cookie in cookies {
        assert_eq!(cookie["httpOnly"], true, "{cookie}");
        assert!(cookie["sameSite"] == "Lax" || cookie["sameSite"] == "Strict", "{cookie}");
    }
}

fn assert_is_picture(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes.starts_with(b"\x89PNG\r\n") && bytes.len() > 4096, "{} is {} bytes", path.display(), bytes.len());
}

fn picture(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(100)..].join("\n")
}
