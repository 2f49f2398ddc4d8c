//! Reads responses of providers of OAuth 1.0a: forms, whatever their content type (RFC 5849 sections 2.1 and 2.3).
//!
//! No standard defines the errors; many providers use the OAuth Problem Reporting extension.

use http::{HeaderMap, StatusCode, header};
use oauth_dance_core::{Extra, OAuth1Token, Timestamp};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::error::{Fault, TokenEndpointError};
use crate::protocol::http::document::Document;
use crate::protocol::http::refusal::failed;
use crate::protocol::http::text::{printable, without_secrets};

/// Parameters that must not be repeated.
const CREDENTIALS: [&str; 2] = ["oauth_token", "oauth_token_secret"];
/// Temporary credentials are stored in a cookie, and a browser may have several.
const MAX_TEMPORARY: usize = 256;
/// An error of the protocol is short; a longer body is a page.
const MAX_PROBLEM: usize = 4096;

/// The form in a successful response.
#[derive(Debug)]
pub(super) struct ResponseForm(Map<String, Value>);

/// Reads the form in a response, or the error. Secrets that were `sent` are redacted in the error.
pub(super) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    sent: &[&str],
    now: Timestamp,
) -> Result<ResponseForm, TokenEndpointError> {
    let failed = failed(status, headers, now);
    if let Some(Problem { code, advice }) = problem(headers, body, sent) {
        let TokenEndpointError::Status { retry_after, .. } = failed else { return Err(failed) };
        let fault = if is_of_the_token(&code) { Fault::Grant } else { Fault::Unknown };
        return Err(TokenEndpointError::Refused { code, description: advice, status, retry_after, fault });
    }
    if !status.is_success() {
        return Err(failed);
    }
    if CREDENTIALS.into_iter().any(|name| contradicts_itself(body, name)) {
        return Err(TokenEndpointError::InvalidResponse("a parameter is repeated"));
    }
    Ok(ResponseForm(Document::read(headers, body, false).members().cloned().unwrap_or_default()))
}

/// Whether a form has a field twice, with different values.
fn contradicts_itself(body: &[u8], name: &str) -> bool {
    let mut values =
        form_urlencoded::parse(body.trim_ascii()).filter(|(found, _)| found == name).map(|(_, value)| value);
    values.next().is_some_and(|first| values.any(|other| other != first))
}

impl ResponseForm {
    /// Temporary credentials (section 2.1). A provider that does not confirm the callback would neither bind them to it nor
    /// send a verifier.
    pub(super) fn temporary_credentials(mut self) -> Result<OAuth1Token, TokenEndpointError> {
        let confirmed = self.take("oauth_callback_confirmed");
        if !confirmed.is_some_and(|confirmed| confirmed.eq_ignore_ascii_case("true")) {
            return Err(TokenEndpointError::InvalidResponse(
                "it does not confirm the callback, as OAuth 1.0a requires",
            ));
        }
        let credentials = self.token_credentials()?;
        if credentials.token.expose().len().max(credentials.token_secret.expose().len()) > MAX_TEMPORARY {
            return Err(TokenEndpointError::InvalidResponse("the temporary credentials are too long"));
        }
        Ok(credentials)
    }

    /// Token credentials (section 2.3), with any additional parameters, such as the user's name.
    pub(super) fn token_credentials(mut self) -> Result<OAuth1Token, TokenEndpointError> {
        let token = self.take("oauth_token").filter(|token| !token.is_empty());
        let token = token.ok_or(TokenEndpointError::InvalidResponse("it contains no oauth_token"))?;
        let secret = self.take("oauth_token_secret");
        let secret = secret.ok_or(TokenEndpointError::InvalidResponse("it contains no oauth_token_secret"))?;
        let mut credentials = OAuth1Token::new(token, secret);
        credentials.extra = Extra::from(self.0);
        Ok(credentials)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        match self.0.remove(name)? {
            Value::String(value) => Some(value),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }
}

/// A problem that a provider reports, safe for logs and errors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: String,
    advice: Option<String>,
}

/// Whether a problem permanently concerns the token, and not this request or this client.
pub(crate) fn is_of_the_token(problem: &str) -> bool {
    matches!(problem, "token_revoked" | "token_expired" | "token_rejected" | "token_used")
}

/// The problem in a response's `WWW-Authenticate` header or body. Secrets that were `sent` are redacted.
pub(super) fn problem(headers: &HeaderMap, body: &[u8], sent: &[&str]) -> Option<Problem> {
    let Problem { code, advice } = in_header(headers).or_else(|| in_body(body))?;
    let tame = |text: String| printable(&without_secrets(&text, sent));
    Some(Problem { code: tame(code), advice: advice.map(tame) })
}

fn in_body(body: &[u8]) -> Option<Problem> {
    if body.len() > MAX_PROBLEM {
        return None;
    }
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(body.trim_ascii());
        pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
    };
    let code = value("oauth_problem").filter(|code| !code.trim().is_empty())?;
    Some(Problem { code, advice: value("oauth_problem_advice") })
}

