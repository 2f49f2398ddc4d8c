//! Merges a new token into the stored record, which the application may have changed since the claim.
//!
//! The refresh token in the record decides. If the record still contains the redeemed refresh token, it receives the
//! successor, whatever else has changed in it. If it contains another one, a login or another refresh takes precedence.

use crate::token::{Extra, OAuth2Token};

/// How a stored token relates to a refresh that redeemed `old` and is about to store `new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The stored token contains the refresh token that was redeemed.
    Predecessor,
    /// The stored token is the new token. If the record no longer contains the claim, an earlier write took effect
    /// although its response was lost.
    Same,
    /// The stored token comes from a login or from another refresh.
    Unrelated,
}

impl Relation {
    pub(super) fn of(stored: &OAuth2Token, old: &OAuth2Token, new: &OAuth2Token) -> Self {
        let is_rotated = new.refresh_token != old.refresh_token;
        if stored.refresh_token == new.refresh_token && stored.access_token == new.access_token {
            return Self::Same;
        }
        // Without rotation, the refresh token stays the same, and the access token of another refresh is as good as
        // this one.
        if stored.refresh_token == old.refresh_token && (is_rotated || stored.access_token == old.access_token) {
            return Self::Predecessor;
        }
        Self::Unrelated
    }
}

/// The token to store: `new`, plus the parts of `stored` that the application changed and `new` does not replace.
/// `old` is the token that was redeemed. `new` may contain parts of it.
pub(super) fn successor(old: &OAuth2Token, stored: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
    let mut token = new.clone();
    if new.scope == old.scope {
        token.scope.clone_from(&stored.scope);
    }
    if new.subject == old.subject {
        token.subject.clone_from(&stored.subject);
    }
    if new.id_token == old.id_token {
        token.id_token.clone_from(&stored.id_token);
    }
    let mut extra = stored.extra.as_map().clone();
    let changed = new.extra.as_map().iter().filter(|(name, value)| old.extra.get(name) != Some(*value));
    extra.extend(changed.map(|(name, value)| (name.clone(), value.clone())));
    token.extra = Extra::from(extra);
    token
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(access_token: &str, refresh_token: Option<&str>) -> OAuth2Token {
        let mut token = OAuth2Token::bearer(access_token);
        token.refresh_token = refresh_token.map(Into::into);
        token
    }

    fn with_extra(token: &OAuth2Token, extra: &Value) -> OAuth2Token {
        OAuth2Token { extra: Extra::from(extra.as_object().unwrap().clone()), ..token.clone() }
    }

    #[test]
    fn refresh_token_decides_the_relation() {
        let (old, new) = (token("a0", Some("r0")), token("a1", Some("r1")));
        for (access_token, refresh_token, expected) in [
            ("a0", Some("r0"), Relation::Predecessor),
            ("the application's", Some("r0"), Relation::Predecessor),
            ("a1", Some("r1"), Relation::Same),
            ("a2", Some("r1"), Relation::Unrelated),
            ("a2", Some("r2"), Relation::Unrelated),
            ("a0", None, Relation::Unrelated),
            ("a0", Some("another"), Relation::Unrelated),
        ] {
            let mut stored = with_extra(&token(access_token, refresh_token), &json!({"note": 1}));
            stored.scope = Some(vec!["changed".to_owned()]);
            assert_eq!(Relation::of(&stored, &old, &new), expected, "{access_token} {refresh_token:?}");
        }
    }

    #[test]
    fn another_refresh_wins_without_rotation() {
        let (old, new) = (token("a0", Some("r")), token("a1", Some("r")));
        assert_eq!(Relation::of(&old, &old, &new), Relation::Predecessor);
        assert_eq!(Relation::of(&new, &old, &new), Relation::Same);
        assert_eq!(Relation::of(&token("a2", Some("r")), &old, &new), Relation::Unrelated);
    }

    #[test]
    fn new_token_replaces_only_what_it_contains() {
        let base = token("a0", Some("r0"));
        let old = with_extra(&base, &json!({"team": 1, "said": 1, "gone": 1, "only_at_login": 1}));
        let mut stored = with_extra(&base, &json!({"team": 2, "said": 2, "only_at_login": 1, "note": "the app's"}));
        stored.scope = Some(vec!["narrowed".to_owned()]);
        let new = with_extra(&token("a1", Some("r1")), &json!({"said": 3, "gone": 1, "new": 1}));

        let mut expected = new.clone();
        expected.scope = Some(vec!["narrowed".to_owned()]);
        let extra = json!({"team": 2, "said": 3, "only_at_login": 1, "note": "the app's", "new": 1});
        assert_eq!(successor(&old, &stored, &new), with_extra(&expected, &extra));

        let mut wider = new.clone();
        wider.scope = Some(vec!["wider".to_owned()]);
        assert_eq!(
            successor(&old, &stored, &wider).scope,
            wider.scope,
            "the provider decides which scopes are granted"
        );
    }
}
