//! Revokes tokens (RFC 7009).
//!
//! The refresh token comes first, because it ends the grant: with many providers the access token ends with it. An access
//! token alone would leave the grant alive. A provider that no longer knows a token reports success (section 2.2), so
//! revoking twice is harmless.

use http::{Method, StatusCode, header};
use oauth_dance_core::{DpopKey, OAuth2Token, Secret};
use url::Url;

use super::authenticated::{basic, bound_to, client_secret, post, request};
use crate::config::quirks::{RevocationRequest, TokenRequest};
use crate::error::TokenEndpointError;
use crate::protocol::dpop::Binding;
use crate::protocol::http::endpoint::send;
use crate::protocol::http::{HttpClients, HttpResponse, refusal};
use crate::protocol::registered::Registered;

/// The result of a revocation at the provider, as [`OAuth::disconnect`](crate::OAuth::disconnect) and
/// [`OAuth::revoke`](crate::OAuth::revoke) return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// The provider confirmed that the token is revoked.
    Done,
    /// No token was stored, or the provider has no revocation endpoint, as with OAuth 1.0a. A token that was stored remains
    /// valid at the provider until it expires.
    NotPossible,
    /// The provider could not be reached, or refused: the token may still be valid there. The log contains the cause.
    Failed,
}

/// Revokes the refresh token, which ends the grant, and then the access token, which some providers leave valid.
pub(crate) async fn revoke_grant(http: &HttpClients, registered: &Registered, token: &OAuth2Token) -> Revocation {
    let Some(endpoint) = registered.revocation_endpoint() else { return Revocation::NotPossible };
    let key = token.dpop_key.as_ref();
    let refresh_token = token.refresh_token.as_ref().map(|refresh_token| (refresh_token, "refresh_token"));
    for (secret, hint) in refresh_token.into_iter().chain([(&token.access_token, "access_token")]) {
        match revoke(http, registered, endpoint, secret, hint, key).await {
            Ok(()) => {}
            // It ended with the grant, which this provider reports as an error.
            Err(TokenEndpointError::Status { status, .. } | TokenEndpointError::Refused { status, .. })
                if status == StatusCode::BAD_REQUEST && hint == "access_token" && refresh_token.is_some() => {}
            Err(error) => {
                tracing::warn!(provider = registered.declared.name, %error, "the token could not be revoked at the provider");
                return Revocation::Failed;
            }
        }
    }
    Revocation::Done
}

/// Revokes a token (RFC 7009 section 2.1). Any 2xx is a success, even for a token that the provider does not know. If the
/// provider accepts only access tokens, nothing is sent for a refresh token.
async fn revoke(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    token: &Secret,
    hint: &str,
    key: Option<&DpopKey>,
) -> Result<(), TokenEndpointError> {
    let form = [("token", token.expose()), ("token_type_hint", hint)];
    let (binding, presented) = (bound_to(key), key.map(|key| Binding { key, access_token: Some(token) }));
    let api = registered.present(token, key.is_some());
    let api = api.ok_or(TokenEndpointError::InvalidResponse("it is not valid in a header"));
    let response = match registered.declared.quirks.revocation {
        RevocationRequest::Rfc7009 => post(http, registered, endpoint, &form, TokenRequest::Form, key).await?,
        _ if hint == "refresh_token" => return Ok(()),
        RevocationRequest::Json => post(http, registered, endpoint, &form[..1], TokenRequest::Json, key).await?,
        RevocationRequest::Post => {
            send(http, request(http, registered, Method::POST, endpoint)?.headers(api?), presented).await?
        }
        RevocationRequest::Delete => {
            send(http, request(http, registered, Method::DELETE, endpoint)?.headers(api?), presented).await?
        }
        RevocationRequest::DeleteAsClient => {
            let credentials = basic(&registered.client_id, client_secret(http, registered).expose());
            let request = request(http, registered, Method::DELETE, endpoint)?;
            let request = request.header(header::AUTHORIZATION, credentials);
            send(http, request.json(&serde_json::json!({ "access_token": token.expose() })), binding).await?
        }
    };
    let HttpResponse { status, headers, .. } = &response;
    let is_standard = registered.declared.quirks.revocation == RevocationRequest::Rfc7009;
    if is_standard && status.is_success() {
        return Ok(());
    }
    let client_secret = client_secret(http, registered);
    let sent = [token.expose(), client_secret.expose()];
    match refusal::refused(*status, headers, &response.plain(), &sent, http.clock.now()) {
        // It was revoked before, or has expired, which this provider reports as an error.
        Some(TokenEndpointError::Refused { code, .. }) if code == "invalid_token" && status.is_client_error() => Ok(()),
        Some(refused) => Err(refused),
        None if status.is_success() => Ok(()),
        None => Err(refusal::failed(*status, headers, http.clock.now())),
    }
}
