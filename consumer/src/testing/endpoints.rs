use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, StatusCode, header};
use oauth_dance_core::OAuth2Token;
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use super::answer::{Answer, Usual};
use super::grants::{Authorization, InvalidGrant};
use super::log::LoggedRequest;
use super::wire::Connection;
use super::{CLIENT, Settings, Shared};

/// An endpoint of a [`TestProvider`](super::TestProvider).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `/authorize`.
    Authorization,
    /// `/token`.
    Token,
    /// `/revoke`.
    Revocation,
    /// `/userinfo`.
    Userinfo,
    /// `/api` and below.
    Api,
    /// Everything else.
    Other,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/authorize" => Self::Authorization,
            "/token" => Self::Token,
            "/revoke" => Self::Revocation,
            "/userinfo" => Self::Userinfo,
            _ if path == "/api" || path.starts_with("/api/") => Self::Api,
            _ => Self::Other,
        }
    }
}

pub(super) async fn handle(
    State((shared, issuer)): State<(Arc<Shared>, String)>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    if request.uri().path() == "/counters" {
        return axum::Json(shared.grants().counters()).into_response();
    }
    let request = LoggedRequest::read(request).await;
    shared.log().push(request.clone());
    let scripted = shared.script().get_mut(&request.endpoint).and_then(std::collections::VecDeque::pop_front);
    let answer = scripted.unwrap_or_else(Answer::normal);
    answer.give(|| usual(&shared, &issuer, &request), &connection, &shared.streamed).await
}

fn usual(shared: &Shared, issuer: &str, request: &LoggedRequest) -> Usual {
    let settings = shared.settings().clone();
    match (request.endpoint, &request.method) {
        (Endpoint::Authorization, &Method::GET) => authorize(shared, &settings, issuer, request),
        (Endpoint::Token, &Method::POST) => token(shared, &settings, request),
        (Endpoint::Revocation, &Method::POST) => revoke(shared, &settings, request),
        (Endpoint::Userinfo, &Method::GET) => with_user(shared, &settings, request, |user, _| json!({ "sub": user })),
        (Endpoint::Api, _) => with_user(shared, &settings, request, |user, scope| echo(request, user, scope)),
        _ => Usual::error(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
    }
}

/// RFC 6749 section 4.1.1 with RFC 7636 section 4.3. What is wrong with a request is told, not redirected.
fn authorize(shared: &Shared, settings: &Settings, issuer: &str, request: &LoggedRequest) -> Usual {
    let parameter = |name| request.parameter(name);
    let (Some(client), Some(redirect_uri), Some(state)) =
        (parameter("client_id"), parameter("redirect_uri"), parameter("state"))
    else {
        return Usual::invalid_request("client_id, redirect_uri and state are required, once each");
    };
    let Ok(mut callback) = Url::parse(redirect_uri) else {
        return Usual::invalid_request("redirect_uri is not a URL");
    };
    if secret_of(settings, client).is_none() || parameter("response_type") != Some("code") {
        return Usual::invalid_request("there is no such client or response type");
    }
    let (Some(challenge), Some("S256")) = (parameter("code_challenge"), parameter("code_challenge_method")) else {
        return Usual::invalid_request("PKCE with S256 is required");
    };
    let authorization = Authorization {
        client: client.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        challenge: challenge.to_owned(),
        user: parameter("login_hint").unwrap_or(&settings.user).to_owned(),
        scope: parameter("scope").unwrap_or_default().to_owned(),
    };
    let (name, value) = match &settings.refuses {
        Some(error) => ("error", error.clone()),
        None => ("code", shared.grants().code(settings, authorization)),
    };
    callback.query_pairs_mut().append_pair(name, &value).append_pair("state", state);
    if settings.issuer_parameter {
        callback.query_pairs_mut().append_pair("iss", issuer);
    }
    Usual::redirect(callback.as_str())
}

fn token(shared: &Shared, settings: &Settings, request: &LoggedRequest) -> Usual {
    let client = match authenticate(settings, request) {
        Ok(client) => client,
        Err(why) => return invalid_client(why),
    };
    let mut grants = shared.grants();
    let field = |name| request.field(name);
    let granted = match field("grant_type") {
        Some("authorization_code") => {
            let (Some(code), Some(redirect_uri), Some(verifier)) =
                (field("code"), field("redirect_uri"), field("code_verifier"))
            else {
                return Usual::invalid_request("code, redirect_uri and code_verifier are required, once each");
            };
            grants.redeem_code(settings, &client, code, redirect_uri, verifier)
        }
        Some("refresh_token") => match field("refresh_token") {
            Some(refresh_token) => grants.refresh(settings, &client, refresh_token),
            None => return Usual::invalid_request("refresh_token is required, once"),
        },
        _ => return Usual::error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type is not supported"),
    };
    match granted {
        Ok(token) => Usual::json(StatusCode::OK, members(settings, &token)),
        Err(InvalidGrant(why)) => Usual::error(StatusCode::BAD_REQUEST, "invalid_grant", why),
    }
}

fn members(settings: &Settings, token: &OAuth2Token) -> Value {
    let mut members = Map::new();
    members.insert("access_token".to_owned(), token.access_token.expose().into());
    members.insert("token_type".to_owned(), "Bearer".into());
    members.insert("expires_in".to_owned(), settings.access_token_lifetime.as_secs().into());
    members.insert("scope".to_owned(), token.scope.as_deref().unwrap_or_default().join(" ").into());
    if let Some(refresh_token) = &token.refresh_token {
        members.insert("refresh_token".to_owned(), refresh_token.expose().into());
    }
    members.into()
}

fn revoke(shared: &Shared, settings: &Settings, request: &LoggedRequest) -> Usual {
    if let Err(why) = authenticate(settings, request) {
        return invalid_client(why);
    }
    match request.field("token") {
        Some(token) => {
            shared.grants().revoke(token);
            Usual::empty(StatusCode::OK)
        }
        None => Usual::invalid_request("token is required, once"),
    }
}

/// The client, if it authenticates in exactly one way (RFC 6749 section 2.3).
fn authenticate(settings: &Settings, request: &LoggedRequest) -> Result<String, &'static str> {
    let (client, secret) = match request.headers.get(header::AUTHORIZATION) {
        Some(_) if request.field("client_secret").is_some() => return Err("it authenticates twice"),
        Some(value) => {
            let (client, secret) = basic(value).ok_or("the credentials cannot be read")?;
            (client, Some(secret))
        }
        None => {
            let client = request.field("client_id").ok_or("there are no credentials")?;
            (client.to_owned(), request.field("client_secret").map(str::to_owned))
        }
    };
    match secret_of(settings, &client) {
        Some(expected) if expected == secret => Ok(client),
        _ => Err("the credentials are wrong"),
    }
}

