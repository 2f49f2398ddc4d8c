//! An issuer's keys (RFC 7517), and the signatures that they verify (RFC 7515, RFC 7518 section 3, RFC 8037).

use aws_lc_rs::digest;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, RsaParameters, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use serde_json::{Map, Value};

use super::json::{self, BASE64URL};
use crate::error::{DiscoveryError, IdTokenError};

/// Limits the number of verifications for one token.
const MAX_TRIED: usize = 32;

/// An algorithm whose verification key cannot sign. A signature with a shared secret, or none, would prove nothing here.
pub(super) struct Algorithm {
    names: &'static [&'static str],
    family: Family,
    /// The algorithm for the hash of an access token (OpenID Connect Core section 3.1.3.6).
    pub(super) hash: &'static digest::Algorithm,
}

enum Family {
    Rsa(&'static RsaParameters),
    Curve(Curve, &'static dyn VerificationAlgorithm),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
    Ed25519,
}

/// RFC 9864 names EdDSA after its curve.
static ALGORITHMS: [Algorithm; 10] = [
    Algorithm::rsa(&["RS256"], &signature::RSA_PKCS1_2048_8192_SHA256, &digest::SHA256),
    Algorithm::rsa(&["RS384"], &signature::RSA_PKCS1_2048_8192_SHA384, &digest::SHA384),
    Algorithm::rsa(&["RS512"], &signature::RSA_PKCS1_2048_8192_SHA512, &digest::SHA512),
    Algorithm::rsa(&["PS256"], &signature::RSA_PSS_2048_8192_SHA256, &digest::SHA256),
    Algorithm::rsa(&["PS384"], &signature::RSA_PSS_2048_8192_SHA384, &digest::SHA384),
    Algorithm::rsa(&["PS512"], &signature::RSA_PSS_2048_8192_SHA512, &digest::SHA512),
    Algorithm::curve(&["ES256"], Curve::P256, &signature::ECDSA_P256_SHA256_FIXED, &digest::SHA256),
    Algorithm::curve(&["ES384"], Curve::P384, &signature::ECDSA_P384_SHA384_FIXED, &digest::SHA384),
    Algorithm::curve(&["ES512"], Curve::P521, &signature::ECDSA_P521_SHA512_FIXED, &digest::SHA512),
    Algorithm::curve(&["EdDSA", "Ed25519"], Curve::Ed25519, &signature::ED25519, &digest::SHA512),
];

impl Algorithm {
    /// The algorithm with this name, if it is accepted.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALGORITHMS.iter().find(|algorithm| algorithm.names.contains(&name))
    }

    /// Whether the issuer announces it. An announcement without any accepted algorithm is ignored.
    pub(super) fn is_among(&self, announced: &[String]) -> bool {
        let mut known = announced.iter().filter_map(|name| Self::named(name)).peekable();
        known.peek().is_none() || known.any(|algorithm| algorithm.names == self.names)
    }

    const fn rsa(
        names: &'static [&'static str],
        parameters: &'static RsaParameters,
        hash: &'static digest::Algorithm,
    ) -> Self {
        Self { names, family: Family::Rsa(parameters), hash }
    }

    const fn curve(
        names: &'static [&'static str],
        curve: Curve,
        verification: &'static dyn VerificationAlgorithm,
        hash: &'static digest::Algorithm,
    ) -> Self {
        Self { names, family: Family::Curve(curve, verification), hash }
    }
}

/// The usable keys of an issuer. Others in its set are ignored (RFC 7517 section 5).
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm of the key, if the issuer specifies it.
    algorithm: Option<&'static str>,
    public: PublicKey,
}

#[derive(Debug)]
enum PublicKey {
    Rsa(PublicKeyComponents<Vec<u8>>),
    Curve(Curve, Vec<u8>),
}

