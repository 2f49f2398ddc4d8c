//! OAuth 1.0a of the provider (RFC 5849).

use std::collections::{HashMap, HashSet};

use http::{HeaderValue, Method, StatusCode, header};
use oauth_dance_core::OAuth1Token;
use percent_encoding::percent_decode_str;
use url::Url;

use super::Settings;
use super::endpoints::{Endpoint, Exchange};
use super::grants::{Access, random};
use super::log::LoggedRequest;
use super::reply::Reply;
use super::resource_owner::{AuthorizationRequest, Decision};
use crate::config::oauth1::SignatureMethod;
use crate::protocol::oauth1::expected_signature;

/// Temporary and token credentials, by their identifiers.
#[derive(Debug, Default)]
pub(super) struct Grants {
    temporary: HashMap<String, Temporary>,
    tokens: HashMap<String, Granted>,
    nonces: HashSet<String>,
}

#[derive(Debug)]
struct Temporary {
    secret: String,
    client: String,
    callback: String,
    /// The verifier, and the user who approved the request.
    approved: Option<(String, String)>,
}

#[derive(Debug)]
struct Granted {
    secret: String,
    user: String,
}

impl Grants {
    pub(super) fn issue(&mut self, settings: &Settings, user: &str) -> OAuth1Token {
        let (token, secret) = (random(settings, "token"), random(settings, "token-secret"));
        self.tokens.insert(token.clone(), Granted { secret: secret.clone(), user: user.to_owned() });
        OAuth1Token::new(token, secret)
    }

    pub(super) fn revoke_all_of(&mut self, user: &str) {
        self.tokens.retain(|_, granted| granted.user != user);
    }
}

/// A request with the parameters of its `Authorization` header.
struct Signed<'a> {
    request: &'a LoggedRequest,
    own: HashMap<String, String>,
}

/// What is wrong with a request, as the OAuth Problem Reporting extension names it.
type Refusal = &'static str;

/// The reply, if the request is one of OAuth 1.0a.
pub(super) fn reply(exchange: &Exchange<'_>) -> Option<Reply> {
    let request = exchange.request;
    if request.path == "/oauth1/authorize" {
        return Some(authorize(exchange));
    }
    let signed = Signed::of(request);
    if signed.is_none() && !request.path.starts_with("/oauth1/") {
        return None;
    }
    let reply = signed.ok_or("parameter_absent").and_then(|signed| match (request.endpoint, &request.method) {
        (Endpoint::TemporaryCredentials, &Method::POST) => temporary_credentials(exchange, &signed),
        (Endpoint::Token, &Method::POST) => token_credentials(exchange, &signed),
        (Endpoint::Userinfo, &Method::GET) => Ok(exchange.claims_of(&user(exchange, &signed)?, "")),
        (Endpoint::Api, _) => Ok(exchange.echo(&Access { user: user(exchange, &signed)?, ..Access::default() })),
        _ => Ok(Reply::empty(StatusCode::NOT_FOUND)),
    });
    Some(reply.unwrap_or_else(|problem| {
        let challenge = format!("OAuth realm=\"test\", oauth_problem=\"{problem}\"");
        let reply = Reply::form(StatusCode::UNAUTHORIZED, &[("oauth_problem", problem)]);
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => reply.with_header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => reply,
        }
    }))
}

/// Section 2.1.
fn temporary_credentials(exchange: &Exchange<'_>, signed: &Signed<'_>) -> Result<Reply, Refusal> {
    let Exchange { shared, settings, .. } = exchange;
    let mut grants = shared.oauth1();
    signed.check(&mut grants, exchange, "")?;
    let (client, callback) = (signed.own("oauth_consumer_key")?.to_owned(), signed.own("oauth_callback")?.to_owned());
    if !settings.clients.get(&client).is_some_and(|found| found.allows(&callback)) {
        return Err("parameter_rejected");
    }
    let (token, secret) = (random(settings, "temporary"), random(settings, "temporary-secret"));
    let temporary = Temporary { secret: secret.clone(), client, callback, approved: None };
    grants.temporary.insert(token.clone(), temporary);
    let form = [("oauth_token", token.as_str()), ("oauth_token_secret", &secret), ("oauth_callback_confirmed", "true")];
    Ok(Reply::form(StatusCode::OK, &form))
}

