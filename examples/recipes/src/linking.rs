//! Users of [`create_or_login`](crate::create_or_login) link more accounts, and unlink them.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use oauth_dance::{
    ConfigError, ConnectedRejection, Connections, KeyRing, OAuth, Registration, SameOrigin, TokenStorage,
};

use crate::create_or_login::CreateOrLogin;
use crate::people::People;
use crate::sessions::{self, SignedIn};

/// The application.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    providers: impl IntoIterator<Item = Registration>,
    people: People,
) -> Result<Router, ConfigError> {
    let mut builder = OAuth::builder(base_url, storage, keys)
        .user(|signed_in: SignedIn| async move { signed_in.user() })
        .hooks(CreateOrLogin { people: people.clone() });
    for provider in providers {
        builder = builder.provider(provider);
    }
    let oauth = builder.build()?;
    Ok(Router::new()
        .route("/accounts", get(accounts))
        .route("/unlink/{provider}", post(unlink))
        .merge(oauth.routes())
        .with_state(oauth)
        .layer(Extension(people))
        .layer(sessions::layer(base_url)))
}

/// Lists the linked accounts. A page would have a form for each provider: `<form method="post" action="/login/github">`
/// to link, and `<form method="post" action="/unlink/github">` to unlink.
async fn accounts(SignedIn(id): SignedIn, Extension(people): Extension<People>) -> Response {
    let Some(id) = id else { return Redirect::to("/login/github?next=/accounts").into_response() };
    let identities = people.identities(id);
    let lines: Vec<_> = identities.iter().map(|identity| identity.provider.as_str()).collect();
    lines.join("\n").into_response()
}

/// Deletes the token, revokes it at the provider, and removes the account as a way to sign in, unless it is the last
/// one.
async fn unlink(
    _: SameOrigin,
    SignedIn(id): SignedIn,
    Path(provider): Path<String>,
    connections: Connections,
    Extension(people): Extension<People>,
) -> Result<Response, ConnectedRejection> {
    let Some(id) = id else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let last = (StatusCode::CONFLICT, "This is your last way to sign in. Link another account first.");
    if !people.has_others(id, &provider) {
        return Ok(last.into_response());
    }
    connections.disconnect(&provider).await.map_err(|error| connections.reject(&provider, error))?;
    // Checked again in the same step, because two requests may be in progress.
    if !people.unlink(id, &provider) {
        return Ok(last.into_response());
    }
    Ok(Redirect::to("/accounts").into_response())
}
