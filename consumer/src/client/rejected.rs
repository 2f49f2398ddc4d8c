//! What an API's response means for the token.
//!
//! Two mistakes are possible. If a rejected token is taken for a valid one, the user's connection fails until the token
//! expires. If a valid token is taken for a rejected one, the user is asked to log in for nothing. APIs use 401 for both, so
//! the reason in the response decides, then the patterns of the provider, then a second request to an endpoint that every
//! valid token can call.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use oauth_dance_core::{Rejection, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiClient, ApiResponse};
use crate::config::error_pattern::ErrorPattern;
use crate::error::{ConnectError, ConnectedRejection};
use crate::protocol::http::challenge;
use crate::protocol::oauth1;

/// Errors that an API may return with 401 although the token is valid (RFC 6750 section 3.1, RFC 9449 sections 7.1 and 9,
/// RFC 9470 section 3). Another token would not help.
const OTHER_REASONS: [&str; 5] = [
    "insufficient_scope",
    "invalid_request",
    "use_dpop_nonce",
    "invalid_dpop_proof",
    "insufficient_user_authentication",
];
const INVALID_TOKEN: &str = "invalid_token";
/// A JSON error is short; a longer body is something else.
pub(super) const MAX_ERROR: usize = 4096;
/// Not every server of an API may know a new token yet.
const PROPAGATION_TIME: Duration = Duration::from_secs(60);

/// Whether and how a response rejects the token of its request. `known` are the patterns of this provider.
fn rejection(response: &ApiResponse, known: &[ErrorPattern]) -> Option<Rejection> {
    if is_known(response, known) {
        return Some(Rejection::InvalidToken);
    }
    let errors: Vec<String> = challenge::errors(response.headers()).collect();
    let is_unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let names_token = errors.iter().any(|error| error == INVALID_TOKEN)
        || is_unauthorized && json_error(response.bytes()).is_some_and(|error| error == INVALID_TOKEN);
    let names_other = errors.iter().any(|error| OTHER_REASONS.contains(&error.as_str()));
    match names_token {
        true => response.status().is_client_error().then_some(Rejection::InvalidToken),
        false => (is_unauthorized && !names_other).then_some(Rejection::Unexplained),
    }
}

/// Whether a response with this status may be a rejection, depending on its headers and body.
#[cfg(feature = "reqwest-middleware")]
pub(super) fn may_reject(status: StatusCode, known: &[ErrorPattern]) -> bool {
    status.is_client_error() || known.iter().any(|known| known.status.is_none_or(|expected| status == expected))
}

fn is_known(response: &ApiResponse, known: &[ErrorPattern]) -> bool {
    let (status, body) = (response.status(), response.bytes());
    // Most responses have another status; their bodies are not parsed for this.
    let mut known = known.iter().filter(|known| known.status.is_none_or(|expected| status == expected)).peekable();
    if known.peek().is_none() || body.len() > MAX_ERROR {
        return false;
    }
    let text = || json!({ "body": String::from_utf8_lossy(body) });
    let body = serde_json::from_slice(body).ok().filter(Value::is_object).unwrap_or_else(text);
    known.any(|known| known.matches(status, &body))
}

/// The error in a body that resembles a token endpoint's, which some APIs send instead of a challenge.
fn json_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Error {
        error: String,
    }
    let body = Some(body).filter(|body| body.len() <= MAX_ERROR)?;
    serde_json::from_slice(body).ok().map(|Error { error }| error)
}

