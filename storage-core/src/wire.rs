//! How a token is written down: a JSON document that also names the key it belongs to, and where its refresh stands.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::TokensError;
use crate::key::TokenKey;
use crate::refresh::{BackOff, Claim, DeadReason, Progress, Stored, Tries};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{Extra, OAuth1Token, OAuth2Token, Token};

/// Raised whenever an older release could not read a record, or would lose a part of it in rewriting it.
const FORMAT: u64 = 1;

/// Whether a payload is a document of this module rather than something sealed.
pub(crate) fn is_plain(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

pub(crate) fn encode(key: &TokenKey, stored: &Stored) -> Zeroizing<Vec<u8>> {
    let document = Document {
        format: FORMAT,
        key: key.parts(),
        token: TokenOut::from(&stored.token),
        refresh: Refresh::from_progress(&stored.progress),
    };
    #[expect(clippy::expect_used, reason = "strings, numbers and JSON values always serialize")]
    Zeroizing::new(serde_json::to_vec(&document).expect("a token is always JSON"))
}

pub(crate) fn decode(key: &TokenKey, payload: &[u8]) -> Result<Stored, TokensError> {
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
    let progress = document.refresh.map_or(Progress::Idle, Progress::from);
    Ok(Stored { token: document.token.into(), progress })
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<Refresh>,
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
        issued_at: Option<u64>,
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
                issued_at: token.issued_at.map(Timestamp::as_unix_seconds),
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
        issued_at: Option<u64>,
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
            TokenIn::OAuth2 {
                access_token,
                token_type,
                refresh_token,
                id_token,
                scope,
                expires_at,
                issued_at,
                extra,
            } => Self::OAuth2(OAuth2Token {
                access_token: access_token.into(),
                token_type,
                refresh_token: refresh_token.map(Secret::from),
                id_token: id_token.map(Secret::from),
                scope,
                expires_at: expires_at.map(Timestamp::from_unix_seconds),
                issued_at: issued_at.map(Timestamp::from_unix_seconds),
                extra: Extra::from(extra),
            }),
            TokenIn::OAuth1 { token, token_secret, extra } => Self::OAuth1(OAuth1Token {
                token: token.into(),
                token_secret: token_secret.into(),
                extra: Extra::from(extra),
            }),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Refresh {
    Claim { id: u64, since: u64, lease_ms: u64, failed: u32, maybe_spent: bool },
    BackOff { until: u64, cause: String, failed: u32, maybe_spent: bool },
    Dead { reason: Reason, since: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Refused,
    AnswerLost,
    NoRefreshToken,
}

impl Refresh {
    fn from_progress(progress: &Progress) -> Option<Self> {
        Some(match progress {
            Progress::Idle => return None,
            Progress::Claimed(Claim { id, since, lease, tries }) => Self::Claim {
                id: *id,
                since: since.as_unix_seconds(),
                lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
                failed: tries.failed,
                maybe_spent: tries.maybe_spent,
            },
            Progress::BackingOff(BackOff { until, cause, tries }) => Self::BackOff {
                until: until.as_unix_seconds(),
                cause: cause.clone(),
                failed: tries.failed,
                maybe_spent: tries.maybe_spent,
            },
            Progress::Dead { reason, since } => Self::Dead {
                reason: match reason {
                    DeadReason::Refused => Reason::Refused,
                    DeadReason::AnswerLost => Reason::AnswerLost,
                    DeadReason::NoRefreshToken => Reason::NoRefreshToken,
                },
                since: since.as_unix_seconds(),
            },
        })
    }
}

impl From<Refresh> for Progress {
    fn from(refresh: Refresh) -> Self {
        match refresh {
            Refresh::Claim { id, since, lease_ms, failed, maybe_spent } => Self::Claimed(Claim {
                id,
                since: Timestamp::from_unix_seconds(since),
                lease: Duration::from_millis(lease_ms),
                tries: Tries { failed, maybe_spent },
            }),
            Refresh::BackOff { until, cause, failed, maybe_spent } => Self::BackingOff(BackOff {
                until: Timestamp::from_unix_seconds(until),
                cause,
                tries: Tries { failed, maybe_spent },
            }),
            Refresh::Dead { reason, since } => Self::Dead {
                reason: match reason {
                    Reason::Refused => DeadReason::Refused,
                    Reason::AnswerLost => DeadReason::AnswerLost,
                    Reason::NoRefreshToken => DeadReason::NoRefreshToken,
                },
                since: Timestamp::from_unix_seconds(since),
            },
        }
    }
}
