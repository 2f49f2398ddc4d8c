//! Calls of the token endpoint (RFC 6749 section 3.2) and the revocation endpoint (RFC 7009), authenticated as the client.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oauth_dance_core::{OAuth2Token, Secret, Timestamp};
use url::{Url, form_urlencoded};

use crate::error::TokenEndpointError;
use crate::http_client::{HttpClients, ReadError, read_body, without_url};
use crate::provider::ClientAuthentication;
use crate::registered::Registered;
use crate::token_response;

/// More than any token response has; what is longer is no token response.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Redeems an authorization code (RFC 6749 section 4.1.3 with RFC 7636 section 4.5). Never retried: a code works once.
pub(crate) async fn exchange_code(
    http: &HttpClients,
    registered: &Registered,
    code: &str,
    verifier: &str,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", registered.redirect_uri.as_str()),
        ("code_verifier", verifier),
    ];
    let (status, headers, body) = post(http, registered, &registered.token_endpoint, &form).await?;
    token_response::read(status, &headers, &body, &[code, verifier, client_secret(registered)], now)
}

/// Redeems a refresh token (RFC 6749 section 6). An answer without a refresh token or scope keeps the old one, and one
/// without a lifetime gets the same as any that can be refreshed.
pub(crate) async fn refresh(
    http: &HttpClients,
    registered: &Registered,
    old: &OAuth2Token,
    refresh_token: &Secret,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
    let (status, headers, body) = post(http, registered, &registered.token_endpoint, &form).await?;
    let sent = [refresh_token.expose(), client_secret(registered)];
    let mut token = token_response::read(status, &headers, &body, &sent, now)?;
    token.refresh_token = token.refresh_token.or_else(|| Some(refresh_token.clone()));
    token.expires_at = token.expires_at.or(Some(now.saturating_add(token_response::DEFAULT_LIFETIME)));
    token.scope = token.scope.or_else(|| old.scope.clone());
    token.id_token = token.id_token.or_else(|| old.id_token.clone());
    Ok(token)
}

/// Revokes a token (RFC 7009 section 2.1). Any 2xx is success, also for a token the provider never knew.
pub(crate) async fn revoke(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    token: &Secret,
    hint: &str,
) -> Result<(), TokenEndpointError> {
    let form = [("token", token.expose()), ("token_type_hint", hint)];
    let (status, ..) = post(http, registered, endpoint, &form).await?;
    if status.is_success() { Ok(()) } else { Err(TokenEndpointError::Status { status, retry_after: None }) }
}

async fn post(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    form: &[(&str, &str)],
) -> Result<(StatusCode, HeaderMap, Bytes), TokenEndpointError> {
    let mut form = form.to_vec();
    let mut request = http.token_endpoint.post(endpoint.clone()).header(header::ACCEPT, "application/json");
    // Without a secret there is nothing to authenticate with; the id still names the client (RFC 6749 section 3.2.1).
    match (&registered.client_secret, registered.client_authentication) {
        (Some(secret), ClientAuthentication::Basic) => {
            request = request.header(header::AUTHORIZATION, basic(&registered.client_id, secret));
        }
        (Some(secret), ClientAuthentication::Body) => {
            form.extend([("client_id", registered.client_id.as_str()), ("client_secret", secret.expose())]);
        }
        (None, _) => form.push(("client_id", &registered.client_id)),
    }

    let response = request.form(&form).send().await.map_err(transport)?;
    let (status, headers) = (response.status(), response.headers().clone());
    match read_body(response, MAX_RESPONSE).await {
        Ok(body) => Ok((status, headers, body)),
        Err(ReadError::TooLarge) => Err(TokenEndpointError::Answer("it is too large")),
        Err(ReadError::Broken(error)) => Err(transport(error)),
    }
}

/// The client's secret; empty for a public client.
fn client_secret(registered: &Registered) -> &str {
    registered.client_secret.as_ref().map_or("", Secret::expose)
}

/// HTTP Basic with both parts form-encoded first (RFC 6749 section 2.3.1).
fn basic(client_id: &str, client_secret: &Secret) -> HeaderValue {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = STANDARD.encode(format!("{}:{}", encode(client_id), encode(client_secret.expose())));
    #[expect(clippy::expect_used, reason = "base64 is ASCII")]
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).expect("base64 fits in a header");
    value.set_sensitive(true);
    value
}

fn transport(error: reqwest::Error) -> TokenEndpointError {
    if error.is_timeout() { TokenEndpointError::Timeout } else { TokenEndpointError::Transport(without_url(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_encoded_before_base64() {
        let value = basic("a b:c", &"p@ss+%é".into());
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"a+b%3Ac:p%40ss%2B%25%C3%A9");
    }
}
