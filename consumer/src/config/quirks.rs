//! Departures of providers from the standards, one field for each.
//!
//! A departure is here if a provider requires it. What a client can tolerate for every provider without a risk is not here,
//! but in the code that reads responses: for example a lifetime that is a string, or a token response as a form.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use oauth_dance_core::Secret;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::reserved;
use crate::error::ConfigError;

/// Departures of a provider from RFC 6749, 6750, 7009 and 7636. All are off by default.
///
/// [Presets](crate::presets) set those of their providers; for your own provider, set what it needs.
///
/// ```
/// use oauth_dance::{Provider, TokenHeader, TokenRequest};
///
/// let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
/// // Its documentation requires JSON at the token endpoint, and `X-Acme-Token: …` in API calls.
/// acme.quirks.token_request = TokenRequest::Json;
/// acme.quirks.token_header = TokenHeader::Named("X-Acme-Token".to_owned());
/// assert!(!acme.quirks.without_pkce);
/// ```
///
/// In a configuration file, each is a field with the same name:
///
/// ```
/// use oauth_dance::ProviderConfig;
///
/// let config: ProviderConfig = serde_json::from_str(r#"{
///     "authorization_endpoint": "https://acme.example/authorize",
///     "token_endpoint": "https://acme.example/token",
///     "quirks": { "token_request": "json", "token_header": { "named": "X-Acme-Token" } },
///     "client_id": "id", "client_secret": "secret"
/// }"#)?;
/// assert!(config.registration("acme").is_ok());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Quirks {
    /// Omits PKCE (RFC 7636), for a provider that rejects requests with it. The client then needs a secret.
    pub without_pkce: bool,
    /// The authorization parameter for the scopes, if not `scope`. Slack has `user_scope`.
    pub scope_parameter: Option<String>,
    /// Requests that the provider returns the browser with a form (OAuth 2.0 Form Post Response Mode), for a provider that
    /// supports nothing else. Apple requires it if scopes are requested.
    pub form_post: bool,
    /// The provider appends a fragment to the redirect URI, as Facebook does with `#_=_`. Browsers carry it over to the page
    /// after the login; the redirect to that page has an empty fragment, which prevents this.
    pub callback_fragment: bool,
    /// A new login invalidates the refresh tokens of earlier logins. By default, a login without a refresh token retains the
    /// stored refresh token of the same account.
    pub new_login_ends_grant: bool,
    /// Sends no `nonce` in a request of OpenID Connect, for a provider that does not repeat it in the ID token, such as
    /// LinkedIn. The code is still protected by PKCE or the client secret.
    pub without_nonce: bool,
    /// The format of requests to the token endpoint.
    pub token_request: TokenRequest,
    /// Additional parameters of the request that redeems a code, such as Shopify's `expiring`.
    pub token_params: BTreeMap<String, String>,
    /// Headers of requests to the token, refresh and revocation endpoints. `{client_id}` in a value is replaced.
    pub token_headers: BTreeMap<String, String>,
    /// The refresh endpoint, if it is not the token endpoint.
    pub refresh_endpoint: Option<String>,
    /// The member of the token response that contains the user's token as an object, if it is present. Slack has
    /// `authed_user`. The other members, such as a bot's token, are in [`OAuth2Token::extra`].
    ///
    /// [`OAuth2Token::extra`]: crate::OAuth2Token::extra
    pub token_member: Option<String>,
    /// Additional token types that are presented as bearer tokens, compared case-insensitively. An unknown or missing
    /// type is treated as `Bearer` anyway; a type that needs a proof (`mac`, `pop`) is rejected.
    pub token_types: Vec<String>,
    /// The provider's own member for the lifetime of a token, in seconds or as an instant, which takes precedence over
    /// `expires_in`. Zoho had `expires_in_sec`. The instants `expires_at`, `expires_on` and `expires` are known.
    pub lifetime_member: Option<String>,
    /// The header that presents the token to the API.
    pub token_header: TokenHeader,
    /// The member of the token response that contains the API base for this user, if it is present. It must be an https URL.
    /// Salesforce has `instance_url`, Zoho `api_domain`.
    pub api_base_member: Option<String>,
    /// How a token is revoked. `{client_id}` in the revocation endpoint is replaced.
    pub revocation: RevocationRequest,
}

/// The format of requests to the token endpoint; see [`Quirks::token_request`]. Responses are read in either format.
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

