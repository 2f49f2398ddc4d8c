//! Reads JSON from outside, so that an invalid member that is not needed does not affect one that is.

use std::collections::HashMap;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Base64url as in JOSE, with or without padding.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Replaces bytes that are not UTF-8 in a text.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The members of an object. A member whose value is invalid, such as a number out of range, is omitted. A byte order mark
/// is skipped, and bytes that are not UTF-8 become U+FFFD.
pub(super) fn members(bytes: &[u8]) -> Option<Map<String, Value>> {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let members: HashMap<String, &RawValue> = serde_json::from_str(&text).ok()?;
    let read = |(name, value): (String, &RawValue)| Some((name, serde_json::from_str(value.get()).ok()?));
    Some(members.into_iter().filter_map(read).collect())
}

/// A text that is used as an identifier, so it must not contain replacements.
pub(super) fn exact(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| is_exact(text))
}

pub(super) fn is_exact(text: &str) -> bool {
    !text.contains(REPLACEMENT)
}

/// Seconds since 1970: a number (RFC 7519 section 2), or a number in a string. Times before 1970 become 1970.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as intended")]
    number.is_finite().then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invalid_member_is_omitted() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let text = format!(r#"{{"a": 1e999, "b": {deep}, "c": "\ud800", "sub": "x", "d": null, "e": -0.0}}"#);
        let members = members(text.as_bytes()).unwrap();
        assert_eq!(members.keys().collect::<Vec<_>>(), ["d", "e", "sub"]);
    }

    #[test]
    fn byte_order_marks_and_invalid_bytes_are_tolerated() {
        let read = members(b"\xef\xbb\xbf {\"name\": \"M\xfcller\", \"sub\": \"x\"}\r\n").unwrap();
        assert_eq!(read["name"], "M\u{fffd}ller");
        assert_eq!((exact(&read["name"]), exact(&read["sub"])), (None, Some("x")));
        for bad in [&b""[..], b"null", b"[]", b"7", b"{", b"{}{}", b"<html>"] {
            assert!(members(bad).is_none());
        }
    }

    #[test]
    fn seconds_are_read_from_numbers_and_strings() {
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
