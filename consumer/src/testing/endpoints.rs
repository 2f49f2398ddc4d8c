use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use oauth_dance_core::OAuth2Token;
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use super::answer::{Answer, Usual};
use super::dpop::BadProof;
use super::grants::{Authorization, InvalidGrant};
use super::log::{LoggedRequest, only};
use super::oauth1;
#[cfg(feature = "oidc")]
use super::openid;
use super::wire::Connection;
use super::{CLIENT, Settings, Shared};

/// An endpoint of a [`TestProvider`](super::TestProvider).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `/oauth1/temporary`.
    TemporaryCredentials,
    /// `/authorize` and `/oauth1/authorize`.
    Authorization,
    /// `/par`.
    PushedRequest,
    /// `/token` and `/oauth1/token`.
    Token,
    /// `/revoke`.
    Revocation,
    /// `/userinfo`.
    Userinfo,
    /// `/api` and below.
    Api,
    /// `/.well-known/openid-configuration`.
    Metadata,
    /// `/jwks`.
    Keys,
    /// `/end_session`.
    EndSession,
    /// Everything else.
    Other,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/oauth1/temporary" => Self::TemporaryCredentials,
            "/authorize" | "/oauth1/authorize" => Self::Authorization,
            "/par" => Self::PushedRequest,
            "/token" | "/oauth1/token" => Self::Token,
            "/revoke" => Self::Revocation,
            "/userinfo" => Self::Userinfo,
            "/.well-known/openid-configuration" => Self::Metadata,
            "/jwks" => Self::Keys,
            "/end_session" => Self::EndSession,
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
    let answer = answer(shared, &settings, issuer, request);
    match settings.dpop_nonce.as_deref().map(HeaderValue::from_str) {
        Some(Ok(nonce)) => answer.with_header(HeaderName::from_static("dpop-nonce"), nonce),
        _ => answer,
    }
}

fn answer(shared: &Shared, settings: &Settings, issuer: &str, request: &LoggedRequest) -> Usual {
    if let Some(answer) = oauth1::usual(shared, settings, issuer, request) {
        return answer;
    }
    match (request.endpoint, &request.method) {
        (Endpoint::Authorization, &Method::GET) => authorize(shared, settings, issuer, request),
        (Endpoint::PushedRequest, &Method::POST) => push(shared, settings, issuer, request),
        (Endpoint::Token, &Method::POST) => token(shared, settings, issuer, request),
        (Endpoint::Revocation, &Method::POST) => revoke(shared, settings, request),
        (Endpoint::Userinfo, &Method::GET) => {
            with_user(shared, settings, issuer, request, |user, _| json!({ "sub": user }))
        }
        #[cfg(feature = "oidc")]
        (Endpoint::Metadata, &Method::GET) => Usual::json(StatusCode::OK, openid::metadata(settings, issuer)),
        #[cfg(feature = "oidc")]
        (Endpoint::Keys, &Method::GET) => Usual::json(StatusCode::OK, openid::keys(shared, settings)),
        (Endpoint::EndSession, &Method::GET) => end_session(request),
        (Endpoint::Api, _) => with_user(shared, settings, issuer, request, |user, scope| echo(request, user, scope)),
        _ => Usual::error(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
    }
}

/// RFC 6749 section 4.1.1 with RFC 7636 section 4.3. What is wrong with a request is told, not redirected.
fn authorize(shared: &Shared, settings: &Settings, issuer: &str, request: &LoggedRequest) -> Usual {
    let pushed = match request.parameter("request_uri").map(|request_uri| shared.grants().pushed(request_uri)) {
        Some(None) => return Usual::invalid_request("there is no such request_uri, or it was used before"),
        None if settings.requires_pushed_requests => return Usual::invalid_request("the request must be pushed"),
        Some(Some(pushed)) if only(&pushed, "client_id") != request.parameter("client_id") => {
            return Usual::invalid_request("the request was pushed by another client");
        }
        pushed => pushed.flatten(),
    };
    let params = pushed.as_ref().unwrap_or(&request.query);
    let parameter = |name| only(params, name);
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
        jkt: parameter("dpop_jkt").map(str::to_owned),
        nonce: parameter("nonce").map(str::to_owned),
    };
    let (name, value) = match &settings.refuses {
        Some(error) => ("error", error.clone()),
        None => ("code", shared.grants().code(settings, authorization)),
    };
    let mut answer = vec![(name, value.as_str()), ("state", state)];
    if settings.issuer_parameter {
        answer.push(("iss", issuer));
    }
    if parameter("response_mode") == Some("form_post") {
        answer.extend(settings.posted_user.as_deref().map(|user| ("user", user)));
        return Usual::form_page(callback.as_str(), &answer);
    }
    callback.query_pairs_mut().extend_pairs(answer);
    Usual::redirect(callback.as_str())
}

/// RFC 9126 section 2.1, with RFC 9449 section 10.1.
fn push(shared: &Shared, settings: &Settings, issuer: &str, request: &LoggedRequest) -> Usual {
    match authenticate(settings, request) {
        Ok(client) if request.field("client_id") == Some(&client) => {}
        Ok(_) => return Usual::invalid_request("client_id is required, once, and must be the client's own"),
        Err(why) => return invalid_client(why),
    }
    if request.form.iter().any(|(name, _)| name == "request_uri") {
        return Usual::invalid_request("request_uri cannot be pushed");
    }
    let jkt = match shared.proofs().check(settings, issuer, request, None) {
        Ok(jkt) => jkt,
        Err(bad) => return bad_proof(StatusCode::BAD_REQUEST, &bad),
    };
    if jkt.is_some() && jkt.as_deref() != request.field("dpop_jkt") {
        return Usual::invalid_request("dpop_jkt is not the thumbprint of the key that is proved");
    }
    let params = request.form.iter().filter(|(name, _)| name != "client_secret").cloned().collect();
    let request_uri = shared.grants().push(settings, params);
    Usual::json(StatusCode::CREATED, json!({ "request_uri": request_uri, "expires_in": 60 }))
}

