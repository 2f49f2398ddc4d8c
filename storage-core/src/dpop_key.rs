use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::random::random_bytes;
use crate::secret::Secret;

const LENGTH: usize = 32;
/// The order of the curve P-256 (FIPS 186-5, SP 800-186 section 3.2.1.3). Private keys are smaller.
const ORDER: [u8; LENGTH] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The private key that a token is bound to (RFC 9449), on the curve P-256 for ES256 signatures.
///
/// A stolen token that is bound to a key is useless without the key. The key is stored together with its token and
/// sealed, so that every process can use and refresh the token. It therefore protects against the theft of a token in
/// transit, and not against the theft of the storage with its key ring.
///
/// `Debug` never shows the key, and its memory is overwritten on drop.
///
/// ```
/// use oauth_dance_core::DpopKey;
///
/// let key = DpopKey::generate();
/// assert_eq!(DpopKey::parse(key.expose()), Some(key.clone()));
/// assert!(!format!("{key:?}").contains(key.expose()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpopKey(Secret);

impl DpopKey {
    /// A new random key.
    ///
    /// # Panics
    /// Panics if the operating system cannot generate random bytes.
    pub fn generate() -> Self {
        // The first candidate is almost always valid (FIPS 186-5 section A.2.2).
        loop {
            let candidate: Zeroizing<[u8; LENGTH]> = Zeroizing::new(random_bytes());
            if is_private_key(&candidate) {
                return Self(Secret::new(URL_SAFE_NO_PAD.encode(candidate.as_slice())));
            }
        }
    }

    /// Parses a private key in the format of the member `d` of a JSON Web Key (RFC 7518 section 6.2.2.1): 32 bytes in
    /// base64url without padding. `None` if the text is not a private key.
    pub fn parse(d: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(d).ok()?);
        let bytes: &[u8; LENGTH] = bytes.as_slice().try_into().ok()?;
        is_private_key(bytes).then(|| Self(Secret::new(d)))
    }

    /// The private key in the format of [`parse`](Self::parse). Never write it to a log, an error or a URL.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Whether the number is in the range 1 to `ORDER` - 1.
fn is_private_key(bytes: &[u8; LENGTH]) -> bool {
    bytes.iter().any(|byte| *byte != 0) && *bytes < ORDER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_only_private_keys_of_the_curve() {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut last = ORDER;
        last[LENGTH - 1] -= 1;
        let mut first = [0; LENGTH];
        first[LENGTH - 1] = 1;
        for valid in [first, last, [0x7f; LENGTH]] {
            assert_eq!(DpopKey::parse(&encode(&valid)).unwrap().expose(), encode(&valid));
        }
        for invalid in
            [encode(&[0; LENGTH]), encode(&ORDER), encode(&[0xff; LENGTH]), encode(&[1; 31]), encode(&[1; 33])]
        {
            assert_eq!(DpopKey::parse(&invalid), None, "{invalid}");
        }
        for invalid in ["", "x", "=", &format!("{}=", encode(&first)), &"+".repeat(43), &"A".repeat(1_000_000)] {
            assert_eq!(DpopKey::parse(invalid), None);
        }
    }

    #[test]
    fn keys_are_random_and_are_not_printed() {
        let (one, two) = (DpopKey::generate(), DpopKey::generate());
        assert_ne!(one, two);
        assert_eq!(format!("{one:?}"), "DpopKey([secret])");
    }
}
