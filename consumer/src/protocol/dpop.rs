//! Tokens that are bound to a key, and proofs of possession of that key (RFC 9449).
//!
//! Each login has its own key, of the curve P-256, which every server that supports DPoP accepts (ES256). The private key is
//! stored with the token, sealed, because each process of the application must be able to use the token. A thief of the
//! token alone, for example from a log of the API, cannot use it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, Method};
use oauth_dance_core::{DpopKey, Secret, Timestamp, random_bytes};
use serde_json::{Map, Value, json};
use url::Url;
use zeroize::Zeroizing;

const COORDINATE: usize = 32;
/// The bytes before and after a private key of P-256 in an `ECPrivateKey` (RFC 5915 section 3): a sequence of the version 1,
/// the key in an octet string, and the name of the curve.
const DER_BEFORE: [u8; 7] = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
const DER_AFTER: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The header of a proof (RFC 9449 section 4.1).
pub(crate) const PROOF: HeaderName = HeaderName::from_static("dpop");
/// The key that proves a request.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) key: &'a DpopKey,
    /// The token in the request, which the proof is then bound to as well.
    pub(crate) access_token: Option<&'a Secret>,
}

/// The content of a proof (RFC 9449 section 4.2).
pub(crate) struct Claims<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) access_token: Option<&'a Secret>,
    pub(crate) nonce: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// A key that creates proofs.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    x: String,
    y: String,
}

impl Signer {
    pub(crate) fn of(key: &DpopKey) -> Option<Self> {
        let private = Zeroizing::new(URL_SAFE_NO_PAD.decode(key.expose()).ok()?);
        let der = Zeroizing::new([&DER_BEFORE[..], &private, &DER_AFTER].concat());
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok()?;
        // An uncompressed point: 4, then both coordinates (SEC 1 section 2.3.3).
        let (x, y) = pair.public_key().as_ref().strip_prefix(&[4])?.split_at_checked(COORDINATE)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        Some(Self { pair, x, y })
    }

    /// A proof for one request, with a unique identifier.
    pub(crate) fn proof(&self, claims: &Claims<'_>) -> Option<String> {
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": self.x, "y": self.y });
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        let input = format!("{}.{}", encoded(&header), encoded(&payload(claims)));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).ok()?;
        Some(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// The thumbprint of a key's public part (RFC 7638 section 3), for `dpop_jkt` and `jkt`.
pub(crate) fn thumbprint(key: &DpopKey) -> Option<String> {
    let Signer { x, y, .. } = Signer::of(key)?;
    Some(thumbprint_of(&x, &y))
}

fn thumbprint_of(x: &str, y: &str) -> String {
    hash(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))
}

fn payload(claims: &Claims<'_>) -> Value {
    let mut target = claims.url.clone();
    target.set_query(None);
    target.set_fragment(None);
    let mut members = Map::new();
    members.insert("jti".to_owned(), URL_SAFE_NO_PAD.encode(random_bytes::<16>()).into());
    members.insert("htm".to_owned(), claims.method.as_str().into());
    members.insert("htu".to_owned(), target.as_str().into());
    members.insert("iat".to_owned(), claims.now.as_unix_seconds().into());
    if let Some(access_token) = claims.access_token {
        members.insert("ath".to_owned(), hash(access_token.expose()).into());
    }
    if let Some(nonce) = claims.nonce {
        members.insert("nonce".to_owned(), nonce.into());
    }
    members.into()
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Verifier as _;
    use p256::ecdsa::{Signature, VerifyingKey};

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_562_262_616);

