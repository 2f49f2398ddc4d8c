//! The token endpoint (RFC 6749 section 3.2), revocation (RFC 7009), and client authentication for both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use oauth_dance_core::{Extra, OAuth2Token, Secret};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::dpop::BadProof;
use super::endpoints::Exchange;
use super::grants::{GrantError, Redemption};
use super::log::repeats;
#[cfg(feature = "oidc")]
use super::openid;
use super::reply::Reply;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

impl Exchange<'_> {
    pub(super) fn token(&self) -> Reply {
        let client = match self.authenticate() {
            Ok(client) => client,
            Err(refusal) => return *refusal,
        };
        let jkt = match self.proved_key(StatusCode::BAD_REQUEST, None) {
            Ok(None) if self.settings.requires_dpop => {
                return bad_proof(StatusCode::BAD_REQUEST, &BadProof::Invalid("there is none"));
            }
            Ok(jkt) => jkt,
            Err(refusal) => return *refusal,
        };
        let field = |name| self.request.field(name);
        let by = Redemption { settings: self.settings, client: &client, jkt: jkt.as_deref() };
        let granted = match field("grant_type") {
            Some("authorization_code") => {
                let (Some(code), Some(redirect_uri), Some(verifier)) =
                    (field("code"), field("redirect_uri"), field("code_verifier"))
                else {
                    return Reply::invalid_request("code, redirect_uri and code_verifier are required");
                };
                self.shared.grants().redeem_code(&by, code, redirect_uri, verifier)
            }
            Some("refresh_token") => match field("refresh_token") {
                Some(refresh_token) => self.shared.grants().refresh(&by, refresh_token, field("scope")),
                None => return Reply::invalid_request("refresh_token is required"),
            },
            Some("urn:ietf:params:oauth:grant-type:device_code") => match field("device_code") {
                Some(device_code) => self.redeem_device_code(&by, device_code),
                None => return Reply::invalid_request("device_code is required"),
            },
            Some("client_credentials") => return self.client_credentials(&by),
            Some(TOKEN_EXCHANGE) => return self.exchange(&by),
            Some(_) => return Reply::bad_request("unsupported_grant_type", "grant_type is not supported"),
            None => return Reply::invalid_request("grant_type is required"),
        };
        match granted {
            Ok(token) => {
                #[cfg(feature = "oidc")]
                let token = openid::with_id_token(self, &by, token);
                self.token_response(&by, &token)
            }
            Err(GrantError { code, why }) => Reply::bad_request(code, why),
        }
    }

    /// RFC 6749 section 4.4.
    fn client_credentials(&self, by: &Redemption<'_>) -> Reply {
        let scope = self.request.field("scope").unwrap_or_default();
        if self.settings.clients.get(by.client).is_none_or(|client| client.secret.is_none()) {
            return Reply::bad_request("unauthorized_client", "a public client cannot use this grant");
        }
        if !scope.is_empty() && !self.settings.knows(scope) {
            return Reply::bad_request("invalid_scope", "the scope is unknown");
        }
        match self.audience() {
            Ok(audience) => {
                let token = self.shared.grants().issue_to_client(by, scope, audience);
                self.token_response(by, &token)
            }
            Err(refusal) => *refusal,
        }
    }

    /// RFC 8693.
    fn exchange(&self, by: &Redemption<'_>) -> Reply {
        let field = |name| self.request.field(name);
        let (Some(subject_token), Some(ACCESS_TOKEN)) = (field("subject_token"), field("subject_token_type")) else {
            return Reply::invalid_request("a subject_token that is an access token is required");
        };
        if field("requested_token_type").is_some_and(|requested| requested != ACCESS_TOKEN) {
            return Reply::invalid_request("only access tokens are issued");
        }
        let audience = match self.audience() {
            Ok(audience) => audience,
            Err(refusal) => return *refusal,
        };
        let exchanged = self.shared.grants().exchange(by, subject_token, field("scope"), audience);
        match exchanged {
            Ok(mut token) => {
                let member = Map::from_iter([("issued_token_type".to_owned(), ACCESS_TOKEN.into())]);
                token.extra = Extra::from(member);
                self.token_response(by, &token)
            }
            Err(GrantError { code, why }) => Reply::bad_request(code, why),
        }
    }

    /// The services that a token is requested for (RFC 8693 section 2.1, RFC 8707 section 2).
    fn audience(&self) -> Result<Vec<String>, Box<Reply>> {
        let named = self.request.form.iter().filter(|(name, _)| name == "audience" || name == "resource");
        let audience: Vec<String> = named.map(|(_, value)| value.clone()).collect();
        let known = &self.settings.audiences;
        match audience.iter().all(|name| known.is_empty() || known.contains(name)) {
            true => Ok(audience),
            false => Err(Reply::bad_request("invalid_target", "the audience is unknown").into()),
        }
    }

    /// RFC 6749 section 5.1.
    fn token_response(&self, by: &Redemption<'_>, token: &OAuth2Token) -> Reply {
        let mut members = Map::new();
        let mut member = |name: &str, value: Value| members.insert(name.to_owned(), value);
        member("access_token", token.access_token.expose().into());
        member("token_type", token.token_type.as_str().into());
        member("expires_in", by.settings.access_token_lifetime.as_secs().into());
        member("scope", token.scope.as_deref().unwrap_or_default().join(" ").into());
        if let Some(refresh_token) = &token.refresh_token {
            member("refresh_token", refresh_token.expose().into());
        }
        if let Some(id_token) = &token.id_token {
            member("id_token", id_token.expose().into());
        }
        members.extend(token.extra.as_map().clone());
        Reply::json(StatusCode::OK, members.into())
    }

    pub(super) fn revoke(&self) -> Reply {
        let client = match self.authenticate() {
            Ok(client) => client,
            Err(refusal) => return *refusal,
        };
        let Some(token) = self.request.field("token") else {
            return Reply::invalid_request("token is required");
        };
        self.shared.grants().revoke(&client, token);
        Reply::empty(StatusCode::OK)
    }

    /// The client, if it authenticates in exactly one way (RFC 6749 section 2.3).
    pub(super) fn authenticate(&self) -> Result<String, Box<Reply>> {
        let field = |name| self.request.field(name);
        if repeats(&self.request.form) {
            return Err(Reply::invalid_request("a parameter is repeated").into());
        }
        let (client, secret) = match self.request.header("authorization") {
            Some(_) if field("client_secret").is_some() => {
                return Err(Reply::invalid_request("the client must authenticate in one way only").into());
            }
            Some(value) => {
                let (client, secret) = basic(value).ok_or_else(|| invalid_client("the credentials cannot be read"))?;
                (client, Some(secret))
            }
            None if self.request.headers.contains_key(header::AUTHORIZATION) => {
                return Err(invalid_client("the credentials cannot be read"));
            }
            None => match field("client_id") {
                Some(client) => (client.to_owned(), field("client_secret").map(str::to_owned)),
                None => return Err(invalid_client("there are no credentials")),
            },
        };
        let registered = self.settings.clients.get(&client).filter(|found| found.secret == secret.map(Secret::new));
        match registered {
            Some(_) if field("client_id").is_none_or(|also| also == client) => Ok(client),
            _ => Err(invalid_client("the client id or secret is wrong")),
        }
    }

    /// The thumbprint of the key that the request proves (RFC 9449), or the response to an invalid proof.
    pub(super) fn proved_key(
        &self,
        status: StatusCode,
        access_token: Option<&str>,
    ) -> Result<Option<String>, Box<Reply>> {
        let checked = self.shared.proofs().check(self.settings, self.issuer(), self.request, access_token);
        checked.map_err(|bad| bad_proof(status, &bad).into())
    }
}

