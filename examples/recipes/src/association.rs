//! Users sign in to the application as usual, and connect their accounts at other sites.

use async_trait::async_trait;
use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use oauth_dance::presets::GitHub;
use oauth_dance::{
    ApiError, BeforeLogin, BoxError, ConfigError, Connected, ConnectedRejection, Connections, FailedLogin, Hooks,
    KeyRing, LoginError, OAuth, Registration, SameOrigin, TokenStorage,
};

use crate::sessions::{self, SignedIn};

/// The application. `own_pages` has the sign-in, at `/sign-in`.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    github: Registration,
    own_pages: Router,
) -> Result<Router, ConfigError> {
    let oauth = OAuth::builder(base_url, storage, keys)
        .provider(github)
        .user(|signed_in: SignedIn| async move { signed_in.user() })
        .hooks(MembersOnly)
        .build()?;
    Ok(Router::new()
        .route("/me", get(me))
        .route("/disconnect", post(disconnect))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(sessions::layer(base_url)))
}

async fn me(github: Connected<GitHub>) -> Result<String, ApiError> {
    github.userinfo().send().await?.success()?.text()
}

async fn disconnect(_: SameOrigin, connections: Connections) -> Result<Redirect, ConnectedRejection> {
    connections.disconnect("github").await.map_err(|error| connections.reject("github", error))?;
    Ok(Redirect::to("/"))
}

/// Sends visitors to the application's own sign-in before they are sent to a provider.
struct MembersOnly;

#[async_trait]
impl Hooks for MembersOnly {
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        if login.user.is_some() { Ok(()) } else { Err(NotSignedIn.into()) }
    }

    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        match failure.error {
            LoginError::Hook(error) if error.is::<NotSignedIn>() => Some(Redirect::to("/sign-in").into_response()),
            // The user signed out while they were at the provider.
            LoginError::NoUser => Some(Redirect::to("/sign-in").into_response()),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct NotSignedIn;

impl std::fmt::Display for NotSignedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody is signed in")
    }
}

impl std::error::Error for NotSignedIn {}
