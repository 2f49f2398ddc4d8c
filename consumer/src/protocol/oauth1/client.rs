//! The client of a provider of OAuth 1.0a, which signs requests (RFC 5849 section 3).

use http::{HeaderMap, HeaderValue, Method, header};
use oauth_dance_core::{OAuth1Token, Secret, Timestamp, random_bytes};
use reqwest::Request;
use url::Url;

use super::base_string::{Parameter, base_string, encode, form_decoded};
use super::response;
use super::signature::Signer;
use crate::config::endpoint::{PlainHttp, parse_endpoint};
use crate::config::oauth1::OAuth1;
use crate::error::{ApiError, ConfigError};

/// The client of a provider of OAuth 1.0a, with its signer.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    key: String,
    pub(super) signer: Signer,
    realm: Option<String>,
    pub(super) temporary_credentials_endpoint: Url,
}

/// Temporary or token credentials: an identifier and its shared secret.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub(crate) token: &'a str,
    pub(crate) secret: &'a str,
}

impl<'a> From<&'a OAuth1Token> for Credentials<'a> {
    fn from(token: &'a OAuth1Token) -> Self {
        Self { token: token.token.expose(), secret: token.token_secret.expose() }
    }
}

/// Why a request cannot be signed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unsignable(&'static str);

impl Client {
    /// Checks the parts of a registration that belong to OAuth 1.0a.
    pub(crate) fn check(
        provider: &str,
        oauth1: &OAuth1,
        key: &str,
        secret: Option<&Secret>,
        plain_http: &PlainHttp,
    ) -> Result<Self, ConfigError> {
        let invalid = |field, problem| ConfigError::invalid(provider, field, problem);
        let OAuth1 { temporary_credentials_endpoint, signature_method, realm } = oauth1;
        let secret = secret.ok_or_else(|| ConfigError::missing(provider, "client_secret"))?;
        let quotable = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        if realm.as_ref().is_some_and(|realm| !realm.chars().all(quotable)) {
            return Err(invalid("realm", "has characters that cannot be quoted in a header"));
        }
        let field = "temporary_credentials_endpoint";
        Ok(Self {
            key: key.to_owned(),
            signer: Signer::new(*signature_method, secret.clone())
                .map_err(|(field, problem)| invalid(field, problem))?,
            realm: realm.clone(),
            temporary_credentials_endpoint: parse_endpoint(temporary_credentials_endpoint, plain_http)
                .map_err(|problem| invalid(field, problem))?,
        })
    }

    /// Signs an API call that is complete: its query, and its body if that is a form (section 3.4.1.3.1).
    ///
    /// A signature is valid for one request, so a repeated request is signed again.
    pub(crate) fn sign(&self, mut request: Request, token: &OAuth1Token, now: Timestamp) -> Result<Request, ApiError> {
        let is_form = request.headers().get(header::CONTENT_TYPE).is_some_and(is_form);
        let form = request.body().filter(|_| is_form).and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let signed = self.authorization(request.method(), request.url(), form, Some(token.into()), &[], now);
        let authorization = signed.map_err(|error| ApiError::Request(error.into()))?;
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
        Ok(request)
    }

    /// The problem with a request signed with this token, according to a response of the API.
    pub(crate) fn problem(&self, headers: &HeaderMap, body: &[u8], token: &OAuth1Token) -> Option<String> {
        let sent = [self.signer.shared_secret(), token.token.expose(), token.token_secret.expose()];
        response::problem(headers, body, &sent).map(|problem| problem.code)
    }

    /// The `Authorization` header of a request (section 3.5.1); `more` are the parameters of the dance.
    pub(super) fn authorization(
        &self,
        method: &Method,
        url: &Url,
        form: &[u8],
        token: Option<Credentials<'_>>,
        more: &[(&'static str, &str)],
        now: Timestamp,
    ) -> Result<HeaderValue, Unsignable> {
        let (nonce, timestamp) = (nonce(), now.as_unix_seconds().to_string());
        let mut own = vec![
            ("oauth_consumer_key", self.key.as_str()),
            ("oauth_signature_method", self.signer.method().as_str()),
            ("oauth_timestamp", &timestamp),
            ("oauth_nonce", &nonce),
            ("oauth_version", "1.0"),
        ];
        own.extend(token.map(|credentials| ("oauth_token", credentials.token)));
        own.extend_from_slice(more);
        let signature = self.signature(method, url, form, &own, token.map_or("", |credentials| credentials.secret))?;
        own.push(("oauth_signature", &signature));

        let realm = self.realm.iter().map(|realm| format!("realm=\"{realm}\""));
        let own = own.into_iter().map(|(name, value)| format!("{name}=\"{}\"", encode(value)));
        let parameters: Vec<_> = realm.chain(own).collect();
        #[expect(clippy::expect_used, reason = "the realm was checked, and the rest is percent-encoded")]
        let mut header =
            HeaderValue::try_from(format!("OAuth {}", parameters.join(", "))).expect("the header is printable ASCII");
        header.set_sensitive(true);
        Ok(header)
    }

    fn signature(
        &self,
        method: &Method,
        url: &Url,
        form: &[u8],
        own: &[(&'static str, &str)],
        token_secret: &str,
    ) -> Result<String, Unsignable> {
        let mut parameters: Vec<Parameter> = form_decoded(url.query().unwrap_or_default().as_bytes()).collect();
        parameters.extend(form_decoded(form));
        if parameters.iter().any(|(name, _)| name.starts_with(b"oauth_")) {
            return Err(Unsignable("parameters that begin with oauth_ belong to the protocol"));
        }
        parameters.extend(own.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
        let text = base_string(method, url, parameters);
        self.signer.sign(&text, token_secret).ok_or(Unsignable("the client's private key cannot sign"))
    }
}

/// A nonce of 120 random bits (section 3.3). Some servers accept at most 30 characters, only letters and digits.
fn nonce() -> String {
    random_bytes::<15>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_form(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
