//! Pushed authorization requests (RFC 9126): the provider receives the parameters directly, and the browser carries a
//! reference.
//!
//! A user, an extension of the browser or a log along the way can then neither read nor change the parameters, and the
//! provider authenticates the client before it shows anything to the user.

use oauth_dance_core::{DpopKey, Secret, Timestamp};
use serde_json::Value;
use url::Url;

use super::authenticated::{client_secret, members, post};
use super::token_response::seconds;
use crate::config::quirks::TokenRequest;
use crate::error::TokenEndpointError;
use crate::protocol::http::{HttpClients, HttpResponse};
use crate::protocol::registered::Registered;

/// More than any provider needs, and short enough for a URL.
const MAX_REQUEST_URI: usize = 2048;

/// Pushes the parameters of an authorization request, and returns the `request_uri` that refers to them (RFC 9126 sections
/// 2.1 and 2.2). It is used at once and works once. It is handled as a secret, because anyone who knows it can use it.
pub(crate) async fn push(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    params: &[(String, String)],
    key: Option<&DpopKey>,
) -> Result<Secret, TokenEndpointError> {
    let form: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let response = post(http, registered, endpoint, &form, TokenRequest::Form, key).await?;
    let client_secret = client_secret(http, registered);
    let mut sent = vec![client_secret.expose()];
    sent.extend(params.iter().filter(|(name, _)| name == "state").map(|(_, state)| state.as_str()));
    read(&response, &sent, http.clock.now())
}

/// The `request_uri` in a response, or the error (RFC 9126 sections 2.2 and 2.3).
fn read(response: &HttpResponse, sent: &[&str], now: Timestamp) -> Result<Secret, TokenEndpointError> {
    let members = members(response, sent, now)?;
    let unusable = TokenEndpointError::InvalidResponse;
    let request_uri = members.get("request_uri").and_then(Value::as_str).unwrap_or_default();
    let is_printable = request_uri.bytes().all(|byte| byte.is_ascii_graphic());
    if request_uri.is_empty() || request_uri.len() > MAX_REQUEST_URI || !is_printable {
        return Err(unusable("it contains no usable request URI"));
    }
    if members.get("expires_in").and_then(seconds) == Some(0) {
        return Err(unusable("the request URI has already expired"));
    }
    Ok(Secret::new(request_uri))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn response(status: u16, body: &str) -> Result<Secret, TokenEndpointError> {
        let status = StatusCode::from_u16(status).unwrap();
        read(
            &HttpResponse { status, headers: HeaderMap::new(), body: body.to_owned().into(), is_redirected: false },
            &["STATE"],
            Timestamp::from_unix_seconds(1_000),
        )
    }

    /// The responses of RFC 9126 sections 2.2 and 2.3.
    #[test]
    fn the_responses_of_the_rfc_are_read() {
        let uri = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c";
        let created = response(201, &format!(r#"{{"request_uri":"{uri}","expires_in":60}}"#)).unwrap();
        assert_eq!(created.expose(), uri);
        let refused = response(
            400,
            r#"{"error":"invalid_request","error_description":"The redirect_uri is not valid for the given client"}"#,
        );
        assert!(matches!(refused, Err(TokenEndpointError::Refused { code, .. }) if code == "invalid_request"));
    }

    #[test]
    fn an_unusual_lifetime_is_accepted() {
        for body in [r#"{"request_uri":"urn:x"}"#, r#"{"request_uri":"urn:x","expires_in":"90","other":[]}"#] {
            assert_eq!(response(200, body).unwrap().expose(), "urn:x", "{body}");
        }
    }

    #[test]
    fn an_invalid_request_uri_is_an_error_without_a_quote() {
        let long = format!(r#"{{"request_uri":"{}"}}"#, "CANARY".repeat(1000));
        for body in [
            "",
            "[]",
            "CANARY",
            "{}",
            r#"{"request_uri":null}"#,
            r#"{"request_uri":7}"#,
            r#"{"request_uri":""}"#,
            r#"{"request_uri":"CANARY CANARY"}"#,
            r#"{"request_uri":"CANARY\r\nX: y"}"#,
            r#"{"request_uri":"CANARYé"}"#,
            r#"{"request_uri":"CANARY","expires_in":0}"#,
            &long,
        ] {
            let error = response(201, body).unwrap_err();
            assert!(matches!(error, TokenEndpointError::InvalidResponse(_)), "{body}");
            assert!(!format!("{error:?} {error}").contains("CANARY"));
        }
        for status in [204, 302, 307, 400, 401, 405, 413, 429, 500, 503] {
            let error = response(status, r#"{"request_uri":"urn:x","expires_in":60}"#).unwrap_err();
            assert!(matches!(error, TokenEndpointError::Status { status: found, .. } if found == status));
        }
        let echo = response(400, r#"{"error":"invalid_request","error_description":"STATE is no good"}"#).unwrap_err();
        assert!(!format!("{echo:?}").contains("STATE"));
    }
}