/// Section 2.2.
fn authorize(exchange: &Exchange<'_>) -> Reply {
    let Exchange { shared, settings, request } = exchange;
    let token = request.parameter("oauth_token").unwrap_or_default();
    let found = shared.oauth1().temporary.get(token).map(|found| (found.client.clone(), found.callback.clone()));
    let Some((client_id, redirect_uri)) = found else {
        return exchange.show_error("The temporary credentials are unknown.");
    };
    let Ok(mut callback) = Url::parse(&redirect_uri) else {
        return exchange.show_error("The callback is not a URL.");
    };
    let authorization =
        AuthorizationRequest { client_id: &client_id, redirect_uri: &redirect_uri, scope: "", http: request };
    let (name, value) = match exchange.decide(&authorization, &request.query) {
        Decision::Ask(page) => return page.into(),
        Decision::Deny(problem) => ("oauth_problem", problem),
        Decision::Approve(user) => {
            let verifier = random(settings, "verifier");
            if let Some(temporary) = shared.oauth1().temporary.get_mut(token) {
                temporary.approved = Some((verifier.clone(), user));
            }
            ("oauth_verifier", verifier)
        }
    };
    callback.query_pairs_mut().append_pair("oauth_token", token).append_pair(name, &value);
    Reply::redirect(callback.as_str())
}

/// Section 2.3. Temporary credentials work once.
fn token_credentials(exchange: &Exchange<'_>, signed: &Signed<'_>) -> Result<Reply, Refusal> {
    let mut grants = exchange.shared.oauth1();
    let token = signed.own("oauth_token")?;
    let secret = grants.temporary.get(token).ok_or("token_rejected")?.secret.clone();
    signed.check(&mut grants, exchange, &secret)?;
    let verifier = signed.own("oauth_verifier")?;
    let approved = grants.temporary.remove(token).and_then(|temporary| temporary.approved);
    let (_, user) = approved.filter(|(expected, _)| expected == verifier).ok_or("verifier_invalid")?;
    let granted = grants.issue(exchange.settings, &user);
    let (token, secret) = (granted.token.expose(), granted.token_secret.expose());
    Ok(Reply::form(StatusCode::OK, &[("oauth_token", token), ("oauth_token_secret", secret), ("user_id", &user)]))
}

/// The user whose token credentials sign an API call.
fn user(exchange: &Exchange<'_>, signed: &Signed<'_>) -> Result<String, Refusal> {
    let mut grants = exchange.shared.oauth1();
    let granted = grants.tokens.get(signed.own("oauth_token")?).ok_or("token_revoked")?;
    let (secret, user) = (granted.secret.clone(), granted.user.clone());
    signed.check(&mut grants, exchange, &secret)?;
    Ok(user)
}

impl<'a> Signed<'a> {
    fn of(request: &'a LoggedRequest) -> Option<Self> {
        let parameters = request.header("authorization")?.strip_prefix("OAuth ")?;
        let own = parameters.split(',').map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            let value = percent_decode_str(value.trim_matches('"')).decode_utf8().ok()?;
            Some((name.to_owned(), value.into_owned()))
        });
        Some(Self { request, own: own.collect::<Option<_>>()? })
    }

    fn own(&self, name: &str) -> Result<&str, Refusal> {
        self.own.get(name).map(String::as_str).ok_or("parameter_absent")
    }

    /// Checks everything that section 3.2 requires of a server.
    fn check(&self, grants: &mut Grants, exchange: &Exchange<'_>, token_secret: &str) -> Result<(), Refusal> {
        let client = exchange.settings.clients.get(self.own("oauth_consumer_key")?);
        let secret = client.and_then(|client| client.secret.as_ref()).ok_or("consumer_key_unknown")?.expose();
        let known = [SignatureMethod::HmacSha1, SignatureMethod::HmacSha256, SignatureMethod::Plaintext];
        let method = self.own("oauth_signature_method")?;
        let method = known.into_iter().find(|known| known.as_str() == method).ok_or("signature_method_rejected")?;
        let url =
            Url::parse(&format!("{}{}", exchange.issuer(), self.request.path)).map_err(|_| "parameter_rejected")?;
        let own = self.own.iter().filter(|(name, _)| !matches!(name.as_str(), "realm" | "oauth_signature"));
        let own = own.map(|(name, value)| (name.clone(), value.clone()));
        let parameters = self.request.query.iter().chain(&self.request.form).cloned().chain(own);
        let expected = expected_signature((method, secret, token_secret), &self.request.method, &url, parameters);
        if expected.as_deref() != Some(self.own("oauth_signature")?) {
            return Err("signature_invalid");
        }
        let (nonce, timestamp) = (self.own("oauth_nonce")?, self.own("oauth_timestamp")?);
        if grants.nonces.insert(format!("{timestamp} {nonce}")) { Ok(()) } else { Err("nonce_used") }
    }
}
