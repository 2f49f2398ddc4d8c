//! A server with TLS.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage};
use oauth_dance_redis::RedisStorage;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use support::Server;

const URL: &str = "TEST_REDIS_TLS_URL";

#[test]
fn certificate_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = support::free_port();
    let server = server_or_skip!(Server::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.crt"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-auth-clients",
        "no",
    ]));
    let url = format!("rediss://127.0.0.1:{port}/");
    // The root certificates come from the environment, which a process must not change at run time.
    let connect = |roots: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["connect", "--exact", "--ignored", "--nocapture"]).env(URL, &url).env("SSL_CERT_FILE", roots);
        child.output().unwrap()
    };
    let trusted = connect(&file("server.crt"));
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "*:alice:*"]).len(), 1);

    make_certificate(folder.path());
    let stranger = connect(&file("server.crt"));
    let error = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && error.to_lowercase().contains("certificate"), "{error}");
}

/// Not a test. The other test runs this with different root certificates.
#[tokio::test]
#[ignore = "started by the other test"]
async fn connect() {
    let url = std::env::var(URL).unwrap();
    RedisStorage::lazy(&url).unwrap();
    RedisStorage::lazy("redis://127.0.0.1/").unwrap();
    let storage = RedisStorage::connect(&url).await.unwrap();
    let key = TokenKey::new("github", "alice").unwrap();
    storage.put(&key, &Record::new("x"), Precondition::Absent).await.unwrap();
    assert!(matches!(storage.put(&key, &Record::new("y"), Precondition::Absent).await, Err(StorageError::Conflict)));

    // The application may choose the provider of the process, before and afterwards.
    assert!(CryptoProvider::get_default().is_none(), "a provider was chosen for the whole process");
    aws_lc_rs::default_provider().install_default().unwrap();
    RedisStorage::connect(&url).await.unwrap().get(&key).await.unwrap().unwrap();
}

fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(folder.join("server.key"))
        .arg("-out")
        .arg(folder.join("server.crt"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
