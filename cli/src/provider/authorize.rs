use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::pages::{ConsentPage, ErrorPage, LoginPage};
use super::params::Params;
use super::session::{Browser, OwnForm, set_session, start_again};
use super::store::Authorization;
use super::users::authenticate;
use super::{LocalProvider, is_43_base64url};

pub(super) const SCOPES: [&str; 2] = ["profile", "email"];
const DEFAULT_SCOPE: &str = "profile";

/// Parameters whose repetition makes a request invalid (RFC 6749 section 3.1).
const KNOWN: [&str; 5] = ["response_type", "scope", "state", "code_challenge", "code_challenge_method"];

/// An authorization request of our client that only the user can still refuse.
///
/// The login and consent forms post to a URL with the request's own query, so it is checked again at
/// every step and nothing is kept for a visitor who has not decided.
pub(super) struct AuthorizationRequest {
    query: String,
    client_id: String,
    scope: String,
    state: Option<String>,
    code_challenge: String,
}

/// Why an authorization request goes no further.
pub(super) enum Refusal {
    /// Told to the user only: the client or its redirect URI cannot be trusted (RFC 6749 4.1.2.1).
    ToUser(ErrorPage),
    /// Told to the client.
    ToClient(Redirect),
}

pub(super) async fn show(
    State(provider): State<LocalProvider>,
    request: AuthorizationRequest,
    browser: Browser,
) -> Response {
    let Some(user) = browser.user(&provider) else {
        return browser.remember(&provider, login_page(&request, &browser, None));
    };
    ConsentPage {
        query: &request.query,
        csrf: &browser.csrf_token(),
        client_id: &request.client_id,
        redirect_uri: &provider.registration.redirect_uri,
        user,
        wants_profile: request.wants("profile"),
        wants_email: request.wants("email"),
    }
    .into_response()
}

pub(super) async fn login(
    State(provider): State<LocalProvider>,
    request: AuthorizationRequest,
    form: OwnForm,
) -> Result<Response, ErrorPage> {
    let username = form.params.value("username").unwrap_or_default();
    let password = form.params.value("password").unwrap_or_default();
    let Some(user) = authenticate(username, password) else {
        return Ok(login_page(&request, &form.browser, Some(username)));
    };
    let now = provider.now();
    let mut store = provider.store();
    // A new id, so that one planted before the login is worth nothing after it.
    store.sign_out(&form.browser.session);
    let session = store.sign_in(user, now)?;
    drop(store);
    Ok(set_session(&provider, &session, request.start_again()))
}

pub(super) async fn logout(
    State(provider): State<LocalProvider>,
    request: AuthorizationRequest,
    form: OwnForm,
) -> Redirect {
    provider.store().sign_out(&form.browser.session);
    request.start_again()
}

pub(super) async fn consent(
    State(provider): State<LocalProvider>,
    request: AuthorizationRequest,
    form: OwnForm,
) -> Result<Redirect, ErrorPage> {
    let Some(user) = form.browser.user(&provider) else {
        return Ok(request.start_again());
    };
    let state = request.state.as_deref();
    match form.params.value("decision") {
        Some("allow") => {}
        Some("deny") => {
            let denied = ("error", "access_denied");
            return Ok(to_client(&provider, state, &[denied]));
        }
        _ => return Err(ErrorPage::bad_request("The form has no decision.")),
    }

    let authorization = Authorization {
        user,
        scope: request.scope,
        redirect_uri: provider.registration.redirect_uri.clone(),
        code_challenge: request.code_challenge,
    };
    let now = provider.now();
    let code = provider.store().issue_code(authorization, now)?;
    Ok(to_client(&provider, state, &[("code", &code)]))
}

impl AuthorizationRequest {
    fn parse(provider: &LocalProvider, query: &str) -> Result<Self, Refusal> {
        let params = Params::parse(query);
        let client_id = params.value("client_id").unwrap_or_default();
        if client_id != provider.registration.client_id {
            return Err(ErrorPage::bad_request("The client_id is not known here.").into());
        }
        let redirect_uri = params.value("redirect_uri").unwrap_or_default();
        if redirect_uri != provider.registration.redirect_uri {
            let message = "The redirect_uri is not the one this client registered.";
            return Err(ErrorPage::bad_request(message).into());
        }

        let state = params.value("state");
        let refuse = |error, description| {
            let error = [("error", error), ("error_description", description)];
            Err(Refusal::ToClient(to_client(provider, state, &error)))
        };
        if params.repeats(&KNOWN) {
            return refuse("invalid_request", "a parameter is repeated");
        }
        match params.value("response_type") {
            Some("code") => {}
            None => return refuse("invalid_request", "response_type is missing"),
            Some(_) => return refuse("unsupported_response_type", "response_type must be code"),
        }
        let code_challenge = params.value("code_challenge").unwrap_or_default();
        if !is_43_base64url(code_challenge) {
            let description = "code_challenge is required: 43 characters of base64url";
            return refuse("invalid_request", description);
        }
        if params.value("code_challenge_method") != Some("S256") {
            return refuse("invalid_request", "code_challenge_method must be S256");
        }
        let scope = params.value("scope").unwrap_or(DEFAULT_SCOPE);
        if !scope.split(' ').all(|name| SCOPES.contains(&name)) {
            return refuse("invalid_scope", "the scopes here are profile and email");
        }

        Ok(Self {
            query: query.to_owned(),
            client_id: client_id.to_owned(),
            scope: scope.to_owned(),
            state: state.map(str::to_owned),
            code_challenge: code_challenge.to_owned(),
        })
    }

    fn wants(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|name| name == scope)
    }

    fn start_again(&self) -> Redirect {
        start_again(&self.query)
    }
}

impl FromRequestParts<LocalProvider> for AuthorizationRequest {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, provider: &LocalProvider) -> Result<Self, Refusal> {
        Self::parse(provider, parts.uri.query().unwrap_or_default())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::ToUser(page) => page.into_response(),
            Self::ToClient(redirect) => redirect.into_response(),
        }
    }
}

impl From<ErrorPage> for Refusal {
    fn from(page: ErrorPage) -> Self {
        Self::ToUser(page)
    }
}

fn login_page(request: &AuthorizationRequest, browser: &Browser, failed_username: Option<&str>) -> Response {
    LoginPage { query: &request.query, csrf: &browser.csrf_token(), client_id: &request.client_id, failed_username }
        .into_response()
}

/// The authorization response: always with `iss` (RFC 9207), and with `state` if there was one.
fn to_client(provider: &LocalProvider, state: Option<&str>, answer: &[(&str, &str)]) -> Redirect {
    let redirect_uri = &provider.registration.redirect_uri;
    let separator = match redirect_uri.contains('?') {
        true => '&',
        false => '?',
    };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(answer);
    query.extend_pairs(state.map(|state| ("state", state)));
    query.append_pair("iss", provider.issuer());
    Redirect::to(&format!("{redirect_uri}{separator}{}", query.finish()))
}
