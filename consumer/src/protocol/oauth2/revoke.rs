//! Revokes tokens (RFC 7009).
//!
//! The refresh token comes first, because it ends the grant: with many providers the access token ends with it. An access
//! token alone would leave the grant alive. If the provider refuses to revoke the refresh token, the access token is revoked
//! nevertheless. A provider that no longer knows a token reports success (section 2.2), so revoking twice is harmless.

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
    let is_standard = registered.declared.quirks.revocation == RevocationRequest::Rfc7009;
    // The others accept only access tokens.
    let refresh_token = token.refresh_token.as_ref().filter(|_| is_standard);
    let refresh_token = refresh_token.map(|refresh_token| (refresh_token, "refresh_token"));
    let (mut has_ended_grant, mut outcome) = (false, Revocation::Done);
    for (secret, hint) in refresh_token.into_iter().chain([(&token.access_token, "access_token")]) {
        let error = match revoke(http, registered, endpoint, secret, hint, key).await {
            Ok(()) => {
                has_ended_grant = true;
                continue;
            }
            Err(error) => error,
        };
        let status = match &error {
            TokenEndpointError::Status { status, .. } | TokenEndpointError::Refused { status, .. } => Some(*status),
            _ => None,
        };
        // The access token ended with the grant, which this provider reports as an error.
        if has_ended_grant && status == Some(StatusCode::BAD_REQUEST) {
            continue;
        }
        tracing::warn!(provider = registered.declared.name, %error, "the token could not be revoked at the provider");
        outcome = Revocation::Failed;
        // A provider may revoke access tokens only (RFC 7009 section 2.2.1).
        if !status.is_some_and(|status| status.is_client_error()) {
            break;
        }
    }
    outcome
}

/// Revokes a token (RFC 7009 section 2.1). Any 2xx is a success, even for a token that the provider does not know.
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
