//! The OpenID part of a [`TestProvider`]: metadata, keys, and ID tokens with valid signatures.
//!
//! Signatures are real, so that a test of a forged one proves something. A key is generated when its algorithm is first
//! used, as keys for RSA take a noticeable time.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::OAuth2Token;
use serde_json::{Map, Value, json};

use super::endpoints::Exchange;
use super::grants::{Access, Redemption};
use super::{TestProvider, locked};

/// The lifetime of an ID token, in seconds.
const LIFETIME: u64 = 600;
const RSA_BYTES: usize = 256;

/// A signature algorithm of a [`TestProvider`]'s ID tokens (RFC 7518 section 3.1, RFC 8037); see
/// [`Settings::id_token_algorithm`](super::Settings::id_token_algorithm).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum SigningAlgorithm {
    #[default]
    Es256,
    Es384,
    Rs256,
    Rs512,
    Ps256,
    EdDsa,
}

impl SigningAlgorithm {
    /// Its name in a JOSE header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// An ID token that a [`TestProvider`] is about to sign, for a test to change; see [`TestProvider::next_id_token`]. The
/// signature is that of the changed token, unless [`signature`](Self::signature) says otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdToken {
    /// The JOSE header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
    /// How it is signed, whatever the header contains.
    pub signature: IdTokenSignature,
}

/// How a [`TestProvider`] signs an ID token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdTokenSignature {
    /// With its key.
    Good,
    /// With another key of the same kind, which is not in the key set.
    UnknownKey,
    /// With HMAC and SHA-256, with these bytes as the key.
    Hmac(Vec<u8>),
    /// Not at all.
    None,
}

type Change = Box<dyn FnOnce(&mut IdToken) + Send>;

/// The keys of a provider, and the changes to its next ID tokens.
#[derive(Default)]
pub(super) struct OpenIdState {
    generation: u32,
    keys: HashMap<SigningAlgorithm, Key>,
    changes: VecDeque<Change>,
}

impl fmt::Debug for OpenIdState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenIdState").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl TestProvider {
    /// Changes the next ID token that has no change yet, before it is signed.
    ///
    /// ```
    /// # async fn example(provider: &oauth_dance::testing::TestProvider) {
    /// provider.next_id_token(|id_token| {
    ///     id_token.claims.insert("aud".to_owned(), "another-client".into());
    /// });
    /// # }
    /// ```
    pub fn next_id_token(&self, change: impl FnOnce(&mut IdToken) + Send + 'static) {
        locked(&self.shared.openid).changes.push_back(Box::new(change));
    }

    /// Signs with new keys from now on, and removes the old ones, as an issuer does regularly. A client has to fetch the key
    /// set again when it sees an unknown key.
    pub fn rotate_keys(&self) {
        let mut state = locked(&self.shared.openid);
        state.generation += 1;
        state.keys.clear();
    }
}

/// The key set (RFC 7517 section 5).
pub(super) fn keys(exchange: &Exchange<'_>) -> Value {
    let algorithm = exchange.settings.id_token_algorithm;
    let mut state = locked(&exchange.shared.openid);
    let kid = state.kid(algorithm);
    json!({ "keys": [state.key(algorithm).public(&kid)] })
}

