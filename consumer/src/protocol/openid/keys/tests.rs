use serde_json::json;

use super::*;

/// RFC 7515 appendix A.2: a key, the signed text, and the signature with RS256.
const RSA: [&str; 3] = [
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs\
     D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV\
     MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZ\
     cAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-e\
     OkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
];
/// The same from appendix A.3 with ES256, with the two coordinates.
const EC: [&str; 4] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];
/// The same from RFC 8037 appendix A with EdDSA.
const ED: [&str; 3] = [
    "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
];

fn rsa() -> Value {
    json!({ "kty": "RSA", "n": RSA[0], "e": "AQAB" })
}

fn ec() -> Value {
    json!({ "kty": "EC", "crv": "P-256", "x": EC[0], "y": EC[1] })
}

fn ed() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": ED[0] })
}

fn with(mut key: Value, members: &Value) -> Value {
    key.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    key
}

/// Verifies the signature of a test vector with these keys.
fn verify(keys: &[Value], name: &str, key_id: Option<&str>, signed: &str, signature: &str) -> Result<(), String> {
    let set = KeySet::read(json!({ "keys": keys }).to_string().as_bytes()).map_err(|error| error.to_string())?;
    let signature = BASE64URL.decode(signature.replace(' ', "")).unwrap();
    let algorithm = Algorithm::named(name).ok_or("unknown algorithm")?;
    set.verify(algorithm, key_id, signed.as_bytes(), &signature).map_err(|error| format!("{error:?}"))
}

fn by_rsa(keys: &[Value], key_id: Option<&str>) -> Result<(), String> {
    verify(keys, "RS256", key_id, RSA[1], RSA[2])
}

#[test]
fn the_signatures_of_the_standards_are_verified() {
    for (key, names, signed, signature) in [
        (rsa(), &["RS256"][..], RSA[1], RSA[2]),
        (ec(), &["ES256"], EC[2], EC[3]),
        (ed(), &["EdDSA", "Ed25519"], ED[1], ED[2]),
    ] {
        for name in names {
            assert_eq!(verify(std::slice::from_ref(&key), name, None, signed, signature), Ok(()), "{name}");
            let other = &signed[1..];
            assert_eq!(
                verify(std::slice::from_ref(&key), name, None, other, signature),
                Err("Signature".to_owned()),
                "{name}"
            );
        }
    }
    // The same key with another algorithm.
    assert_eq!(verify(&[rsa()], "PS256", None, RSA[1], RSA[2]), Err("Signature".to_owned()));
    assert_eq!(verify(&[rsa()], "ES256", None, EC[2], EC[3]), Err("UnknownKey".to_owned()));
    for refused in ["none", "HS256", "RS1", "rs256", "ES256K", ""] {
        assert!(Algorithm::named(refused).is_none(), "{refused}");
    }
}

#[test]
fn an_unknown_key_does_not_affect_other_keys() {
    for other in [
        json!({ "kty": "AKP", "alg": "ML-DSA-65", "pub": "AA" }),
        json!({ "kty": "oct", "k": "AA" }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": EC[0], "y": EC[1] }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": ED[0] }),
        json!({ "kty": "RSA", "x5c": ["MIIB"] }),
        json!({ "kty": "RSA", "n": 7, "e": "AQAB" }),
        json!({ "kty": "RSA", "n": "!", "e": "AQAB" }),
        json!({ "kty": "RSA", "n": "", "e": "" }),
        json!({ "kty": 7 }),
        json!({ "kty": null, "use": [], "kid": {}, "alg": 1 }),
        json!({}),
        json!(null),
        json!("RSA"),
        with(rsa(), &json!({ "use": "enc", "alg": "RSA-OAEP" })),
    ] {
        for keys in [[other.clone(), rsa()], [rsa(), other.clone()]] {
            assert_eq!(by_rsa(&keys, None), Ok(()), "{other}");
        }
        if other["n"] != "" {
            assert!(by_rsa(std::slice::from_ref(&other), None).unwrap_err().contains("no key"), "{other}");
        }
    }
}

#[test]
fn a_key_is_read_in_the_formats_of_issuers() {
    let padded = format!("{}==", RSA[0].replace(' ', ""));
    let mut signed = vec![0];
    signed.extend(BASE64URL.decode(RSA[0].replace(' ', "")).unwrap());
    for members in [
        json!({ "n": padded }),
        json!({ "n": BASE64URL.encode(signed), "e": "AAEAAQ" }),
        json!({ "use": "sig", "alg": "RS256", "key_ops": ["verify"] }),
        json!({ "use": "signing", "alg": "RSA256" }),
        json!({ "use": null, "alg": null, "kid": 7, "x5c": "x", "x5t": [] }),
    ] {
        assert_eq!(by_rsa(&[with(rsa(), &members)], None), Ok(()), "{members}");
    }
    assert_eq!(by_rsa(&[with(rsa(), &json!({ "alg": "RS512" }))], None), Err("UnknownKey".to_owned()));

    // A coordinate with a leading zero, which some libraries omit.
    assert_eq!(Curve::P256.coordinate(&[7; 31]).unwrap(), [vec![0], vec![7; 31]].concat());
    assert_eq!(Curve::P256.coordinate(&[[0, 0].as_slice(), &[7; 31]].concat()).unwrap().len(), 32);
    assert_eq!(Curve::P256.coordinate(&[7; 33]), None);
}

#[test]
fn keys_are_found_by_identifier_or_tried() {
    let named = |key: Value, id: &str| with(key, &json!({ "kid": id }));
    let strange = BASE64URL.encode([0xc1; 256]);
    let stranger = || json!({ "kty": "RSA", "n": strange, "e": "AQAB" });
    for (keys, key_id, expected) in [
        (vec![named(stranger(), "a"), named(rsa(), "b")], Some("b"), Ok(())),
        (vec![named(stranger(), "a"), named(rsa(), "b")], None, Ok(())),
        (vec![named(stranger(), "a"), named(rsa(), "a")], Some("a"), Ok(())),
        (vec![named(ec(), "a"), named(rsa(), "a")], Some("a"), Ok(())),
        (vec![named(stranger(), "a"), rsa()], Some("b"), Ok(())),
        (vec![stranger(), rsa()], None, Ok(())),
        (vec![named(stranger(), "a"), named(rsa(), "b")], Some("a"), Err("Signature")),
        (vec![named(rsa(), "a")], Some("b"), Err("UnknownKey")),
        (vec![named(rsa(), "a")], Some("A"), Err("UnknownKey")),
    ] {
        let expected = expected.map_err(str::to_owned);
        assert_eq!(by_rsa(&keys, key_id), expected, "{key_id:?} in {keys:?}");
    }
}

#[test]
fn an_invalid_key_set_is_an_error() {
    for body in ["", "null", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#, r#"{"keys": [{}]}"#, "<html>"] {
        assert!(KeySet::read(body.as_bytes()).is_err(), "{body}");
    }
    let set = json!({ "keys": [rsa()], "more": 1 }).to_string();
    assert!(KeySet::read(format!("\u{feff}{set}").as_bytes()).is_ok());
}

#[test]
fn announced_algorithms_are_required_if_known() {
    let es256 = Algorithm::named("ES256").unwrap();
    let announced = |names: &[&str]| es256.is_among(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert!(announced(&[]) && announced(&["ES256"]) && announced(&["HS256", "none"]) && announced(&["RS256", "ES256"]));
    assert!(!announced(&["RS256"]) && !announced(&["none", "RS256"]));
}
