//! The stored format of a token: a JSON document that also contains the key it belongs to, and the state of its
//! refresh.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::dpop_key::DpopKey;
use crate::error::TokensError;
use crate::key::TokenKey;
use crate::progress::{BackOff, Claim, DeadReason, Progress, Refusals, Stored, Tries};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{Extra, OAuth1Token, OAuth2Token, Subject, Token};

/// The newest format. It is raised whenever an older release could not read a record, or would lose a part of it in
/// rewriting the record. Each record is written in the lowest format that has all its members.
const FORMAT: u64 = 3;

/// Whether a payload is a document of this module, and not sealed.
pub(crate) fn is_plain(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

pub(crate) fn encode(key: &TokenKey, stored: &Stored) -> Zeroizing<Vec<u8>> {
    let document = Document {
        format: format(stored),
        key: key.parts(),
        token: TokenOut::from(&stored.token),
        refresh: Refresh::from_progress(&stored.progress),
    };
    #[expect(clippy::expect_used, reason = "strings, numbers and JSON values always serialize")]
    Zeroizing::new(serde_json::to_vec(&document).expect("a token is always JSON"))
}

pub(crate) fn decode(key: &TokenKey, payload: &[u8]) -> Result<Stored, TokensError> {
    let document: Document<[Text<'_>; 4], TokenIn> = match serde_json::from_slice(payload) {
        Ok(document) => document,
        Err(_) => return Err(unreadable(key, payload)),
    };
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

/// The format in which a record is written:
/// * 3 while the provider refuses the refresh token with an unknown error, or responds with neither a token nor a refusal;
/// * 2 for a token with a `subject` or a `dpop_key`, that the API rejected, or that replaced a rejected one;
/// * 1 for all others.
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

#[derive(Deserialize)]
struct Format {
    format: u64,
}

/// Text that is copied only if it contains an escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

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
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<[&'a str; 2]>,
        scope: Option<&'a [String]>,
        expires_at: Option<u64>,
        issued_at: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dpop_key: Option<&'a str>,
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

/// A token. Its first member is its kind, which says what the others are: they are read into place at once, without a copy
/// in between, which would also be one more copy of each secret.
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

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Refresh {
    Claim {
        id: u64,
        since: u64,
        lease_ms: u64,
        failed: u32,
        maybe_spent: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Refused>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unusable: Option<Refused>,
    },
    BackOff {
        until: u64,
        cause: String,
        failed: u32,
        maybe_spent: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Refused>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unusable: Option<Refused>,
    },
    Dead {
        reason: Reason,
        since: u64,
    },
    Replaced {},
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    count: u32,
    since: u64,
    last: u64,
}

impl From<Refusals> for Refused {
    fn from(refusals: Refusals) -> Self {
        let Refusals { count, since, last } = refusals;
        Self { count, since: since.as_unix_seconds(), last: last.as_unix_seconds() }
    }
}

fn tries(failed: u32, maybe_spent: bool, refused: Option<Refused>, unusable: Option<Refused>) -> Tries {
    Tries { failed, maybe_spent, refused: refused.map(Refusals::from), unusable: unusable.map(Refusals::from) }
}

impl From<Refused> for Refusals {
    fn from(refused: Refused) -> Self {
        let Refused { count, since, last } = refused;
        Self { count, since: Timestamp::from_unix_seconds(since), last: Timestamp::from_unix_seconds(last) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Refused,
    #[serde(rename = "answer_lost")]
    ResponseLost,
    RefusedRepeatedly,
    NoRefreshToken,
    Rejected,
}

impl Refresh {
    fn from_progress(progress: &Progress) -> Option<Self> {
        Some(match progress {
            Progress::Idle => return None,
            Progress::Replaced => Self::Replaced {},
            Progress::Claimed(Claim { id, since, lease, tries }) => Self::Claim {
                id: *id,
                since: since.as_unix_seconds(),
                lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
                failed: tries.failed,
                maybe_spent: tries.maybe_spent,
                refused: tries.refused.map(Refused::from),
                unusable: tries.unusable.map(Refused::from),
            },
            Progress::BackingOff(BackOff { until, cause, tries }) => Self::BackOff {
                until: until.as_unix_seconds(),
                cause: cause.clone(),
                failed: tries.failed,
                maybe_spent: tries.maybe_spent,
                refused: tries.refused.map(Refused::from),
                unusable: tries.unusable.map(Refused::from),
            },
            Progress::Dead { reason, since } => Self::Dead {
                reason: match reason {
                    DeadReason::Refused => Reason::Refused,
                    DeadReason::ResponseLost => Reason::ResponseLost,
                    DeadReason::RefusedRepeatedly => Reason::RefusedRepeatedly,
                    DeadReason::NoRefreshToken => Reason::NoRefreshToken,
                    DeadReason::Rejected => Reason::Rejected,
                },
                since: since.as_unix_seconds(),
            },
        })
    }
}

impl From<Refresh> for Progress {
    fn from(refresh: Refresh) -> Self {
        match refresh {
            Refresh::Claim { id, since, lease_ms, failed, maybe_spent, refused, unusable } => Self::Claimed(Claim {
                id,
                since: Timestamp::from_unix_seconds(since),
                lease: Duration::from_millis(lease_ms),
                tries: tries(failed, maybe_spent, refused, unusable),
            }),
            Refresh::BackOff { until, cause, failed, maybe_spent, refused, unusable } => Self::BackingOff(BackOff {
                until: Timestamp::from_unix_seconds(until),
                cause,
                tries: tries(failed, maybe_spent, refused, unusable),
            }),
            Refresh::Replaced {} => Self::Replaced,
            Refresh::Dead { reason, since } => Self::Dead {
                reason: match reason {
                    Reason::Refused => DeadReason::Refused,
                    Reason::ResponseLost => DeadReason::ResponseLost,
                    Reason::RefusedRepeatedly => DeadReason::RefusedRepeatedly,
                    Reason::NoRefreshToken => DeadReason::NoRefreshToken,
                    Reason::Rejected => DeadReason::Rejected,
                },
                since: Timestamp::from_unix_seconds(since),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 5] = [0, 1, 1_700_000_000, u64::MAX - 1, u64::MAX];

    fn key() -> TokenKey {
        TokenKey::new("example", "alice").unwrap()
    }

    fn stored(progress: Progress) -> Stored {
        let mut token = OAuth2Token::bearer("access");
        token.refresh_token = Some("refresh".into());
        Stored { token: token.into(), progress }
    }

    /// Every state, with every combination of boundary values.
    fn all() -> Vec<Progress> {
        let instants = EDGES.map(Timestamp::from_unix_seconds);
        let mut all = vec![Progress::Idle, Progress::Replaced];
        for failed in [0, 1, u32::MAX] {
            for maybe_spent in [false, true] {
                let refused = Refusals { count: failed, since: instants[0], last: instants[3] };
                let unusable = (failed > 1).then_some(refused);
                let tries = Tries { failed, maybe_spent, refused: (failed > 0).then_some(refused), unusable };
                for instant in instants {
                    for cause in ["", "503", "\0\"\\\u{1F511}\n"] {
                        all.push(Progress::BackingOff(BackOff { until: instant, cause: cause.to_owned(), tries }));
                    }
                    for id in EDGES {
                        let leases = EDGES.map(Duration::from_millis);
                        all.extend(leases.map(|lease| Progress::Claimed(Claim { id, since: instant, lease, tries })));
                    }
                }
            }
        }
        for since in instants {
            let reasons =
                [DeadReason::Refused, DeadReason::ResponseLost, DeadReason::NoRefreshToken, DeadReason::Rejected];
            all.extend(reasons.map(|reason| Progress::Dead { reason, since }));
        }
        all
    }

    #[test]
    fn every_refresh_state_round_trips() {
        let all = all();
        assert!(all.len() > 800);
        for progress in all {
            let before = stored(progress);
            assert_eq!(decode(&key(), &encode(&key(), &before)).unwrap(), before);
        }
    }

    /// The first format, which is still written for a token without a subject and a DPoP key.
    #[test]
    fn plain_token_is_written_in_format_1() {
        let first = concat!(
            r#"{"format":1,"key":["","alice","example",""],"token":{"kind":"oauth2","access_token":"access","#,
            r#""token_type":"Bearer","refresh_token":"refresh","id_token":null,"scope":null,"expires_at":null,"#,
            r#""issued_at":null,"extra":{}}}"#
        );
        assert_eq!(decode(&key(), first.as_bytes()).unwrap(), stored(Progress::Idle));
        assert_eq!(String::from_utf8(encode(&key(), &stored(Progress::Idle)).to_vec()).unwrap(), first);
    }

    /// An older release reports that it cannot read the record, and does not lose the refusals.
    #[test]
    fn refusals_are_written_in_format_3() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let mut tries = Tries::default();
        let back_off = |tries| Progress::BackingOff(BackOff { until: now, cause: String::new(), tries });
        assert!(encode(&key(), &stored(back_off(tries))).starts_with(br#"{"format":1,"#));
        tries.unusable_at(now);
        assert!(encode(&key(), &stored(back_off(tries))).starts_with(br#"{"format":3,"#));
        tries.refused_at(now);
        for progress in [back_off(tries), Progress::Claimed(Claim::new(now, Duration::ZERO, tries))] {
            assert!(encode(&key(), &stored(progress)).starts_with(br#"{"format":3,"#));
        }
    }

    #[test]
    fn dpop_key_round_trips_in_format_2() {
        let mut token = OAuth2Token::bearer("access");
        token.dpop_key = Some(DpopKey::generate());
        let bound = Stored::idle(token.into());
        let document = String::from_utf8(encode(&key(), &bound).to_vec()).unwrap();
        assert!(
            document.starts_with(r#"{"format":2,"#),
            "an older release reports the format, and does not lose the key"
        );
        assert_eq!(decode(&key(), document.as_bytes()).unwrap(), bound);

        let Token::OAuth2(OAuth2Token { dpop_key: Some(secret), .. }) = &bound.token else { panic!() };
        for no_key in ["", "CANARY", &"A".repeat(43)] {
            let error = decode(&key(), document.replace(secret.expose(), no_key).as_bytes()).unwrap_err();
            assert!(matches!(error, TokensError::Malformed { .. }), "{error:?}");
            assert!(!format!("{error:?} {error}").contains("CANARY"));
        }
    }

    #[test]
    fn subject_round_trips_in_format_2() {
        let mut token = OAuth2Token::bearer("access");
        token.subject = Some(Subject { issuer: "https://p.example".to_owned(), subject: "alice".to_owned() });
        let known = Stored::idle(token.into());
        let document = encode(&key(), &known);
        assert!(document.starts_with(br#"{"format":2,"#));
        assert_eq!(decode(&key(), &document).unwrap(), known);
    }

    #[test]
    fn truncated_or_changed_records_are_errors() {
        for progress in all().into_iter().step_by(37) {
            let good = encode(&key(), &stored(progress)).to_vec();
            for end in 0..good.len() {
                assert!(decode(&key(), &good[..end]).is_err());
                let mut changed = good.clone();
                changed[end] ^= 0x80;
                assert!(decode(&key(), &changed).is_err(), "every byte has a meaning");
            }
        }
    }

    #[test]
    fn unknown_state_is_an_error_that_quotes_nothing() {
        let document = String::from_utf8(encode(&key(), &stored(Progress::Idle)).to_vec()).unwrap();
        let with = |refresh: &str| format!("{},\"refresh\":{refresh}}}", document.strip_suffix('}').unwrap());
        assert_eq!(decode(&key(), with("null").as_bytes()).unwrap(), stored(Progress::Idle));
        for refresh in [
            r#""CANARY""#,
            "{}",
            "[]",
            "1",
            r#"{"canary":{}}"#,
            r#"{"claim":{}}"#,
            r#"{"claim":{"id":1,"since":1,"lease_ms":1,"failed":1}}"#,
            r#"{"claim":{"id":"CANARY","since":1,"lease_ms":1,"failed":1,"maybe_spent":false}}"#,
            r#"{"claim":{"id":1,"since":1,"lease_ms":-1,"failed":1,"maybe_spent":false}}"#,
            r#"{"claim":{"id":1,"since":1,"lease_ms":1,"failed":4294967296,"maybe_spent":false}}"#,
            r#"{"claim":{"id":1,"since":1,"lease_ms":1,"failed":1,"maybe_spent":false,"canary":1}}"#,
            r#"{"back_off":{"until":1.5,"cause":"","failed":1,"maybe_spent":false}}"#,
            r#"{"dead":{"reason":"canary","since":1}}"#,
            r#"{"replaced":{"canary":1}}"#,
            r#"{"replaced":null}"#,
            r#"{"back_off":{"until":1,"cause":"","failed":1,"maybe_spent":false,"refused":{"count":1}}}"#,
            r#"{"back_off":{"until":1,"cause":"","failed":1,"maybe_spent":false,"refused":"CANARY"}}"#,
            r#"{"dead":{"reason":"refused","since":1},"claim":{}}"#,
        ] {
            let error = decode(&key(), with(refresh).as_bytes()).unwrap_err();
            assert!(matches!(error, TokensError::Malformed { .. }), "{refresh}: {error:?}");
            assert!(!format!("{error:?} {error}").to_lowercase().contains("canary"));
        }
    }
}
