//! The users of the demo's provider: login, consent and sessions.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance::testing::{AuthorizationRequest, Decision, LoggedRequest, ResourceOwner};
use oauth_dance::{Clock, Timestamp};
use oauth_dance_core::Secret;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

use super::pages::{ConsentPage, ErrorPage, LoginPage, PageHeaders};
use super::random_secret;
use super::users::{self, USERS, User};

const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// The users of the provider, who log in and decide with forms.
pub(super) struct Visitors {
    origin: String,
    cookie_name: String,
    headers: PageHeaders,
    clock: Clock,
    sessions: Mutex<HashMap<String, Session>>,
}

struct Session {
    user: &'static User,
    expires_at: Timestamp,
}

/// The browser that sent a request, which a session cookie identifies. A first visit also gets an id, because the login
/// form needs a CSRF token.
struct Browser {
    session: String,
    is_new: bool,
}

impl Visitors {
    pub(super) fn new(issuer: &str, redirect_uri: &str, clock: Clock) -> Self {
        let port = Url::parse(issuer).ok().and_then(|issuer| issuer.port_or_known_default()).unwrap_or_default();
        Self {
            origin: issuer.to_owned(),
            // All ports of a host share their cookies.
            cookie_name: format!("oauth_dance_local_provider_{port}"),
            headers: PageHeaders::new(redirect_uri),
            clock,
            sessions: Mutex::default(),
        }
    }

    fn login_or_consent_page(&self, request: &AuthorizationRequest<'_>, browser: &Browser) -> Response<String> {
        let Some(user) = self.user(browser) else {
            let page = self.login_page(request, browser, None);
            return if browser.is_new { self.with_session(&browser.session, page) } else { page };
        };
        let wants = |scope| request.scope.split(' ').any(|name| name == scope);
        let page = ConsentPage {
            csrf: &browser.csrf_token(),
            client_id: request.client_id,
            redirect_uri: request.redirect_uri,
            user,
            wants_profile: wants("profile"),
            wants_email: wants("email"),
        };
        self.headers.page(StatusCode::OK, &page)
    }

    /// Processes the form of a page.
    fn decide_by_form(&self, request: &AuthorizationRequest<'_>, browser: &Browser) -> Decision {
        let field = |name| request.http.field(name).unwrap_or_default();
        if Secret::new(field("csrf")) != Secret::new(browser.csrf_token()) {
            return Decision::Ask(self.reject_form(request, browser));
        }
        let user = self.user(browser);
        match (field("action"), user) {
            ("login", _) => Decision::Ask(self.login(request, browser, field("username"), field("password"))),
            ("logout", _) => {
                self.sessions().remove(&browser.session);
                Decision::Ask(self.next_step(request))
            }
            ("allow", Some(user)) => Decision::Approve(user.subject.to_owned()),
            ("deny", Some(_)) => Decision::Deny("access_denied".to_owned()),
            ("allow" | "deny", None) => Decision::Ask(self.next_step(request)),
            _ => Decision::Ask(self.error_page(StatusCode::BAD_REQUEST, "The form has no action.")),
        }
    }

    /// Rejects a form with the wrong CSRF token. A form of a page of this provider is outdated, because the session has
    /// changed since, and the next page is shown. Any other form is from another site. Without a cookie, the next form
    /// would be outdated too, so an error is shown.
    fn reject_form(&self, request: &AuthorizationRequest<'_>, browser: &Browser) -> Response<String> {
        if !browser.is_new && is_same_origin(&request.http.headers, &self.origin) {
            return self.next_step(request);
        }
        self.headers.page(StatusCode::FORBIDDEN, &ErrorPage::FOREIGN_FORM)
    }

    fn login(
        &self,
        request: &AuthorizationRequest<'_>,
        browser: &Browser,
        username: &str,
        password: &str,
    ) -> Response<String> {
        let Some(user) = users::authenticate(username, password) else {
            return self.login_page(request, browser, Some(username));
        };
        let (session, now) = (random_secret(), self.clock.now());
        let mut sessions = self.sessions();
        sessions.retain(|_, session| session.expires_at > now);
        // The session gets a new id, as a defence against session fixation.
        sessions.remove(&browser.session);
        sessions.insert(session.clone(), Session { user, expires_at: now.saturating_add(SESSION_LIFETIME) });
        drop(sessions);
        self.with_session(&session, self.next_step(request))
    }

    fn login_page(
        &self,
        request: &AuthorizationRequest<'_>,
        browser: &Browser,
        failed_username: Option<&str>,
    ) -> Response<String> {
        let status = if failed_username.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
        let page = LoginPage { csrf: &browser.csrf_token(), client_id: request.client_id, failed_username };
        self.headers.page(status, &page)
    }

    /// Redirects to the same authorization request, which shows the next page.
    fn next_step(&self, request: &AuthorizationRequest<'_>) -> Response<String> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&request.http.query).finish();
        let mut redirect = self.headers.response(StatusCode::SEE_OTHER, String::new());
        if let Ok(location) = HeaderValue::try_from(format!("{}?{query}", request.http.path)) {
            redirect.headers_mut().insert(header::LOCATION, location);
        }
        redirect
    }

    fn with_session(&self, session: &str, mut response: Response<String>) -> Response<String> {
        let cookie = format!("{}={session}; Path=/; HttpOnly; SameSite=Lax", self.cookie_name);
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    fn user(&self, browser: &Browser) -> Option<&'static User> {
        let now = self.clock.now();
        self.sessions().get(&browser.session).filter(|session| session.expires_at > now).map(|session| session.user)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResourceOwner for Visitors {
    fn decide(&self, request: &AuthorizationRequest<'_>) -> Decision {
        let browser = Browser::of(request.http, &self.cookie_name);
        match request.http.method {
            Method::POST => self.decide_by_form(request, &browser),
            _ => Decision::Ask(self.login_or_consent_page(request, &browser)),
        }
    }

    fn claims(&self, user: &str, scope: &[&str]) -> Map<String, Value> {
        let user = USERS.iter().find(|known| known.subject == user);
        let claims = scope.iter().zip(std::iter::repeat(user)).filter_map(|(name, user)| match *name {
            "profile" => Some(("name".to_owned(), user?.name.into())),
            "email" => Some(("email".to_owned(), user?.email.into())),
            _ => None,
        });
        claims.collect()
    }

    fn error_page(&self, status: StatusCode, message: &str) -> Response<String> {
        let title = match status {
            StatusCode::NOT_FOUND => "Page not found",
            _ => "This request cannot be processed",
        };
        self.headers.page(status, &ErrorPage { title, message })
    }
}

impl fmt::Debug for Visitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitors").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Browser {
    fn of(request: &LoggedRequest, cookie_name: &str) -> Self {
        match session_cookie(&request.headers, cookie_name) {
            Some(session) => Self { session: session.to_owned(), is_new: false },
            None => Self { session: random_secret(), is_new: true },
        }
    }

    /// The CSRF token, which is derived from the session id. Other sites cannot read it.
    fn csrf_token(&self) -> String {
        let digest = Sha256::new().chain_update("csrf token of ").chain_update(&self.session).finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }
}

/// Whether the browser reports that a page of this provider sent the request. `Origin` counts only without
/// `Sec-Fetch-Site`, because it is `null` for pages with the policy `no-referrer`, such as these.
fn is_same_origin(headers: &HeaderMap, origin: &str) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).is_some_and(|found| found == origin),
    }
}

fn session_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let is_session =
        |text: &str| text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    pairs.find(|(found, session)| *found == name && is_session(session)).map(|(_, session)| session)
}
