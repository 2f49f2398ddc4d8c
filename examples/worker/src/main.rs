//! Counts the unread notifications of everyone who has connected GitHub, without a web framework.
//!
//! Run it alongside `examples/github`, in the same folder and with the same environment: it uses the tokens that the
//! web application has stored, and each is refreshed once, by whichever process needs it first.
#![allow(clippy::print_stdout)]

use std::env;
use std::time::Duration;

use oauth_dance::{BoxError, Connector, KeyRing, presets::GitHub};
use oauth_dance_example_worker::visit;
use oauth_dance_sqlx::SqliteStorage;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let storage = SqliteStorage::connect("sqlite:tokens.sqlite").await?;
    storage.migrate().await?;
    let connector = Connector::builder(storage, KeyRing::parse(&env::var("OAUTH_DANCE_KEYS")?)?)
        .provider(GitHub::provider().client_from_env()?)
        .observer(|key, event| println!("{key}: {}", event.name()))
        .build()?;
    println!("{:?}", visit(&connector, "github", "/notifications").await?);
    // Refreshes in flight store their tokens first, if that takes no longer than this.
    let _ = tokio::time::timeout(Duration::from_secs(10), connector.finish()).await;
    Ok(())
}
