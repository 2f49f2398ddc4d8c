//! What a refresh needs to know in addition to the token.
//!
//! It is stored in the token's record, sealed, and never discovered again. A server that changes its metadata later can
//! therefore not redirect a refresh token to another authorization server.

use oauth_dance_core::{Extra, OAuth2Token};
use rmcp::transport::auth::AuthorizationMetadata;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::error::McpError;
use crate::server::{Client, McpServer};

/// The member of the token's [`Extra`] that holds the grant.
const MEMBER: &str = "oauth-dance:mcp";

/// Where a token was issued, and for what.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// The authorization server's identifier, if its metadata has one.
    pub(crate) issuer: Option<String>,
    /// Whether every callback has to name the issuer (RFC 9207).
    pub(crate) requires_issuer: bool,
    pub(crate) token_endpoint: Url,
    pub(crate) revocation_endpoint: Option<Url>,
    /// The resource indicator (RFC 8707).
    pub(crate) resource: String,
    pub(crate) redirect_uri: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    /// Whether the secret is sent in the form instead of the `Authorization` header.
    pub(crate) secret_in_form: bool,
    /// Whether the client registered itself dynamically.
    pub(crate) is_registered_dynamically: bool,
    /// Whether the endpoints may be at private addresses.
    pub(crate) reaches_private: bool,
}

impl Grant {
    /// The grant that a login at this authorization server leads to.
    pub(crate) fn new(
        server: &McpServer,
        metadata: &AuthorizationMetadata,
        client: &Client,
        resource: String,
    ) -> Result<Self, McpError> {
        // The browser is sent to the authorization endpoint.
        let endpoint = |url: &str| -> Result<Url, McpError> {
            let parsed = Url::parse(url).ok().filter(|url| is_endpoint(url, server.reaches_private()));
            parsed.ok_or_else(|| McpError::Metadata("an endpoint is not a URL with TLS, or is at a private address"))
        };
        endpoint(&metadata.authorization_endpoint)?;
        let more = &metadata.additional_fields;
        let methods = more.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        let supports = |method: &str| methods.is_some_and(|methods| methods.iter().any(|found| found == method));
        let requires_issuer = more.get("authorization_response_iss_parameter_supported").and_then(Value::as_bool);
        let revocation_endpoint = more.get("revocation_endpoint").and_then(Value::as_str);
        Ok(Self {
            issuer: metadata.issuer.clone(),
            requires_issuer: requires_issuer.unwrap_or(false),
            token_endpoint: endpoint(&metadata.token_endpoint)?,
            revocation_endpoint: revocation_endpoint.map(endpoint).transpose()?,
            resource,
            redirect_uri: server.redirect_uri.clone(),
            client_id: client.id.clone(),
            client_secret: client.secret.as_ref().map(|secret| secret.expose().to_owned()),
            secret_in_form: supports("client_secret_post") && !supports("client_secret_basic"),
            is_registered_dynamically: server.registered.is_none()
                && server.client_metadata_url.as_deref() != Some(client.id.as_str()),
            reaches_private: server.reaches_private(),
        })
    }

    /// The grant in a token's record. `None` if the record was not written by this crate.
    pub(crate) fn of(token: &OAuth2Token) -> Option<Self> {
        read(&token.extra)
    }

    /// Adds the grant to a token. A member of the same name in a token response is replaced.
    pub(crate) fn add_to(&self, token: &mut OAuth2Token) {
        token.extra = with_member(token.extra.as_map().clone(), self);
    }
}

/// Whether requests with secrets may be sent to a URL.
fn is_endpoint(url: &Url, reaches_private: bool) -> bool {
    let is_private = crate::reach::is_private_host(url);
    match url.scheme() {
        "https" => !is_private || reaches_private,
        "http" => crate::server::is_loopback(url) && reaches_private,
        _ => false,
    }
}

/// Reads the member that this crate adds to its records.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(extra: &Extra) -> Option<T> {
    T::deserialize(extra.get(MEMBER)?).ok()
}

/// Adds the member that this crate adds to its records.
pub(crate) fn with_member(mut members: Map<String, Value>, value: &impl Serialize) -> Extra {
    // It fails only for a map whose keys are not texts.
    members.insert(MEMBER.to_owned(), serde_json::to_value(value).unwrap_or_default());
    members.into()
}

/// The members without the one of this crate, which contains a secret.
pub(crate) fn other_members(extra: &Extra) -> Map<String, Value> {
    let mut members = extra.as_map().clone();
    members.remove(MEMBER);
    members
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn grant(token_endpoint: &str) -> Grant {
        let metadata: AuthorizationMetadata = serde_json::from_value(json!({
            "authorization_endpoint": token_endpoint,
            "token_endpoint": token_endpoint,
            "issuer": "https://id.example",
        }))
        .unwrap();
        let server = McpServer::new("http://127.0.0.1:1/mcp", "https://app.example/callback").unwrap();
        let client = Client { id: "client".to_owned(), secret: None };
        Grant::new(&server, &metadata, &client, server.url.to_string()).unwrap()
    }

    #[test]
    fn a_token_response_cannot_replace_the_grant() {
        let original = grant("http://127.0.0.1:1/token");
        let mut token = OAuth2Token::bearer("access");
        let planted = json!({ MEMBER: { "token_endpoint": "https://evil.example/token" }, "team": 7 });
        token.extra = planted.as_object().unwrap().clone().into();
        original.add_to(&mut token);
        assert!(Grant::of(&token) == Some(original));
        assert_eq!(token.extra.get("team").unwrap(), 7);
    }

    #[test]
    fn endpoints_need_tls_and_stay_in_public() {
        let url = |text| Url::parse(text).unwrap();
        for (endpoint, in_public, in_private) in [
            ("https://id.example/token", true, true),
            ("http://id.example/token", false, false),
            ("https://10.0.0.1/token", false, true),
            ("http://127.0.0.1/token", false, true),
            ("http://10.0.0.1/token", false, false),
            ("javascript:x", false, false),
        ] {
            assert_eq!(is_endpoint(&url(endpoint), false), in_public, "{endpoint}");
            assert_eq!(is_endpoint(&url(endpoint), true), in_private, "{endpoint}");
        }
    }
}
