//! What a refresh makes of the stored token, which the application may have changed since the claim.
//!
//! The refresh token decides whose turn it is: a record that still holds the one that was redeemed is waiting for its
//! successor, whatever else has been changed in it.

use crate::token::{Extra, OAuth2Token, Token};

/// What a stored token is to a refresh that redeemed `old` and wants to store `new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The refresh token in it is the one that was redeemed.
    Waiting,
    /// It is the new token: an earlier write was cut off, but has been done.
    Stored,
    /// It comes from a login or from another refresh.
    Other,
}

impl Standing {
    pub(super) fn of(stored: &OAuth2Token, old: &OAuth2Token, new: &OAuth2Token) -> Self {
        let is_rotated = new.refresh_token != old.refresh_token;
        if stored.refresh_token == new.refresh_token && stored.access_token == new.access_token {
            return Self::Stored;
        }
        // Without rotation another refresh leaves the refresh token too, and its access token is as good as this one.
        if stored.refresh_token == old.refresh_token && (is_rotated || stored.access_token == old.access_token) {
            return Self::Waiting;
        }
        Self::Other
    }
}

/// Whether what is known about refreshing one token holds for the other: they have the same refresh token, or none and
/// the same access token.
pub(super) fn have_same_credentials(one: &Token, other: &Token) -> bool {
    match (one, other) {
        (Token::OAuth2(one), Token::OAuth2(other)) => {
            one.refresh_token == other.refresh_token
                && (one.refresh_token.is_some() || one.access_token == other.access_token)
        }
        (Token::OAuth1(one), Token::OAuth1(other)) => {
            one.token == other.token && one.token_secret == other.token_secret
        }
        _ => false,
    }
}

/// The token to store: `answer`, and of `stored` what the application wrote there and the answer does not replace.
/// `old` is the token as it was redeemed, from which the answer may have taken over parts.
pub(super) fn successor(old: &OAuth2Token, stored: &OAuth2Token, answer: &OAuth2Token) -> OAuth2Token {
    let mut token = answer.clone();
    if answer.scope == old.scope {
        token.scope.clone_from(&stored.scope);
    }
    if answer.subject == old.subject {
        token.subject.clone_from(&stored.subject);
    }
    if answer.id_token == old.id_token {
        token.id_token.clone_from(&stored.id_token);
    }
    let mut extra = stored.extra.as_map().clone();
    let news = answer.extra.as_map().iter().filter(|(name, value)| old.extra.get(name) != Some(*value));
    extra.extend(news.map(|(name, value)| (name.clone(), value.clone())));
    token.extra = Extra::from(extra);
    token
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::token::OAuth1Token;

    fn token(access_token: &str, refresh_token: Option<&str>) -> OAuth2Token {
        let mut token = OAuth2Token::bearer(access_token);
        token.refresh_token = refresh_token.map(Into::into);
        token
    }

    fn with_extra(token: &OAuth2Token, extra: &Value) -> OAuth2Token {
        OAuth2Token { extra: Extra::from(extra.as_object().unwrap().clone()), ..token.clone() }
    }

    #[test]
    fn the_refresh_token_decides_what_is_waiting() {
        let (old, new) = (token("a0", Some("r0")), token("a1", Some("r1")));
        for (access_token, refresh_token, expected) in [
            ("a0", Some("r0"), Standing::Waiting),
            ("the application's", Some("r0"), Standing::Waiting),
            ("a1", Some("r1"), Standing::Stored),
            ("a2", Some("r1"), Standing::Other),
            ("a2", Some("r2"), Standing::Other),
            ("a0", None, Standing::Other),
            ("a0", Some("another"), Standing::Other),
        ] {
            let mut stored = with_extra(&token(access_token, refresh_token), &json!({"note": 1}));
            stored.scope = Some(vec!["changed".to_owned()]);
            assert_eq!(Standing::of(&stored, &old, &new), expected, "{access_token} {refresh_token:?}");
        }
    }

    #[test]
    fn another_refresh_wins_when_nothing_is_rotated() {
        let (old, new) = (token("a0", Some("r")), token("a1", Some("r")));
        assert_eq!(Standing::of(&old, &old, &new), Standing::Waiting);
        assert_eq!(Standing::of(&new, &old, &new), Standing::Stored);
        assert_eq!(Standing::of(&token("a2", Some("r")), &old, &new), Standing::Other);
    }

    #[test]
    fn an_answer_replaces_what_it_holds_and_nothing_else() {
        let base = token("a0", Some("r0"));
        let old = with_extra(&base, &json!({"team": 1, "said": 1, "gone": 1, "only_at_login": 1}));
        let mut stored = with_extra(&base, &json!({"team": 2, "said": 2, "only_at_login": 1, "note": "the app's"}));
        stored.scope = Some(vec!["narrowed".to_owned()]);
        let answer = with_extra(&token("a1", Some("r1")), &json!({"said": 3, "gone": 1, "new": 1}));

        let mut expected = answer.clone();
        expected.scope = Some(vec!["narrowed".to_owned()]);
        let extra = json!({"team": 2, "said": 3, "only_at_login": 1, "note": "the app's", "new": 1});
        assert_eq!(successor(&old, &stored, &answer), with_extra(&expected, &extra));

        let mut wider = answer.clone();
        wider.scope = Some(vec!["wider".to_owned()]);
        assert_eq!(successor(&old, &stored, &wider).scope, wider.scope, "the provider says what is granted");
    }

    #[test]
    fn credentials_are_compared_without_the_rest() {
        let one = Token::from(token("a0", Some("r0")));
        for (other, expected) in [
            (Token::from(with_extra(&token("a0", Some("r0")), &json!({"note": 1}))), true),
            (token("another", Some("r0")).into(), true),
            (token("a0", Some("another")).into(), false),
            (token("a0", None).into(), false),
            (OAuth1Token::new("a0", "r0").into(), false),
        ] {
            assert_eq!(have_same_credentials(&one, &other), expected, "{other:?}");
        }
        assert!(!have_same_credentials(&token("a0", None).into(), &token("a1", None).into()));
        let (one, other) = (OAuth1Token::new("t", "s"), OAuth1Token::new("t", "another"));
        assert!(!have_same_credentials(&one.into(), &other.into()));
    }
}