    fn claims<'a>(method: &'a Method, url: &'a Url) -> Claims<'a> {
        Claims { method, url, access_token: None, nonce: None, now: NOW }
    }

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    /// Header and payload of a proof, if its signature matches the key in its header. Another implementation verifies it.
    fn verified(proof: &str) -> Result<(Value, Value), p256::ecdsa::Error> {
        let (input, signature) = proof.rsplit_once('.').unwrap();
        let (header, payload) =
            input.split_once('.').map(|(header, payload)| (decoded(header), decoded(payload))).unwrap();
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(header["jwk"][name].as_str().unwrap()).unwrap();
        let point = [&[4][..], &coordinate("x"), &coordinate("y")].concat();
        let key = VerifyingKey::from_sec1_bytes(&point)?;
        key.verify(input.as_bytes(), &Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap())?)?;
        Ok((header, payload))
    }

    /// The proof of RFC 9449 section 4.1, which shows that `verified` does verify.
    #[test]
    fn the_proof_of_the_rfc_is_verified() {
        let proof = concat!(
            "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpD",
            "a0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6",
            "IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGU",
            "uY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NV",
            "Y-FNyJK70nfbV37xRZT3Lg"
        );
        let (header, payload) = verified(proof).unwrap();
        assert_eq!(header["typ"], "dpop+jwt");
        assert_eq!(payload["htu"], "https://server.example.com/token");
        let swapped = proof.replace("Y-FNyJK70nfbV37xRZT3Lg", "Y-FNyJK70nfbV37xRZT3LA");
        assert!(verified(&swapped).is_err());
    }

    #[test]
    fn a_proof_contains_only_the_public_key_that_verifies_it() {
        let url = Url::parse("https://Server.example.com:443/token?tenant=a&x#y").unwrap();
        for key in std::iter::repeat_with(DpopKey::generate).take(200) {
            let proof = Signer::of(&key).unwrap().proof(&claims(&Method::POST, &url)).unwrap();
            let (header, payload) = verified(&proof).unwrap();
            assert_eq!((&header["typ"], &header["alg"]), (&"dpop+jwt".into(), &"ES256".into()));
            let jwk = header["jwk"].as_object().unwrap();
            let mut members: Vec<_> = jwk.iter().filter(|(name, _)| !["x", "y"].contains(&name.as_str())).collect();
            members.sort_by_key(|(name, _)| name.as_str());
            assert_eq!(members, [(&"crv".to_owned(), &"P-256".into()), (&"kty".to_owned(), &"EC".into())]);

            let jti = payload["jti"].as_str().unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(jti).unwrap().len(), 16);
            let expected = json!({
                "jti": jti, "htm": "POST", "htu": "https://server.example.com/token", "iat": 1_562_262_616
            });
            assert_eq!(payload, expected);
            assert!(!proof.contains(key.expose()));
        }
    }

    /// The access token and its hash of RFC 9449 section 7.1.
    #[test]
    fn a_proof_is_bound_to_token_nonce_and_request() {
        let (key, token) = (DpopKey::generate(), Secret::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"));
        let url = Url::parse("https://resource.example.org/protectedresource").unwrap();
        let claims = Claims { access_token: Some(&token), nonce: Some("eyJ7S_zG\"."), ..claims(&Method::GET, &url) };
        let signer = Signer::of(&key).unwrap();
        let [one, two] = [(); 2].map(|()| verified(&signer.proof(&claims).unwrap()).unwrap().1);
        assert_eq!(one["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
        assert_eq!((&one["nonce"], &one["htm"]), (&"eyJ7S_zG\".".into(), &"GET".into()));
        assert_ne!(one["jti"], two["jti"]);
    }

    /// The thumbprint of the key of RFC 9449 section 4.1, as in section 6.1.
    #[test]
    fn the_thumbprint_equals_that_of_the_rfc() {
        let (x, y) = ("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA");
        assert_eq!(thumbprint_of(x, y), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    /// The key pair of RFC 6979 section A.2.5.
    #[test]
    fn the_public_key_is_derived_from_the_private_key() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let encoded = |hex: &str| URL_SAFE_NO_PAD.encode(bytes(hex));
        let key = DpopKey::parse(&encoded("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")).unwrap();
        let signer = Signer::of(&key).unwrap();
        assert_eq!(signer.x, encoded("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"));
        assert_eq!(signer.y, encoded("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"));
        assert_eq!(format!("{signer:?}"), "Signer { .. }");
    }
}
