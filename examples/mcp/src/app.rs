//! The routes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use oauth_dance_mcp::{LoginCallback, LoginRequest, McpConnection, McpConnector, McpServer};
use rmcp::ServiceExt as _;
use rmcp::model::{CallToolRequestParams, CallToolResult};
use serde::Deserialize;
use serde_json::json;

use crate::pages;
use crate::users::{self, User};

/// What all requests share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) mcp: McpConnector,
    pub(crate) servers: Arc<BTreeMap<String, McpServer>>,
    pub(crate) session_key: cookie::Key,
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", post(sign_in))
        .route("/mcp/{server}/connect", post(connect))
        .route("/mcp/{server}/callback", get(callback))
        .route("/mcp/{server}/disconnect", post(disconnect))
        .route("/mcp/{server}/call/{tool}", get(call))
        .with_state(app)
}

impl App {
    fn connection(&self, server: &str, user: &User) -> Result<McpConnection, Failure> {
        let server = self.servers.get(server).ok_or(Failure::NotFound)?;
        Ok(self.mcp.connection(server, &user.0)?)
    }
}

async fn home(State(app): State<App>, headers: HeaderMap) -> Result<Html<String>, Failure> {
    let Some(user) = users::read(&headers, &app) else { return Ok(Html(pages::sign_in())) };
    let mut servers = Vec::new();
    for name in app.servers.keys() {
        servers.push((name.as_str(), app.connection(name, &user)?.status().await?));
    }
    Ok(Html(pages::servers(&user.0, &servers)))
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

async fn sign_in(State(app): State<App>, Form(form): Form<SignIn>) -> Response {
    (users::sign_in(&form.user, &app), Redirect::to("/")).into_response()
}

#[derive(Deserialize)]
struct Connect {
    /// The scopes to request in addition, as an error of a call names them.
    #[serde(default)]
    scope: String,
}

async fn connect(
    State(app): State<App>,
    Path(server): Path<String>,
    user: User,
    Form(form): Form<Connect>,
) -> Result<Redirect, Failure> {
    let request = LoginRequest::default().with_scopes(form.scope.split_whitespace());
    Ok(Redirect::to(&app.connection(&server, &user)?.start_login(request).await?))
}

/// The browser returns from the authorization server, to any replica.
async fn callback(
    State(app): State<App>,
    Path(server): Path<String>,
    user: User,
    Query(query): Query<LoginCallback>,
) -> Result<Redirect, Failure> {
    app.connection(&server, &user)?.finish_login(query).await?;
    Ok(Redirect::to("/"))
}

async fn disconnect(State(app): State<App>, Path(server): Path<String>, user: User) -> Result<Redirect, Failure> {
    app.connection(&server, &user)?.disconnect().await?;
    Ok(Redirect::to("/"))
}

/// Calls a tool with the user's token. An application would hold the client for a conversation instead.
async fn call(
    State(app): State<App>,
    Path((server, tool)): Path<(String, String)>,
    user: User,
) -> Result<Json<CallToolResult>, Failure> {
    let client = ().serve(app.connection(&server, &user)?.transport()).await?;
    let called = client.call_tool(CallToolRequestParams::new(tool)).await;
    let _ = client.cancel().await;
    Ok(Json(called?))
}

/// Why a request failed.
pub(crate) enum Failure {
    NotFound,
    /// The server requires a login, or further scopes. This is its challenge.
    Login(String),
    Other(Box<dyn Error + Send + Sync>),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Login(challenge) => (StatusCode::UNAUTHORIZED, Json(json!({ "login": challenge }))).into_response(),
            Self::Other(error) => {
                let text = pages::with_causes(&*error);
                (StatusCode::BAD_GATEWAY, Json(json!({ "error": text }))).into_response()
            }
        }
    }
}

impl From<oauth_dance_mcp::McpError> for Failure {
    fn from(error: oauth_dance_mcp::McpError) -> Self {
        Self::Other(error.into())
    }
}

impl From<rmcp::service::ClientInitializeError> for Failure {
    fn from(error: rmcp::service::ClientInitializeError) -> Self {
        error.auth_challenge().map(str::to_owned).map_or_else(|| Self::Other(error.into()), Self::Login)
    }
}

impl From<rmcp::ServiceError> for Failure {
    fn from(error: rmcp::ServiceError) -> Self {
        error.auth_challenge().map(str::to_owned).map_or_else(|| Self::Other(error.into()), Self::Login)
    }
}
