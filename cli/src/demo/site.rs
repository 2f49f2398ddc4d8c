//! The routes of the demo. Each responds with a page for a browser, and with JSON for a program.

use axum::Json;
use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use oauth_dance::{
    ApiResponse, ConnectError, ConnectedRejection, Connection, Connections, OAuth, Revocation, SameOrigin, Timestamp,
    Token,
};
use serde_json::{Value, json};

use super::pages::{self, CallPage, ConnectionsPage, ErrorPage};

/// The state that all handlers share.
#[derive(Clone)]
struct Site {
    oauth: OAuth,
    storage: &'static str,
}

impl FromRef<Site> for OAuth {
    fn from_ref(site: &Site) -> Self {
        site.oauth.clone()
    }
}

pub(super) fn router(oauth: OAuth, storage: &'static str) -> Router {
    Router::new()
        .route("/", get(connections))
        .route("/me/{name}", get(me))
        .route("/disconnect/{name}", post(disconnect))
        .route("/style.css", get(pages::style))
        .fallback(|headers: HeaderMap| async move { not_found(&headers) })
        .merge(oauth.routes())
        .layer(oauth.layer())
        .layer(map_response(secure))
        .with_state(Site { oauth, storage })
}

/// One row of the page of connections.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) connection: Result<Option<Connection>, ConnectError>,
}

async fn connections(State(site): State<Site>, connections: Connections, headers: HeaderMap) -> Response {
    let mut rows = Vec::new();
    for (name, title) in site.oauth.providers() {
        let connection = connections.connection(name).await;
        rows.push(Row { name: name.to_owned(), title: title.to_owned(), connection });
    }
    let failed = rows.iter().filter_map(|row| row.connection.as_ref().err()).map(ConnectError::status).max();
    let status = failed.unwrap_or(StatusCode::OK);
    if wants_json(&headers) {
        let providers: Vec<_> = rows.iter().map(|row| row_json(&site.oauth, row)).collect();
        return (status, Json(json!({ "providers": providers }))).into_response();
    }
    (status, ConnectionsPage::new(&site.oauth, &rows, site.storage)).into_response()
}

fn row_json(oauth: &OAuth, row: &Row) -> Value {
    let connection = row.connection.as_ref().ok().and_then(Option::as_ref);
    let token = connection.map(|connection| &connection.token);
    json!({
        "name": row.name,
        "title": row.title,
        "connected": connection.is_some(),
        "status": connection.map(|connection| crate::state::state_name(&connection.state)),
        "expires_at": token.and_then(Token::expires_at).map(Timestamp::as_unix_seconds),
        "refreshable": token.and_then(|token| token.as_oauth2()).is_some_and(|token| token.refresh_token.is_some()),
        "scope": token.and_then(|token| token.scope()),
        "error": row.connection.as_ref().err().map(ConnectError::code),
        "login": oauth.login_path(&row.name),
    })
}

/// Calls the provider's userinfo endpoint with the user's token.
async fn me(
    Path(name): Path<String>,
    State(site): State<Site>,
    connections: Connections,
    headers: HeaderMap,
) -> Result<Response, ConnectedRejection> {
    let client = match connections.client(&name).await {
        Ok(client) => client,
        Err(ConnectError::UnknownProvider(_)) => return Ok(not_found(&headers)),
        Err(error) if error.needs_login() || wants_json(&headers) => return Err(connections.reject(&name, error)),
        Err(error) => return Ok(ErrorPage::new(error.status(), &error.to_string()).into_response()),
    };
    let title = site.oauth.providers().find(|(found, _)| *found == name).map_or(name.as_str(), |(_, title)| title);
    let response =
        client.userinfo().send().await.and_then(ApiResponse::success).and_then(|response| response.json::<Value>());
    Ok(match (response, wants_json(&headers)) {
        (Ok(response), true) => Json(response).into_response(),
        (Ok(response), false) => CallPage::new(title, &response).into_response(),
        (Err(error), is_program) if is_program || error.needs_authorization() => error.into_response(),
        (Err(error), _) => ErrorPage::new(error.status(), &error.to_string()).into_response(),
    })
}

async fn disconnect(
    _: SameOrigin,
    Path(name): Path<String>,
    connections: Connections,
    headers: HeaderMap,
) -> Result<Response, ConnectedRejection> {
    let (removed, revocation) = match connections.disconnect(&name).await {
        Ok(done) => (done.removed, done.revocation),
        Err(ConnectError::NotConnected) => (false, Revocation::NotPossible),
        Err(ConnectError::UnknownProvider(_)) => return Ok(not_found(&headers)),
        Err(error) if wants_json(&headers) => return Err(connections.reject(&name, error)),
        Err(error) => return Ok(ErrorPage::new(error.status(), &error.to_string()).into_response()),
    };
    if wants_json(&headers) {
        let revoked = revocation == Revocation::Done;
        return Ok(Json(json!({ "disconnected": removed, "revoked": revoked })).into_response());
    }
    Ok(Redirect::to("/").into_response())
}

fn not_found(headers: &HeaderMap) -> Response {
    if wants_json(headers) {
        return (StatusCode::NOT_FOUND, Json(json!({ "error": "not_found" }))).into_response();
    }
    ErrorPage::new(StatusCode::NOT_FOUND, "this page does not exist").into_response()
}

/// Whether the client is a program and not a browser.
fn wants_json(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("application/json") && !value.contains("text/html"))
}

/// Adds the security headers: a page differs by user, loads nothing from other origins, and must not be framed.
async fn secure(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
