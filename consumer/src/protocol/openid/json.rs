//! JSON from outside, read so that a member that is not needed cannot spoil one that is.

use std::collections::HashMap;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Base64url as JOSE has it, with padding or without.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Stands in a text for bytes that are not UTF-8.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The members of an object. A member whose value cannot be read, such as a number beyond all bounds, is left out. A byte
/// order mark before it is skipped, and bytes that are not UTF-8 become U+FFFD.
pub(super) fn members(bytes: &[u8]) -> Option<Map<String, Value>> {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let members: HashMap<String, &RawValue> = serde_json::from_str(&text).ok()?;
    let read = |(name, value): (String, &RawValue)| Some((name, serde_json::from_str(value.get()).ok()?));
    Some(members.into_iter().filter_map(read).collect())
}

/// A text on which something depends, so that it has to be what was sent.
pub(super) fn exact(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| is_exact(text))
}

pub(super) fn is_exact(text: &str) -> bool {
    !text.contains(REPLACEMENT)
}

/// Seconds since 1970: a number (RFC 7519 section 2), or one that was written as a text. What is before 1970 is 1970.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, which is what is meant")]
    number.is_finite().then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_that_cannot_be_read_is_left_out() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let text = format!(r#"{{"a": 1e999, "b": {deep}, "c": "\ud800", "sub": "x", "d": null, "e": -0.0}}"#);
        let members = members(text.as_bytes()).unwrap();
        assert_eq!(members.keys().collect::<Vec<_>>(), ["d", "e", "sub"]);
    }

    #[test]
    fn marks_and_bytes_of_other_encodings_do_no_harm() {
        let read = members(b"\xef\xbb\xbf {\"name\": \"M\xfcller\", \"sub\": \"x\"}\r\n").unwrap();
        assert_eq!(read["name"], "M\u{fffd}ller");
        assert_eq!((exact(&read["name"]), exact(&read["sub"])), (None, Some("x")));
        for bad in [&b""[..], b"null", b"[]", b"7", b"{", b"{}{}", b"<html>"] {
            assert!(members(bad).is_none());
        }
    }

    #[test]
    fn seconds_are_a_number_however_it_is_written() {
        for (value, expected) in [
            (json!(1_700_000_000), Some(1_700_000_000)),
            (json!(1_700_000_000.9), Some(1_700_000_000)),
            (json!("1700000000"), Some(1_700_000_000)),
            (json!(-5), Some(0)),
            (json!(u64::MAX), Some(u64::MAX)),
            (json!("inf"), None),
            (json!("NaN"), None),
            (json!("2026-11-29T12:00:00Z"), None),
            (json!(""), None),
            (json!(true), None),
            (json!([1]), None),
            (Value::Null, None),
        ] {
            assert_eq!(seconds(&value), expected, "{value}");
        }
    }
}
