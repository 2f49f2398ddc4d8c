//! The device authorization request (RFC 8628 section 3.1), whose response a person acts on in a browser elsewhere.
//!
//! The texts of the response are shown in a terminal, and its URL is opened in a browser, so both are checked before a caller
//! sees them.

use std::time::Duration;

use oauth_dance_core::{Secret, Timestamp};
use serde_json::Value;
use url::Url;

use super::authenticated::{client_secret, members, post};
use super::token_response::seconds;
use crate::config::quirks::TokenRequest;
use crate::error::TokenEndpointError;
use crate::protocol::http::{HttpClients, HttpResponse};
use crate::protocol::registered::Registered;

/// How often the token endpoint may be asked if the response does not say (section 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// A response without a lifetime, which is required, gets this one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// No response keeps a program waiting for longer.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// Longer than any code that a person could enter.
const MAX_USER_CODE: usize = 64;
/// More than any provider needs.
const MAX_DEVICE_CODE: usize = 8 * 1024;

/// The device authorization response (section 3.2).
#[derive(Debug)]
pub(crate) struct DeviceCode {
    pub(crate) device_code: Secret,
    /// Printable ASCII.
    pub(crate) user_code: String,
    /// https, or on this machine.
    pub(crate) verification_uri: Url,
    pub(crate) verification_uri_complete: Option<Url>,
    pub(crate) lifetime: Duration,
    pub(crate) interval: Duration,
}

/// Requests a code for this device.
pub(crate) async fn authorize(
    http: &HttpClients,
    registered: &Registered,
    endpoint: &Url,
    scopes: &[String],
) -> Result<DeviceCode, TokenEndpointError> {
    let quirks = &registered.declared.quirks;
    let scope = scopes.join(&registered.declared.scope_separator.to_string());
    let mut form = vec![("client_id", registered.client_id.as_str())];
    if !scopes.is_empty() {
        form.push((quirks.scope_parameter.as_deref().unwrap_or("scope"), &scope));
    }
    let response = post(http, registered, endpoint, &form, TokenRequest::Form, None).await?;
    let client_secret = client_secret(http, registered);
    read(&response, &[client_secret.expose()], |url| registered.named_by_provider(url), http.clock.now())
}

