//! The login route: redirects the browser to the provider.

use std::collections::BTreeMap;

use axum::extract;
use axum::response::{Redirect, Response};
use http::request::Parts;
use http::{Method, header};

use super::same_origin::is_cross_site;
use super::{form, pages, private, split};
use crate::app::OAuth;
use crate::app::hooks::BeforeLogin;
use crate::error::LoginError;
use crate::login::request::Request;
use crate::login::{is_prefetch, query};
use crate::protocol::registered::Registered;

/// The size limit of a parameter that the request sets.
const MAX_PARAMETER: usize = 512;
/// The size limit of scopes in the attempt's cookie. If they are larger, the provider's configured scopes are compared
/// instead.
const MAX_SCOPES: usize = 1024;

pub(super) async fn handle(oauth: OAuth, request: extract::Request) -> Response {
    let (mut parts, query, body) = split(request);
    let provider = super::provider_of(&mut parts).await;
    let query = match parts.method {
        Method::POST => form(body).await,
        _ => Ok(query.unwrap_or_default()),
    };
    let outcome = match query {
        Ok(query) => start(&oauth, &provider, &mut parts, &query).await,
        Err(error) => Err(error),
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(error) => oauth.failed(&provider, &error, &parts).await,
    };
    for cookie in oauth.renewed_cookies(&parts.headers) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn start(oauth: &OAuth, provider: &str, parts: &mut Parts, query: &str) -> Result<Response, LoginError> {
    if is_prefetch(&parts.headers) {
        return Err(LoginError::Prefetch);
    }
    let registered = oauth.registered_in(provider)?;
    let oauth = &oauth.clone().in_request(&parts.extensions).ok_or(LoginError::NoRequestStorage)?;
    let next = oauth.inner.paths.local(query::one(query, "next")?.as_deref());
    let user = oauth.current_user(parts).await.map_err(LoginError::Users)?;

    // Connecting an account changes the account of a signed-in user: another site must not start that on its own.
    let is_cross_site = is_cross_site(&parts.headers, &oauth.inner.paths.origin());
    if is_cross_site {
        if parts.method == Method::POST {
            return Err(LoginError::CrossSite);
        }
        if user.is_some() {
            return Ok(pages::confirm(oauth, registered, &next));
        }
    }

    let mut login = BeforeLogin {
        provider,
        user: user.as_ref(),
        parts,
        scopes: registered.declared.scopes.clone(),
        params: parameters(registered, query, is_cross_site)?,
    };
    oauth.inner.hooks.before_login(&mut login).await.map_err(LoginError::Hook)?;
    let BeforeLogin { scopes, params, .. } = login;
    if let Some(parameter) = params.keys().find(|parameter| registered.reserves(parameter)) {
        return Err(LoginError::ReservedParameter { parameter: parameter.clone() });
    }
    let registered = registered.complete(oauth.http()).await?;
    let mut attempt = oauth.inner.attempts.start(&registered.declared.name, next, user.as_ref());
    let has_room = scopes.iter().map(String::len).sum::<usize>() <= MAX_SCOPES;
    attempt.scopes = (scopes != registered.declared.scopes && has_room).then(|| scopes.clone());
    let redirect_uri = registered.redirect_uri();
    let request = Request { http: oauth.http(), registered: &registered, redirect_uri, scopes: &scopes };
    let (attempt, url) = request.begin(attempt, params).await?;

    let mut response = private(Redirect::to(url.as_str()));
    for cookie in oauth.inner.attempts.remember(&attempt, &parts.headers) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    tracing::info!(provider, "login started");
    Ok(response)
}

/// The parameters of every login, and those that this request may set. Parameters from another site are ignored.
fn parameters(
    registered: &Registered,
    query: &str,
    is_cross_site: bool,
) -> Result<BTreeMap<String, String>, LoginError> {
    let mut params = registered.declared.authorization_params.clone();
    for name in registered.declared.login_params.iter().filter(|_| !is_cross_site) {
        match query::one(query, name)? {
            Some(value) if value.len() > MAX_PARAMETER => return Err(LoginError::Malformed("a parameter is too long")),
            Some(value) => params.insert(name.clone(), value),
            None => None,
        };
    }
    Ok(params)
}
