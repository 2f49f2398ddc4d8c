//! Visitors without accounts: each browser is a separate user.
//!
//! Nothing is stored and no cookie is set before a visitor connects. Then the browser gets a sealed cookie that
//! identifies it; the token itself remains on the server.

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use oauth_dance::presets::GitHub;
use oauth_dance::{
    ApiError, ConfigError, Connected, ConnectedRejection, Connections, KeyRing, OAuth, Registration, SameOrigin,
    TokenStorage,
};

/// The application.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    github: Registration,
) -> Result<Router, ConfigError> {
    let oauth = OAuth::builder(base_url, storage, keys).provider(github).anonymous_users().build()?;
    Ok(Router::new()
        .route("/", get(home))
        .route("/me", get(me))
        .route("/forget", post(forget))
        .merge(oauth.routes())
        .layer(oauth.layer())
        .with_state(oauth))
}

/// For all visitors.
async fn home(github: Option<Connected<GitHub>>) -> &'static str {
    if github.is_some() { "You are connected." } else { "Connect at /login/github." }
}

/// A visitor who is not connected is redirected to GitHub first, and then back here.
async fn me(github: Connected<GitHub>) -> Result<String, ApiError> {
    github.userinfo().send().await?.success()?.text()
}

/// Deletes the token and revokes it at the provider.
async fn forget(_: SameOrigin, connections: Connections) -> Result<Redirect, ConnectedRejection> {
    connections.disconnect("github").await.map_err(|error| connections.reject("github", error))?;
    Ok(Redirect::to("/"))
}
