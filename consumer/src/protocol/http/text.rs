//! Makes text from outside safe for logs and errors.

pub(crate) const MAX_ERROR_TEXT: usize = 512;

/// The text with these secrets redacted.
pub(crate) fn without_secrets(text: &str, secrets: &[&str]) -> String {
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
}

/// Text from outside, made safe for logs and errors: printable ASCII of limited length (RFC 6749 section 5.2).
pub(crate) fn printable(text: &str) -> String {
    let replace = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let capped: String = text.chars().take(MAX_ERROR_TEXT).map(replace).collect();
    capped
}

/// A name in lower case, without separators of words.
pub(crate) fn bare_name(name: &str) -> String {
    letters(name).collect()
}

/// Whether two names differ only in case and separators of words.
pub(crate) fn is_spelling(one: &str, other: &str) -> bool {
    letters(one).eq(letters(other))
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase())
}
