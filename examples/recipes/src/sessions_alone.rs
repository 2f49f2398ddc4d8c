//! Tower-sessions without another storage: tokens are stored in the visitor's session.
//!
//! Use it for a site that needs tokens only in the visitors' own requests. Background jobs, lists, and a refresh that
//! is done once on any number of replicas need a shared storage.

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use oauth_dance::presets::GitHub;
use oauth_dance::{
    ApiError, ConfigError, Connected, ConnectedRejection, Connections, KeyRing, OAuth, Registration, SameOrigin,
};
use oauth_dance_session::SessionTokens;
use tower_sessions::cookie::SameSite;
use tower_sessions::{MemoryStore, SessionManagerLayer};

/// The application. The session gets a new id when a token is put into it.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(base_url: &str, keys: KeyRing, github: Registration) -> Result<Router, ConfigError> {
    let store = MemoryStore::default();
    let sessions = SessionManagerLayer::new(store.clone())
        .with_secure(base_url.starts_with("https:"))
        .with_same_site(SameSite::Lax);
    let oauth = OAuth::per_request(base_url, keys).provider(github).anonymous_users().build()?;
    Ok(Router::new()
        .route("/me", get(me))
        .route("/forget", post(forget))
        .merge(oauth.routes())
        .layer(oauth.layer())
        .with_state(oauth)
        .layer(SessionTokens::new(store))
        .layer(sessions))
}

async fn me(github: Connected<GitHub>) -> Result<String, ApiError> {
    github.userinfo().send().await?.success()?.text()
}

async fn forget(_: SameOrigin, connections: Connections) -> Result<Redirect, ConnectedRejection> {
    connections.disconnect("github").await.map_err(|error| connections.reject("github", error))?;
    Ok(Redirect::to("/me"))
}
