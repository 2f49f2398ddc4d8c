//! Parses the JSON in which Flask-Dance stores a token: the token response, with the absolute `expires_at` that
//! requests-oauthlib adds.

use oauth_dance_core::{Extra, OAuth1Token, OAuth2Token, Timestamp, Token};
use serde_json::{Map, Value};

/// Parses a token.
///
/// # Errors
/// A description of what is wrong, which never quotes the token.
pub(super) fn token(text: &str, created_at: Option<Timestamp>) -> Result<Token, &'static str> {
    let mut value: Value = serde_json::from_str(text).map_err(|_| "the token is not JSON")?;
    // If an application has encoded the token itself, the column contains JSON inside a JSON text.
    if let Value::String(inner) = &value {
        value = serde_json::from_str(inner).map_err(|_| "the token is not JSON")?;
    }
    let Value::Object(mut members) = value else { return Err("the token is not a JSON object") };
    if members.contains_key("oauth_token") {
        return oauth1(members).map(Token::from);
    }
    let mut token = OAuth2Token::bearer(take(&mut members, "access_token").ok_or("the token has no access_token")?);
    if let Some(kind) = take(&mut members, "token_type") {
        token.token_type = kind;
    }
    token.refresh_token = take(&mut members, "refresh_token").map(Into::into);
    token.id_token = take(&mut members, "id_token").map(Into::into);
    token.scope = members.remove("scope").and_then(scope);
    token.expires_at = expiry(&mut members, created_at);
    token.issued_at = created_at;
    token.extra = Extra::from(members);
    Ok(token.into())
}

fn oauth1(mut members: Map<String, Value>) -> Result<OAuth1Token, &'static str> {
    let token = take(&mut members, "oauth_token").ok_or("oauth_token is not text")?;
    let secret = take(&mut members, "oauth_token_secret").ok_or("the token has no oauth_token_secret")?;
    let mut token = OAuth1Token::new(token, secret);
    token.extra = Extra::from(members);
    Ok(token)
}

/// The expiry: `expires_at` in seconds, or `expires_in` after the row was created. A refresh of Flask-Dance does not
/// change the time of creation, but writes `expires_at`.
fn expiry(members: &mut Map<String, Value>, created_at: Option<Timestamp>) -> Option<Timestamp> {
    let (at, lifetime) = (members.remove("expires_at"), members.remove("expires_in"));
    let at = at.and_then(number).map(Timestamp::from_unix_seconds);
    at.or_else(|| {
        let lifetime = lifetime.and_then(number)?;
        Some(created_at?.saturating_add(std::time::Duration::from_secs(lifetime)))
    })
}

/// Reads a number, which may have a fraction or be a text.
fn number(value: Value) -> Option<u64> {
    let number = match value {
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        value => value.as_f64()?,
    };
    // The cast saturates, and a negative number is an instant in the past.
    number.is_finite().then_some(number as u64)
}

/// Reads scopes from a list, or from a text with spaces or commas.
fn scope(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => {
            Some(text.split([' ', ',']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        }
        Value::Array(list) => Some(list.into_iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect()),
        _ => None,
    }
}

/// Removes a member that is a text with content.
fn take(members: &mut Map<String, Value>, name: &str) -> Option<String> {
    match members.remove(name)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Token {
        token(&value.to_string(), Some(Timestamp::from_unix_seconds(1_000))).unwrap()
    }

    #[test]
    fn every_form_of_a_token_is_parsed() {
        let scopes = Some(vec!["repo".to_owned(), "user".to_owned()]);
        for scope in [json!("repo user"), json!(["repo", "user"]), json!("repo,user")] {
            let parsed = parse(&json!({
                "access_token": "a", "token_type": "bearer", "refresh_token": "r", "scope": scope,
                "expires_in": 3600, "expires_at": 5000.75, "team": {"id": 7}
            }));
            let token = parsed.as_oauth2().unwrap();
            assert_eq!((token.access_token.expose(), token.scope.clone()), ("a", scopes.clone()));
            assert_eq!(token.refresh_token.as_ref().unwrap().expose(), "r");
            assert_eq!(token.expires_at, Some(Timestamp::from_unix_seconds(5_000)));
            assert_eq!(token.extra.names().collect::<Vec<_>>(), ["team"]);
        }
        let relative = parse(&json!({"access_token": "a", "expires_in": "60"}));
        assert_eq!(relative.expires_at(), Some(Timestamp::from_unix_seconds(1_060)));
        assert_eq!(parse(&json!({"access_token": "a"})).expires_at(), None);
        let text = json!({"access_token": "a"}).to_string();
        assert_eq!(parse(&Value::String(text)).secret().expose(), "a");
        let oauth1 = parse(&json!({"oauth_token": "t", "oauth_token_secret": "s", "screen_name": "alice"}));
        assert_eq!(oauth1.as_oauth1().unwrap().token_secret.expose(), "s");
    }

    #[test]
    fn anything_else_is_an_error_without_its_text() {
        for text in
            ["CANARY", "[]", "null", "{}", "\"CANARY\"", r#"{"access_token": 7}"#, r#"{"oauth_token": "CANARY"}"#]
        {
            let error = token(text, None).unwrap_err();
            assert!(!error.contains("CANARY"), "{error}");
        }
    }
}
