//! The response to a request whose user has no usable connection.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Redirect, Response};
use cookie::{Cookie, SameSite};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use oauth_dance_core::Timestamp;
use serde_json::json;
use url::form_urlencoded;

use crate::cookies;
use crate::dance::pages;
use crate::error::{ApiError, ConnectError};
use crate::oauth::OAuth;

/// How long a browser that was sent to a login for a rejected token is not sent there for that again.
const BETWEEN_LOGINS: Duration = Duration::from_secs(60);

/// A browser to answer: it gets pages and redirects, and everything else JSON.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    oauth: OAuth,
    /// Where it comes back to after a login; `None` if it does not view a page.
    come_back: Option<String>,
    /// The cookies that say which logins it was sent to a moment ago.
    sent_to: Vec<String>,
}

impl Browser {
    /// `None` if whoever asks does not want pages.
    pub(crate) fn of(parts: &Parts, oauth: &OAuth) -> Option<Arc<Self>> {
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

/// Why there is no client for a handler, or the client's token is of no use any more, as the response that says so: a
/// redirect to the login for a browser that views a page and needs one, or else a status with a page or, for a program, JSON.
#[derive(Clone, Debug)]
pub struct ConnectedRejection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    error: ConnectError,
    provider: Option<String>,
    browser: Option<Arc<Browser>>,
    is_after_call: bool,
    /// In how many seconds it may be tried again (RFC 9110 section 10.2.3).
    retry_after: Option<u64>,
}

impl ConnectedRejection {
    pub(crate) fn new(error: ConnectError, provider: Option<&str>, browser: Option<Arc<Browser>>) -> Self {
        let provider = provider.map(str::to_owned);
        Self(Arc::new(Inner { error, provider, browser, is_after_call: false, retry_after: None }))
    }

    /// The same with how long it takes from `now` until the connection is tried again.
    pub(crate) fn as_of(error: ConnectError, provider: &str, browser: Option<Arc<Browser>>, now: Timestamp) -> Self {
        let retry_after = match &error {
            ConnectError::BackingOff { until, .. } => {
                Some(until.as_unix_seconds().saturating_sub(now.as_unix_seconds()).max(1))
            }
            _ => None,
        };
        let provider = Some(provider.to_owned());
        Self(Arc::new(Inner { error, provider, browser, is_after_call: false, retry_after }))
    }

    /// The same for a token that the API rejected. If a login a moment ago did not help, the browser is not sent to another
    /// one: an API that rejects every token would send it round and round.
    pub(crate) fn after_call(error: ConnectError, provider: &str, browser: Option<Arc<Browser>>) -> Self {
        Self(Arc::new(Inner {
            error,
            provider: Some(provider.to_owned()),
            browser,
            is_after_call: true,
            retry_after: None,
        }))
    }

    /// The error.
    pub fn error(&self) -> &ConnectError {
        &self.0.error
    }
}

impl IntoResponse for ConnectedRejection {
    fn into_response(self) -> Response {
        let Inner { error, provider, browser, is_after_call, retry_after } = &*self.0;
        let mut response = match (browser, provider) {
            (Some(browser), Some(provider)) if error.needs_login() => {
                to_login(browser, provider, error, *is_after_call)
            }
            (browser, _) => {
                log(error);
                match browser {
                    Some(browser) => pages::no_connection(&browser.oauth, error, None),
                    None => (error.status(), Json(json!({ "error": error.code(), "message": error.to_string() })))
                        .into_response(),
                }
            }
        };
        let retry_after = retry_after.as_ref().map(|seconds| (header::RETRY_AFTER, HeaderValue::from(*seconds)));
        response.headers_mut().extend(retry_after);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Sends a browser to the login, or offers it.
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
        // A name that is no header value is no provider's.
        response
            .headers_mut()
            .extend(HeaderValue::try_from(cookie.to_string()).ok().map(|value| (header::SET_COOKIE, value)));
    }
    response
}

/// The cookie that says that a browser was sent to the login of a provider.
fn sent_to(oauth: &OAuth, provider: &str) -> String {
    let prefix = if oauth.inner.paths.is_https() { "__Host-" } else { "" };
    format!("{prefix}oauth-dance-sent-to-{provider}")
}

fn log(error: &ConnectError) {
    let (code, cause) = (error.code(), error as &dyn std::error::Error);
    // That somebody has yet to connect their account is no trouble.
    if error.needs_login() {
        tracing::debug!(code, error = cause, "no client");
    } else {
        tracing::warn!(code, error = cause, "no client");
    }
}

/// A failed call of a provider's API, when a handler returns it: 502, or 504 where it took too long. Where the user has to
/// authorize again, it is what [`Connected`](crate::Connected) answers.
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

/// Whether whoever asks wants a page. A program that accepts anything gets JSON.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|v| v.contains("text/html"))
}
