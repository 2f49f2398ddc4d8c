//! The callback route: what the provider sends the browser back with.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use oauth_dance_core::{OAuth2Token, Precondition, ScopeChange, Secret, Token};
use url::form_urlencoded;

use super::attempt::Attempt;
use super::{form, private, query, split};
use crate::client::ApiClient;
use crate::error::LoginError;
use crate::hooks::{Authorized, Decision};
use crate::oauth::{OAuth, UserSource};
use crate::oauth1;
use crate::openid;
use crate::registered::Registered;
use crate::token_endpoint;
use crate::token_response::printable;
use crate::user::User;

/// Providers issue codes of up to some 4 KiB.
const MAX_CODE: usize = 8 * 1024;
/// What the callback reads of a form. What a provider says of the user does not belong into a URL.
const PASSED_ON: [&str; 5] = ["state", "code", "error", "error_description", "iss"];

pub(super) async fn handle(oauth: OAuth, request: Request) -> Response {
    let (mut parts, query, _) = split(request);
    let provider = super::provider_of(&mut parts).await;
    let is_oauth1 = oauth.registered(&provider).is_ok_and(|registered| registered.oauth1.is_some());
    let read = if is_oauth1 { Callback::read_oauth1 } else { Callback::read };
    let callback = match read(query.as_deref().unwrap_or_default()) {
        Ok(callback) => callback,
        Err(error) => return oauth.failed(&provider, &error, &parts).await,
    };
    // The cookie goes once its attempt is spent or too old, whatever comes of it; a callback that does not get that
    // far, because it is forged or the storage is down, leaves it alone.
    let mut cookies = Vec::new();
    let outcome = finish(&oauth, &provider, callback, &mut parts, &mut cookies).await;
    let mut response = match outcome {
        Ok(response) => private(response),
        Err(error) => oauth.failed(&provider, &error, &parts).await,
    };
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The hop for a provider that sends the browser back by a form (OAuth 2.0 Form Post Response Mode). The form comes from
/// another site, so the browser does not bring the attempt's cookie along; it does with the `GET` that follows.
pub(super) async fn hop(oauth: OAuth, request: Request) -> Response {
    let (mut parts, _, body) = split(request);
    let provider = super::provider_of(&mut parts).await;
    let Some(registered) = oauth.registered(&provider).ok().filter(|registered| registered.quirks.form_post) else {
        return private(StatusCode::METHOD_NOT_ALLOWED);
    };
    let form = match form(body).await {
        Ok(form) => form,
        Err(error) => return oauth.failed(&provider, &error, &parts).await,
    };
    let mut callback = registered.redirect_uri.clone();
    let fields: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
    callback.query_pairs_mut().extend_pairs(fields.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_ref())));
    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let mut response = private(Redirect::to(callback.as_str()));
    if let (Some(state), Some(user)) = (field("state"), field("user")) {
        let cookie = oauth.inner.attempts.remember_posted(state, user);
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    }
    response
}

/// The parameters of an authorization response (RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207). Others are ignored.
struct Callback {
    state: String,
    code: Option<Secret>,
    error: Option<(String, Option<String>)>,
    issuer: Option<String>,
}

impl Callback {
    fn read(query: &str) -> Result<Self, LoginError> {
        let [state, code, error, issuer] = [
            query::one(query, "state")?,
            query::one(query, "code")?,
            query::one(query, "error")?,
            query::one(query, "iss")?,
        ];
        let description = query::one(query, "error_description")?;
        if code.as_ref().is_some_and(|code| code.len() > MAX_CODE) {
            return Err(LoginError::Malformed("the code is too long"));
        }
        Ok(Self {
            state: state.ok_or(LoginError::Malformed("there is no state"))?,
            code: code.map(Secret::from),
            error: error.map(|code| (printable(&code), description.map(|text| printable(&text)))),
            issuer,
        })
    }

