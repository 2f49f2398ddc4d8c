//! The metadata of the provider, which describes its current settings: a client that is configured by its issuer alone finds
//! the same provider as one that is configured by its endpoints.

use serde_json::{Value, json};

use super::endpoints::Exchange;

/// The provider's metadata: RFC 8414 section 2, and OpenID Connect Discovery section 3 with the feature `oidc`.
pub(super) fn document(exchange: &Exchange<'_>) -> Option<Value> {
    let (issuer, settings) = (exchange.issuer(), exchange.settings);
    let client_authentication = ["client_secret_basic", "client_secret_post", "none"];
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "pushed_authorization_request_endpoint": format!("{issuer}/par"),
        "device_authorization_endpoint": format!("{issuer}/device_authorization"),
        "require_pushed_authorization_requests": settings.requires_pushed_requests,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:device_code",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ],
        "token_endpoint_auth_methods_supported": client_authentication,
        "revocation_endpoint_auth_methods_supported": client_authentication,
        "code_challenge_methods_supported": ["S256"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": settings.issuer_parameter,
    });
    if !settings.scopes.is_empty() {
        document["scopes_supported"] = settings.scopes.as_slice().into();
    }
    if exchange.request.path.ends_with("/openid-configuration") {
        add_openid(exchange, &mut document)?;
    }
    Some(document)
}

#[cfg(feature = "oidc")]
fn add_openid(exchange: &Exchange<'_>, document: &mut Value) -> Option<()> {
    let issuer = exchange.issuer();
    document["jwks_uri"] = format!("{issuer}/jwks").into();
    document["end_session_endpoint"] = format!("{issuer}/end_session").into();
    document["subject_types_supported"] = json!(["public"]);
    document["id_token_signing_alg_values_supported"] = json!([exchange.settings.id_token_algorithm.name()]);
    Some(())
}

#[cfg(not(feature = "oidc"))]
fn add_openid(_: &Exchange<'_>, _: &mut Value) -> Option<()> {
    None
}
