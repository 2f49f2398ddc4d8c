//! The callback route: handles the authorization response.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oauth_dance_core::{Precondition, Token};
use url::form_urlencoded;

use super::finish::{First, Login, without_fragment};
use super::{form, private, split};
use crate::app::hooks::Repeated;
use crate::app::{OAuth, UserSource};
use crate::browser::anonymous::AnonymousUser;
use crate::browser::outcome::{Ended, LoginOutcome};
use crate::browser::user::User;
use crate::error::LoginError;
use crate::login::attempt::Attempt;
use crate::login::is_prefetch;
use crate::login::parameters::{FORWARDED, Parameters};
use crate::protocol::registered::Registered;

pub(super) async fn handle(oauth: OAuth, request: Request) -> Response {
    let (mut parts, query, _) = split(request);
    let provider = super::provider_of(&mut parts).await;
    let mut callback = Callback { cookies: oauth.renewed_cookies(&parts.headers), is_repeated: false };
    let query = query.unwrap_or_default();
    let outcome = callback.respond(&oauth, &provider, &query, &mut parts).await;
    let mut response = match outcome {
        Ok(response) => private(response),
        Err(error) if callback.is_repeated => {
            let registered = oauth.registered(&provider).ok();
            oauth.failure(registered, &error, &parts).await
        }
        Err(error) => oauth.failed(&provider, &error, &parts).await,
    };
    for cookie in callback.cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The redirect for a provider that responds with a form (OAuth 2.0 Form Post Response Mode). The form comes from another
/// site, so the browser does not send the attempt's cookie with it. It sends the cookie with the `GET` that follows.
pub(super) async fn form_post_redirect(oauth: OAuth, request: Request) -> Response {
    let (mut parts, _, body) = split(request);
    let provider = super::provider_of(&mut parts).await;
    let registered = oauth.registered(&provider).ok().filter(|registered| registered.declared.quirks.form_post);
    let Some(mut callback) = registered.and_then(|registered| registered.endpoints.redirect.clone()) else {
        return private(StatusCode::METHOD_NOT_ALLOWED);
    };
    let form = match form(body).await {
        Ok(form) => form,
        Err(error) => return oauth.failed(&provider, &error, &parts).await,
    };
    let fields: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
    callback.query_pairs_mut().extend_pairs(fields.iter().filter(|(name, _)| FORWARDED.contains(&name.as_ref())));
    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let mut response = private(Redirect::to(callback.as_str()));
    if let (Some(state), Some(user)) = (field("state"), field("user")) {
        let cookie = oauth.inner.attempts.remember_posted(state, user);
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    }
    response
}

/// One request of the callback route.
struct Callback {
    /// The `Set-Cookie` headers of the response, in every case.
    cookies: Vec<HeaderValue>,
    /// Whether another request has spent the attempt.
    is_repeated: bool,
}

impl Callback {
    async fn respond(
        &mut self,
        oauth: &OAuth,
        provider: &str,
        query: &str,
        parts: &mut Parts,
    ) -> Result<Response, LoginError> {
        if is_prefetch(&parts.headers) {
            return Err(LoginError::Prefetch);
        }
        let registered = oauth.registered_in(provider)?;
        let parameters = Parameters::read(registered, query)?;
        let oauth = oauth.clone().in_request(&parts.extensions).ok_or(LoginError::NoRequestStorage)?;
        let attempts = &oauth.inner.attempts;
        let attempt = attempts.find(&parameters.state, &parts.headers);
        let attempt = attempt.filter(|attempt| attempt.provider == provider).ok_or(LoginError::UnknownAttempt)?;
        let user = oauth.current_user(parts).await.map_err(LoginError::Users)?;
        let ready = match ready(&oauth, registered, &attempt).await {
            Ok(ready) => ready,
            // A repeated callback needs nothing from the issuer.
            Err(_) if oauth.inner.spent.is_spent(&attempt).await? => registered.clone(),
            Err(error) => return Err(error),
        };
        let posted = attempts.posted(&attempt, &parts.headers);
        self.cookies.extend(posted.as_ref().map(|_| attempts.forget_posted()));

        let attempt = Arc::new(attempt);
        let login = Login {
            oauth: oauth.clone(),
            registered: ready.clone(),
            attempt: Arc::clone(&attempt),
            parameters,
            user: user.clone(),
            posted,
            parts: parts.clone(),
        };
        let first = match login.start().await {
            // A callback that fails to spend the attempt, because the storage is unavailable, leaves the cookie unchanged.
            Err(error) => {
                self.cookies.extend(matches!(error, LoginError::Expired).then(|| attempts.forget(&attempt)));
                return Err(error);
            }
            Ok(First::Repeated) => {
                let repeat = Repeat { oauth: &oauth, registered: &ready, attempt: &attempt, user: user.as_ref() };
                return self.repeat(repeat, parts).await;
            }
            Ok(First::Ended(ended)) => ended,
        };
        self.cookies.push(attempts.end(&attempt));
        let (response, ended) = first?;
        self.become_user(&oauth, ended.browser.as_ref());
        Ok(response)
    }

    /// Responds with the outcome of the callback that came first.
    async fn repeat(&mut self, repeat: Repeat<'_>, parts: &mut Parts) -> Result<Response, LoginError> {
        let Repeat { oauth, registered, attempt, user } = repeat;
        self.is_repeated = true;
        super::count(&registered.declared.name, "repeated");
        let outcome = oauth.inner.spent.outcome(attempt).await;
        tracing::info!(provider = registered.declared.name, is_known = outcome.is_ok(), "login repeated");
        let outcome = outcome?;
        // The cookie shows whether the browser has received the first response. If so, it has everything.
        let has_arrived = attempt.is_spent;
        if !has_arrived {
            self.cookies.push(oauth.inner.attempts.end(attempt));
        }
        let ended = match outcome {
            LoginOutcome::Ended(ended) => ended,
            LoginOutcome::Failed(failed) => return Err(failed.into()),
        };
        let redirect = without_fragment(registered, Redirect::to(&ended.location).into_response());
        if has_arrived || !attempt.is_of(user) {
            return Ok(redirect);
        }
        repeat.store(&ended).await?;
        self.become_user(oauth, ended.browser.as_ref());
        self.cookies.extend(ended.hook_cookies());
        let owner = ended.user();
        let login =
            Repeated { provider: &registered.declared.name, user: owner.as_ref(), next: &ended.location, parts };
        let response = oauth.inner.hooks.repeated(login).await.map_err(LoginError::Hook)?;
        Ok(response.unwrap_or(redirect))
    }

    fn become_user(&mut self, oauth: &OAuth, browser: Option<&AnonymousUser>) {
        if let (UserSource::Anonymous(users), Some(identity)) = (&oauth.inner.users, browser) {
            self.cookies.push(users.cookie(identity, oauth.inner.paths.is_https()));
        }
    }
}

/// The registration with everything that the callback needs from the issuer. If the issuer is unavailable, this fails before
/// anything is spent.
async fn ready(oauth: &OAuth, registered: &Registered, attempt: &Attempt) -> Result<Registered, LoginError> {
    if attempt.is_spent {
        return Ok(registered.clone());
    }
    let registered = registered.complete(oauth.http()).await?;
    if let Some(openid) = registered.openid.as_ref().filter(|_| attempt.openid) {
        openid.prepare(oauth.http(), oauth.http().clock.now()).await?;
    }
    Ok(registered)
}

/// A callback that repeats an earlier one.
#[derive(Clone, Copy)]
struct Repeat<'a> {
    oauth: &'a OAuth,
    registered: &'a Registered,
    attempt: &'a Attempt,
    user: Option<&'a User>,
}

