//! Requests to the authorization server's endpoints with client authentication (RFC 6749 section 2.3).
//!
//! The token, revocation and pushed request endpoints authenticate a client in the same way, so all of their requests are
//! built here. A client authenticates in exactly one way in each request: section 2.3 forbids several, and some providers
//! reject them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, StatusCode, header};
use oauth_dance_core::{DpopKey, Secret, Timestamp};
use reqwest::RequestBuilder;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use crate::config::provider::ClientAuthentication;
use crate::config::quirks::TokenRequest;
use crate::error::TokenEndpointError;
use crate::protocol::dpop::Binding;
use crate::protocol::http::document::Document;
use crate::protocol::http::endpoint::{send, transport};
use crate::protocol::http::{HttpClients, HttpResponse, refusal};
use crate::protocol::registered::Registered;

/// Posts to an endpoint of the authorization server with client authentication, and with a proof if there is a key.
pub(crate) async fn post(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    form: &[(&str, &str)],
    format: TokenRequest,
    key: Option<&DpopKey>,
) -> Result<HttpResponse, TokenEndpointError> {
    send(http, authenticated(http, registered, endpoint, form, format)?, bound_to(key)).await
}

/// A request to an endpoint of the authorization server, with client authentication.
pub(super) fn authenticated(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    form: &[(&str, &str)],
    format: TokenRequest,
) -> Result<RequestBuilder, TokenEndpointError> {
    let is_named = form.iter().any(|(name, _)| *name == "client_id");
    let mut form = form.to_vec();
    let mut request = request(http, registered, Method::POST, endpoint)?;
    // A public client cannot authenticate; its id still identifies it (RFC 6749 section 3.2.1).
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

/// A request with the provider's headers.
pub(super) fn request(
    http: &HttpClients,
    registered: &Registered,
    method: Method,
    endpoint: &Url,
) -> Result<RequestBuilder, TokenEndpointError> {
    let client = http.token_endpoint.to(registered.nearest(endpoint)).map_err(transport)?;
    let request = client.request(method, endpoint.clone()).header(header::ACCEPT, "application/json");
    Ok(request.headers(registered.token_headers.clone()))
}

/// The binding of a request without an access token.
pub(super) fn bound_to(key: Option<&DpopKey>) -> Option<Binding<'_>> {
    key.map(|key| Binding { key, access_token: None })
}

/// The client's secret; empty for a public client.
pub(crate) fn client_secret(http: &HttpClients, registered: &Registered) -> Secret {
    registered.client_secret(http.clock.now()).unwrap_or_else(|| Secret::new(""))
}

/// HTTP Basic. Both parts are form-encoded first (RFC 6749 section 2.3.1).
pub(super) fn basic(client_id: &str, client_secret: &str) -> HeaderValue {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = STANDARD.encode(format!("{}:{}", encode(client_id), encode(client_secret)));
    #[expect(clippy::expect_used, reason = "base64 is ASCII")]
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).expect("base64 fits in a header");
    value.set_sensitive(true);
    value
}

/// The members of a successful response in JSON, or the error. What was `sent` does not appear in the error.
pub(super) fn members(
    response: &HttpResponse,
    sent: &[&str],
    now: Timestamp,
) -> Result<Map<String, Value>, TokenEndpointError> {
    let HttpResponse { status, headers, .. } = response;
    let body = response.plain();
    if let Some(refused) = refusal::refused(*status, headers, &body, sent, now) {
        return Err(refused);
    }
    if !status.is_success() || *status == StatusCode::NO_CONTENT {
        return Err(refusal::failed(*status, headers, now));
    }
    let document = Document::read(headers, &body, false);
    let members = document.members().filter(|_| document.is_whole);
    members.cloned().ok_or(TokenEndpointError::InvalidResponse("it is not a JSON object"))
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
