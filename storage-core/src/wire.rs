//! The stored format of a token: a JSON document that also contains the key it belongs to, and the state of its
//! refresh.
//!
//! The format has to survive rolling upgrades, in which two releases read and write the same records. Unknown members
//! are therefore errors, because rewriting the record would lose them, and a number identifies the format. A record is
//! written in the lowest format that has all its members, so that an older release can still read most records.
//!
//! Secrets are parsed directly into their final place, and buffers with secrets are overwritten on drop.

mod progress;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use self::progress::Refresh;
use crate::dpop_key::DpopKey;
use crate::error::TokensError;
use crate::key::TokenKey;
use crate::progress::{BackOff, Claim, DeadReason, Progress, Stored};
use crate::secret::{Secret, SecretBytes};
use crate::time::Timestamp;
use crate::token::{Extra, OAuth1Token, OAuth2Token, Subject, Token};

/// The newest format. It is raised if an older release could not read a record, or would lose a part of it by rewriting
/// the record.
const FORMAT: u64 = 3;
/// How deep a member of `extra` may be nested. The parser accepts 127 levels, three of which are around such a member.
const MAX_DEPTH: usize = 120;

/// Whether a payload is a document of this module, and not sealed.
pub(crate) fn is_plain(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

/// Encodes a token with its key and the state of its refresh.
pub(crate) fn encode(key: &TokenKey, stored: &Stored) -> SecretBytes {
    let document = Document {
        format: format(stored),
        key: key.parts(),
        token: TokenOut::from(&stored.token),
        refresh: Refresh::from_progress(&stored.progress),
    };
    #[expect(clippy::expect_used, reason = "strings, numbers and JSON values always serialize")]
    SecretBytes::new(serde_json::to_vec(&document).expect("a token is always JSON"))
}

/// Decodes a token, and verifies that it belongs to the key.
pub(crate) fn decode(key: &TokenKey, payload: &[u8]) -> Result<Stored, TokensError> {
    let document = std::str::from_utf8(payload).ok().and_then(|text| serde_json::from_str(text).ok());
    let document: Document<[Text<'_>; 4], TokenIn> = document.ok_or_else(|| unreadable(key, payload))?;
    if document.format > FORMAT {
        return Err(TokensError::NewerFormat { key: Box::new(key.clone()), found: document.format });
    }
    if document.key.iter().map(|Text(part)| part).ne(key.parts()) {
        return Err(TokensError::Tampered { key: Box::new(key.clone()) });
    }
    let progress = document.refresh.map_or(Progress::Idle, Progress::from);
    Ok(Stored { token: document.token.0, progress })
}

/// Why a payload cannot be decoded. The message of the parser is dropped, because it may quote the payload.
fn unreadable(key: &TokenKey, payload: &[u8]) -> TokensError {
    let reason = match serde_json::from_slice(payload) {
        Ok(Format { format }) if format > FORMAT => {
            return TokensError::NewerFormat { key: Box::new(key.clone()), found: format };
        }
        Ok(_) => "a member is missing or has the wrong type",
        Err(_) => "the payload is not a token document",
    };
    TokensError::Malformed { key: Box::new(key.clone()), reason }
}

/// The lowest format for a record:
/// * 3 if the provider has refused the refresh token with an unknown error, or has responded with neither a token nor a
///   refusal;
/// * 2 if the token has a `subject` or a `dpop_key`, if the API rejected it, or if it replaced a rejected one;
/// * 1 otherwise.
fn format(stored: &Stored) -> u64 {
    match (&stored.token, &stored.progress) {
        (_, Progress::Claimed(Claim { tries, .. }) | Progress::BackingOff(BackOff { tries, .. }))
            if tries.refused.is_some() || tries.unusable.is_some() =>
        {
            3
        }
        (Token::OAuth2(OAuth2Token { subject: Some(_), .. } | OAuth2Token { dpop_key: Some(_), .. }), _) => 2,
        (_, Progress::Replaced | Progress::Dead { reason: DeadReason::Rejected, .. }) => 2,
        _ => 1,
    }
}

/// The only member that is read from a document of a newer format.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

/// Text that is copied only if it contains an escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The whole document. The types of its parts differ between writing and reading.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<K, T> {
    format: u64,
    key: K,
    token: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<Refresh>,
}

/// A token to be written, which borrows its secrets.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum TokenOut<'a> {
    OAuth2 {
        access_token: &'a str,
        token_type: &'a str,
        refresh_token: Option<&'a str>,
        id_token: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<[&'a str; 2]>,
        scope: Option<&'a [String]>,
        expires_at: Option<u64>,
        issued_at: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dpop_key: Option<&'a str>,
        #[serde(serialize_with = "readable")]
        extra: &'a Map<String, Value>,
    },
    OAuth1 {
        token: &'a str,
        token_secret: &'a str,
        #[serde(serialize_with = "readable")]
        extra: &'a Map<String, Value>,
    },
}

/// Writes the members that can be read again. One that is nested too deeply would make the token unreadable.
fn readable<S: Serializer>(extra: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(extra.iter().filter(|(_, value)| is_nested_at_most(MAX_DEPTH, value)))
}

/// Whether a value is nested at most this deep.
pub fn is_nested_at_most(levels: usize, value: &Value) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| is_nested_at_most(levels - 1, item)),
        Value::Object(members) => levels > 0 && members.values().all(|member| is_nested_at_most(levels - 1, member)),
        _ => true,
    }
}

