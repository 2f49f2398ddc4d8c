//! Strings that must not appear in output.

use std::ops::Deref;
use std::{fmt, mem};

use zeroize::zeroize_bytes;

/// A string that must never be printed, such as an access token, a refresh token or a client secret.
///
/// `Debug` shows a placeholder, and there is no `Display` and no `Serialize`. The memory is overwritten on drop. Only
/// [`Secret::expose`] returns the text, so a review finds every use of a secret by searching for this word.
///
/// ```
/// use oauth_dance_core::Secret;
///
/// let secret = Secret::new("s3cr3t");
/// assert_eq!(format!("{secret:?}"), "[secret]");
/// assert_eq!(secret.expose(), "s3cr3t");
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of the secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret text itself. Never write it to a log, an error or a URL.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        overwrite(&mut mem::take(&mut self.0).into_bytes());
    }
}

/// Compares texts of equal length in constant time, so that the duration reveals nothing about the text. It may reveal
/// the length.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.0.as_bytes());
        ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Bytes that must not remain in memory. They are overwritten on drop.
pub(crate) struct SecretBytes(Vec<u8>);

impl SecretBytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The bytes, which are then no longer overwritten.
    pub(crate) fn into_inner(mut self) -> Vec<u8> {
        mem::take(&mut self.0)
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        overwrite(&mut self.0);
    }
}

/// Overwrites the bytes and the spare capacity. `Zeroizing` writes one byte at a time, which takes longer than
/// decrypting them.
fn overwrite(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.capacity(), 0);
    zeroize_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memory_of_a_buffer_is_overwritten() {
        let mut bytes = b"a secret that was longer".to_vec();
        bytes.reserve_exact(100);
        let capacity = bytes.capacity();
        bytes.truncate(8);
        overwrite(&mut bytes);
        assert_eq!(bytes, vec![0; capacity]);
    }

    #[test]
    fn bytes_that_were_taken_out_are_unchanged() {
        assert_eq!(SecretBytes::new(b"plain".to_vec()).into_inner(), b"plain");
    }
}
