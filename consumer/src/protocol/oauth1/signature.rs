//! Signs a base string (RFC 5849 sections 3.4.2 to 3.4.4).

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oauth_dance_core::Secret;
#[cfg(feature = "rsa-sha1")]
use rsa::signature::{SignatureEncoding as _, Signer as _};
#[cfg(feature = "rsa-sha1")]
use sha1::Sha1;
#[cfg(feature = "rsa-sha1")]
use sha2::Sha256;

use super::base_string::encode;
use crate::config::oauth1::SignatureMethod;

/// A signature method with the client's secret.
#[derive(Clone)]
pub(super) enum Signer {
    Shared {
        method: SignatureMethod,
        secret: Secret,
    },
    #[cfg(feature = "rsa-sha1")]
    RsaSha1(Box<rsa::pkcs1v15::SigningKey<Sha1>>),
    #[cfg(feature = "rsa-sha1")]
    RsaSha256(Box<rsa::pkcs1v15::SigningKey<Sha256>>),
}

impl Signer {
    /// Parses the secret, or returns which field is wrong and why.
    pub(super) fn new(method: SignatureMethod, secret: Secret) -> Result<Self, (&'static str, &'static str)> {
        match method {
            SignatureMethod::RsaSha1 | SignatureMethod::RsaSha256 => rsa(method, &secret),
            _ => Ok(Self::Shared { method, secret }),
        }
    }

    pub(super) fn method(&self) -> SignatureMethod {
        match self {
            Self::Shared { method, .. } => *method,
            #[cfg(feature = "rsa-sha1")]
            Self::RsaSha1(_) => SignatureMethod::RsaSha1,
            #[cfg(feature = "rsa-sha1")]
            Self::RsaSha256(_) => SignatureMethod::RsaSha256,
        }
    }

    /// The secret that must be redacted in an error.
    pub(super) fn shared_secret(&self) -> &str {
        match self {
            Self::Shared { secret, .. } => secret.expose(),
            #[cfg(feature = "rsa-sha1")]
            Self::RsaSha1(_) | Self::RsaSha256(_) => "",
        }
    }

    /// The signature, or `None` if the RSA key is too short.
    pub(super) fn sign(&self, base_string: &str, token_secret: &str) -> Option<String> {
        let (method, secret) = match self {
            Self::Shared { method, secret } => (method, secret),
            #[cfg(feature = "rsa-sha1")]
            Self::RsaSha1(key) => return Some(STANDARD.encode(key.try_sign(base_string.as_bytes()).ok()?.to_bytes())),
            #[cfg(feature = "rsa-sha1")]
            Self::RsaSha256(key) => {
                return Some(STANDARD.encode(key.try_sign(base_string.as_bytes()).ok()?.to_bytes()));
            }
        };
        let key = format!("{}&{}", encode(secret.expose()), encode(token_secret));
        Some(match method {
            SignatureMethod::Plaintext => key,
            SignatureMethod::HmacSha256 => mac(hmac::HMAC_SHA256, &key, base_string),
            _ => mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key, base_string),
        })
    }
}

fn mac(algorithm: hmac::Algorithm, key: &str, text: &str) -> String {
    STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), text.as_bytes()))
}

#[cfg(feature = "rsa-sha1")]
fn rsa(method: SignatureMethod, private_key: &Secret) -> Result<Signer, (&'static str, &'static str)> {
    use rsa::PrivateKey;
    use rsa::pkcs1::DecodeRsaPrivateKey as _;
    use rsa::pkcs1v15::SigningKey;
    use rsa::pkcs8::DecodePrivateKey as _;

    let pem = private_key.expose().trim();
    let key = PrivateKey::from_pkcs8_pem(pem).ok().or_else(|| PrivateKey::from_pkcs1_pem(pem).ok());
    let key = key.ok_or(("client_secret", "is not an RSA private key in PEM, PKCS #8 or PKCS #1"))?;
    Ok(match method {
        SignatureMethod::RsaSha256 => Signer::RsaSha256(Box::new(SigningKey::new(key))),
        _ => Signer::RsaSha1(Box::new(SigningKey::new(key))),
    })
}

#[cfg(not(feature = "rsa-sha1"))]
fn rsa(_: SignatureMethod, _: &Secret) -> Result<Signer, (&'static str, &'static str)> {
    Err(("signature_method", "signs with RSA, which needs the cargo feature `rsa-sha1` of oauth-dance"))
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.method()).finish()
    }
}
