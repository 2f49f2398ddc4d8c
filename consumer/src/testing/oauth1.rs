//! The provider's OAuth 1.0a (RFC 5849).

use std::collections::{HashMap, HashSet};

use http::{HeaderValue, Method, StatusCode, header};
use oauth_dance_core::OAuth1Token;
use percent_encoding::percent_decode_str;
use serde_json::json;
use url::Url;

use super::answer::Usual;
use super::endpoints::{Endpoint, echo, secret_of};
use super::grants::random;
use super::log::LoggedRequest;
use super::{Settings, Shared};
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
    callback: String,
    /// The verifier and who approved.
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

/// What is wrong with a request, in the words of the OAuth Problem Reporting extension.
type Refusal = &'static str;

/// The answer to a request that is one of OAuth 1.0a.
pub(super) fn usual(shared: &Shared, settings: &Settings, issuer: &str, request: &LoggedRequest) -> Option<Usual> {
    if request.path == "/oauth1/authorize" {
        return Some(authorize(shared, settings, request));
    }
    let signed = Signed::of(request);
    if signed.is_none() && !request.path.starts_with("/oauth1/") {
        return None;
    }
    let answer = signed.ok_or("parameter_absent").and_then(|signed| match (request.endpoint, &request.method) {
        (Endpoint::TemporaryCredentials, &Method::POST) => temporary_credentials(shared, settings, issuer, &signed),
        (Endpoint::Token, &Method::POST) => token_credentials(shared, settings, issuer, &signed),
        (Endpoint::Userinfo, &Method::GET) => {
            let user = user(shared, settings, issuer, &signed)?;
            Ok(Usual::json(StatusCode::OK, json!({ "sub": user })))
        }
        (Endpoint::Api, _) => {
            let user = user(shared, settings, issuer, &signed)?;
            Ok(Usual::json(StatusCode::OK, echo(request, &user, "")))
        }
        _ => Ok(Usual::empty(StatusCode::NOT_FOUND)),
    });
    Some(answer.unwrap_or_else(|problem| {
        let challenge = format!("OAuth realm=\"test\", oauth_problem=\"{problem}\"");
        let answer = Usual::form(StatusCode::UNAUTHORIZED, &[("oauth_problem", problem)]);
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => answer.with_header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => answer,
        }
    }))
}

/// Section 2.1.
fn temporary_credentials(
    shared: &Shared,
    settings: &Settings,
    issuer: &str,
    signed: &Signed<'_>,
) -> Result<Usual, Refusal> {
    let mut grants = shared.oauth1();
    signed.check(&mut grants, settings, issuer, "")?;
    let callback = signed.own("oauth_callback")?.to_owned();
    let (token, secret) = (random(settings, "temporary"), random(settings, "temporary-secret"));
    grants.temporary.insert(token.clone(), Temporary { secret: secret.clone(), callback, approved: None });
    let form = [("oauth_token", token.as_str()), ("oauth_token_secret", &secret), ("oauth_callback_confirmed", "true")];
    Ok(Usual::form(StatusCode::OK, &form))
}

/// Section 2.2. Everybody approves, unless the provider is set to refuse.
fn authorize(shared: &Shared, settings: &Settings, request: &LoggedRequest) -> Usual {
    let mut grants = shared.oauth1();
    let token = request.parameter("oauth_token").unwrap_or_default();
    let Some(temporary) = grants.temporary.get_mut(token) else {
        return Usual::invalid_request("there are no such temporary credentials");
    };
    let Ok(mut callback) = Url::parse(&temporary.callback) else {
        return Usual::invalid_request("the callback is not a URL");
    };
    let answer = match &settings.refuses {
        Some(problem) => ("oauth_problem", problem.clone()),
        None => {
            let verifier = random(settings, "verifier");
            let user = request.parameter("login_hint").unwrap_or(&settings.user);
            temporary.approved = Some((verifier.clone(), user.to_owned()));
            ("oauth_verifier", verifier)
        }
    };
    callback.query_pairs_mut().append_pair("oauth_token", token).append_pair(answer.0, &answer.1);
    Usual::redirect(callback.as_str())
}

/// Section 2.3. Temporary credentials work once.
fn token_credentials(
    shared: &Shared,
    settings: &Settings,
    issuer: &str,
    signed: &Signed<'_>,
) -> Result<Usual, Refusal> {
    let mut grants = shared.oauth1();
    let token = signed.own("oauth_token")?;
    let secret = grants.temporary.get(token).ok_or("token_rejected")?.secret.clone();
    signed.check(&mut grants, settings, issuer, &secret)?;
    let verifier = signed.own("oauth_verifier")?;
    let approved = grants.temporary.remove(token).and_then(|temporary| temporary.approved);
    let (_, user) = approved.filter(|(expected, _)| expected == verifier).ok_or("verifier_invalid")?;
    let granted = grants.issue(settings, &user);
    let (token, secret) = (granted.token.expose(), granted.token_secret.expose());
    Ok(Usual::form(StatusCode::OK, &[("oauth_token", token), ("oauth_token_secret", secret), ("user_id", &user)]))
}

/// Whose token credentials an API call is signed with.
fn user(shared: &Shared, settings: &Settings, issuer: &str, signed: &Signed<'_>) -> Result<String, Refusal> {
    let mut grants = shared.oauth1();
    let granted = grants.tokens.get(signed.own("oauth_token")?).ok_or("token_revoked")?;
    let (secret, user) = (granted.secret.clone(), granted.user.clone());
    signed.check(&mut grants, settings, issuer, &secret)?;
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

    /// Checks everything that section 3.2 asks a server to check.
    fn check(&self, grants: &mut Grants, settings: &Settings, issuer: &str, token_secret: &str) -> Result<(), Refusal> {
        let secret = secret_of(settings, self.own("oauth_consumer_key")?).flatten().ok_or("consumer_key_unknown")?;
        let known = [SignatureMethod::HmacSha1, SignatureMethod::HmacSha256, SignatureMethod::Plaintext];
        let method = self.own("oauth_signature_method")?;
        let method = known.into_iter().find(|known| known.as_str() == method).ok_or("signature_method_rejected")?;
        let url = Url::parse(&format!("{issuer}{}", self.request.path)).map_err(|_| "parameter_rejected")?;
        let own = self.own.iter().filter(|(name, _)| !matches!(name.as_str(), "realm" | "oauth_signature"));
        let own = own.map(|(name, value)| (name.clone(), value.clone()));
        let parameters = self.request.query.iter().chain(&self.request.form).cloned().chain(own);
        let expected = expected_signature((method, &secret, token_secret), &self.request.method, &url, parameters);
        if expected.as_deref() != Some(self.own("oauth_signature")?) {
            return Err("signature_invalid");
        }
        let (nonce, timestamp) = (self.own("oauth_nonce")?, self.own("oauth_timestamp")?);
        if grants.nonces.insert(format!("{timestamp} {nonce}")) { Ok(()) } else { Err("nonce_used") }
    }
}
