//! The response to a request whose user has no usable connection.
//!
//! A browser that views a page is redirected to the login, and returns to the page. For any other request of a browser, such
//! as a form, a redirect would lose what the user entered, so the response is a page with a link. A program gets a status
//! and JSON.
//!
//! An API that rejects every token, whatever the user does, would turn the redirects into a loop. A cookie records that the
//! browser was redirected because of a rejected token, and the next such rejection within a minute is a page.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Redirect, Response};
use cookie::{Cookie, SameSite};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::json;
use url::form_urlencoded;

use super::pages;
use crate::app::OAuth;
use crate::browser::cookies;
use crate::error::rejection::Inner;
use crate::error::{ApiError, ConnectError, ConnectedRejection, Visitor};

/// After a browser was redirected to a login because of a rejected token, how long it is not redirected again for that
/// reason.
const BETWEEN_LOGINS: Duration = Duration::from_secs(60);

/// A browser that gets pages and redirects. Any other client gets JSON.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    oauth: OAuth,
    /// Where the browser returns after a login; `None` if it does not view a page.
    come_back: Option<String>,
    /// The cookies that record the logins to which the browser was redirected a moment ago.
    sent_to: Vec<String>,
}

impl Browser {
    /// `None` if the request does not accept pages.
    pub(crate) fn of(parts: &Parts, oauth: &OAuth) -> Option<Arc<dyn Visitor>> {
        if !accepts_html(&parts.headers) {
            return None;
        }
        let is_page_view = matches!(parts.method, Method::GET | Method::HEAD);
        let come_back = is_page_view.then(|| {
            let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
            oauth.inner.paths.visible(uri.path_and_query().map_or("/", |path| path.as_str()))
        });
        let prefix = sent_to(oauth, "");
        let names = cookies::all(&parts.headers).map(|(name, _)| name).filter(|name| name.starts_with(&prefix));
        let sent_to = names.map(str::to_owned).collect();
        Some(Arc::new(Self { oauth: oauth.clone(), come_back, sent_to }))
    }

    fn login(&self, provider: &str) -> String {
        let login = self.oauth.login_path(provider);
        let Some(next) = &self.come_back else { return login };
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        format!("{login}?{query}")
    }
}

impl IntoResponse for ConnectedRejection {
    fn into_response(self) -> Response {
        let Inner { error, browser, retry_after, .. } = &*self.0;
        let mut response = match browser {
            Some(browser) => browser.respond(&self),
            None => {
                log(error);
                (error.status(), Json(json!({ "error": error.code(), "message": error.to_string() }))).into_response()
            }
        };
        let retry_after = retry_after.as_ref().map(|seconds| (header::RETRY_AFTER, HeaderValue::from(*seconds)));
        response.headers_mut().extend(retry_after);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl Visitor for Browser {
    fn respond(&self, rejection: &ConnectedRejection) -> Response {
        let Inner { error, provider, is_after_call, .. } = &*rejection.0;
        match provider {
            Some(provider) if error.needs_login() => to_login(self, provider, error, *is_after_call),
            _ => {
                log(error);
                pages::no_connection(&self.oauth, error, None)
            }
        }
    }
}

/// Redirects a browser to the login, or offers it on a page.
fn to_login(browser: &Browser, provider: &str, error: &ConnectError, is_after_call: bool) -> Response {
    let (login, cookie) = (browser.login(provider), sent_to(&browser.oauth, provider));
    let was_sent = is_after_call && browser.sent_to.contains(&cookie);
    if browser.come_back.is_none() || was_sent {
        log(error);
        return pages::no_connection(&browser.oauth, error, Some((provider, &login)));
    }
    let mut response = Redirect::to(&login).into_response();
    if is_after_call {
        let max_age = time::Duration::seconds(BETWEEN_LOGINS.as_secs().cast_signed());
        let cookie = Cookie::build((cookie, "1"))
            .path("/")
            .http_only(true)
            .secure(browser.oauth.inner.paths.is_https())
            .same_site(SameSite::Lax)
            .max_age(max_age)
            .build();
        // No provider has a name that is not valid in a header.
        response
            .headers_mut()
            .extend(HeaderValue::try_from(cookie.to_string()).ok().map(|value| (header::SET_COOKIE, value)));
    }
    response
}

/// The name of the cookie that records that a browser was redirected to the login of a provider.
fn sent_to(oauth: &OAuth, provider: &str) -> String {
    let prefix = if oauth.inner.paths.is_https() { "__Host-" } else { "" };
    format!("{prefix}oauth-dance-sent-to-{provider}")
}

fn log(error: &ConnectError) {
    let (code, cause) = (error.code(), error as &dyn std::error::Error);
    // A user who has not connected an account yet is not a failure.
    if error.needs_login() {
        tracing::debug!(code, error = cause, "no client");
    } else {
        tracing::warn!(code, error = cause, "no client");
    }
}

/// The response if a handler returns the error of an API call: 502, or 504 after a timeout. If the user has to authorize
/// again, it is the same as that of [`Connected`](crate::Connected).
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        tracing::warn!(error = &self as &dyn std::error::Error, "a call of a provider's API failed");
        let (status, message) = (self.status(), self.to_string());
        match self {
            Self::NeedsAuthorization(rejection) => rejection.into_response(),
            _ => {
                let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
                (status, no_store, Json(json!({ "error": "api_failed", "message": message }))).into_response()
            }
        }
    }
}

/// Whether the client accepts a page. A program that accepts anything gets JSON.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|v| v.contains("text/html"))
}
