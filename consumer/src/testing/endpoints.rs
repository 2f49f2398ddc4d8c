//! The entry of every request: it is logged, and then processed, unless a scripted response takes the place of that.
//!
//! All paths have one handler, so that a request to a path that no endpoint has is logged too: it is the trace of a wrong
//! URL in the tested code.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

use super::log::LoggedRequest;
use super::metadata;
use super::oauth1;
#[cfg(feature = "oidc")]
use super::openid;
use super::reply::Reply;
use super::scripted_response::ScriptedResponse;
use super::wire::Connection;
use super::{Settings, Shared};

/// An endpoint of a [`TestProvider`](super::TestProvider), to script its responses and to find its requests in the log.
/// OAuth 1.0a has its own paths, and shares the endpoints with the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `/oauth1/temporary`.
    TemporaryCredentials,
    /// `/authorize` and `/oauth1/authorize`.
    Authorization,
    /// `/par`.
    PushedRequest,
    /// `/device_authorization`.
    DeviceAuthorization,
    /// `/device`, where a user enters the code of a device.
    Device,
    /// `/token` and `/oauth1/token`.
    Token,
    /// `/revoke`.
    Revocation,
    /// `/userinfo`.
    Userinfo,
    /// `/api` and below.
    Api,
    /// `/.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`.
    Metadata,
    /// `/jwks`.
    Keys,
    /// `/end_session`.
    EndSession,
    /// Any other path.
    Other,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/oauth1/temporary" => Self::TemporaryCredentials,
            "/authorize" | "/oauth1/authorize" => Self::Authorization,
            "/par" => Self::PushedRequest,
            "/device_authorization" => Self::DeviceAuthorization,
            "/device" => Self::Device,
            "/token" | "/oauth1/token" => Self::Token,
            "/revoke" => Self::Revocation,
            "/userinfo" => Self::Userinfo,
            "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server" => Self::Metadata,
            "/jwks" => Self::Keys,
            "/end_session" => Self::EndSession,
            _ if path == "/api" || path.starts_with("/api/") => Self::Api,
            _ => Self::Other,
        }
    }
}

pub(super) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let settings = shared.settings().clone();
    if request.uri().path() == "/counters" && settings.records_requests {
        return axum::Json(shared.grants().counters()).into_response();
    }
    let connection = request.extensions().get::<ConnectInfo<Connection>>().map(|ConnectInfo(found)| found.clone());
    let Some(request) = LoggedRequest::read(request, settings.max_body).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    if settings.records_requests {
        shared.log().push(request.clone());
    }
    let scripted = shared.script().get_mut(&request.endpoint).and_then(VecDeque::pop_front);
    let response = scripted.unwrap_or_else(ScriptedResponse::normal);
    let exchange = Exchange { shared: &shared, settings: &settings, request: &request };
    response.give(|| exchange.reply(), &connection.unwrap_or_default(), &shared.streamed).await
}

/// One request, with everything needed to reply to it.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) shared: &'a Shared,
    pub(super) settings: &'a Settings,
    pub(super) request: &'a LoggedRequest,
}

impl<'a> Exchange<'a> {
    pub(super) fn issuer(&self) -> &'a str {
        &self.shared.url
    }

    /// Reports an error of a browser's request to the user.
    pub(super) fn refuse(&self, status: StatusCode, code: &str, why: &str) -> Reply {
        match &self.settings.resource_owner {
            Some(owner) => owner.error_page(status, why).into(),
            None => Reply::error(status, code, why),
        }
    }

    fn reply(&self) -> Reply {
        let reply = oauth1::reply(self).unwrap_or_else(|| self.reply_oauth2());
        match self.settings.dpop_nonce.as_deref().map(HeaderValue::from_str) {
            Some(Ok(nonce)) => reply.with_header(HeaderName::from_static("dpop-nonce"), nonce),
            _ => reply,
        }
    }

    fn reply_oauth2(&self) -> Reply {
        match (self.request.endpoint, &self.request.method) {
            (Endpoint::Authorization, &Method::GET | &Method::POST) => self.authorize(),
            (Endpoint::PushedRequest, &Method::POST) => self.push(),
            (Endpoint::DeviceAuthorization, &Method::POST) => self.authorize_device(),
            (Endpoint::Device, &Method::GET | &Method::POST) => self.enter_user_code(),
            (Endpoint::Token, &Method::POST) => self.token(),
            (Endpoint::Revocation, &Method::POST) => self.revoke(),
            (Endpoint::Userinfo, &Method::GET) => self.userinfo(),
            (Endpoint::Metadata, &Method::GET) => {
                metadata::document(self).map_or_else(|| self.not_found(), |found| Reply::json(StatusCode::OK, found))
            }
            #[cfg(feature = "oidc")]
            (Endpoint::Keys, &Method::GET) => Reply::json(StatusCode::OK, openid::keys(self)),
            (Endpoint::EndSession, &Method::GET) => self.end_session(),
            (Endpoint::Api, _) => self.api(),
            (
                Endpoint::Authorization
                | Endpoint::PushedRequest
                | Endpoint::DeviceAuthorization
                | Endpoint::Device
                | Endpoint::Token
                | Endpoint::Revocation
                | Endpoint::Userinfo,
                _,
            ) => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
            _ => self.not_found(),
        }
    }

    fn not_found(&self) -> Reply {
        self.refuse(StatusCode::NOT_FOUND, "not_found", "There is no such page.")
    }

    /// Redirects the browser. There is no session to end (OpenID Connect RP-Initiated Logout section 2).
    fn end_session(&self) -> Reply {
        let uri = self.request.parameter("post_logout_redirect_uri");
        let uri = uri.filter(|uri| self.settings.clients.values().any(|client| client.allows(uri)));
        let Some(mut uri) = uri.and_then(|uri| Url::parse(uri).ok()) else { return Reply::empty(StatusCode::OK) };
        uri.query_pairs_mut().extend_pairs(self.request.parameter("state").map(|state| ("state", state)));
        Reply::redirect(uri.as_str())
    }
}
