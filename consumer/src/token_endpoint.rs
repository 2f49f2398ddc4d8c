//! Calls of the token endpoint (RFC 6749 section 3.2) and the revocation endpoint (RFC 7009), authenticated as the client.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, header};
use oauth_dance_core::{DpopKey, Extra, OAuth2Token, Secret, Timestamp};
use reqwest::RequestBuilder;
use url::{Url, form_urlencoded};

use crate::dpop::Binding;
use crate::error::TokenEndpointError;
use crate::http_client::{Answer, HttpClients, ReadError, SendError, without_url};
use crate::leased::is_lease_over;
use crate::provider::ClientAuthentication;
use crate::quirks::{RevocationRequest, TokenRequest};
use crate::registered::Registered;
use crate::token_response::{self, Asked, Reading, Received};

/// More than any token response has; what is longer is no token response.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Redeems an authorization code (RFC 6749 section 4.1.3 with RFC 7636 section 4.5) for a token bound to `key`, if there is
/// one. Never retried once the provider has looked at it: a code works once.
pub(crate) async fn exchange_code(
    http: &HttpClients,
    registered: &Registered,
    code: &str,
    verifier: &str,
    key: Option<DpopKey>,
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let mut form =
        vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", registered.redirect_uri.as_str())];
    if !registered.quirks.without_pkce {
        form.push(("code_verifier", verifier));
    }
    form.extend(registered.quirks.token_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let format = registered.quirks.token_request;
    let request = authenticated(http, registered, &registered.token_endpoint, &form, format)?;
    let (answer, cut) = receive(http, request, bound_to(key.as_ref())).await?;
    let client_secret = client_secret(http, registered);
    let sent = [code, verifier, client_secret.expose()];
    let asked = Asked { is_bound: key.is_some(), old: None, ..asked(registered, &sent, now) };
    let Reading { mut token, .. } = read(&asked, &answer, cut)?;
    token.dpop_key = key;
    Ok(token)
}

/// Redeems a refresh token (RFC 6749 section 6) for a token bound to the same key. An answer without a refresh token or scope
/// keeps the old one, and one without a lifetime gets the same as any that can be refreshed. A token that came with it is
/// kept even if something about it is doubtful, because the refresh token may be spent.
pub(crate) async fn refresh(
    http: &HttpClients,
    registered: &Registered,
    old: &OAuth2Token,
    refresh_token: &Secret,
    now: Timestamp,
) -> Result<Reading, TokenEndpointError> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
    let format = registered.quirks.token_request;
    let key = registered.dpop_key(old.dpop_key.clone());
    let request = authenticated(http, registered, &registered.refresh_endpoint, &form, format)?;
    let (answer, cut) = receive(http, request, bound_to(key.as_ref())).await?;
    let client_secret = client_secret(http, registered);
    let sent = [refresh_token.expose(), client_secret.expose()];
    let asked = Asked { is_bound: key.is_some(), old: Some(old), ..asked(registered, &sent, now) };
    let Reading { mut token, doubts } = read(&asked, &answer, cut)?;
    token.dpop_key = key;
    token.refresh_token = token.refresh_token.or_else(|| Some(refresh_token.clone()));
    token.scope = token.scope.or_else(|| old.scope.clone());
    token.subject.clone_from(&old.subject);
    keep_api_base(registered, &mut token, old);
    Ok(Reading { token, doubts })
}

/// What the answers of this provider are read with.
fn asked<'a>(registered: &'a Registered, sent: &'a [&'a str], now: Timestamp) -> Asked<'a> {
    let Registered { quirks, dead_grants, .. } = registered;
    Asked { quirks, dead_grants, is_bound: false, old: None, sent, now }
}

fn read(asked: &Asked<'_>, answer: &Answer, cut: Option<TokenEndpointError>) -> Result<Reading, TokenEndpointError> {
    let Answer { status, headers, .. } = answer;
    token_response::read(asked, Received { status: *status, headers, body: &answer.plain(), cut })
}

/// Where this user's API is, some providers say only once.
fn keep_api_base(registered: &Registered, token: &mut OAuth2Token, old: &OAuth2Token) {
    let Some(member) = &registered.quirks.api_base_member else { return };
    if let (None, Some(api_base)) = (token.extra.get(member), old.extra.get(member)) {
        let mut extra = token.extra.as_map().clone();
        extra.insert(member.clone(), api_base.clone());
        token.extra = Extra::from(extra);
    }
}

