//! The login route: redirects the browser to the provider.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::{Redirect, Response};
use http::request::Parts;
use http::{Method, header};
use oauth_dance_core::{OAuth1Token, Secret};
use oauth2::PkceCodeChallenge;
use url::Url;

use super::same_origin::is_cross_site;
use super::{form, is_prefetch, pages, private, query, split};
use crate::app::OAuth;
use crate::app::hooks::BeforeLogin;
use crate::browser::attempt::Attempt;
use crate::browser::user::User;
use crate::config::issuer::OPENID_SCOPE;
use crate::error::{LoginError, TokenEndpointError};
use crate::protocol::oauth2::authorize::authorization_request;
use crate::protocol::oauth2::pushed_request;
use crate::protocol::registered::Registered;
use crate::protocol::{dpop, oauth1};

/// The size limit of a parameter that the request sets.
const MAX_PARAMETER: usize = 512;
/// The size limit of scopes in the attempt's cookie. If they are larger, the provider's configured scopes are compared
/// instead.
const MAX_SCOPES: usize = 1024;

pub(super) async fn handle(oauth: OAuth, request: Request) -> Response {
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
    let oauth = &oauth.in_request(&parts.extensions).ok_or(LoginError::NoRequestStorage)?;
    let next = oauth.inner.paths.local(query::one(query, "next")?.as_deref());
    let user = oauth.current_user(parts).await.map_err(LoginError::Users)?;

    // Connecting an account changes the account of a signed-in user: another site must not start that on its own.
    let is_cross_site = is_cross_site(&parts.headers, &oauth.inner.paths.origin());
    if is_cross_site {
        if parts.method == Method::POST {
            return Err(LoginError::CrossSite);
        }
        if user.is_some() {
            return Ok(pages::confirm(oauth, &registered, &next));
        }
    }

    let mut login = BeforeLogin {
        provider,
        user: user.as_ref(),
        parts,
        scopes: registered.declared.scopes.clone(),
        params: parameters(&registered, query, is_cross_site)?,
    };
    oauth.inner.hooks.before_login(&mut login).await.map_err(LoginError::Hook)?;
    let BeforeLogin { scopes, params, .. } = login;
    if let Some(parameter) = params.keys().find(|parameter| registered.reserves(parameter)) {
        return Err(LoginError::ReservedParameter { parameter: parameter.clone() });
    }
    let registered = registered.complete(oauth.http()).await?;
    let (attempt, url) = match &registered.oauth1 {
        None => begin(oauth, &registered, &scopes, params, next, user.as_ref()).await?,
        Some(_) if !scopes.is_empty() => {
            return Err(LoginError::ReservedParameter { parameter: "scope".to_owned() });
        }
        Some(client) => begin_oauth1(oauth, &registered, client, params, next, user.as_ref()).await?,
    };

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

/// An OAuth 2.0 attempt, and the URL to redirect the browser to.
async fn begin(
    oauth: &OAuth,
    registered: &Registered,
    scopes: &[String],
    mut params: BTreeMap<String, String>,
    next: String,
    user: Option<&User>,
) -> Result<(Attempt, Url), LoginError> {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let verifier = Secret::new(verifier.secret().as_str());
    let mut attempt = oauth.inner.attempts.start(&registered.declared.name, &verifier, next, user);
    let has_room = scopes.iter().map(String::len).sum::<usize>() <= MAX_SCOPES;
    attempt.scopes = (scopes != registered.declared.scopes && has_room).then(|| scopes.to_vec());
    let key = registered.dpop_key(None);
    if let Some(key) = &key {
        attempt.bind(key);
        let thumbprint = dpop::thumbprint(key).ok_or(TokenEndpointError::Proof)?;
        params.insert("dpop_jkt".to_owned(), thumbprint);
    }
    if registered.openid.is_some() && scopes.iter().any(|scope| scope == OPENID_SCOPE) {
        attempt.expect_id_token(!registered.declared.quirks.without_nonce);
        attempt.expect_sign_in_within(params.get("max_age"));
        params.extend(attempt.nonce.clone().map(|nonce| ("nonce".to_owned(), nonce)));
    }
    if registered.declared.quirks.form_post {
        params.insert("response_mode".to_owned(), "form_post".to_owned());
    }
    let (mut url, mut params) =
        authorization_request(registered, registered.redirect_uri(), &attempt.state, &challenge, scopes, params);
    if let Some(endpoint) = registered.pushed_authorization_request_endpoint() {
        let pushed = pushed_request::push(oauth.http(), registered, endpoint, &params, key.as_ref()).await;
        let request_uri = pushed.map_err(LoginError::PushedRequest)?;
        params.retain(|(name, _)| name == "client_id");
        params.push(("request_uri".to_owned(), request_uri.expose().to_owned()));
    }
    url.query_pairs_mut().extend_pairs(params);
    Ok((attempt, url))
}

/// An OAuth 1.0a attempt, and the URL to redirect the browser to. The secret of the temporary credentials is sealed in the
/// attempt.
async fn begin_oauth1(
    oauth: &OAuth,
    registered: &Registered,
    client: &oauth1::Client,
    params: BTreeMap<String, String>,
    next: String,
    user: Option<&User>,
) -> Result<(Attempt, Url), LoginError> {
    let (http, now) = (oauth.http(), oauth.http().clock.now());
    let temporary = oauth1::temporary_credentials(http, client, registered.redirect_uri(), now).await?;
    let OAuth1Token { token, token_secret, .. } = temporary;
    let url = oauth1::authorization_url(registered.authorization_endpoint(), &token, params);
    let state = token.expose().to_owned();
    let attempt = oauth.inner.attempts.start_as(state, &registered.declared.name, &token_secret, next, user);
    Ok((attempt, url))
}
