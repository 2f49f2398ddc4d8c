use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://issuer.example";

/// An issuer that signs any token.
struct SigningIssuer {
    pair: Ed25519KeyPair,
    keys: KeySet,
}

impl SigningIssuer {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = BASE64URL.encode(pair.public_key().as_ref());
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
        let keys = KeySet::read(set.as_bytes()).unwrap();
        Self { pair, keys }
    }

    fn sign(&self, header: &str, payload: &[u8]) -> Secret {
        let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL.encode(signature.as_ref())).into()
    }

    /// The subject of a token with this payload, or the name of the error.
    fn verify(&self, payload: &[u8], asked: IdTokenExpectations<'_>) -> Result<Identity, String> {
        self.verify_token(&self.sign(r#"{"alg":"EdDSA"}"#, payload), asked)
    }

    fn verify_token(&self, token: &Secret, asked: IdTokenExpectations<'_>) -> Result<Identity, String> {
        let expected = Expected {
            issuer: ISSUER,
            algorithms: &[],
            client_id: "client",
            access_token: &"token".into(),
            asked,
            now: Timestamp::from_unix_seconds(NOW),
        };
        let name = |error: IdTokenError| format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
        verify(token, &self.keys, &expected).map_err(name)
    }

    /// The same for valid claims, with these members (JSON text) in place of the default ones.
    fn verify_with(&self, members: &str) -> Result<Identity, String> {
        self.verify(payload(members).as_bytes(), IdTokenExpectations::default())
    }
}

/// Valid claims. Of two members with one name, the last one is used.
fn payload(members: &str) -> String {
    let exp = NOW + 600;
    format!(r#"{{"iss":"{ISSUER}","sub":"alice","aud":"client","exp":{exp},"iat":{NOW}{members}}}"#)
}

#[test]
fn invalid_values_of_unused_claims_are_ignored() {
    let issuer = SigningIssuer::new();
    let deep = format!(r#""x":{}{}"#, "[".repeat(5000), "]".repeat(5000));
    for members in [
        r#""address":["a","b"]"#,
        r#""address":"somewhere""#,
        r#""email_verified":"True""#,
        r#""email_verified":1"#,
        r#""email_verified":{}"#,
        r#""email":["a@b.example"]"#,
        r#""picture":{"data":{"url":"x"}}"#,
        r#""picture":"""#,
        r#""profile":7,"website":"none","name":{"first":"A"},"nickname":null"#,
        r#""updated_at":"2026-11-29T12:00:00.000Z""#,
        r#""updated_at":true"#,
        r#""updated_at":1e999"#,
        r#""auth_time":"yesterday""#,
        r#""auth_time":1.5"#,
        r#""auth_time":-1"#,
        r#""auth_time":{}"#,
        r#""locale":["de"],"zoneinfo":7,"birthdate":0,"gender":[]"#,
        r#""phone_number":49,"phone_number_verified":"no""#,
        r#""acr":2,"amr":"pwd","sid":{},"jti":7,"c_hash":7,"s_hash":[]"#,
        r#""nbf":"soon""#,
        r#""nonce":7"#,
        r#""azp":null,"at_hash":null,"tid":7"#,
        r#""name":"\ud800""#,
        &deep,
    ] {
        let identity = issuer.verify_with(&format!(",{members}"));
        assert_eq!(identity.map(|identity| identity.subject), Ok("alice".to_owned()), "{members}");
    }
    let latin1 = [payload("").trim_end_matches('}').as_bytes(), b",\"name\":\"M\xfcller\"}"].concat();
    assert_eq!(issuer.verify(&latin1, IdTokenExpectations::default()).unwrap().name(), Some("M\u{fffd}ller"));
    let marked = [b"\xef\xbb\xbf".as_slice(), payload("").as_bytes()].concat();
    assert!(issuer.verify(&marked, IdTokenExpectations::default()).is_ok());
}

#[test]
fn verified_claims_are_parsed_strictly() {
    let issuer = SigningIssuer::new();
    for (members, expected) in [
        (r#""iss":7"#, Err("Malformed")),
        (r#""iss":null"#, Err("Malformed")),
        (r#""iss":"https://issuer.example/""#, Err("Issuer")),
        (r#""aud":null"#, Err("Malformed")),
        (r#""aud":7"#, Err("Audience")),
        (r#""aud":{}"#, Err("Audience")),
        (r#""aud":[]"#, Err("Audience")),
        (r#""aud":["client"]"#, Ok("alice")),
        (r#""aud":["client",7]"#, Ok("alice")),
        (r#""aud":[7,"another"]"#, Err("Audience")),
        (r#""aud":["other","client"],"azp":"client""#, Ok("alice")),
        (r#""aud":["other","client"],"azp":"other""#, Err("Audience")),
        (r#""aud":["other"],"azp":"client""#, Err("Audience")),
        (r#""azp":["client"]"#, Err("Audience")),
        (r#""sub":"""#, Err("Subject")),
        (r#""sub":null"#, Err("Malformed")),
        (r#""sub":true"#, Err("Malformed")),
        (r#""sub":["alice"]"#, Err("Malformed")),
        (r#""sub":1.5"#, Err("Malformed")),
        (r#""sub":12345"#, Ok("12345")),
        (r#""exp":null"#, Err("Malformed")),
        (r#""exp":"never""#, Err("Malformed")),
        (r#""exp":1e999"#, Err("Malformed")),
        (r#""exp":-1"#, Err("Expired")),
        (r#""exp":1700000000.5"#, Ok("alice")),
        (r#""exp":"1700000600""#, Ok("alice")),
        (r#""exp":1e300"#, Ok("alice")),
        (r#""iat":"now""#, Err("Malformed")),
        (r#""iat":1e300"#, Err("IssuedInFuture")),
        (r#""nbf":1700000061"#, Err("IssuedInFuture")),
        (r#""nbf":1700000060"#, Ok("alice")),
        (r#""at_hash":7"#, Err("AccessTokenHash")),
        (r#""at_hash":"""#, Err("AccessTokenHash")),
    ] {
        let subject = issuer.verify_with(&format!(",{members}")).map(|identity| identity.subject);
        assert_eq!(subject.as_deref().map_err(String::as_str), expected, "{members}");
    }
    // Two subjects that differ in bytes which are not UTF-8 would become one.
    let unclear = [payload("").trim_end_matches('}').as_bytes(), b",\"sub\":\"M\xfcller\"}"].concat();
    assert_eq!(issuer.verify(&unclear, IdTokenExpectations::default()), Err("Malformed".to_owned()));
}

#[test]
fn the_sign_in_must_be_within_max_age() {
    let issuer = SigningIssuer::new();
    let asked = IdTokenExpectations { signed_in_since: Some(NOW - 300), ..IdTokenExpectations::default() };
    for (members, expected) in [
        ("", Err("SignInTime")),
        (r#","auth_time":null"#, Err("SignInTime")),
        (r#","auth_time":"yesterday""#, Err("SignInTime")),
        (r#","auth_time":{}"#, Err("SignInTime")),
        (r#","auth_time":0"#, Err("SignInTime")),
        (r#","auth_time":1699999639"#, Err("SignInTime")),
        (r#","auth_time":1699999640"#, Ok(())),
        (r#","auth_time":1700000000.9"#, Ok(())),
        (r#","auth_time":"1700000000""#, Ok(())),
    ] {
        let verified = issuer.verify(payload(members).as_bytes(), asked).map(drop);
        assert_eq!(verified.as_ref().copied().map_err(String::as_str), expected, "{members}");
    }
}

#[test]
fn unused_header_parameters_are_ignored() {
    let issuer = SigningIssuer::new();
    for (header, expected) in [
        (r#"{"alg":"EdDSA","typ":7,"cty":[],"jwk":{},"x5c":"x","kid":{},"x5t":null,"more":1e999}"#, Ok(())),
        (r#"{"alg":"Ed25519"}"#, Ok(())),
        (r#"{"alg":"eddsa"}"#, Err("Algorithm")),
        (r#"{"alg":"none"}"#, Err("Algorithm")),
        (r#"{"alg":"HS256"}"#, Err("Algorithm")),
        (r#"{"alg":7}"#, Err("Malformed")),
        (r#"{"alg":"EdDSA","crit":["x"]}"#, Err("Malformed")),
        ("{}", Err("Malformed")),
        ("[]", Err("Malformed")),
    ] {
        let token = issuer.sign(header, payload("").as_bytes());
        let verified = issuer.verify_token(&token, IdTokenExpectations::default()).map(drop);
        assert_eq!(verified.as_ref().copied().map_err(String::as_str), expected, "{header}");
    }
    // Some libraries add padding that should not be there.
    let payload = base64::engine::general_purpose::URL_SAFE.encode(payload(""));
    let signed = format!("{}.{payload}", BASE64URL.encode(r#"{"alg":"EdDSA"}"#));
    let signature = BASE64URL.encode(issuer.pair.sign(signed.as_bytes()));
    let token = format!("{signed}.{signature}").into();
    assert!(issuer.verify_token(&token, IdTokenExpectations::default()).is_ok());
}

#[test]
fn the_error_names_the_found_and_the_expected_issuer() {
    let issuer = SigningIssuer::new();
    let token = issuer.sign(r#"{"alg":"EdDSA"}"#, payload(r#","iss":"https://issuer.example/\u0007""#).as_bytes());
    let expected = Expected {
        issuer: ISSUER,
        algorithms: &[],
        client_id: "client",
        access_token: &"token".into(),
        asked: IdTokenExpectations::default(),
        now: Timestamp::from_unix_seconds(NOW),
    };
    let message = verify(&token, &issuer.keys, &expected).unwrap_err().to_string();
    assert!(
        message.contains("\"https://issuer.example/?\"") && message.contains("\"https://issuer.example\""),
        "{message}"
    );
}