/// The codes in a response, or the error. `parse` rejects a URL that a browser must not open.
fn read(
    response: &HttpResponse,
    sent: &[&str],
    parse: impl Fn(&str) -> Option<Url>,
    now: Timestamp,
) -> Result<DeviceCode, TokenEndpointError> {
    let members = members(response, sent, now)?;
    let unusable = TokenEndpointError::InvalidResponse;
    let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let device_code = text("device_code").filter(|code| code.len() <= MAX_DEVICE_CODE);
    let is_printable =
        |code: &&str| code.len() <= MAX_USER_CODE && code.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let user_code = text("user_code").filter(is_printable);
    // Google still uses the name of an early draft.
    let verification_uri = text("verification_uri").or_else(|| text("verification_url")).and_then(&parse);
    let complete = text("verification_uri_complete").or_else(|| text("verification_url_complete")).and_then(&parse);
    let lifetime = members.get("expires_in").and_then(seconds).map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let interval = members.get("interval").and_then(seconds).map_or(DEFAULT_INTERVAL, Duration::from_secs);
    if lifetime.is_zero() {
        return Err(unusable("the device code has already expired"));
    }
    Ok(DeviceCode {
        device_code: device_code.ok_or(unusable("it contains no usable device code"))?.into(),
        user_code: user_code.ok_or(unusable("it contains no usable user code"))?.to_owned(),
        verification_uri: verification_uri.ok_or(unusable("it contains no usable verification URI"))?,
        verification_uri_complete: complete,
        lifetime: lifetime.min(MAX_LIFETIME),
        interval: interval.clamp(Duration::from_secs(1), MAX_LIFETIME),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn response(status: u16, body: &str) -> Result<DeviceCode, TokenEndpointError> {
        let status = StatusCode::from_u16(status).unwrap();
        let response =
            HttpResponse { status, headers: HeaderMap::new(), body: body.to_owned().into(), is_redirected: false };
        let parse = |url: &str| Url::parse(url).ok().filter(|url| url.scheme() == "https");
        read(&response, &["SECRET"], parse, Timestamp::from_unix_seconds(1_000))
    }

    fn with(members: &str) -> String {
        format!(
            r#"{{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://p.example/device"{members}}}"#
        )
    }

    /// The response of RFC 8628 section 3.2.
    #[test]
    fn the_response_of_the_rfc_is_read() {
        let body = r#"{
            "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
            "user_code": "WDJB-MJHT",
            "verification_uri": "https://example.com/device",
            "verification_uri_complete": "https://example.com/device?user_code=WDJB-MJHT",
            "expires_in": 1800,
            "interval": 5
        }"#;
        let code = response(200, body).unwrap();
        assert_eq!(code.device_code.expose(), "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS");
        assert_eq!(
            (code.user_code.as_str(), code.verification_uri.as_str()),
            ("WDJB-MJHT", "https://example.com/device")
        );
        assert_eq!(code.verification_uri_complete.unwrap().query(), Some("user_code=WDJB-MJHT"));
        assert_eq!((code.lifetime.as_secs(), code.interval.as_secs()), (1800, 5));
    }

    #[test]
    fn unusual_responses_are_read() {
        for (members, lifetime, interval) in [
            ("", 600, 5),
            (r#","expires_in":"900","interval":"7""#, 900, 7),
            (r#","expires_in":900.0,"interval":null"#, 900, 5),
            (r#","expires_in":-1,"interval":-1"#, 600, 5),
            (r#","expires_in":1e300,"interval":1e300"#, 3600, 3600),
            (r#","interval":0,"verification_uri_complete":7"#, 600, 1),
        ] {
            let code = response(200, &with(members)).unwrap();
            assert_eq!((code.lifetime.as_secs(), code.interval.as_secs()), (lifetime, interval), "{members}");
            assert!(code.verification_uri_complete.is_none());
        }
        let google = r#"{"device_code":"d","user_code":"u","verification_url":"https://www.google.com/device"}"#;
        assert_eq!(response(200, google).unwrap().verification_uri.as_str(), "https://www.google.com/device");
        let form =
            "device_code=d&user_code=u&verification_uri=https%3A%2F%2Fp.example%2Fdevice&expires_in=900&interval=5";
        assert_eq!(response(200, form).unwrap().lifetime.as_secs(), 900);
    }

    #[test]
    fn texts_that_could_harm_are_rejected_and_not_quoted() {
        let long = format!("{}{}", "CANARY", "x".repeat(100));
        for (device_code, user_code, uri) in [
            ("", "u", "https://p.example"),
            ("d", "", "https://p.example"),
            ("d", "\\u001b[2J CANARY", "https://p.example"),
            ("d", "CANARYé", "https://p.example"),
            ("d", &long, "https://p.example"),
            ("d", "u", "http://CANARY.example"),
            ("d", "u", "file:///CANARY"),
            ("d", "u", "javascript:CANARY"),
            ("d", "u", "CANARY"),
        ] {
            let body =
                format!(r#"{{"device_code":"{device_code}","user_code":"{user_code}","verification_uri":"{uri}"}}"#);
            let error = response(200, &body).unwrap_err();
            assert!(matches!(error, TokenEndpointError::InvalidResponse(_)), "{body}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
        for body in ["", "[]", "CANARY", "{}", &with(r#","expires_in":0"#)] {
            assert!(response(200, body).is_err(), "{body}");
        }
        let code = response(200, &with(r#","verification_uri_complete":"javascript:x""#)).unwrap();
        assert!(code.verification_uri_complete.is_none());
    }

    #[test]
    fn refusals_are_typed() {
        for (status, body, code) in [
            (400, r#"{"error":"unauthorized_client"}"#, "unauthorized_client"),
            (401, r#"{"error":"invalid_client","error_description":"SECRET is wrong"}"#, "invalid_client"),
            (200, r#"{"error":"device_flow_disabled"}"#, "device_flow_disabled"),
        ] {
            let error = response(status, body).unwrap_err();
            assert!(matches!(&error, TokenEndpointError::Refused { code: found, .. } if found == code), "{error:?}");
            assert!(!format!("{error:?}").contains("SECRET"));
        }
        assert!(matches!(response(404, "<html>").unwrap_err(), TokenEndpointError::Status { .. }));
    }
}
