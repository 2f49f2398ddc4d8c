use std::time::Duration;

use super::*;
use crate::progress::{Refusals, Tries};

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
        let reasons = [DeadReason::Refused, DeadReason::ResponseLost, DeadReason::NoRefreshToken, DeadReason::Rejected];
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

/// The parser limits the depth of a document, so a deeper one could be written and never read again.
#[test]
fn token_with_a_deeply_nested_member_can_be_read_again() {
    for (depth, is_retained) in [(1, true), (119, true), (120, true), (121, false), (127, false), (1000, false)] {
        for wrap in [|inside| Value::Array(vec![inside]), |inside| serde_json::json!({ "x": inside })] {
            let deep = (0..depth).fold(Value::Null, |inside, _| wrap(inside));
            let extra: Map<_, _> =
                [("deep".to_owned(), deep.clone()), ("team".to_owned(), 7.into())].into_iter().collect();
            let mut token = OAuth2Token::bearer("access");
            token.extra = Extra::from(extra.clone());
            let mut credentials = OAuth1Token::new("token", "secret");
            credentials.extra = Extra::from(extra);
            for token in [Token::from(token), credentials.into()] {
                let found = decode(&key(), &encode(&key(), &Stored::idle(token.clone()))).unwrap().token;
                assert_eq!(found.secret(), token.secret(), "{depth}");
                assert_eq!(found.extra().get("team"), Some(&7.into()), "{depth}");
                assert_eq!(found.extra().get("deep"), Some(&deep).filter(|_| is_retained), "{depth}");
            }
        }
    }
}

/// A token without a subject and a DPoP key is still written in the first format.
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

/// An older release then reports that it cannot read the record, and does not lose the refusals.
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
    assert!(document.starts_with(r#"{"format":2,"#), "an older release reports the format, and does not lose the key");
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
