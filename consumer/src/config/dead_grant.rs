//! How providers say that a grant is dead, in their own words.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ConfigError;

/// How a provider refuses a refresh token that is invalid, expired or revoked, if not by the `invalid_grant` of RFC 6749
/// section 5.2, which always counts.
///
/// [Presets](crate::presets) know it of their providers. For a provider of your own, add what its documentation shows to
/// [`Provider::dead_grants`](crate::Provider::dead_grants):
///
/// ```
/// use oauth_dance::{DeadGrant, Provider};
///
/// let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
/// // HTTP/1.1 403 with {"error": "access_denied", "details": [{"reason": "refresh_token revoked on Monday"}]}
/// acme.dead_grants.push(
///     DeadGrant::new([("error", "access_denied"), ("details.reason", "refresh_token revoked*")]).with_status(403),
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
pub struct DeadGrant {
    /// The status of the answer; any if it is not set.
    #[serde(default)]
    pub status: Option<u16>,
    /// What members of the answer say, all of them. A dot leads into an object, and into each item of a list. A value is
    /// compared without regard to case; `*` at its end stands for anything.
    pub members: BTreeMap<String, String>,
}

impl DeadGrant {
    /// An answer with these members, whatever its status.
    pub fn new<P: Into<String>, V: Into<String>>(members: impl IntoIterator<Item = (P, V)>) -> Self {
        let members = members.into_iter().map(|(path, value)| (path.into(), value.into())).collect();
        Self { status: None, members }
    }

    /// The same with this status alone.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Refuses what would take every answer, or none, for a dead grant.
    pub(crate) fn check(&self, provider: &str, field: &'static str) -> Result<(), ConfigError> {
        let invalid = |problem| Err(ConfigError::invalid(provider, field, problem));
        if self.members.is_empty() {
            return invalid("has one without members, which every answer would be");
        }
        if self.members.keys().any(|path| path.split('.').any(str::is_empty)) {
            return invalid("has a path with an empty name in it");
        }
        if self.members.values().any(|value| value.trim_matches(['*', ' ']).is_empty()) {
            return invalid("has a value that anything would be");
        }
        match self.status {
            Some(status) if !(200..600).contains(&status) => invalid("has a status that no answer has"),
            _ => Ok(()),
        }
    }

    /// Whether this answer is one.
    pub(crate) fn is(&self, status: StatusCode, answer: &Value) -> bool {
        let conditions: Vec<_> =
            self.members.iter().map(|(path, expected)| (path.split('.').collect::<Vec<_>>(), expected)).collect();
        let conditions: Vec<_> =
            conditions.iter().map(|(path, expected)| (path.as_slice(), expected.as_str())).collect();
        self.status.is_none_or(|expected| status == expected) && all_hold(answer, &conditions)
    }
}

/// Whether all conditions hold of this value, or of one and the same item if it is a list.
fn all_hold(value: &Value, conditions: &[(&[&str], &str)]) -> bool {
    if let Value::Array(items) = value {
        return items.iter().any(|item| all_hold(item, conditions));
    }
    let names: Vec<&str> = conditions.iter().filter_map(|(path, _)| path.first().copied()).collect();
    let here = conditions.iter().filter(|(path, _)| path.is_empty()).all(|(_, expected)| says(value, expected));
    here && names.iter().all(|name| {
        let inside = conditions.iter().filter(|(path, _)| path.first() == Some(name));
        let inside: Vec<_> = inside.map(|(path, expected)| (&path[1..], *expected)).collect();
        value.get(name).is_some_and(|value| all_hold(value, &inside))
    })
}

fn says(value: &Value, expected: &str) -> bool {
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
    fn an_answer_is_one_if_all_conditions_hold() {
        let dead = DeadGrant::new([("error", "access_denied"), ("details.reason", "refresh_token revoked*")]);
        let dead = dead.with_status(403);
        let is = |status: u16, answer: Value| dead.is(StatusCode::from_u16(status).unwrap(), &answer);
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
    fn conditions_on_a_list_hold_of_one_item() {
        let dead = DeadGrant::new([("errors.field", "refresh_token"), ("errors.code", "invalid")]);
        let is = |answer: Value| dead.is(StatusCode::BAD_REQUEST, &answer);
        assert!(is(json!({"errors": [{"field": "x", "code": "y"}, {"field": "refresh_token", "code": "invalid"}]})));
        assert!(!is(
            json!({"errors": [{"field": "client_id", "code": "invalid"}, {"field": "refresh_token", "code": "x"}]})
        ));
    }

    #[test]
    fn numbers_and_flags_are_compared_as_text() {
        let dead = DeadGrant::new([("code", "190"), ("ok", "false")]);
        assert!(dead.is(StatusCode::OK, &json!({"code": 190, "ok": false})));
        assert!(!dead.is(StatusCode::OK, &json!({"code": 19, "ok": false})));
    }

    #[test]
    fn one_that_would_be_every_answer_is_refused() {
        let none: [(&str, &str); 0] = [];
        assert!(DeadGrant::new(none).check("acme", "dead_grants").is_err());
        for (path, value) in [("", "x"), ("a..b", "x"), ("a.", "x"), ("error", ""), ("error", "*"), ("error", " ")] {
            assert!(DeadGrant::new([(path, value)]).check("acme", "dead_grants").is_err(), "{path} {value}");
        }
        assert!(DeadGrant::new([("error", "x")]).with_status(0).check("acme", "dead_grants").is_err());
        assert!(DeadGrant::new([("error", "x")]).with_status(403).check("acme", "dead_grants").is_ok());
    }
}
