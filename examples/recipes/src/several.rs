//! Several providers for each user, with one page for all of them.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use oauth_dance::{
    ConfigError, ConnectedRejection, ConnectionState, Connections, KeyRing, OAuth, Registration, SameOrigin,
    TokenStorage,
};

use crate::sessions::{self, SignedIn};

/// The application. `own_pages` has the sign-in.
///
/// # Errors
/// What is wrong with the configuration.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    providers: impl IntoIterator<Item = Registration>,
    own_pages: Router,
) -> Result<Router, ConfigError> {
    let mut builder =
        OAuth::builder(base_url, storage, keys).user(|signed_in: SignedIn| async move { signed_in.user() });
    for provider in providers {
        builder = builder.provider(provider);
    }
    let oauth = builder.build()?;
    Ok(Router::new()
        .route("/connections", get(all))
        .route("/connections/{provider}/me", get(me))
        .route("/connections/{provider}/disconnect", post(disconnect))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(sessions::layer(base_url)))
}

/// Each provider, and how the user's connection to it stands.
async fn all(State(oauth): State<OAuth>, connections: Connections) -> Result<String, ConnectedRejection> {
    let mut page = String::new();
    for (provider, title) in oauth.providers() {
        let found = connections.connection(provider).await.map_err(|error| connections.reject(provider, error))?;
        let stands = match found.map(|connection| connection.state) {
            None => "not connected",
            Some(ConnectionState::NeedsAuthorization { .. }) => "to be connected again",
            Some(_) => "connected",
        };
        // Writing to a string does not fail.
        let _ = writeln!(page, "{title}: {stands}");
    }
    Ok(page)
}

/// A call of whichever provider the path names.
async fn me(connections: Connections, Path(provider): Path<String>) -> Result<Response, ConnectedRejection> {
    let client = connections.client(&provider).await.map_err(|error| connections.reject(&provider, error))?;
    Ok(match client.userinfo().send().await.and_then(|answer| answer.success()?.text()) {
        Ok(text) => text.into_response(),
        Err(error) => error.into_response(),
    })
}

async fn disconnect(
    _: SameOrigin,
    connections: Connections,
    Path(provider): Path<String>,
) -> Result<Redirect, ConnectedRejection> {
    connections.disconnect(&provider).await.map_err(|error| connections.reject(&provider, error))?;
    Ok(Redirect::to("/connections"))
}