    /// In OAuth 1.0a (RFC 5849 section 2.2) the temporary credentials stand for the state and the verifier for the code.
    /// How a refusal looks, no standard says: it is `denied` at X, `oauth_verifier=denied` at Atlassian, and
    /// `oauth_problem` where the OAuth Problem Reporting extension is known.
    fn read_oauth1(query: &str) -> Result<Self, LoginError> {
        let [token, denied] = [query::one(query, "oauth_token")?, query::one(query, "denied")?];
        let verifier = query::one(query, "oauth_verifier")?;
        let problem = query::one(query, "oauth_problem")?.or(query::one(query, "error")?);
        if verifier.as_ref().is_some_and(|verifier| verifier.len() > MAX_CODE) {
            return Err(LoginError::Malformed("the verifier is too long"));
        }
        let is_denied = denied.is_some() || verifier.as_deref() == Some("denied");
        let problem = match problem.as_deref() {
            _ if is_denied => Some("access_denied"),
            Some("user_refused" | "permission_denied") => Some("access_denied"),
            problem => problem,
        };
        Ok(Self {
            state: token.or(denied).ok_or(LoginError::Malformed("there is no oauth_token"))?,
            error: problem.map(|code| (printable(code), None)),
            code: verifier.map(Secret::from),
            issuer: None,
        })
    }
}

async fn finish(
    oauth: &OAuth,
    provider: &str,
    callback: Callback,
    parts: &mut Parts,
    cookies: &mut Vec<HeaderValue>,
) -> Result<Response, LoginError> {
    let registered = oauth.registered_in(provider)?;
    let oauth = &oauth.in_request(&parts.extensions).ok_or(LoginError::NoRequestStorage)?;
    let purpose = parts.headers.get("sec-purpose").and_then(|value| value.to_str().ok());
    if purpose.is_some_and(|purpose| purpose.contains("prefetch")) {
        return Err(LoginError::Prefetch);
    }
    let attempt = oauth
        .inner
        .attempts
        .find(&callback.state, &parts.headers)
        .filter(|attempt| attempt.provider == provider)
        .ok_or(LoginError::UnknownAttempt)?;
    let user = oauth.current_user(parts).await.map_err(LoginError::Users)?;
    // What an issuer that is down does not give, it does not give before anything is spent.
    let registered = registered.complete(oauth).await?;
    if let Some(openid) = registered.openid.as_ref().filter(|_| attempt.openid) {
        openid.prepare(&oauth.inner.http, oauth.inner.clock.now()).await?;
    }
    let posted = oauth.inner.attempts.posted(&attempt, &parts.headers);
    cookies.extend(posted.as_ref().map(|_| oauth.inner.attempts.forget_posted()));

    let spent = oauth.inner.attempts.spend(&attempt).await;
    if !matches!(spent, Err(LoginError::Storage(_))) {
        cookies.push(oauth.inner.attempts.forget(&attempt));
    }
    spent?;
    // A browser that is a user of its own became one in another tab; nobody else has signed in.
    let became_a_user = attempt.is_of(None) && matches!(oauth.inner.users, UserSource::Browser(_));
    if !attempt.is_of(user.as_ref()) && !became_a_user {
        return Err(LoginError::UserChanged);
    }
    let code = granted(&registered, callback)?;
    let (mut token, identity) = redeem(oauth, &registered, &attempt, &code).await?;
    let keep_id_token = registered.keep_id_token;
    let said = Said { identity, posted };
    let decision = decide(oauth, registered, &attempt, user.as_ref(), &token, said, parts).await?;
    if decision.store {
        if let (Token::OAuth2(token), false) = (&mut token, keep_id_token) {
            token.id_token = None;
        }
        let user = whose(oauth, decision.user.or(user), cookies)?;
        let user = decision.account.into_iter().fold(user, User::with_account);
        // Over whatever was there: a new login always wins.
        oauth.tokens.put(&user.key(provider)?, &token, Precondition::Always).await?;
    }
    tracing::info!(provider, stored = decision.store, "login finished");
    super::count(provider, if decision.store { "stored" } else { "not_stored" });
    Ok(decision.response.unwrap_or_else(|| Redirect::to(&attempt.next).into_response()))
}

