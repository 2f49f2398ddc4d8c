//! Several providers for each user, several accounts at each of them, and one page for all.
//!
//! Each account is stored under the provider's own identifier of it.

use std::fmt::Write as _;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use oauth_dance::{
    Authorized, BoxError, ConfigError, ConnectedRejection, ConnectionState, Connections, Decision, Hooks, KeyRing,
    OAuth, Registration, SameOrigin, TokenStorage,
};
use serde_json::Value;

use crate::create_or_login::subject;
use crate::sessions::{self, SignedIn};

/// The application. `own_pages` has the sign-in.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    providers: impl IntoIterator<Item = Registration>,
    own_pages: Router,
) -> Result<Router, ConfigError> {
    let mut builder = OAuth::builder(base_url, storage, keys)
        .user(|signed_in: SignedIn| async move { signed_in.user() })
        .hooks(EveryAccount);
    for provider in providers {
        builder = builder.provider(provider);
    }
    let oauth = builder.build()?;
    Ok(Router::new()
        .route("/connections", get(all))
        .route("/connections/{provider}/{account}/me", get(me))
        .route("/connections/{provider}/{account}/disconnect", post(disconnect))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(sessions::layer(base_url)))
}

/// Stores each account that a user connects. Another login with the same account replaces its token.
struct EveryAccount;

#[async_trait]
impl Hooks for EveryAccount {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let identity: Value = login.client.userinfo().send().await?.success()?.json()?;
        let subject = subject(&identity).ok_or("the provider did not identify the user")?;
        Ok(Decision::store().as_account(subject))
    }
}

/// Each account of the user, and the state of its connection.
async fn all(State(oauth): State<OAuth>, connections: Connections) -> Result<String, ConnectedRejection> {
    let mut page = String::new();
    let accounts = connections.accounts().await.map_err(|error| connections.reject("", error))?;
    for account in accounts {
        let found = oauth.connection(&account.provider, &account.user).await;
        let found = found.map_err(|error| connections.reject(&account.provider, error))?;
        let stands = match found.map(|connection| connection.state) {
            None => continue,
            Some(ConnectionState::NeedsAuthorization { .. }) => "to be connected again",
            Some(_) => "connected",
        };
        let name = account.user.account().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{} {name}: {stands}", account.provider);
    }
    Ok(page)
}

/// Calls the API with the account in the path. A path cannot name another user's account.
async fn me(
    connections: Connections,
    Path((provider, account)): Path<(String, String)>,
) -> Result<Response, ConnectedRejection> {
    let client = connections.at_account(account).client(&provider).await;
    let client = client.map_err(|error| connections.reject(&provider, error))?;
    Ok(match client.userinfo().send().await.and_then(|answer| answer.success()?.text()) {
        Ok(text) => text.into_response(),
        Err(error) => error.into_response(),
    })
}

async fn disconnect(
    _: SameOrigin,
    connections: Connections,
    Path((provider, account)): Path<(String, String)>,
) -> Result<Redirect, ConnectedRejection> {
    let done = connections.at_account(account).disconnect(&provider).await;
    done.map_err(|error| connections.reject(&provider, error))?;
    Ok(Redirect::to("/connections"))
}
