//! What providers do differently from the standards, one named field each.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use oauth_dance_core::Secret;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::reserved;
use crate::error::ConfigError;

/// Where a provider departs from RFC 6749, 6750, 7009 and 7636. Everything is off by default.
///
/// [Presets](crate::presets) fill it in; for a provider of your own, set what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Quirks {
    /// Leaves out PKCE (RFC 7636), for a provider that refuses the request because of it. The client then needs a secret.
    pub without_pkce: bool,
    /// The authorization parameter that names the scopes, in place of `scope`. Slack has `user_scope`.
    pub scope_parameter: Option<String>,
    /// Asks the provider to send the browser back by a form (OAuth 2.0 Form Post Response Mode), for one that answers in no
    /// other way. Apple does where scopes are asked for.
    pub form_post: bool,
    /// The provider appends a fragment to the redirect URI, as Facebook does with `#_=_`. Browsers carry it on to the page
    /// after the login; an empty fragment in its place stops that.
    pub callback_fragment: bool,
    /// A login at the provider ends what earlier logins were granted, so that their refresh token is not worth keeping. By
    /// default a login that brings no refresh token retains the stored one of the same account.
    pub new_login_ends_grant: bool,
    /// Sends no `nonce` with a request of OpenID Connect, for a provider that does not repeat it in the ID token. PKCE or the
    /// client's secret protects the code all the same. LinkedIn does not.
    pub without_nonce: bool,
    /// How requests of the token endpoint are written.
    pub token_request: TokenRequest,
    /// More parameters of the request that redeems a code, such as Shopify's `expiring`.
    pub token_params: BTreeMap<String, String>,
    /// Headers that requests of the token, refresh and revocation endpoints carry. `{client_id}` in a value is filled in.
    pub token_headers: BTreeMap<String, String>,
    /// Where tokens are refreshed, if not at the token endpoint.
    pub refresh_endpoint: Option<String>,
    /// The member of the token response that holds the user's token in an object of its own, if it is there. Slack has
    /// `authed_user`. What stands beside it, such as a bot's token, stays in [`OAuth2Token::extra`].
    ///
    /// [`OAuth2Token::extra`]: crate::OAuth2Token::extra
    pub token_member: Option<String>,
    /// Token types that are presented as bearer tokens are although their name says otherwise. In any case. A type that is
    /// not known, or not said, is taken for `Bearer` anyway; one that is known to need a proof (`mac`, `pop`) is refused.
    pub token_types: Vec<String>,
    /// The provider's own member for how long a token lasts, in seconds or until an instant, which counts before
    /// `expires_in`. Zoho had `expires_in_sec`. The instants `expires_at`, `expires_on` and `expires` need not be named.
    pub lifetime_member: Option<String>,
    /// The header that presents the token to the API.
    pub token_header: TokenHeader,
    /// The member of the token response that names the API base of this user, if it is there. It must be an https URL.
    /// Salesforce has `instance_url`, Zoho `api_domain`.
    pub api_base_member: Option<String>,
    /// How a token is revoked. `{client_id}` in the revocation endpoint is filled in.
    pub revocation: RevocationRequest,
}

/// How requests of the token endpoint are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenRequest {
    /// As a form (RFC 6749 section 4.1.3).
    #[default]
    Form,
    /// As a JSON object.
    Json,
}

/// The header that presents the token to the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenHeader {
    /// `Authorization: Bearer …` (RFC 6750 section 2.1).
    #[default]
    Bearer,
    /// `Authorization` with another scheme, such as Zoho's `Zoho-oauthtoken`.
    Scheme(String),
    /// The token alone in a header of this name, such as Shopify's `X-Shopify-Access-Token`.
    Named(String),
}

/// How a token is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevocationRequest {
    /// A form, authenticated as the client (RFC 7009 section 2.1).
    #[default]
    Rfc7009,
    /// The access token alone, as `token` in a JSON object, authenticated as the client.
    Json,
    /// A `POST` without a body that carries the access token as an API call does.
    Post,
    /// A `DELETE` that carries the access token as an API call does.
    Delete,
    /// A `DELETE` with the access token in a JSON object, and the client's credentials by HTTP Basic. GitHub has it.
    DeleteAsClient,
}

