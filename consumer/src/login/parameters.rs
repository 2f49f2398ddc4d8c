//! The parameters of the callback.
//!
//! They come from the browser, so from anyone. Each may occur once (RFC 6749 section 3.1): with a repeated parameter, two
//! parts of a system can read different values. An error takes precedence over a code only after the state was verified, so
//! that no one else can end a login.

use oauth_dance_core::Secret;

use super::query;
use crate::error::LoginError;
use crate::protocol::http::text::printable;
use crate::protocol::registered::Registered;

/// Some providers issue codes of up to about 4 KiB.
const MAX_CODE: usize = 8 * 1024;
/// The fields of a form that the callback uses. Data about the user does not belong in a URL.
pub(crate) const FORWARDED: [&str; 8] =
    ["state", "code", "error", "error_description", "iss", "error_reason", "error_code", "error_message"];

/// The parameters of an authorization response (RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207). Others are ignored.
pub(crate) struct Parameters {
    pub(crate) state: String,
    code: Option<Secret>,
    error: Option<(String, Option<String>)>,
    issuer: Option<String>,
}

impl Parameters {
    pub(crate) fn read(registered: &Registered, query: &str) -> Result<Self, LoginError> {
        if registered.oauth1.is_some() { Self::read_oauth1(query) } else { Self::read_oauth2(query) }
    }

    fn read_oauth2(query: &str) -> Result<Self, LoginError> {
        let [state, code, error, issuer] = [
            query::one(query, "state")?,
            query::one(query, "code")?,
            query::one(query, "error")?,
            query::one(query, "iss")?,
        ];
        if code.as_ref().is_some_and(|code| code.len() > MAX_CODE) {
            return Err(LoginError::Malformed("the code is too long"));
        }
        if code.is_none() && ["access_token", "id_token"].iter().any(|name| query::first(query, name).is_some()) {
            return Err(LoginError::Malformed("it contains tokens and no code"));
        }
        // Facebook reports some errors without an `error`.
        let others = ["error_reason", "error_code", "error_message"].into_iter();
        let error = error.or_else(|| others.filter(|_| code.is_none()).find_map(|name| query::first(query, name)));
        let description = ["error_description", "error_message"].into_iter().find_map(|name| query::first(query, name));
        let state = state.ok_or_else(|| match &error {
            // Some providers omit the state in a denial. Then no attempt can be ended.
            Some(code) if is_denial(code) => LoginError::Denied,
            _ => LoginError::Malformed("the state is missing"),
        })?;
        Ok(Self {
            state,
            code: code.map(Secret::from),
            error: error.map(|code| (printable(&code), description.map(|text| printable(&text)))),
            issuer,
        })
    }

    /// In OAuth 1.0a (RFC 5849 section 2.2), the temporary credentials take the place of the state, and the verifier that of
    /// the code. No standard defines a denial: X sends `denied`, Atlassian `oauth_verifier=denied`, and providers with the
    /// OAuth Problem Reporting extension send `oauth_problem`.
    fn read_oauth1(query: &str) -> Result<Self, LoginError> {
        let [token, denied] = [query::one(query, "oauth_token")?, query::one(query, "denied")?];
        let verifier = query::one(query, "oauth_verifier")?;
        let problem = query::one(query, "oauth_problem")?.or(query::one(query, "error")?);
        if verifier.as_ref().is_some_and(|verifier| verifier.len() > MAX_CODE) {
            return Err(LoginError::Malformed("the verifier is too long"));
        }
        let is_denied = denied.is_some() || verifier.as_deref() == Some("denied");
        let problem = if is_denied { Some("access_denied") } else { problem.as_deref() };
        Ok(Self {
            state: token.or(denied).ok_or(LoginError::Malformed("the oauth_token is missing"))?,
            error: problem.map(|code| (printable(code), None)),
            code: verifier.map(Secret::from),
            issuer: None,
        })
    }

    /// The code, if the response is from the expected issuer and grants access.
    pub(crate) fn granted(self, registered: &Registered) -> Result<Secret, LoginError> {
        let is_expected = match (&registered.issuer, &self.issuer) {
            (Some(expected), Some(found)) => expected.is(found),
            (_, None) => !registered.requires_issuer(),
            (None, Some(_)) => true,
        };
        if !is_expected {
            let expected = registered.issuer.as_ref().map(|issuer| issuer.as_str().to_owned()).unwrap_or_default();
            return Err(LoginError::IssuerMismatch { expected, found: self.issuer.as_deref().map(printable) });
        }
        match self.error {
            Some((code, _)) if is_denial(&code) => Err(LoginError::Denied),
            Some((code, description)) => Err(LoginError::Provider { code, description }),
            None if registered.oauth1.is_some() => self.code.ok_or(LoginError::Malformed("the verifier is missing")),
            // WeChat reports a denial with the state alone.
            None => self.code.ok_or(LoginError::Denied),
        }
    }
}

/// Whether an error means that the user, or the provider on their behalf, denied access: `access_denied` in RFC 6749 section
/// 4.1.2.1. Others are `user_cancelled_login` and `user_cancelled_authorize` of LinkedIn and Apple, Facebook's
/// `user_denied`, Smartcar's `oem_cancelled_login`, and `user_refused` and `permission_denied` of the OAuth Problem
/// Reporting extension.
pub(crate) fn is_denial(code: &str) -> bool {
    let words = ["denied", "cancelled", "canceled", "refused", "declined", "rejected"];
    let mut parts = code.split(|c: char| !c.is_ascii_alphanumeric());
    parts.any(|part| words.iter().chain(&["cancel", "deny"]).any(|word| part.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(query: &str) -> Option<(String, Option<String>)> {
        Parameters::read_oauth2(&format!("state=s&{query}")).unwrap().error
    }

    #[test]
    fn a_denial_has_many_names() {
        for denial in [
            "access_denied",
            "ACCESS_DENIED",
            "user_denied",
            "user_cancelled_login",
            "user_cancelled_authorize",
            "user_canceled_login",
            "oem_cancelled_login",
            "user_cancel",
            "cancelled",
            "user_refused",
            "permission_denied",
        ] {
            assert!(is_denial(denial), "{denial}");
        }
        for other in
            ["", "server_error", "login_required", "consent_required", "application_suspended", "undeniable", "200"]
        {
            assert!(!is_denial(other), "{other}");
        }
    }

    #[test]
    fn an_error_has_many_forms() {
        let some = |code: &str, text: Option<&str>| Some((code.to_owned(), text.map(str::to_owned)));
        assert_eq!(error("error=server_error&error_description=oops"), some("server_error", Some("oops")));
        assert_eq!(
            error("error_code=901&error_message=This+app+is+in+sandbox+mode."),
            some("901", Some("This app is in sandbox mode."))
        );
        assert_eq!(error("error_message=oops"), some("oops", Some("oops")));
        assert_eq!(error("error=access_denied&error_code=200&error_reason=user_denied"), some("access_denied", None));
        assert_eq!(error("error_reason=user_denied&error_code=200"), some("user_denied", None));
        assert_eq!(error("error=x&error_description=one&error_description=two"), some("x", Some("one")));
        for none in ["code=c", "code=c&error=", "code=c&error_code=0", "code=c&error_message=ok", "error="] {
            assert_eq!(error(none), None, "{none}");
        }
    }
}
