//! Error responses of a provider that differ from the standards.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ConfigError;

/// A pattern that identifies an error response of a provider, by its status and the members of its JSON body.
///
/// [`Provider::dead_grants`](crate::Provider::dead_grants) lists the patterns of a refused refresh token, in addition to the
/// `invalid_grant` of RFC 6749 section 5.2, which always counts.
/// [`Provider::rejected_tokens`](crate::Provider::rejected_tokens) lists those of a rejected access token.
/// [Presets](crate::presets) contain the patterns of their providers. For your own provider, add what its documentation
/// shows:
///
/// ```
/// use oauth_dance::{ErrorPattern, Provider};
///
/// let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
/// // HTTP/1.1 403 with {"error": "access_denied", "details": [{"reason": "refresh_token revoked on Monday"}]}
/// acme.dead_grants.push(
///     ErrorPattern::new([("error", "access_denied"), ("details.reason", "refresh_token revoked*")]).with_status(403),
/// );
/// ```
///
/// In a configuration file:
///
/// ```toml
/// [[providers.acme.dead_grants]]
/// status = 403
/// members = { error = "access_denied", "details.reason" = "refresh_token revoked*" }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ErrorPattern {
    /// The status of the response. `None` matches any.
    #[serde(default)]
    pub status: Option<u16>,
    /// The members that the response must have, all of them. A dot leads into an object, and into each item of a list.
    /// Values are compared case-insensitively; `*` at the end matches any rest.
    pub members: BTreeMap<String, String>,
}

impl ErrorPattern {
    /// Matches a response with these members, whatever its status. Add as many as the documentation shows: a pattern that
    /// matches too much disconnects users.
    pub fn new<P: Into<String>, V: Into<String>>(members: impl IntoIterator<Item = (P, V)>) -> Self {
        let members = members.into_iter().map(|(path, value)| (path.into(), value.into())).collect();
        Self { status: None, members }
    }

    /// Restricts the pattern to responses with this status, for an error that means something else with another status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Rejects a pattern that matches every response, or none.
    pub(crate) fn check(&self, provider: &str, field: &'static str) -> Result<(), ConfigError> {
        let invalid = |problem| Err(ConfigError::invalid(provider, field, problem));
        if self.members.is_empty() {
            return invalid("has a pattern without members, which matches every response");
        }
        if self.members.keys().any(|path| path.split('.').any(str::is_empty)) {
            return invalid("has a pattern with an empty name in a path");
        }
        if self.members.values().any(|value| value.trim_matches(['*', ' ']).is_empty()) {
            return invalid("has a pattern with a value that matches everything");
        }
        match self.status {
            Some(status) if !(200..600).contains(&status) => {
                invalid("has a pattern with a status that no error response has")
            }
            _ => Ok(()),
        }
    }

    /// Whether the pattern matches this response.
    pub(crate) fn matches(&self, status: StatusCode, body: &Value) -> bool {
        let conditions: Vec<_> =
            self.members.iter().map(|(path, expected)| (path.split('.').collect::<Vec<_>>(), expected)).collect();
        let conditions: Vec<_> =
            conditions.iter().map(|(path, expected)| (path.as_slice(), expected.as_str())).collect();
        self.status.is_none_or(|expected| status == expected) && all_hold(body, &conditions)
    }
}

/// Whether all conditions apply to this value, or to one item of it if it is a list.
fn all_hold(value: &Value, conditions: &[(&[&str], &str)]) -> bool {
    if let Value::Array(items) = value {
        return items.iter().any(|item| all_hold(item, conditions));
    }
    let names: Vec<&str> = conditions.iter().filter_map(|(path, _)| path.first().copied()).collect();
    let here = conditions.iter().filter(|(path, _)| path.is_empty()).all(|(_, expected)| equals(value, expected));
    here && names.iter().all(|name| {
        let inside = conditions.iter().filter(|(path, _)| path.first() == Some(name));
        let inside: Vec<_> = inside.map(|(path, expected)| (&path[1..], *expected)).collect();
        value.get(name).is_some_and(|value| all_hold(value, &inside))
    })
}

fn equals(value: &Value, expected: &str) -> bool {
    let found = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return false,
    };
    match expected.strip_suffix('*') {
        Some(beginning) => found.get(..beginning.len()).is_some_and(|found| found.eq_ignore_ascii_case(beginning)),
        None => found.eq_ignore_ascii_case(expected.trim()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_matches_if_all_its_members_match() {
        let pattern = ErrorPattern::new([("error", "access_denied"), ("details.reason", "refresh_token revoked*")]);
        let pattern = pattern.with_status(403);
        let is = |status: u16, body: Value| pattern.matches(StatusCode::from_u16(status).unwrap(), &body);
        let revoked = json!({"reason": "Refresh_Token revoked on Monday"});
        assert!(is(403, json!({"error": " ACCESS_DENIED", "details": revoked})));
        assert!(is(403, json!({"error": "access_denied", "details": [{"reason": "other"}, revoked]})));
        assert!(!is(400, json!({"error": "access_denied", "details": revoked})));
        assert!(!is(403, json!({"error": "access_denied", "details": []})));
        assert!(!is(403, json!({"error": "access_denied", "details": "refresh_token revoked"})));
        assert!(!is(403, json!({"details": revoked})));
        assert!(!is(403, json!("access_denied")));
    }

    /// Strava reports several faults of one request in a list.
    #[test]
    fn conditions_on_a_list_apply_to_one_item() {
        let pattern = ErrorPattern::new([("errors.field", "refresh_token"), ("errors.code", "invalid")]);
        let is = |body: Value| pattern.matches(StatusCode::BAD_REQUEST, &body);
        assert!(is(json!({"errors": [{"field": "x", "code": "y"}, {"field": "refresh_token", "code": "invalid"}]})));
        assert!(!is(
            json!({"errors": [{"field": "client_id", "code": "invalid"}, {"field": "refresh_token", "code": "x"}]})
        ));
    }

    #[test]
    fn numbers_and_flags_are_compared_as_text() {
        let pattern = ErrorPattern::new([("code", "190"), ("ok", "false")]);
        assert!(pattern.matches(StatusCode::OK, &json!({"code": 190, "ok": false})));
        assert!(!pattern.matches(StatusCode::OK, &json!({"code": 19, "ok": false})));
    }

    #[test]
    fn a_pattern_that_matches_everything_is_rejected() {
        let none: [(&str, &str); 0] = [];
        assert!(ErrorPattern::new(none).check("acme", "dead_grants").is_err());
        for (path, value) in [("", "x"), ("a..b", "x"), ("a.", "x"), ("error", ""), ("error", "*"), ("error", " ")] {
            assert!(ErrorPattern::new([(path, value)]).check("acme", "dead_grants").is_err(), "{path} {value}");
        }
        assert!(ErrorPattern::new([("error", "x")]).with_status(0).check("acme", "dead_grants").is_err());
        assert!(ErrorPattern::new([("error", "x")]).with_status(403).check("acme", "dead_grants").is_ok());
    }
}
