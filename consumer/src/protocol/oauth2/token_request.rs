//! Requests to the token endpoint (RFC 6749 section 3.2), which redeem a code or a refresh token.

use oauth_dance_core::{DpopKey, Extra, OAuth2Token, Secret, Timestamp};
use serde_json::Value;

use super::authenticated::{authenticated, bound_to, client_secret};
use super::token_response::{self, Expectations, Reading, Received};
use crate::config::provider::Provider;
use crate::config::quirks::TokenRequest;
use crate::error::TokenEndpointError;
use crate::protocol::http::endpoint::receive;
use crate::protocol::http::{HttpClients, HttpResponse};
use crate::protocol::registered::Registered;

/// Redeems an authorization code (RFC 6749 section 4.1.3 with RFC 7636 section 4.5) for a token, bound to `key` if there is
/// one. It is never retried after the provider has received it: a code works once.
pub(crate) async fn exchange_code(
    http: &HttpClients,
    registered: &Registered,
    redirect_uri: &str,
    code: &str,
    verifier: &str,
    key: Option<DpopKey>,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let mut form = vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect_uri)];
    if !registered.declared.quirks.without_pkce {
        form.push(("code_verifier", verifier));
    }
    form.extend(registered.declared.quirks.token_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let format = registered.declared.quirks.token_request;
    requested(http, registered, &form, format, &[code, verifier], key, now).await
}

/// Redeems a device code (RFC 8628 section 3.4) for a token, bound to `key` if there is one.
#[cfg(feature = "native")]
pub(crate) async fn redeem_device_code(
    http: &HttpClients,
    registered: &Registered,
    device_code: &Secret,
    key: Option<DpopKey>,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let device_code = device_code.expose();
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", device_code),
        // Section 3.4 requires it of clients that do not authenticate, and some providers of every client.
        ("client_id", registered.client_id.as_str()),
    ];
    requested(http, registered, &form, registered.declared.quirks.token_request, &[device_code], key, now).await
}

/// Requests a token with a grant that spends nothing: the client's own credentials (RFC 6749 section 4.4), or a token that
/// is exchanged (RFC 8693). `secret` is a secret in the form.
pub(crate) async fn request(
    http: &HttpClients,
    registered: &Registered,
    form: &[(&str, &str)],
    secret: Option<&Secret>,
    key: Option<DpopKey>,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let sent: Vec<&str> = secret.map(Secret::expose).into_iter().collect();
    let mut token = requested(http, registered, form, TokenRequest::Form, &sent, key, now).await?;
    // Section 4.4.3: the grant takes its place. If it was used, the token could be renewed in two ways.
    token.refresh_token = None;
    Ok(token)
}

/// Sends a token request and reads the token, bound to `key` if there is one. `sent` are the secrets in the form.
async fn requested(
    http: &HttpClients,
    registered: &Registered,
    form: &[(&str, &str)],
    format: TokenRequest,
    sent: &[&str],
    key: Option<DpopKey>,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let request = authenticated(http, registered, registered.token_endpoint(), form, format)?;
    let (response, cut) = receive(http, request, bound_to(key.as_ref())).await?;
    let client_secret = client_secret(http, registered);
    let sent = [sent, &[client_secret.expose()]].concat();
    let expected = Expectations { is_bound: key.is_some(), old: None, ..expectations(registered, &sent, now) };
    let Reading { mut token, concerns } = read(&expected, &response, cut)?;
    if !concerns.is_empty() {
        let (provider, concerns) = (&registered.declared.name, concerns.join(", "));
        tracing::warn!(provider, concerns, "a token has unverified properties");
    }
    token.dpop_key = key;
    Ok(token)
}

/// Redeems a refresh token (RFC 6749 section 6) for a token bound to the same key. The old refresh token and scope are
/// retained if the response has none, and a missing lifetime gets the default of refreshable tokens. A token in the response
/// is retained even if a property of it cannot be verified, because the refresh token may be spent.
pub(crate) async fn refresh(
    http: &HttpClients,
    registered: &Registered,
    old: &OAuth2Token,
    refresh_token: &Secret,
    now: Timestamp,
) -> Result<Reading, TokenEndpointError> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
    let format = registered.declared.quirks.token_request;
    let key = registered.dpop_key(old.dpop_key.clone());
    let request = authenticated(http, registered, registered.refresh_endpoint(), &form, format)?;
    let (response, cut) = receive(http, request, bound_to(key.as_ref())).await?;
    let client_secret = client_secret(http, registered);
    let sent = [refresh_token.expose(), client_secret.expose()];
    let expected = Expectations { is_bound: key.is_some(), old: Some(old), ..expectations(registered, &sent, now) };
    let Reading { mut token, concerns } = read(&expected, &response, cut)?;
    token.dpop_key = key;
    token.refresh_token = token.refresh_token.or_else(|| Some(refresh_token.clone()));
    token.scope = token.scope.or_else(|| old.scope.clone());
    token.subject.clone_from(&old.subject);
    retain_api_base(registered, &mut token, old);
    Ok(Reading { token, concerns })
}

/// What a response of this provider should contain.
fn expectations<'a>(registered: &'a Registered, sent: &'a [&'a str], now: Timestamp) -> Expectations<'a> {
    let Provider { quirks, dead_grants, .. } = &registered.declared;
    Expectations { quirks, dead_grants, is_bound: false, old: None, sent, now }
}

fn read(
    expected: &Expectations<'_>,
    response: &HttpResponse,
    cut: Option<TokenEndpointError>,
) -> Result<Reading, TokenEndpointError> {
    let HttpResponse { status, headers, .. } = response;
    token_response::read(expected, Received { status: *status, headers, body: &response.plain(), cut })
}

/// Retains the API base for this user, which some providers return only once, unless the response has another one.
fn retain_api_base(registered: &Registered, token: &mut OAuth2Token, old: &OAuth2Token) {
    let Some(member) = &registered.declared.quirks.api_base_member else { return };
    let new = token.extra.get(member).and_then(Value::as_str);
    if new.is_some_and(|base| registered.named_by_provider(base).is_some()) {
        return;
    }
    if let Some(api_base) = old.extra.get(member) {
        let mut extra = token.extra.as_map().clone();
        extra.insert(member.clone(), api_base.clone());
        token.extra = Extra::from(extra);
    }
}