/// Asks nothing and ends no session, for there is none (OpenID Connect RP-Initiated Logout section 2).
fn end_session(request: &LoggedRequest) -> Usual {
    let back = request.parameter("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok());
    let Some(mut back) = back else { return Usual::empty(StatusCode::OK) };
    back.query_pairs_mut().extend_pairs(request.parameter("state").map(|state| ("state", state)));
    Usual::redirect(back.as_str())
}

fn token(shared: &Shared, settings: &Settings, issuer: &str, request: &LoggedRequest) -> Usual {
    let client = match authenticate(settings, request) {
        Ok(client) => client,
        Err(why) => return invalid_client(why),
    };
    let jkt = match shared.proofs().check(settings, issuer, request, None) {
        Ok(None) if settings.requires_dpop => {
            return bad_proof(StatusCode::BAD_REQUEST, &BadProof::Invalid("there is none"));
        }
        Ok(jkt) => jkt,
        Err(bad) => return bad_proof(StatusCode::BAD_REQUEST, &bad),
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
            grants.redeem_code(settings, &client, code, redirect_uri, verifier, jkt.as_deref())
        }
        Some("refresh_token") => match field("refresh_token") {
            Some(refresh_token) => grants.refresh(settings, &client, refresh_token, jkt.as_deref()),
            None => return Usual::invalid_request("refresh_token is required, once"),
        },
        _ => return Usual::error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type is not supported"),
    };
    match granted {
        Ok(token) => {
            #[cfg(feature = "oidc")]
            let token = {
                let user = grants.user_of(settings, token.access_token.expose(), jkt.as_deref());
                let nonce = field("code").and_then(|code| grants.nonce_of(code));
                let (user, _) = user.unwrap_or_default();
                openid::with_id_token(shared, settings, issuer, &client, (&user, nonce), token)
            };
            Usual::json(StatusCode::OK, members(settings, &token))
        }
        Err(InvalidGrant(why)) => Usual::error(StatusCode::BAD_REQUEST, "invalid_grant", why),
    }
}

fn members(settings: &Settings, token: &OAuth2Token) -> Value {
    let mut members = Map::new();
    members.insert("access_token".to_owned(), token.access_token.expose().into());
    members.insert("token_type".to_owned(), token.token_type.as_str().into());
    members.insert("expires_in".to_owned(), settings.access_token_lifetime.as_secs().into());
    members.insert("scope".to_owned(), token.scope.as_deref().unwrap_or_default().join(" ").into());
    if let Some(refresh_token) = &token.refresh_token {
        members.insert("refresh_token".to_owned(), refresh_token.expose().into());
    }
    if let Some(id_token) = &token.id_token {
        members.insert("id_token".to_owned(), id_token.expose().into());
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
pub(super) fn secret_of(settings: &Settings, client: &str) -> Option<Option<String>> {
    if client == CLIENT.0 { Some(Some(CLIENT.1.to_owned())) } else { settings.clients.get(client).cloned() }
}

fn with_user(
    shared: &Shared,
    settings: &Settings,
    issuer: &str,
    request: &LoggedRequest,
    body: impl FnOnce(&str, &str) -> Value,
) -> Usual {
    let (scheme, token) = request.header("authorization").and_then(|value| value.split_once(' ')).unwrap_or_default();
    let jkt = match scheme {
        "DPoP" => match shared.proofs().check(settings, issuer, request, Some(token)) {
            Ok(Some(jkt)) => Some(jkt),
            Ok(None) => return bad_proof(StatusCode::UNAUTHORIZED, &BadProof::Invalid("there is none")),
            Err(bad) => return bad_proof(StatusCode::UNAUTHORIZED, &bad),
        },
        _ => None,
    };
    let token = Some(token).filter(|_| ["Bearer", "DPoP"].contains(&scheme));
    match token.and_then(|token| shared.grants().user_of(settings, token, jkt.as_deref())) {
        Some((user, scope)) => Usual::json(StatusCode::OK, body(&user, &scope)),
        None => Usual::error(StatusCode::UNAUTHORIZED, "invalid_token", "there is no good token")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\"")),
    }
}

/// At an authorization server in the body (RFC 9449 sections 5 and 8), at an API in a challenge too (section 9).
fn bad_proof(status: StatusCode, bad: &BadProof) -> Usual {
    let (code, challenge, why) = match bad {
        BadProof::Nonce => ("use_dpop_nonce", "DPoP error=\"use_dpop_nonce\"", "the proof must have the nonce"),
        BadProof::Invalid(why) => ("invalid_dpop_proof", "DPoP error=\"invalid_dpop_proof\"", *why),
    };
    let answer = Usual::error(status, code, why);
    match status {
        StatusCode::UNAUTHORIZED => answer.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        _ => answer,
    }
}

pub(super) fn echo(request: &LoggedRequest, user: &str, scope: &str) -> Value {
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