/// An authorization server reports it in the body (RFC 9449 sections 5 and 8), an API also in a challenge (section 9).
pub(super) fn bad_proof(status: StatusCode, bad: &BadProof) -> Reply {
    let (code, why) = match bad {
        BadProof::Nonce => ("use_dpop_nonce", "the proof must have the nonce"),
        BadProof::Invalid(why) => ("invalid_dpop_proof", *why),
    };
    match status {
        StatusCode::UNAUTHORIZED => Reply::unauthorized(code, why, &format!("DPoP error=\"{code}\"")),
        _ => Reply::error(status, code, why),
    }
}

/// Whether a text is 256 bits in base64url, like an S256 challenge (RFC 7636 section 4.2).
pub(super) fn is_43_base64url(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn invalid_client(why: &str) -> Box<Reply> {
    Reply::unauthorized("invalid_client", why, "Basic realm=\"test provider\"").into()
}

/// HTTP Basic credentials. Both parts were form-encoded first (RFC 6749 section 2.3.1).
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, credentials) = value.split_once(' ')?;
    let decoded = STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (client, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((form_decode(client)?, form_decode(secret)?))
}

fn form_decode(value: &str) -> Option<String> {
    let pair = format!("={value}");
    let mut pairs = form_urlencoded::parse(pair.as_bytes());
    let (_, decoded) = pairs.next()?;
    pairs.next().is_none().then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let expected = Some(("app:special".to_owned(), "p ä+/=&%".to_owned()));
        let encoded = header("app%3Aspecial:p+%C3%A4%2B%2F%3D%26%25");
        assert_eq!(basic(&encoded), expected);
        assert_eq!(basic(&encoded.replace("Basic", "bASIC")), expected);
    }

    #[test]
    fn malformed_basic_credentials_are_rejected() {
        for bad in ["", "Basic", "Basic !!", "Bearer YTpi", &header("no colon"), &header("a&b:c")] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }
}
