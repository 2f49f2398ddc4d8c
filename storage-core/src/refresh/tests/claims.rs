//! A refresh that has ended leaves no claim in the record.

use tokio::time::sleep;

use super::bench::Bench;
use super::edits::{edit, read, write};
use super::provider::{Behavior, LATENCY, TOKEN_LIFETIME};
use crate::progress::Progress;
use crate::token::{OAuth2Token, Subject};

/// A provider that does not rotate the refresh token, and a login during the refresh that returns no refresh token.
#[tokio::test(start_paused = true)]
async fn login_that_retains_the_refresh_token_is_not_claimed() {
    let bench = Bench::expired().await;
    let (mut token, version) = read(&bench).await;
    token.subject = Some(Subject { issuer: "https://example".to_owned(), subject: "alice".to_owned() });
    write(&bench, token.clone(), version).await.unwrap();
    bench.provider.script([Behavior::GrantWithoutRotation]);
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    let login = OAuth2Token {
        access_token: "login".into(),
        refresh_token: None,
        expires_at: Some(bench.now().saturating_add(TOKEN_LIFETIME)),
        ..token
    };
    bench.tokens().put_login(&bench.key, &login.into()).await.unwrap();
    assert_eq!(caller.await.unwrap().unwrap(), "login");
    process.finish().await;
    let stored = bench.stored().await.unwrap().value;
    assert_eq!((bench.access().await.as_str(), stored.progress), ("login", Progress::Idle));
    assert_eq!(process.seen(), ["adopted"]);
}

/// The record was changed during the refresh, and the provider returned the same tokens with a new expiry.
#[tokio::test(start_paused = true)]
async fn new_expiry_of_the_same_token_is_stored_after_an_edit() {
    let bench = Bench::expired().await;
    bench.provider.script([Behavior::Prolong]);
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(LATENCY).await;
    edit(&bench, "note").await;
    assert_eq!(caller.await.unwrap().unwrap(), "access-0-0");
    process.finish().await;
    let stored = bench.stored().await.unwrap().value;
    assert_eq!(stored.progress, Progress::Idle);
    let token = read(&bench).await.0;
    assert!(token.expires_at.unwrap() > bench.now());
    assert!(token.extra.get("note").is_some());
}