impl KeySet {
    /// Reads a key set.
    ///
    /// # Errors
    /// If it is not a key set, or contains no usable key.
    pub(super) fn read(body: &[u8]) -> Result<Self, DiscoveryError> {
        let members = json::members(body).ok_or(DiscoveryError::InvalidResponse("it is not a JSON object"))?;
        let Some(Value::Array(found)) = members.get("keys") else {
            return Err(DiscoveryError::InvalidResponse("it is not a set of keys"));
        };
        let keys: Vec<Key> = found.iter().filter_map(Value::as_object).filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(DiscoveryError::InvalidResponse("it contains no key that verifies signatures"));
        }
        Ok(Self { keys })
    }

    /// Whether one of the keys has signed a message. Keys with the identifier are tried; if there are none, keys without any
    /// identifier.
    pub(super) fn verify(
        &self,
        algorithm: &Algorithm,
        key_id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), IdTokenError> {
        let fits = |key: &&Key| key.is_for(algorithm);
        let of = |id: Option<&str>| self.keys.iter().filter(fits).filter(|key| key.id.as_deref() == id).collect();
        let named: Vec<&Key> = match key_id {
            None => self.keys.iter().filter(fits).collect(),
            Some(_) => of(key_id),
        };
        let tried = if named.is_empty() { of(None) } else { named };
        if tried.is_empty() {
            return Err(IdTokenError::UnknownKey);
        }
        let has_signed = |key: &&Key| key.has_signed(algorithm, message, signature);
        tried.into_iter().take(MAX_TRIED).any(|key| has_signed(&key)).then_some(()).ok_or(IdTokenError::Signature)
    }
}

impl Key {
    /// A key for signatures, if its type is supported.
    fn read(members: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        if text("use") == Some("enc") {
            return None;
        }
        let bytes = |name: &str| BASE64URL.decode(text(name)?).ok();
        let public = match text("kty")? {
            "RSA" => {
                let (n, e) = (without_zeros(&bytes("n")?), without_zeros(&bytes("e")?));
                PublicKey::Rsa(PublicKeyComponents { n, e })
            }
            "EC" => {
                let curve = Curve::elliptic(text("crv")?)?;
                let (x, y) = (curve.coordinate(&bytes("x")?)?, curve.coordinate(&bytes("y")?)?);
                // An uncompressed point (SEC 1 section 2.3.3).
                PublicKey::Curve(curve, [vec![4], x, y].concat())
            }
            "OKP" if text("crv") == Some("Ed25519") => PublicKey::Curve(Curve::Ed25519, bytes("x")?),
            _ => return None,
        };
        let algorithm = text("alg").and_then(Algorithm::named).map(|algorithm| algorithm.names[0]);
        Some(Self { id: text("kid").map(str::to_owned), algorithm, public })
    }

    fn is_for(&self, algorithm: &Algorithm) -> bool {
        let is_of_the_kind = match (&algorithm.family, &self.public) {
            (Family::Rsa(_), PublicKey::Rsa(_)) => true,
            (Family::Curve(wanted, _), PublicKey::Curve(curve, _)) => wanted == curve,
            _ => false,
        };
        is_of_the_kind && self.algorithm.is_none_or(|name| algorithm.names.contains(&name))
    }

    fn has_signed(&self, algorithm: &Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&algorithm.family, &self.public) {
            (Family::Rsa(parameters), PublicKey::Rsa(key)) => key.verify(parameters, message, signature).is_ok(),
            (Family::Curve(_, verification), PublicKey::Curve(_, point)) => {
                UnparsedPublicKey::new(*verification, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

impl Curve {
    fn elliptic(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// A coordinate in its full length (RFC 7518 section 6.2.1.2), regardless of omitted or additional leading zeros.
    fn coordinate(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let length: usize = match self {
            Self::P256 | Self::Ed25519 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        };
        let bytes = without_zeros(bytes);
        let missing = length.checked_sub(bytes.len())?;
        Some([vec![0; missing], bytes].concat())
    }
}

/// A number without leading zeros, which some libraries add as a sign.
fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

#[cfg(test)]
mod tests;
