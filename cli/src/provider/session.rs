use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
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

/// Why a form counts for nothing.
pub(super) enum NoOwnForm {
    /// One of our own pages sent it, but the browser has another session by now: to the step that is right now.
    Stale(Redirect),
    /// Another site may have sent it, or it cannot be read.
    Refused(ErrorPage),
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
    type Rejection = NoOwnForm;

    async fn from_request(request: Request, provider: &LocalProvider) -> Result<Self, NoOwnForm> {
        let (mut parts, body) = request.into_parts();
        let browser = Browser::from_request_parts(&mut parts, provider).await?;
        // Without a cookie the next form would be stale as well, and nobody would be told why.
        let can_go_on = !browser.is_new && is_same_origin(&parts.headers, provider.issuer());
        let go_on = start_again(parts.uri.query().unwrap_or_default());
        let body = String::from_request(Request::from_parts(parts, body), provider)
            .await
            .map_err(|_| ErrorPage::bad_request("The form could not be read."))?;
        let params = Params::parse(&body);
        let sent = params.value("csrf").unwrap_or_default();
        if !bool::from(sent.as_bytes().ct_eq(browser.csrf_token().as_bytes())) {
            return Err(match can_go_on {
                true => NoOwnForm::Stale(go_on),
                false => NoOwnForm::Refused(ErrorPage::foreign_form()),
            });
        }
        Ok(Self { browser, params })
    }
}

impl IntoResponse for NoOwnForm {
    fn into_response(self) -> Response {
        match self {
            Self::Stale(redirect) => redirect.into_response(),
            Self::Refused(page) => page.into_response(),
        }
    }
}

impl From<ErrorPage> for NoOwnForm {
    fn from(page: ErrorPage) -> Self {
        Self::Refused(page)
    }
}

/// To the step of an authorization request that is right now.
pub(super) fn start_again(query: &str) -> Redirect {
    Redirect::to(&format!("authorize?{query}"))
}

/// Whether the browser says that one of our own pages sent the request. `Origin` is only asked where there is no
/// `Sec-Fetch-Site`: it is `null` on pages that ask for no referrer, as ours do.
fn is_same_origin(headers: &HeaderMap, issuer: &str) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).is_some_and(|origin| origin == issuer),
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
