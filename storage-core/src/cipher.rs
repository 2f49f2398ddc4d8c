//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), in place.
//!
//! With the feature `aws-lc`, AWS-LC does the work, several times as fast as portable code. It knows only ChaCha20-Poly1305
//! with a nonce of 96 bits (RFC 8439), to which HChaCha20 reduces the longer nonce. Both ways give the same bytes.

pub(crate) const KEY_LENGTH: usize = 32;
pub(crate) const NONCE_LENGTH: usize = 24;
pub(crate) const TAG_LENGTH: usize = 16;

#[cfg(feature = "aws-lc")]
pub(crate) use fast::{decrypt, encrypt};
#[cfg(not(feature = "aws-lc"))]
pub(crate) use portable::{decrypt, encrypt};

/// The data is not what was encrypted, or is too long to be encrypted.
#[derive(Debug)]
pub(crate) struct CipherError;

#[cfg(any(test, not(feature = "aws-lc")))]
mod portable {
    use chacha20poly1305::aead::AeadInOut as _;
    use chacha20poly1305::{KeyInit as _, Tag, XChaCha20Poly1305, XNonce};

    use super::{CipherError, KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH};

    /// Encrypts `text` and returns the tag.
    pub(crate) fn encrypt(
        key: &[u8; KEY_LENGTH],
        nonce: [u8; NONCE_LENGTH],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LENGTH], CipherError> {
        let cipher = XChaCha20Poly1305::new(key.into());
        let tag = cipher.encrypt_inout_detached(&XNonce::from(nonce), associated, text.into());
        tag.map(Into::into).map_err(|_| CipherError)
    }

    /// Decrypts `sealed`, which ends with the tag. The text is all before the tag.
    pub(crate) fn decrypt(
        key: &[u8; KEY_LENGTH],
        nonce: [u8; NONCE_LENGTH],
        associated: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), CipherError> {
        let cipher = XChaCha20Poly1305::new(key.into());
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LENGTH>().ok_or(CipherError)?;
        let tag = Tag::from(*tag);
        cipher.decrypt_inout_detached(&XNonce::from(nonce), associated, text.into(), &tag).map_err(|_| CipherError)
    }
}

#[cfg(feature = "aws-lc")]
mod fast {
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use chacha20::{R20, hchacha};
    use zeroize::Zeroizing;

    use super::{CipherError, KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH};

    /// Encrypts `text` and returns the tag.
    pub(crate) fn encrypt(
        key: &[u8; KEY_LENGTH],
        nonce: [u8; NONCE_LENGTH],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LENGTH], CipherError> {
        let (key, nonce) = derive(key, nonce)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(associated), text).map_err(|_| CipherError)?;
        tag.as_ref().try_into().map_err(|_| CipherError)
    }

    /// Decrypts `sealed`, which ends with the tag. The text is all before the tag.
    pub(crate) fn decrypt(
        key: &[u8; KEY_LENGTH],
        nonce: [u8; NONCE_LENGTH],
        associated: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), CipherError> {
        let (key, nonce) = derive(key, nonce)?;
        key.open_in_place(nonce, Aad::from(associated), sealed).map(drop).map_err(|_| CipherError)
    }

    /// The key and the nonce for ChaCha20-Poly1305.
    fn derive(key: &[u8; KEY_LENGTH], nonce: [u8; NONCE_LENGTH]) -> Result<(LessSafeKey, Nonce), CipherError> {
        let (input, rest) = nonce.split_first_chunk::<16>().ok_or(CipherError)?;
        let key: Zeroizing<[u8; KEY_LENGTH]> = Zeroizing::new(hchacha::<R20>(key.into(), input.into()).into());
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).map_err(|_| CipherError)?;
        let mut short = [0; 12];
        short[4..].copy_from_slice(rest);
        Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(short)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn known_answer() {
        let key: [u8; 32] = std::array::from_fn(|index| 0x80 + u8::try_from(index).unwrap());
        let nonce: [u8; 24] = std::array::from_fn(|index| 0x40 + u8::try_from(index).unwrap());
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it.";
        let expected_tag =
            [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49];
        let mut text = plain.to_vec();
        let tag = encrypt(&key, nonce, &associated, &mut text).unwrap();
        assert_eq!((&text[..4], tag), (&[0xbd, 0x6d, 0x17, 0x9d][..], expected_tag));

        text.extend_from_slice(&tag);
        decrypt(&key, nonce, &associated, &mut text).unwrap();
        assert_eq!(&text[..plain.len()], plain);
    }

    /// What one way has sealed, the other one opens.
    #[cfg(feature = "aws-lc")]
    #[test]
    fn both_ways_give_the_same_bytes() {
        for length in [0_usize, 1, 63, 64, 65, 1000, 5000] {
            let (key, nonce) = ([length.to_le_bytes()[0]; 32], [7; 24]);
            let plain = vec![b'x'; length];
            let (mut one, mut two) = (plain.clone(), plain.clone());
            let tag = encrypt(&key, nonce, b"associated", &mut one).unwrap();
            assert_eq!(tag, portable::encrypt(&key, nonce, b"associated", &mut two).unwrap(), "{length}");
            assert_eq!(one, two);

            let sealed = [&one[..], &tag].concat();
            for decrypt in [decrypt, portable::decrypt] {
                let mut opened = sealed.clone();
                decrypt(&key, nonce, b"associated", &mut opened).unwrap();
                assert_eq!(&opened[..length], plain);
                assert!(decrypt(&key, nonce, b"other", &mut sealed.clone()).is_err());
                assert!(decrypt(&key, nonce, b"associated", &mut sealed[..TAG_LENGTH - 1].to_vec()).is_err());
            }
        }
    }
}