/// The header that presents the token to the API; see [`Quirks::token_header`]. A token that is bound to a key is always
/// presented with the scheme `DPoP` (RFC 9449 section 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenHeader {
    /// `Authorization: Bearer …` (RFC 6750 section 2.1).
    #[default]
    Bearer,
    /// `Authorization` with another scheme, such as Zoho's `Zoho-oauthtoken`.
    Scheme(String),
    /// A header of this name with the token alone, such as Shopify's `X-Shopify-Access-Token`.
    Named(String),
}

/// How a token is revoked; see [`Quirks::revocation`]. With [`Rfc7009`](Self::Rfc7009), the refresh token is revoked first,
/// which ends the whole grant. All others revoke only the access token, which is all that their providers accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevocationRequest {
    /// A form, with client authentication (RFC 7009 section 2.1).
    #[default]
    Rfc7009,
    /// The access token alone, as `token` in a JSON object, with client authentication.
    Json,
    /// A `POST` without a body, with the access token as in an API call.
    Post,
    /// A `DELETE` with the access token as in an API call.
    Delete,
    /// A `DELETE` with the access token in a JSON object, and client authentication by HTTP Basic, as at GitHub.
    DeleteAsClient,
}

/// The token type and scheme of tokens that are bound to a key (RFC 9449).
const DPOP: &str = "DPoP";

/// Token types that are useless without a proof. This client supports only the first.
const PROOF_REQUIRED: [&str; 4] = [DPOP, "mac", "pop", "hok"];

/// Parameters of token requests that belong to the protocol.
const RESERVED: [&str; 7] =
    ["grant_type", "code", "redirect_uri", "code_verifier", "client_id", "client_secret", "refresh_token"];

/// A checked header name and scheme.
#[derive(Clone, Debug)]
pub(crate) struct Presentation {
    pub(crate) name: HeaderName,
    pub(crate) scheme: Option<String>,
}

impl Quirks {
    /// Checks what the types do not guarantee.
    pub(crate) fn check(&self, provider: &str, public_client: bool) -> Result<(), ConfigError> {
        let invalid = |problem| Err(ConfigError::invalid(provider, "quirks", problem));
        if self.without_pkce && public_client {
            return invalid("leaves out PKCE, which protects a client without a secret");
        }
        if self.token_params.keys().any(|name| RESERVED.contains(&name.as_str())) {
            return invalid("sets a parameter of the token request that belongs to the protocol");
        }
        if self.scope_parameter.as_deref().is_some_and(reserved::is_reserved) {
            return invalid("names another parameter for the scopes");
        }
        Ok(())
    }

    /// Whether a token of this type is presented as a bearer token. Many providers have their own names for such types.
    pub(crate) fn accepts(&self, token_type: &str) -> bool {
        let is = |name: &str| name.eq_ignore_ascii_case(token_type.trim());
        self.token_types.iter().any(|name| is(name)) || !PROOF_REQUIRED.into_iter().any(is)
    }

    /// The same for a token with or without a key. A token with a key is never presented without its proof, whatever the
    /// name of its type.
    pub(crate) fn accepts_bound(&self, token_type: &str, has_key: bool) -> bool {
        has_key || self.accepts(token_type)
    }

    /// Whether a token of this type is bound to a key (RFC 9449 section 5).
    pub(crate) fn is_bound(token_type: &str) -> bool {
        token_type.eq_ignore_ascii_case(DPOP)
    }
}

impl TokenHeader {
    /// The header in parts, or `None` if its name or scheme is invalid.
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
    /// The header for tokens that are bound to a key (RFC 9449 section 7.1).
    pub(crate) fn dpop() -> Self {
        Self { name: http::header::AUTHORIZATION, scheme: Some(DPOP.to_owned()) }
    }

    /// The header with this token, or `None` if the token is not valid in a header.
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

/// Whether the text is a token of HTTP (RFC 9110 section 5.6.2), as a header's name must be.
fn is_token(text: &str) -> bool {
    HeaderName::try_from(text).is_ok()
}

/// Replaces `{client_id}`, for a header.
pub(crate) fn with_client_id(template: &str, client_id: &str) -> String {
    template.replace("{client_id}", client_id)
}

/// Replaces `{client_id}`, for the path of a URL.
pub(crate) fn url_with_client_id(template: &str, client_id: &str) -> String {
    let segment: String = form_urlencoded::byte_serialize(client_id.as_bytes()).collect();
    template.replace("{client_id}", &segment.replace('+', "%20"))
}