impl ApiClient {
    /// Another token to repeat a request with after the API has rejected its token, if any.
    ///
    /// # Errors
    /// [`ConnectedRejection`] if the token is at fault and the user has to authorize again. This is then stored.
    pub(crate) async fn replacement(&self, response: &ApiResponse) -> Result<Option<Arc<Token>>, ConnectedRejection> {
        let Some(stored) = &self.stored else { return Ok(None) };
        let replaced = match &*self.token {
            Token::OAuth1(token) if self.is_refused(response).await => stored.replace_refused(token).await,
            Token::OAuth1(_) => return Ok(None),
            token => match self.explained(response).await {
                Some(rejection) => stored.replace_rejected(token.secret(), rejection).await,
                None => return Ok(None),
            },
        };
        match replaced {
            Ok(token) => Ok(token),
            Err(error) if error.needs_login() => {
                tracing::info!(
                    provider = self.registered.declared.name,
                    "the API rejected the token, and there is no other one"
                );
                Err(self.rejected(error))
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    provider = self.registered.declared.name,
                    error,
                    "a rejected token could not be replaced"
                );
                Ok(None)
            }
        }
    }

    /// The response to a rejected token, for the browser or program that sent the current request.
    fn rejected(&self, error: ConnectError) -> ConnectedRejection {
        ConnectedRejection::after_call(error, &self.registered.declared.name, self.browser.clone())
    }

    /// Whether and how a response rejects the token. If it gives no reason and the token cannot be refreshed, the userinfo
    /// endpoint is called to find out.
    async fn explained(&self, response: &ApiResponse) -> Option<Rejection> {
        let rejection = rejection(response, &self.registered.declared.rejected_tokens)?;
        let is_renewable = self.stored.as_ref().is_some_and(|stored| stored.is_renewable(&self.token));
        if rejection == Rejection::InvalidToken || is_renewable {
            return Some(rejection);
        }
        let is_at_fault = match self.userinfo_rejects().await {
            Some(rejects) => rejects,
            None => !self.is_new(),
        };
        Some(if is_at_fault { Rejection::InvalidToken } else { Rejection::Unexplained })
    }

    /// Whether a provider of OAuth 1.0a rejects the token, and not this request or this client.
    async fn is_refused(&self, response: &ApiResponse) -> bool {
        match &response.problem {
            Some(problem) => oauth1::is_of_the_token(problem),
            None if response.status() != StatusCode::UNAUTHORIZED => false,
            // Without a reported problem, the cause may be the client's key or clock. Then temporary credentials would be
            // refused too.
            None => self.userinfo_rejects().await != Some(false) && self.client_is_accepted().await,
        }
    }

    /// Whether the userinfo endpoint rejects the token too; `None` if there is none, or the call fails.
    async fn userinfo_rejects(&self) -> Option<bool> {
        let endpoint = self.registered.userinfo_endpoint()?.clone();
        let request = self.request_url(Method::GET, Ok(endpoint)).request.ok()?;
        let response = self.exchange(request, self.http.limits.max_response).await;
        let known = &self.registered.declared.rejected_tokens;
        Some(response.is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED || is_known(&response, known)))
    }

    async fn client_is_accepted(&self) -> bool {
        let Some(client) = &self.registered.oauth1 else { return false };
        oauth1::temporary_credentials(&self.http, client, self.registered.redirect_uri(), self.http.clock.now())
            .await
            .is_ok()
    }

    fn is_new(&self) -> bool {
        let issued_at = self.token.as_oauth2().and_then(|token| token.issued_at);
        issued_at.is_some_and(|issued_at| self.http.clock.now().saturating_since(issued_at) < PROPAGATION_TIME)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, header};

    use super::*;
    use crate::protocol::http::HttpResponse;

    fn rejection_in(status: u16, challenge: &'static str, body: &'static str) -> Option<Rejection> {
        let mut headers = HeaderMap::new();
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        let status = StatusCode::from_u16(status).unwrap();
        let response =
            HttpResponse { status, headers, body: Bytes::from_static(body.as_bytes()), is_redirected: false };
        rejection(&ApiResponse::new(response, None), &crate::presets::Slack::provider().rejected_tokens)
    }

    #[test]
    fn a_pattern_of_the_provider_is_a_rejection() {
        for (status, body, expected) in [
            (200, "{\"ok\":false,\"error\":\"token_revoked\"}", Some(Rejection::InvalidToken)),
            (200, "{\"ok\":true,\"error\":\"token_revoked\"}", None),
            (200, "{\"ok\":false,\"error\":\"channel_not_found\"}", None),
            (200, "token_revoked", None),
        ] {
            assert_eq!(rejection_in(status, "", body), expected, "{body}");
        }
    }

    #[test]
    fn a_rejection_depends_on_status_and_reason() {
        use Rejection::{InvalidToken, Unexplained};

        let invalid = "Bearer error=\"invalid_token\"";
        for (status, challenge, body, expected) in [
            (401, invalid, "", Some(InvalidToken)),
            (403, invalid, "", Some(InvalidToken)),
            (400, invalid, "", Some(InvalidToken)),
            (200, invalid, "", None),
            (503, invalid, "", None),
            (401, "Bearer", "{\"error\":\"invalid_token\"}", Some(InvalidToken)),
            (403, "", "{\"error\":\"invalid_token\"}", None),
            (401, "", "", Some(Unexplained)),
            (401, "Basic realm=\"x\"", "{\"message\":\"Bad credentials\"}", Some(Unexplained)),
            (401, "Bearer error=\"unauthorized\"", "{\"error\":{\"code\":401}}", Some(Unexplained)),
            (401, "DPoP error=\"invalid_token\", algs=\"ES256\"", "", Some(InvalidToken)),
            (401, "DPoP error=\"use_dpop_nonce\"", "", None),
            (401, "DPoP error=\"invalid_dpop_proof\"", "", None),
            (401, "Bearer error=\"insufficient_scope\"", "", None),
            (401, "Bearer error=\"insufficient_user_authentication\"", "", None),
            (403, "Bearer error=\"insufficient_scope\"", "", None),
            (403, "", "", None),
            (404, "", "", None),
        ] {
            assert_eq!(rejection_in(status, challenge, body), expected, "{status} {challenge} {body}");
        }
    }
}
