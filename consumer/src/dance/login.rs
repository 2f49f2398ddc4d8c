//! The login route: sends the browser to the provider.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::{Redirect, Response};
use http::request::Parts;
use http::{Method, header};
use oauth_dance_core::{OAuth1Token, Secret};
use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl, Scope};
use url::Url;

use super::attempt::Attempt;
use super::{form, is_prefetch, pages, private, query, split};
use crate::error::{LoginError, TokenEndpointError};
use crate::hooks::BeforeLogin;
use crate::oauth::OAuth;
use crate::oauth1;
use crate::openid;
use crate::registered::{Registered, without_parameters};
use crate::same_origin::is_cross_site;
use crate::user::User;
use crate::{dpop, pushed_request};

/// For one parameter that the request sets.
const MAX_PARAMETER: usize = 512;
/// How many bytes of scopes there is room for in the attempt's cookie. For more, the provider's usual ones count as asked.
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

    // Connecting an account to somebody signed in changes their account: another site may not start that alone.
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
        scopes: registered.scopes.clone(),
        params: parameters(&registered, query, is_cross_site)?,
    };
    oauth.inner.hooks.before_login(&mut login).await.map_err(LoginError::Hook)?;
    let BeforeLogin { scopes, params, .. } = login;
    if let Some(parameter) = params.keys().find(|parameter| registered.reserves(parameter)) {
        return Err(LoginError::ReservedParameter { parameter: parameter.clone() });
    }
    let registered = registered.complete(oauth).await?;
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

/// The parameters of every login, and those that this request may set. Another site has no say in them.
fn parameters(
    registered: &Registered,
    query: &str,
    is_cross_site: bool,
) -> Result<BTreeMap<String, String>, LoginError> {
    let mut params = registered.authorization_params.clone();
    for name in registered.login_params.iter().filter(|_| !is_cross_site) {
        match query::one(query, name)? {
            Some(value) if value.len() > MAX_PARAMETER => return Err(LoginError::Malformed("a parameter is too long")),
            Some(value) => params.insert(name.clone(), value),
            None => None,
        };
    }
    Ok(params)
}

/// An attempt by OAuth 2.0, and where the browser is sent.
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
    let mut attempt = oauth.inner.attempts.start(&registered.name, &verifier, next, user);
    let has_room = scopes.iter().map(String::len).sum::<usize>() <= MAX_SCOPES;
    attempt.scopes = (scopes != registered.scopes && has_room).then(|| scopes.to_vec());
    let key = registered.dpop_key(None);
    if let Some(key) = &key {
        attempt.bind(key);
        let thumbprint = dpop::thumbprint(key).ok_or(TokenEndpointError::Proof)?;
        params.insert("dpop_jkt".to_owned(), thumbprint);
    }
    if registered.openid.is_some() && scopes.iter().any(|scope| scope == openid::SCOPE) {
        attempt.expect_id_token(!registered.quirks.without_nonce);
        attempt.expect_sign_in_within(params.get("max_age"));
        params.extend(attempt.nonce.clone().map(|nonce| ("nonce".to_owned(), nonce)));
    }
    if registered.quirks.form_post {
        params.insert("response_mode".to_owned(), "form_post".to_owned());
    }
    let (mut url, mut params) = authorization_request(registered, &attempt.state, challenge, scopes, params);
    if let Some(endpoint) = &registered.pushed_authorization_request_endpoint {
        let pushed = pushed_request::push(&oauth.inner.http, registered, endpoint, &params, key.as_ref()).await;
        let request_uri = pushed.map_err(LoginError::PushedRequest)?;
        params.retain(|(name, _)| name == "client_id");
        params.push(("request_uri".to_owned(), request_uri.expose().to_owned()));
    }
    url.query_pairs_mut().extend_pairs(params);
    Ok((attempt, url))
}

/// An attempt by OAuth 1.0a, and where the browser is sent. The temporary credentials' secret stays in the attempt.
async fn begin_oauth1(
    oauth: &OAuth,
    registered: &Registered,
    client: &oauth1::Client,
    params: BTreeMap<String, String>,
    next: String,
    user: Option<&User>,
) -> Result<(Attempt, Url), LoginError> {
    let (http, now) = (&oauth.inner.http, oauth.inner.clock.now());
    let OAuth1Token { token, token_secret, .. } = oauth1::temporary_credentials(http, registered, client, now).await?;
    let url = oauth1::authorization_url(registered, &token, params);
    let state = token.expose().to_owned();
    let attempt = oauth.inner.attempts.start_as(state, &registered.name, &token_secret, next, user);
    Ok((attempt, url))
}

/// The authorization request (RFC 6749 section 4.1.1 with RFC 7636 section 4.3): the endpoint with what its own query keeps,
/// and the parameters.
fn authorization_request(
    registered: &Registered,
    state: &str,
    challenge: PkceCodeChallenge,
    scopes: &[String],
    params: impl IntoIterator<Item = (String, String)>,
) -> (Url, Vec<(String, String)>) {
    let params: BTreeMap<String, String> = params.into_iter().collect();
    let endpoint = without_parameters(&registered.authorization_endpoint, |name| params.contains_key(name));
    let client = BasicClient::new(ClientId::new(registered.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(without_parameters(&endpoint, |_| true)))
        .set_redirect_uri(RedirectUrl::from_url(registered.redirect_uri.clone()));
    let mut request = client.authorize_url(|| CsrfToken::new(state.to_owned()));
    if !registered.quirks.without_pkce {
        request = request.set_pkce_challenge(challenge);
    }
    if !scopes.is_empty() {
        let scopes = scopes.join(&registered.scope_separator.to_string());
        request = match &registered.quirks.scope_parameter {
            None => request.add_scope(Scope::new(scopes)),
            Some(parameter) => request.add_extra_param(parameter, scopes),
        };
    }
    for (name, value) in params {
        request = request.add_extra_param(name, value);
    }
    (endpoint, request.url().0.query_pairs().into_owned().collect())
}

#[cfg(test)]
mod tests {
    use crate::provider::Provider;

    use super::*;

    /// The challenge of the verifier in RFC 7636 appendix B, in the request of RFC 6749 section 4.1.1.
    #[test]
    fn the_request_carries_everything_once() {
        let provider = Provider::new("p", "https://p.example/auth?tenant=a&state=x", "https://p.example/token")
            .with_scopes(["a&b=c", "d"]);
        let registered = Registered::check(provider.client("id", "s"), "https://app.example/callback").unwrap();
        let verifier = oauth2::PkceCodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let params = [("prompt".to_owned(), "select account".to_owned())];
        let (mut url, params) = authorization_request(&registered, "STATE", challenge, &registered.scopes, params);
        assert_eq!(url.as_str(), "https://p.example/auth?tenant=a");
        url.query_pairs_mut().extend_pairs(params);

        let mut pairs: Vec<_> = url.query_pairs().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.sort();
        assert_eq!(
            pairs,
            [
                "client_id=id",
                "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                "code_challenge_method=S256",
                "prompt=select account",
                "redirect_uri=https://app.example/callback",
                "response_type=code",
                "scope=a&b=c d",
                "state=STATE",
                "tenant=a",
            ]
        );
    }
}