/// The token type and scheme of tokens that are bound to a key (RFC 9449).
const DPOP: &str = "DPoP";

/// Token types that are of no use without a proof, which this client has for the first alone.
const PROVED: [&str; 4] = [DPOP, "mac", "pop", "hok"];

/// Parameters of token requests that belong to the protocol.
const RESERVED: [&str; 7] =
    ["grant_type", "code", "redirect_uri", "code_verifier", "client_id", "client_secret", "refresh_token"];

/// A header's name and scheme, checked.
#[derive(Clone, Debug)]
pub(crate) struct Presentation {
    pub(crate) name: HeaderName,
    pub(crate) scheme: Option<String>,
}

impl Quirks {
    /// Checks what the types do not say.
    pub(crate) fn check(&self, provider: &str, public_client: bool) -> Result<(), ConfigError> {
        let invalid = |problem| Err(ConfigError::invalid(provider, "quirks", problem));
        if self.without_pkce && public_client {
            return invalid("leaves out PKCE, which protects a client without a secret");
        }
        if self.token_params.keys().any(|name| RESERVED.contains(&name.as_str())) {
            return invalid("sets a parameter of the token request that belongs to the protocol");
        }
        if self.scope_parameter.as_deref().is_some_and(reserved::is_reserved) {
            return invalid("gives the scopes the name of another parameter");
        }
        Ok(())
    }

    /// Whether a token of this type is presented as a bearer token. Many providers have names of their own for them.
    pub(crate) fn accepts(&self, token_type: &str) -> bool {
        let is = |name: &str| name.eq_ignore_ascii_case(token_type.trim());
        self.token_types.iter().any(|name| is(name)) || !PROVED.into_iter().any(is)
    }

    /// The same for a token that has a key, or none. One with a key is never presented without its proof, whatever its type
    /// is called.
    pub(crate) fn accepts_bound(&self, token_type: &str, has_key: bool) -> bool {
        has_key || self.accepts(token_type)
    }

    /// Whether a token of this type is bound to a key (RFC 9449 section 5).
    pub(crate) fn is_bound(token_type: &str) -> bool {
        token_type.eq_ignore_ascii_case(DPOP)
    }
}

impl TokenHeader {
    /// The header in parts, or `None` if no header can be called that.
    pub(crate) fn presentation(&self) -> Option<Presentation> {
        let authorization =
            |scheme: &str| Presentation { name: http::header::AUTHORIZATION, scheme: Some(scheme.to_owned()) };
        match self {
            Self::Bearer => Some(authorization("Bearer")),
            Self::Scheme(scheme) => is_token(scheme).then(|| authorization(scheme)),
            Self::Named(name) => Some(Presentation { name: HeaderName::try_from(name).ok()?, scheme: None }),
        }
    }
}

impl Presentation {
    /// As tokens are presented that are bound to a key (RFC 9449 section 7.1).
    pub(crate) fn dpop() -> Self {
        Self { name: http::header::AUTHORIZATION, scheme: Some(DPOP.to_owned()) }
    }

    /// The header that carries this token, or `None` if none can.
    pub(crate) fn present(&self, token: &Secret) -> Option<HeaderMap> {
        let value = match &self.scheme {
            Some(scheme) => format!("{scheme} {}", token.expose()),
            None => token.expose().to_owned(),
        };
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(HeaderMap::from_iter([(self.name.clone(), value)]))
    }
}

/// A token as HTTP has it (RFC 9110 section 5.6.2), which is what a header's name may be made of.
fn is_token(text: &str) -> bool {
    HeaderName::try_from(text).is_ok()
}

/// Fills in `{client_id}`, for a header.
pub(crate) fn with_client_id(template: &str, client_id: &str) -> String {
    template.replace("{client_id}", client_id)
}

/// Fills in `{client_id}`, for the path of a URL.
pub(crate) fn url_with_client_id(template: &str, client_id: &str) -> String {
    let segment: String = form_urlencoded::byte_serialize(client_id.as_bytes()).collect();
    template.replace("{client_id}", &segment.replace('+', "%20"))
}
