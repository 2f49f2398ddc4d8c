//! One token for the whole application, for a bot: an administrator connects it, and it works for all users.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use oauth_dance::{
    ApiError, BeforeLogin, BoxError, ConfigError, ConnectError, ConnectedRejection, Connections, FailedLogin, Hooks,
    KeyRing, LoginError, OAuth, Registration, SameOrigin, TokenStorage, User,
};

use crate::people::Id;
use crate::sessions::{self, SignedIn};

/// The owner of the token: the bot, and no particular person.
pub fn bot() -> User {
    User::new("bot")
}

/// The application. Only this administrator can connect the bot. `own_pages` has the sign-in.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    slack: Registration,
    administrator: Id,
    own_pages: Router,
) -> Result<Router, ConfigError> {
    let oauth = OAuth::builder(base_url, storage, keys)
        .provider(slack)
        .user(move |SignedIn(id): SignedIn| async move { (id == Some(administrator)).then(bot) })
        .hooks(AdministratorsOnly)
        .build()?;
    Ok(Router::new()
        .route("/announce", post(announce))
        .route("/bot", get(state))
        .route("/bot/disconnect", post(disconnect))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(sessions::layer(base_url)))
}

/// Any visitor can make the bot post a message. A background job would do the same.
async fn announce(State(oauth): State<OAuth>) -> Result<String, Unavailable> {
    let slack = oauth.client("slack", &bot()).await?;
    let answer = slack.post("/chat.postMessage").json(&serde_json::json!({ "text": "hello" })).send().await?;
    Ok(answer.success()?.text()?)
}

/// Shows to any visitor whether the bot is connected.
async fn state(State(oauth): State<OAuth>) -> Result<&'static str, Unavailable> {
    Ok(if oauth.connection("slack", &bot()).await?.is_some() { "connected" } else { "not connected" })
}

/// For the administrator only. For all others, no user is signed in.
async fn disconnect(_: SameOrigin, connections: Connections) -> Result<Redirect, ConnectedRejection> {
    connections.disconnect("slack").await.map_err(|error| connections.reject("slack", error))?;
    Ok(Redirect::to("/bot"))
}

/// The bot does not work. No visitor can repair it, so no visitor is sent to a login.
struct Unavailable(BoxError);

impl From<ConnectError> for Unavailable {
    fn from(error: ConnectError) -> Self {
        Self(error.into())
    }
}

impl From<ApiError> for Unavailable {
    fn from(error: ApiError) -> Self {
        Self(error.into())
    }
}

impl axum::response::IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        // Log the error here. It contains no secret.
        let Self(_error) = self;
        (StatusCode::SERVICE_UNAVAILABLE, "the bot is away").into_response()
    }
}

struct AdministratorsOnly;

#[async_trait]
impl Hooks for AdministratorsOnly {
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        if login.user.is_some() { Ok(()) } else { Err(NotAllowed.into()) }
    }

    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        match failure.error {
            LoginError::Hook(error) if error.is::<NotAllowed>() => {
                Some((StatusCode::FORBIDDEN, "for administrators").into_response())
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only an administrator may connect the bot")
    }
}

impl Error for NotAllowed {}