/// A token with its ID token (OpenID Connect Core section 2), if the scope asks for one.
pub(super) fn with_id_token(exchange: &Exchange<'_>, by: &Redemption<'_>, mut token: OAuth2Token) -> OAuth2Token {
    if !token.scope.iter().flatten().any(|scope| scope == "openid") {
        return token;
    }
    let Exchange { shared, settings, request } = exchange;
    let access = shared.grants().access_of(settings, token.access_token.expose(), by.jkt);
    let Some(Access { user, scope, .. }) = access else { return token };
    let algorithm = settings.id_token_algorithm;
    let now = settings.clock.now().as_unix_seconds();
    let mut claims = json!({
        "iss": exchange.issuer(),
        "sub": user,
        "aud": by.client,
        "exp": now + LIFETIME,
        "iat": now,
        "at_hash": at_hash(algorithm, token.access_token.expose()),
    });
    if let Some(nonce) = request.field("code").and_then(|code| shared.grants().nonce_of(code)) {
        claims["nonce"] = nonce.into();
    }
    let about = settings.claims(&user, &scope).map_or_else(|| claims_about(&user), Value::from);
    let mut state = locked(&shared.openid);
    let header = json!({ "typ": "JWT", "alg": algorithm.name(), "kid": state.kid(algorithm) });
    let (Value::Object(header), Value::Object(mut claims), Value::Object(about)) = (header, claims, about) else {
        return token;
    };
    claims.extend(about);
    let mut id_token = IdToken { header, claims, signature: IdTokenSignature::Good };
    if let Some(change) = state.changes.pop_front() {
        change(&mut id_token);
    }
    let encode = |part: Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(part).to_string());
    let signed = format!("{}.{}", encode(id_token.header), encode(id_token.claims));
    let signature = match id_token.signature {
        IdTokenSignature::Good => state.key(algorithm).sign(algorithm, signed.as_bytes()),
        IdTokenSignature::UnknownKey => Key::generate(algorithm).sign(algorithm, signed.as_bytes()),
        IdTokenSignature::Hmac(key) => {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes()).as_ref().to_vec()
        }
        IdTokenSignature::None => Vec::new(),
    };
    token.id_token = Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into());
    token
}

/// What an ID token contains about a user if no resource owner knows the users.
fn claims_about(user: &str) -> Value {
    json!({ "email": format!("{user}@example.test"), "email_verified": true, "name": format!("{user} (name)") })
}

impl OpenIdState {
    fn kid(&self, algorithm: SigningAlgorithm) -> String {
        format!("{}-{}", algorithm.name(), self.generation)
    }

    fn key(&mut self, algorithm: SigningAlgorithm) -> &Key {
        self.keys.entry(algorithm).or_insert_with(|| Key::generate(algorithm))
    }
}

enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

#[expect(clippy::expect_used, reason = "the library fails when memory runs out, or never")]
impl Key {
    fn generate(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::Es256 => {
                Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"), "P-256")
            }
            SigningAlgorithm::Es384 => {
                Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"), "P-384")
            }
            SigningAlgorithm::EdDsa => Self::Ed(Ed25519KeyPair::generate().expect("a key")),
            SigningAlgorithm::Rs256 | SigningAlgorithm::Rs512 | SigningAlgorithm::Ps256 => {
                Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
            }
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, message: &[u8]) -> Vec<u8> {
        let padding: &'static dyn RsaEncoding = match algorithm {
            SigningAlgorithm::Rs512 => &RSA_PKCS1_SHA512,
            SigningAlgorithm::Ps256 => &RSA_PSS_SHA256,
            _ => &RSA_PKCS1_SHA256,
        };
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; RSA_BYTES];
                key.sign(padding, &SystemRandom::new(), message, &mut signature).expect("a signature");
                signature
            }
            Self::Ec(key, _) => key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key (RFC 7518 section 6, RFC 8037 section 2).
    fn public(&self, kid: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                // DER ends with the modulus and, as an integer of five bytes in all, the exponent 65537.
                let der = key.public_key().as_ref();
                let modulus = &der[der.len() - 5 - RSA_BYTES..der.len() - 5];
                json!({ "kty": "RSA", "use": "sig", "kid": kid, "n": encode(modulus), "e": "AQAB" })
            }
            Self::Ec(key, curve) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
                json!({ "kty": "EC", "use": "sig", "kid": kid, "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Self::Ed(key) => {
                json!({ "kty": "OKP", "use": "sig", "kid": kid, "crv": "Ed25519", "x": encode(key.public_key().as_ref()) })
            }
        }
    }
}

/// Half of the token's hash (OpenID Connect Core section 3.1.3.6).
fn at_hash(algorithm: SigningAlgorithm, access_token: &str) -> String {
    let hash = match algorithm {
        SigningAlgorithm::Es384 => &digest::SHA384,
        SigningAlgorithm::Rs512 | SigningAlgorithm::EdDsa => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let digest = digest::digest(hash, access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..digest.as_ref().len() / 2])
}