/// The code, if the provider that was asked says yes.
fn granted(registered: &Registered, callback: Callback) -> Result<Secret, LoginError> {
    match (&registered.issuer, &callback.issuer) {
        (Some(expected), Some(found)) if !expected.is(found) => return Err(LoginError::IssuerMismatch),
        (_, None) if registered.requires_issuer => return Err(LoginError::IssuerMismatch),
        _ => {}
    }
    match callback.error {
        Some((code, _)) if code == "access_denied" => Err(LoginError::Denied),
        Some((code, description)) => Err(LoginError::Provider { code, description }),
        None => callback.code.ok_or(LoginError::Malformed("there is neither an approval nor an error")),
    }
}

/// The token, and who the provider says it is of.
async fn redeem(
    oauth: &OAuth,
    registered: &Registered,
    attempt: &Attempt,
    code: &Secret,
) -> Result<(Token, Option<openid::identity::Identity>), LoginError> {
    let (http, now) = (&oauth.inner.http, oauth.inner.clock.now());
    match &registered.oauth1 {
        None => {
            let key = registered.dpop_key(attempt.dpop_key());
            let verifier = &attempt.verifier;
            let mut token = token_endpoint::exchange_code(http, registered, code.expose(), verifier, key, now).await?;
            let identity = identify(oauth, registered, attempt, &token).await?;
            token.subject = identity.as_ref().map(openid::identity::Identity::subject);
            Ok((token.into(), identity))
        }
        Some(client) => {
            let temporary = oauth1::Credentials { token: &attempt.state, secret: &attempt.verifier };
            let token = oauth1::token_credentials(http, registered, client, temporary, code.expose(), now).await?;
            Ok((token.into(), None))
        }
    }
}

/// Who the ID token says it is, where OpenID Connect was asked for. Nothing goes on with one that is not believed.
async fn identify(
    oauth: &OAuth,
    registered: &Registered,
    attempt: &Attempt,
    token: &OAuth2Token,
) -> Result<Option<openid::identity::Identity>, LoginError> {
    let Some(openid) = registered.openid.as_ref().filter(|_| attempt.openid) else { return Ok(None) };
    let (http, now) = (&oauth.inner.http, oauth.inner.clock.now());
    Ok(Some(openid.verify(token, attempt.nonce.as_deref(), &registered.client_id, http, now).await?))
}

/// What the provider said of the user.
struct Said {
    identity: Option<openid::identity::Identity>,
    posted: Option<Secret>,
}

async fn decide(
    oauth: &OAuth,
    registered: Arc<Registered>,
    attempt: &Attempt,
    user: Option<&User>,
    token: &Token,
    said: Said,
    parts: &mut Parts,
) -> Result<Decision, LoginError> {
    let client = ApiClient::new(oauth, Arc::clone(&registered), token.clone());
    let login = Authorized {
        provider: &attempt.provider,
        user,
        token,
        asked: attempt.scopes.as_deref().unwrap_or(&registered.scopes),
        identity: said.identity,
        posted_user: said.posted,
        client,
        parts,
        next: &attempt.next,
    };
    let ScopeChange { missing, additional, .. } = login.scope_change();
    if !missing.is_empty() || !additional.is_empty() {
        let (provider, missing, additional) = (login.provider, missing.len(), additional.len());
        tracing::info!(provider, missing, additional, "other scopes were granted than asked for");
    }
    oauth.inner.hooks.authorized(login).await.map_err(LoginError::Hook)
}

/// Who gets the token, who may be a browser that becomes a user by it.
fn whose(oauth: &OAuth, user: Option<User>, cookies: &mut Vec<HeaderValue>) -> Result<User, LoginError> {
    match (user, &oauth.inner.users) {
        (Some(user), _) => Ok(user),
        (None, UserSource::Browser(browsers)) => {
            let (user, cookie) = browsers.create(oauth.inner.paths.is_https());
            cookies.push(cookie);
            Ok(user)
        }
        (None, UserSource::Application(_)) => Err(LoginError::NoUser),
    }
}