impl<'a> From<&'a Token> for TokenOut<'a> {
    fn from(token: &'a Token) -> Self {
        match token {
            Token::OAuth2(token) => Self::OAuth2 {
                access_token: token.access_token.expose(),
                token_type: &token.token_type,
                refresh_token: token.refresh_token.as_ref().map(Secret::expose),
                id_token: token.id_token.as_ref().map(Secret::expose),
                subject: token.subject.as_ref().map(|Subject { issuer, subject }| [issuer.as_str(), subject]),
                scope: token.scope.as_deref(),
                expires_at: token.expires_at.map(Timestamp::as_unix_seconds),
                issued_at: token.issued_at.map(Timestamp::as_unix_seconds),
                dpop_key: token.dpop_key.as_ref().map(DpopKey::expose),
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

/// A token that was read. Its first member is its kind, which determines the other members. Because the kind comes
/// first, the others need no buffer, which would be one more copy of each secret.
struct TokenIn(Token);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FirstMember {
    Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    OAuth2,
    OAuth1,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OAuth2In {
    access_token: String,
    token_type: String,
    refresh_token: Option<String>,
    id_token: Option<String>,
    #[serde(default)]
    subject: Option<[String; 2]>,
    scope: Option<Vec<String>>,
    expires_at: Option<u64>,
    issued_at: Option<u64>,
    #[serde(default, deserialize_with = "dpop_key")]
    dpop_key: Option<DpopKey>,
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OAuth1In {
    token: String,
    token_secret: String,
    extra: Map<String, Value>,
}

impl<'de> Deserialize<'de> for TokenIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TokenVisitor)
    }
}

/// Reads the members of a token.
struct TokenVisitor;

impl<'de> Visitor<'de> for TokenVisitor {
    type Value = TokenIn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token that begins with its kind")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<TokenIn, A::Error> {
        let first: Option<(FirstMember, Kind)> = members.next_entry()?;
        let rest = MapAccessDeserializer::new(members);
        Ok(TokenIn(match first {
            Some((FirstMember::Kind, Kind::OAuth2)) => OAuth2In::deserialize(rest)?.into(),
            Some((FirstMember::Kind, Kind::OAuth1)) => OAuth1In::deserialize(rest)?.into(),
            None => return Err(A::Error::missing_field("kind")),
        }))
    }
}

fn dpop_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DpopKey>, D::Error> {
    let d = Zeroizing::new(String::deserialize(deserializer)?);
    DpopKey::parse(&d).map(Some).ok_or_else(|| D::Error::custom("not a private key"))
}

impl From<OAuth2In> for Token {
    fn from(token: OAuth2In) -> Self {
        Self::OAuth2(OAuth2Token {
            access_token: token.access_token.into(),
            token_type: token.token_type,
            refresh_token: token.refresh_token.map(Secret::from),
            id_token: token.id_token.map(Secret::from),
            subject: token.subject.map(|[issuer, subject]| Subject { issuer, subject }),
            scope: token.scope,
            expires_at: token.expires_at.map(Timestamp::from_unix_seconds),
            issued_at: token.issued_at.map(Timestamp::from_unix_seconds),
            dpop_key: token.dpop_key,
            extra: Extra::from(token.extra),
        })
    }
}

impl From<OAuth1In> for Token {
    fn from(OAuth1In { token, token_secret, extra }: OAuth1In) -> Self {
        Self::OAuth1(OAuth1Token { token: token.into(), token_secret: token_secret.into(), extra: Extra::from(extra) })
    }
}
