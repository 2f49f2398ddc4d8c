//! Searches for a secret in what a storage prints or stores, in any encoding.
//!
//! A storage may well write a payload in hexadecimal, as an array of numbers or inside a quoted string, so a search for the
//! plain text alone would prove little. The secret to look for is a unique marker, so that every match is a leak.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The encoding in which `bytes` contain the text, if they contain it.
pub(crate) fn find_leak(bytes: &[u8], text: &str) -> Option<&'static str> {
    let raw = text.as_bytes();
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        ("in plain text", raw.to_vec()),
        ("reversed", raw.iter().rev().copied().collect()),
        ("in hexadecimal", hex.to_uppercase().into_bytes()),
        ("in hexadecimal", hex.into_bytes()),
        ("in UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("in UTF-16", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("in binary", raw.iter().map(|byte| format!("{byte:08b}")).collect::<String>().into_bytes()),
        ("in ROT13", raw.iter().copied().map(rot13).collect()),
    ];
    for before in 0..3 {
        // Only the characters that do not depend on the neighbouring bytes.
        let padded = [&vec![0; before][..], raw].concat();
        let (start, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(("in base64", engine.encode(&padded).as_bytes()[start..end].to_vec()));
        }
    }
    let found = forms.into_iter().find(|(_, form)| contains(bytes, form)).map(|(name, _)| name);
    found.or_else(|| as_numbers(bytes, raw))
}

/// Whether the bytes of a text occur as a sequence of numbers with the base 8, 10 or 16 and with any separators, as in
/// `[67, 65]`, `43 41`, `0x43, 0x41`, `\\x43\\x41`, `%43%41`, `\\u0043\\u0041`, `&#67;&#65;` or `=43=41`.
fn as_numbers(bytes: &[u8], wanted: &[u8]) -> Option<&'static str> {
    for (base, name) in
        [(10, "as a list of numbers"), (16, "in hexadecimal, byte by byte"), (8, "in octal, byte by byte")]
    {
        let mut numbers: Vec<u8> = Vec::new();
        for word in bytes.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            match number(word, base) {
                Some(number) => numbers.push(number),
                None => numbers.clear(),
            }
            if numbers.ends_with(wanted) {
                return Some(name);
            }
        }
        // Some encodings leave letters unchanged and encode only the rest. `unescape` handles those.
    }
    let unescaped = unescape(bytes);
    contains(&unescaped, wanted).then_some("percent-encoded or escaped")
}

fn number(word: &[u8], base: u32) -> Option<u8> {
    let text = std::str::from_utf8(word).ok()?;
    let digits = if base == 10 { text } else { text.trim_start_matches("0x").trim_start_matches(['x', 'u', 'U']) };
    let digits = digits.trim_end_matches("u8");
    u32::from_str_radix(digits, base).ok().and_then(|number| u8::try_from(number).ok())
}

/// Replaces `%41`, `=41`, `\\x41`, `\\u0041`, `\\u{41}` and `\\101` by the bytes that they encode.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let escapes: [(&[u8], usize, u32); 6] =
            [(b"%", 2, 16), (b"=", 2, 16), (b"\\x", 2, 16), (b"\\u{", 2, 16), (b"\\u", 4, 16), (b"\\", 3, 8)];
        let escaped = escapes.into_iter().find_map(|(start, digits, base)| {
            let after = rest.strip_prefix(start)?;
            let digits = after.get(..digits)?;
            let value = u32::from_str_radix(std::str::from_utf8(digits).ok()?, base).ok()?;
            let end = if start == b"\\u{" { 1 } else { 0 };
            Some((u8::try_from(value).ok()?, start.len() + digits.len() + end))
        });
        match escaped {
            Some((byte, length)) => {
                plain.push(byte);
                rest = rest.get(length..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

fn rot13(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        other => other,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "CANARY-9f1c";

    #[test]
    fn a_secret_is_found_in_every_encoding() {
        let each = |write: fn(u8) -> String, between: &str| SECRET.bytes().map(write).collect::<Vec<_>>().join(between);
        let forms = [
            format!("xx{SECRET}xx"),
            "xxc1f9-YRANACxx".to_owned(),
            "xx43414e4152592d39663163".to_owned(),
            format!("{:?}", format!("a{SECRET}").as_bytes()),
            format!("{:#?}", SECRET.as_bytes()),
            format!("{:02x?}", SECRET.as_bytes()),
            format!("{:#04x?}", SECRET.as_bytes()),
            format!("{:X?}", SECRET.as_bytes()),
            each(|byte| format!("0{byte:o}"), ", "),
            each(|byte| format!("{byte:02X}"), ":"),
            each(|byte| format!("{byte:02X}"), " "),
            each(|byte| format!("{byte}"), "-"),
            each(|byte| format!("%{byte:02X}"), ""),
            each(|byte| format!("\\x{byte:02x}"), ""),
            each(|byte| format!("\\u{byte:04x}"), ""),
            each(|byte| format!("\\u{{{byte:02x}}}"), ""),
            each(|byte| format!("\\{byte:03o}"), ""),
            each(|byte| format!("&#{byte};"), ""),
            "CANARY%2D9f1c".to_owned(),
            "CANARY=2D9f1c".to_owned(),
        ];
        for form in forms {
            assert!(find_leak(form.as_bytes(), SECRET).is_some(), "{form}");
        }
        for before in ["", "a", "ab", "abc"] {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{SECRET} and more"));
            assert_eq!(find_leak(encoded.as_bytes(), SECRET), Some("in base64"));
        }
    }

    #[test]
    fn other_texts_are_not_reported() {
        for text in ["", "CANARY-9f1", "67, 65, 78", "Record { payload: 220 bytes, version: 43414e41 }"] {
            assert_eq!(find_leak(text.as_bytes(), SECRET), None, "{text}");
        }
    }
}