/// Revokes a token (RFC 7009 section 2.1). Any 2xx is success, also for a token the provider never knew. Where the
/// provider wants the access token alone, there is nothing to do for a refresh token.
pub(crate) async fn revoke(
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
    let api = api.ok_or(TokenEndpointError::Answer("no header can carry it"));
    let answer = match registered.quirks.revocation {
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
    let Answer { status, headers, .. } = &answer;
    let is_standard = registered.quirks.revocation == RevocationRequest::Rfc7009;
    if is_standard && status.is_success() {
        return Ok(());
    }
    let client_secret = client_secret(http, registered);
    let sent = [token.expose(), client_secret.expose()];
    match token_response::refused(*status, headers, &answer.plain(), &sent, http.clock.now()) {
        // It was revoked before, or has expired, and this provider calls that an error.
        Some(TokenEndpointError::Refused { code, .. }) if code == "invalid_token" && status.is_client_error() => Ok(()),
        Some(refused) => Err(refused),
        None if status.is_success() => Ok(()),
        None => Err(token_response::failed(*status, headers, http.clock.now())),
    }
}

/// Posts to an endpoint of the authorization server, authenticated as the client, with a proof of the key if there is one.
pub(crate) async fn post(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    form: &[(&str, &str)],
    format: TokenRequest,
    key: Option<&DpopKey>,
) -> Result<Answer, TokenEndpointError> {
    send(http, authenticated(http, registered, endpoint, form, format)?, bound_to(key)).await
}

/// A request of an endpoint of the authorization server, authenticated as the client.
fn authenticated(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    form: &[(&str, &str)],
    format: TokenRequest,
) -> Result<RequestBuilder, TokenEndpointError> {
    let is_named = form.iter().any(|(name, _)| *name == "client_id");
    let mut form = form.to_vec();
    let mut request = request(http, registered, Method::POST, endpoint)?;
    // Without a secret there is nothing to authenticate with; the id still names the client (RFC 6749 section 3.2.1).
    let client_secret = registered.client_secret(http.clock.now());
    match (&client_secret, registered.authentication_at(endpoint)) {
        (Some(secret), ClientAuthentication::Basic) => {
            request = request.header(header::AUTHORIZATION, basic(&registered.client_id, secret.expose()));
        }
        (Some(secret), ClientAuthentication::Body) => {
            form.extend((!is_named).then_some(("client_id", registered.client_id.as_str())));
            form.push(("client_secret", secret.expose()));
        }
        (None, _) if is_named => {}
        (None, _) => form.push(("client_id", &registered.client_id)),
    }

    Ok(match format {
        TokenRequest::Form => request.form(&form),
        TokenRequest::Json => request.json(&form.into_iter().collect::<BTreeMap<_, _>>()),
    })
}

/// A request with the headers that this provider wants.
fn request(
    http: &HttpClients,
    registered: &Registered,
    method: Method,
    endpoint: &Url,
) -> Result<RequestBuilder, TokenEndpointError> {
    let client = http.token_endpoint.to(registered.nearest(endpoint)).map_err(transport)?;
    let request = client.request(method, endpoint.clone()).header(header::ACCEPT, "application/json");
    Ok(request.headers(registered.token_headers.clone()))
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(
    http: &HttpClients,
    request: RequestBuilder,
    binding: Option<Binding<'_>>,
) -> Result<Answer, TokenEndpointError> {
    match receive(http, request, binding).await? {
        (answer, None) => Ok(answer),
        (_, Some(cut)) => Err(cut),
    }
}

/// Sends a request and reads as much of the answer as comes, with why it is not whole if it is not. It ends a little
/// before whoever waits for it gives up, so that nothing that has been read is lost.
async fn receive(
    http: &HttpClients,
    request: RequestBuilder,
    binding: Option<Binding<'_>>,
) -> Result<(Answer, Option<TokenEndpointError>), TokenEndpointError> {
    let request = request.timeout(http.limits.timeout.mul_f32(0.95));
    match http.send(request, binding, MAX_RESPONSE).await {
        Ok(answer) => Ok((answer, None)),
        Err(SendError::Cut { answer, why: ReadError::TooLarge }) => {
            Ok((*answer, Some(TokenEndpointError::Answer("it is too large"))))
        }
        Err(SendError::Cut { answer, why: ReadError::Broken(error) }) => Ok((*answer, Some(transport(error)))),
        Err(SendError::Proof) => Err(TokenEndpointError::Proof),
        Err(SendError::Http(error)) => Err(transport(error)),
    }
}

/// What a request is proved with that presents no access token.
fn bound_to(key: Option<&DpopKey>) -> Option<Binding<'_>> {
    key.map(|key| Binding { key, access_token: None })
}

/// The client's secret; empty for a public client.
pub(crate) fn client_secret(http: &HttpClients, registered: &Registered) -> Secret {
    registered.client_secret(http.clock.now()).unwrap_or_else(|| Secret::new(""))
}

/// HTTP Basic with both parts form-encoded first (RFC 6749 section 2.3.1).
fn basic(client_id: &str, client_secret: &str) -> HeaderValue {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = STANDARD.encode(format!("{}:{}", encode(client_id), encode(client_secret)));
    #[expect(clippy::expect_used, reason = "base64 is ASCII")]
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).expect("base64 fits in a header");
    value.set_sensitive(true);
    value
}

fn transport(error: reqwest::Error) -> TokenEndpointError {
    if is_lease_over(&error) {
        TokenEndpointError::LeaseOver
    } else if error.is_connect() || error.is_builder() {
        TokenEndpointError::Unreachable(without_url(error))
    } else if error.is_timeout() {
        TokenEndpointError::Timeout
    } else {
        TokenEndpointError::Transport(without_url(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_encoded_before_base64() {
        let value = basic("a b:c", "p@ss+%é");
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"a+b%3Ac:p%40ss%2B%25%C3%A9");
    }
}
