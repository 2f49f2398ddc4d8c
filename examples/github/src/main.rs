//! Connects each visitor's GitHub account and greets them by name.
//!
//! Register an OAuth app at <https://github.com/settings/developers> with the callback URL
//! `http://localhost:3000/login/github/authorized`, then run it with its `GITHUB_CLIENT_ID` and
//! `GITHUB_CLIENT_SECRET` in the environment, and with `OAUTH_DANCE_KEYS` set to the output of `openssl rand -base64 32`.

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::{Router, routing::get};
use oauth_dance::{ApiError, Connected, KeyRing, OAuth, presets::GitHub};
use oauth_dance_sqlx::SqliteStorage;

async fn home(github: Connected<GitHub>) -> Result<String, ApiError> {
    let me: serde_json::Value = github.get("/user").send().await?.success()?.json()?;
    Ok(format!("Hello, {}!", me["login"]))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let storage = SqliteStorage::connect("sqlite:tokens.sqlite").await?;
    storage.migrate().await?;
    let keys = KeyRing::parse(&env::var("OAUTH_DANCE_KEYS")?)?;
    let oauth = OAuth::builder("http://localhost:3000", storage, keys)
        .provider(GitHub::provider().client_from_env()?)
        .anonymous_users()
        .build()?;
    let app = Router::new().route("/", get(home)).merge(oauth.routes()).layer(oauth.layer()).with_state(oauth.clone());
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let listener = tokio::net::TcpListener::bind("localhost:3000").await?;
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    // Lets logins and refreshes in flight store their tokens.
    let _ = tokio::time::timeout(Duration::from_secs(10), oauth.finish()).await;
    Ok(())
}