fn in_header(headers: &HeaderMap) -> Option<Problem> {
    let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    challenges.filter_map(|challenge| challenge.trim_start().strip_prefix("OAuth ")).find_map(|challenge| {
        let value = |name: &str| {
            let pairs = challenge.split(',').filter_map(|pair| pair.trim().split_once('='));
            let (_, value) = pairs.into_iter().find(|(found, _)| *found == name)?;
            let decoded = percent_encoding::percent_decode_str(value.trim_matches('"'));
            Some(decoded.decode_utf8_lossy().into_owned())
        };
        let code = value("oauth_problem").filter(|code| !code.trim().is_empty())?;
        Some(Problem { code, advice: value("oauth_problem_advice") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_ok(body: &str) -> Result<ResponseForm, TokenEndpointError> {
        read(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &[], Timestamp::from_unix_seconds(0))
    }

    fn temporary(body: &str) -> Result<OAuth1Token, TokenEndpointError> {
        read_ok(body)?.temporary_credentials()
    }

    #[test]
    fn the_callback_must_be_confirmed() {
        for confirmed in ["true", "True", "TRUE"] {
            let body = format!(
                "oauth_token=hh5s93j4hdidpola&oauth_token_secret=a%2Bb+c&oauth_callback_confirmed={confirmed}\n"
            );
            let credentials = temporary(&body).unwrap();
            assert_eq!(credentials, OAuth1Token::new("hh5s93j4hdidpola", "a+b c"));
        }
        for unconfirmed in
            ["", "&oauth_callback_confirmed=", "&oauth_callback_confirmed=false", "&oauth_callback_confirmed=1"]
        {
            let error = temporary(&format!("oauth_token=t&oauth_token_secret=s{unconfirmed}")).unwrap_err();
            assert!(error.to_string().contains("confirm"), "{error}");
        }
    }

    #[test]
    fn missing_repeated_or_long_parameters_are_rejected() {
        for body in [
            "oauth_token=&oauth_token_secret=s",
            "oauth_token_secret=s",
            "oauth_token=t",
            "oauth_token=t&oauth_token=u&oauth_token_secret=s",
            "",
            "<html>",
            "{\"oauth_token\":\"t\"}",
        ] {
            let error = read_ok(body).and_then(ResponseForm::token_credentials);
            assert!(matches!(error, Err(TokenEndpointError::InvalidResponse(_))), "{body}: {error:?}");
        }
        let long = format!("oauth_token={}&oauth_token_secret=s&oauth_callback_confirmed=true", "t".repeat(257));
        assert!(matches!(temporary(&long), Err(TokenEndpointError::InvalidResponse(_))));
    }

    #[test]
    fn additional_parameters_are_retained() {
        let response = read_ok("oauth_token=t&oauth_token_secret=&user_id=38895958&screen_name=theSeanCook").unwrap();
        let credentials = response.token_credentials().unwrap();
        assert_eq!(credentials.extra.get("user_id"), Some(&"38895958".into()));
        assert!(!format!("{credentials:?}").contains("theSeanCook"));
    }

    #[test]
    fn problems_are_found_in_headers_and_bodies() {
        let body =
            b"oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1-2&oauth_problem_advice=set+the+clock";
        let found = problem(&HeaderMap::new(), body, &[]).unwrap();
        assert_eq!((found.code.as_str(), found.advice.as_deref()), ("timestamp_refused", Some("set the clock")));
        assert!(!is_of_the_token(&found.code));

        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", "Basic realm=\"x\"".parse().unwrap());
        let challenge = "OAuth realm=\"https%3A%2F%2Fjira.example\", oauth_problem=\"token_rejected\"";
        headers.append("www-authenticate", challenge.parse().unwrap());
        let found = problem(&headers, b"", &[]).unwrap();
        assert!(found.code == "token_rejected" && is_of_the_token(&found.code));

        for none in ["", "{\"a\": \"oauth_problem=x\"}", "<html>oauth_problem=x"] {
            assert_eq!(problem(&HeaderMap::new(), none.as_bytes(), &[]), None, "{none}");
        }
    }

    #[test]
    fn refusals_are_printable_and_contain_no_secret() {
        let read = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let now = Timestamp::from_unix_seconds(0);
            read(status, &HeaderMap::new(), body.as_bytes(), &["S3CRET", ""], now).unwrap_err()
        };
        let refused = read(401, "oauth_problem=signature_invalid&oauth_problem_advice=key+S3CRET%0d%0a%3Cb%3E");
        let TokenEndpointError::Refused { code, description, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((code.as_str(), description.as_deref()), ("signature_invalid", Some("key [secret]??<b>")));
        for (status, body) in [(401, ""), (500, "<html>S3CRET</html>"), (302, ""), (400, "error=invalid_client")] {
            let error = read(status, body);
            assert!(matches!(error, TokenEndpointError::Status { .. }), "{error:?}");
            assert!(!format!("{error:?} {error}").contains("S3CRET"));
        }
        assert!(matches!(read(200, "oauth_problem=token_used"), TokenEndpointError::Refused { .. }));
    }
}
