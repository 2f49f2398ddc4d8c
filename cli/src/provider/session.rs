use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::pages::ErrorPage;
use super::params::Params;
use super::users::User;
use super::{LocalProvider, is_43_base64url, random_secret};

/// The browser behind a request, told apart by a session cookie. A first visit gets an id too, because
/// the login form already needs a CSRF token.
pub(super) struct Browser {
    pub(super) session: String,
    is_new: bool,
}

/// The body of a form that one of our own pages sent: its CSRF token was checked.
pub(super) struct OwnForm {
    pub(super) browser: Browser,
    pub(super) params: Params,
}

impl Browser {
    pub(super) fn user(&self, provider: &LocalProvider) -> Option<&'static User> {
        let now = provider.now();
        provider.store().signed_in(&self.session, now)
    }

    /// Derived from the session id, which other sites cannot read.
    pub(super) fn csrf_token(&self) -> String {
        let digest = Sha256::new().chain_update("csrf token of ").chain_update(&self.session).finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// Adds the cookie to `response` when the browser does not have it yet.
    pub(super) fn remember(&self, provider: &LocalProvider, response: impl IntoResponse) -> Response {
        if !self.is_new {
            return response.into_response();
        }
        set_session(provider, &self.session, response)
    }
}

/// Makes `session` the browser's session.
pub(super) fn set_session(provider: &LocalProvider, session: &str, response: impl IntoResponse) -> Response {
    let name = &provider.cookie_name;
    let secure = match provider.issuer().starts_with("https:") {
        true => "; Secure",
        false => "",
    };
    let cookie = format!("{name}={session}; Path=/; HttpOnly; SameSite=Lax{secure}");
    ([(header::SET_COOKIE, cookie)], response).into_response()
}

impl FromRequestParts<LocalProvider> for Browser {
    type Rejection = ErrorPage;

    async fn from_request_parts(parts: &mut Parts, provider: &LocalProvider) -> Result<Self, ErrorPage> {
        if let Some(session) = session_cookie(&parts.headers, &provider.cookie_name) {
            return Ok(Self { session: session.to_owned(), is_new: false });
        }
        Ok(Self { session: random_secret()?, is_new: true })
    }
}

impl FromRequest<LocalProvider> for OwnForm {
    type Rejection = ErrorPage;

    async fn from_request(request: Request, provider: &LocalProvider) -> Result<Self, ErrorPage> {
        let (mut parts, body) = request.into_parts();
        let browser = Browser::from_request_parts(&mut parts, provider).await?;
        let body = String::from_request(Request::from_parts(parts, body), provider)
            .await
            .map_err(|_| ErrorPage::bad_request("The form could not be read."))?;
        let params = Params::parse(&body);
        let sent = params.value("csrf").unwrap_or_default();
        if !bool::from(sent.as_bytes().ct_eq(browser.csrf_token().as_bytes())) {
            return Err(ErrorPage::stale_form());
        }
        Ok(Self { browser, params })
    }
}

fn session_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, session)| *found == name && is_43_base64url(session))
        .map(|(_, session)| session)
}