impl Repeat<'_> {
    /// If each request has its own storage, stores the token in the storage of this request. The storage of the first
    /// request was lost with its response.
    async fn store(&self, ended: &Ended) -> Result<(), LoginError> {
        let (oauth, provider) = (self.oauth, &self.registered.declared.name);
        if !oauth.connector.shared.per_request || !ended.is_stored {
            return Ok(());
        }
        let Some(user) = ended.user() else { return Ok(()) };
        let Some(token) = oauth.inner.spent.handed_on(self.attempt).await? else { return Ok(()) };
        let key = user.key(provider)?;
        let issued_at = |token: &Token| token.as_oauth2().and_then(|token| token.issued_at);
        match oauth.connector.tokens.get(&key).await {
            Ok(Some(found)) if issued_at(&found.value) >= issued_at(&token) => {}
            _ => {
                oauth.connector.tokens.put(&key, &token, Precondition::Always).await?;
            }
        }
        Ok(())
    }
}

impl OAuth {
    /// The cookies of this browser that an older key of the ring sealed, resealed with the primary key.
    pub(super) fn renewed_cookies(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        match &self.inner.users {
            UserSource::Anonymous(users) => users.renewed(headers, self.inner.paths.is_https()),
            UserSource::Application(_) => Vec::new(),
        }
    }
}
