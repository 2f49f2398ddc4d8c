//! Responses in the formats of the protocols, before a script changes them.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use url::form_urlencoded;

/// The reply of a correct provider.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Vec::new() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it accepts the result of `json!`")]
    pub(super) fn json(status: StatusCode, value: Value) -> Self {
        Self { body: value.to_string().into_bytes(), ..Self::empty(status) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    pub(super) fn error(status: StatusCode, code: &str, description: &str) -> Self {
        Self::json(status, json!({ "error": code, "error_description": description }))
    }

    pub(super) fn bad_request(code: &str, description: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, code, description)
    }

    pub(super) fn invalid_request(description: &str) -> Self {
        Self::bad_request("invalid_request", description)
    }

    /// With a challenge, as every response of this status has (RFC 9110 section 15.5.2).
    pub(super) fn unauthorized(code: &str, description: &str, challenge: &str) -> Self {
        let reply = Self::error(StatusCode::UNAUTHORIZED, code, description);
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => reply.with_header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => reply,
        }
    }

    /// A form, the format of OAuth 1.0a.
    pub(super) fn form(status: StatusCode, pairs: &[(&str, &str)]) -> Self {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Self { body: form.into_bytes(), ..Self::empty(status) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
    }

    /// A page whose form the browser submits at once (OAuth 2.0 Form Post Response Mode).
    pub(super) fn form_page(action: &str, fields: &[(&str, &str)]) -> Self {
        let escape = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
        let input = |(name, value): &(&str, &str)| {
            format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
        };
        let inputs: String = fields.iter().map(input).collect();
        let form = format!("<form method=\"post\" action=\"{}\">{inputs}</form>", escape(action));
        let page = format!("<!doctype html><body onload=\"document.forms[0].submit()\">{form}");
        Self { body: page.into_bytes(), ..Self::empty(StatusCode::OK) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
    }

    pub(super) fn redirect(location: &str) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => Self::empty(StatusCode::SEE_OTHER)
                .with_header(header::LOCATION, location)
                .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
                .with_header(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            Err(_) => Self::invalid_request("the location cannot be sent"),
        }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// A page of the resource owner.
impl From<Response<String>> for Reply {
    fn from(page: Response<String>) -> Self {
        let (head, body) = page.into_parts();
        Self { status: head.status, headers: head.headers, body: body.into_bytes() }
    }
}