fn invalid_client(why: &str) -> Usual {
    Usual::error(StatusCode::UNAUTHORIZED, "invalid_client", why)
}

/// Both parts of HTTP Basic are form-encoded (RFC 6749 section 2.3.1).
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let decoded = STANDARD.decode(value.to_str().ok()?.strip_prefix("Basic ")?).ok()?;
    let (client, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let decode = |text: &str| {
        let mut pairs = form_urlencoded::parse(text.as_bytes());
        Some(pairs.next()?.0.into_owned())
    };
    Some((decode(client)?, decode(secret)?))
}

/// The secret of a client, which a public one does not have; `None` if there is no such client.
fn secret_of(settings: &Settings, client: &str) -> Option<Option<String>> {
    if client == CLIENT.0 { Some(Some(CLIENT.1.to_owned())) } else { settings.clients.get(client).cloned() }
}

fn with_user(
    shared: &Shared,
    settings: &Settings,
    request: &LoggedRequest,
    body: impl FnOnce(&str, &str) -> Value,
) -> Usual {
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match token.and_then(|token| shared.grants().user_of(settings, token)) {
        Some((user, scope)) => Usual::json(StatusCode::OK, body(&user, &scope)),
        None => Usual::error(StatusCode::UNAUTHORIZED, "invalid_token", "there is no good token")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\"")),
    }
}

fn echo(request: &LoggedRequest, user: &str, scope: &str) -> Value {
    json!({
        "user": user,
        "scope": scope,
        "method": request.method.as_str(),
        "path": request.path,
        "query": request.query,
        "form": request.form,
        "body": String::from_utf8_lossy(&request.body),
    })
}
