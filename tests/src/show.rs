//! How values appear in failure messages: payloads as text, and long values shortened.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Entry, Precondition, Record, StorageError, Timestamp, Token, TokenKey, Version, Versioned,
};

use crate::outcome::chain;

/// The most bytes of a payload, and of a part of a key, that a message shows.
pub(crate) const SHOWN: usize = 64;
/// The most items of a list that a message shows.
const ITEMS: usize = 12;

/// The text of a value in a message.
pub(crate) trait Show {
    fn show(&self) -> String;
}

/// Bytes as quoted text, with `\x` escapes for what is not ASCII, and with the length if not all bytes are shown.
pub(crate) fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let rest = if shown.len() < bytes.len() { format!("... ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{rest}", shown.escape_ascii())
}

/// How a payload differs from the one that was written, beginning with the first different byte.
pub(crate) fn difference(wanted: &[u8], found: &[u8]) -> String {
    if wanted.len().max(found.len()) <= SHOWN {
        return format!("expected {}, found {}", text(wanted), text(found));
    }
    let lengths = match (wanted.len(), found.len()) {
        (wanted, found) if wanted == found => format!("{wanted} bytes"),
        (wanted, found) => format!("expected {wanted} bytes, found {found}"),
    };
    let first = wanted.iter().zip(found).position(|(one, other)| one != other);
    let first = first.unwrap_or(wanted.len().min(found.len()));
    let [wanted, found] = [wanted, found].map(|bytes| match &bytes[first..] {
        [] => "the end".to_owned(),
        rest => format!("\"{}\"", rest[..rest.len().min(16)].escape_ascii()),
    });
    format!("{lengths}; from byte {first}: expected {wanted}, found {found}")
}

macro_rules! shown_as_debug {
    ($($type:ty)+) => {
        $(impl Show for $type {
            fn show(&self) -> String {
                brief(self)
            }
        })+
    };
}

shown_as_debug!(bool usize u64 String Duration Timestamp Version Capabilities Token);

fn brief(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    if text.len() <= 400 { text } else { format!("{}...", text.chars().take(400).collect::<String>()) }
}

impl Show for Vec<u8> {
    fn show(&self) -> String {
        text(self)
    }
}

impl Show for TokenKey {
    fn show(&self) -> String {
        let names = ["tenant", "user", "provider", "account"];
        let parts = names.into_iter().zip(self.parts()).filter(|(_, part)| !part.is_empty());
        parts.map(|(name, part)| format!("{name} {}", word(part))).collect::<Vec<_>>().join(", ")
    }
}

/// A part of a key. If it is long, it is shortened, and its length is added.
fn word(part: &str) -> String {
    if part.len() <= SHOWN {
        return format!("{part:?}");
    }
    let start: String = part.chars().take(8).collect();
    let end: String = part.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
    format!("\"{}...{}\" ({} bytes)", start.escape_debug(), end.escape_debug(), part.len())
}

impl Show for Precondition {
    fn show(&self) -> String {
        match self {
            Self::Always => "Always".to_owned(),
            Self::Absent => "Absent".to_owned(),
            Self::Version(version) => format!("{version:?}"),
        }
    }
}

impl Show for Record {
    fn show(&self) -> String {
        let mut shown = text(&self.payload);
        if let Some(expires_at) = self.expires_at {
            shown += &format!(", expires_at {}", expires_at.as_unix_seconds());
        }
        if let Some(retain_for) = self.retain_for {
            shown += &format!(", retain_for {retain_for:?}");
        }
        if let Some(key_id) = &self.key_id {
            shown += &format!(", key_id {}", word(key_id));
        }
        format!("{{{shown}}}")
    }
}

impl Show for Entry {
    fn show(&self) -> String {
        let mut shown = format!("{}, {:?}", self.key.show(), self.version);
        if let Some(expires_at) = self.expires_at {
            shown += &format!(", expires_at {}", expires_at.as_unix_seconds());
        }
        if let Some(key_id) = &self.key_id {
            shown += &format!(", key_id {}", word(key_id));
        }
        format!("{{{shown}}}")
    }
}

