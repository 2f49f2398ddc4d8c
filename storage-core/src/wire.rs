//! How a token is written down: a JSON document that also names the key it belongs to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::TokensError;
use crate::key::TokenKey;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{Extra, OAuth1Token, OAuth2Token, Token};

/// Raised whenever an older release could not read a record, or would lose a part of it in rewriting it.
const FORMAT: u64 = 1;

/// Whether a payload is a document of this module rather than something sealed.
pub(crate) fn is_plain(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

pub(crate) fn encode(key: &TokenKey, token: &Token) -> Zeroizing<Vec<u8>> {
    let document = Document { format: FORMAT, key: key.parts(), token: TokenOut::from(token) };
    #[expect(clippy::expect_used, reason = "strings, numbers and JSON values always serialize")]
    Zeroizing::new(serde_json::to_vec(&document).expect("a token is always JSON"))
}

pub(crate) fn decode(key: &TokenKey, payload: &[u8]) -> Result<Token, TokensError> {
    let malformed = |reason| TokensError::Malformed { key: Box::new(key.clone()), reason };
    // The parser's own message is dropped: it may quote the payload.
    let Format { format } = serde_json::from_slice(payload).map_err(|_| malformed("it is not a token document"))?;
    if format > FORMAT {
        return Err(TokensError::NewerFormat { key: Box::new(key.clone()), found: format });
    }
    let document: Document<[String; 4], TokenIn> =
        serde_json::from_slice(payload).map_err(|_| malformed("a member is missing or has the wrong type"))?;
    if document.key != key.parts() {
        return Err(TokensError::Tampered { key: Box::new(key.clone()) });
    }
    Ok(document.token.into())
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<K, T> {
    format: u64,
    key: K,
    token: T,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum TokenOut<'a> {
    OAuth2 {
        access_token: &'a str,
        token_type: &'a str,
        refresh_token: Option<&'a str>,
        id_token: Option<&'a str>,
        scope: Option<&'a [String]>,
        expires_at: Option<u64>,
        extra: &'a Map<String, Value>,
    },
    OAuth1 {
        token: &'a str,
        token_secret: &'a str,
        extra: &'a Map<String, Value>,
    },
}

impl<'a> From<&'a Token> for TokenOut<'a> {
    fn from(token: &'a Token) -> Self {
        match token {
            Token::OAuth2(token) => Self::OAuth2 {
                access_token: token.access_token.expose(),
                token_type: &token.token_type,
                refresh_token: token.refresh_token.as_ref().map(Secret::expose),
                id_token: token.id_token.as_ref().map(Secret::expose),
                scope: token.scope.as_deref(),
                expires_at: token.expires_at.map(Timestamp::as_unix_seconds),
                extra: token.extra.as_map(),
            },
            Token::OAuth1(token) => Self::OAuth1 {
                token: token.token.expose(),
                token_secret: token.token_secret.expose(),
                extra: token.extra.as_map(),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum TokenIn {
    OAuth2 {
        access_token: String,
        token_type: String,
        refresh_token: Option<String>,
        id_token: Option<String>,
        scope: Option<Vec<String>>,
        expires_at: Option<u64>,
        extra: Map<String, Value>,
    },
    OAuth1 {
        token: String,
        token_secret: String,
        extra: Map<String, Value>,
    },
}

impl From<TokenIn> for Token {
    fn from(token: TokenIn) -> Self {
        match token {
            TokenIn::OAuth2 { access_token, token_type, refresh_token, id_token, scope, expires_at, extra } => {
                Self::OAuth2(OAuth2Token {
                    access_token: access_token.into(),
                    token_type,
                    refresh_token: refresh_token.map(Secret::from),
                    id_token: id_token.map(Secret::from),
                    scope,
                    expires_at: expires_at.map(Timestamp::from_unix_seconds),
                    extra: Extra::from(extra),
                })
            }
            TokenIn::OAuth1 { token, token_secret, extra } => Self::OAuth1(OAuth1Token {
                token: token.into(),
                token_secret: token_secret.into(),
                extra: Extra::from(extra),
            }),
        }
    }
}