impl<T: Show> Show for Versioned<T> {
    fn show(&self) -> String {
        format!("{} at {:?}", self.value.show(), self.version)
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "None".to_owned(), |value| format!("Some({})", value.show()))
    }
}

impl<T: Show> Show for Result<T, StorageError> {
    fn show(&self) -> String {
        match self {
            Ok(value) => format!("Ok({})", value.show()),
            Err(error) => format!("Err({}: {})", error_name(error), chain(error)),
        }
    }
}

impl<T: Show> Show for Result<T, oauth_dance_core::TokensError> {
    fn show(&self) -> String {
        match self {
            Ok(value) => format!("Ok({})", value.show()),
            Err(error) => format!("Err({})", chain(error)),
        }
    }
}

impl<T: Show, U: Show> Show for (T, U) {
    fn show(&self) -> String {
        format!("({}, {})", self.0.show(), self.1.show())
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        items(self.iter().map(Show::show), self.len())
    }
}

impl<T: Show> Show for BTreeSet<T> {
    fn show(&self) -> String {
        items(self.iter().map(Show::show), self.len())
    }
}

impl<T: Show + ?Sized> Show for &T {
    fn show(&self) -> String {
        (**self).show()
    }
}

impl Show for str {
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Show for () {
    fn show(&self) -> String {
        "()".to_owned()
    }
}

impl Show for oauth_dance_core::Page {
    fn show(&self) -> String {
        format!(
            "{} entries: {}, {}",
            self.entries.len(),
            self.entries.show(),
            if self.next.is_some() { "with a next page" } else { "the last page" }
        )
    }
}

fn items(items: impl Iterator<Item = String>, count: usize) -> String {
    let shown: Vec<_> = items.take(ITEMS).collect();
    let rest = if count > ITEMS { format!(", ... ({count} in all)") } else { String::new() };
    format!("[{}{rest}]", shown.join(", "))
}

/// The name of an error's variant, without its fields.
pub(crate) fn error_name(error: &StorageError) -> &'static str {
    match error {
        StorageError::Conflict => "Conflict",
        StorageError::Unavailable { .. } => "Unavailable",
        StorageError::Ambiguous { .. } => "Ambiguous",
        StorageError::Corrupt { .. } => "Corrupt",
        StorageError::KeyTooLong { .. } => "KeyTooLong",
        StorageError::TooLarge { .. } => "TooLarge",
        StorageError::Unsupported(_) => "Unsupported",
        StorageError::InvalidCursor => "InvalidCursor",
        StorageError::Misconfigured { .. } => "Misconfigured",
        _ => "another error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_appear_as_short_text() {
        assert_eq!(text(b"a\0\xff"), r#""a\x00\xff""#);
        assert!(text(&[7; 100]).ends_with(r#"\x07"... (100 bytes)"#));
        let record = Record::new([1, 2]).with_key_id(Some("k".to_owned()));
        assert_eq!(Some(record).show(), r#"Some({"\x01\x02", key_id "k"})"#);
        assert_eq!(vec![b'x'; 3].show(), r#""xxx""#);
    }

    #[test]
    fn long_payloads_are_compared_from_the_first_difference() {
        let (wanted, mut found) = ([b'x'; 100], [b'x'; 100]);
        found[90] = 0;
        let same_length = r#"100 bytes; from byte 90: expected "xxxxxxxxxx", found "\x00xxxxxxxxx""#;
        assert_eq!(difference(&wanted, &found), same_length);
        let cut = r#"expected 100 bytes, found 98; from byte 98: expected "xx", found the end"#;
        assert_eq!(difference(&wanted, &wanted[..98]), cut);
        assert_eq!(difference(b"a", b""), r#"expected "a", found """#);
    }
}
