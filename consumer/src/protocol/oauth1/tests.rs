use std::collections::{HashMap, HashSet};

use super::*;
use crate::config::oauth1::SignatureMethod;
use crate::protocol::oauth1::authorization_url;
use crate::protocol::registered::Registered;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

fn client(method: SignatureMethod, key: &str, secret: &str) -> Client {
    try_client(method, key, secret).unwrap()
}

fn try_client(method: SignatureMethod, key: &str, secret: &str) -> Result<Client, ConfigError> {
    let oauth1 = OAuth1 {
        temporary_credentials_endpoint: "https://photos.example.net/initiate".to_owned(),
        signature_method: method,
        realm: Some("Photos".to_owned()),
    };
    Client::check("photos", &oauth1, key, Some(&secret.into()), &PlainHttp::default())
}

/// The client of RFC 5849 section 1.2.
fn printer(method: SignatureMethod) -> Client {
    client(method, "dpf43f3p2l4k3l03", "kd94hf93k423kf44")
}

fn signature(client: &Client, method: &Method, url: &str, own: &[(&'static str, &str)], token_secret: &str) -> String {
    let key =
        [("oauth_consumer_key", client.key.as_str()), ("oauth_signature_method", client.signer.method().as_str())];
    let own: Vec<_> = key.iter().chain(own).copied().collect();
    client.signature(method, &Url::parse(url).unwrap(), b"", &own, token_secret).unwrap()
}

/// The parameters of a header, decoded.
fn parameters(header: &HeaderValue) -> HashMap<String, String> {
    let text = header.to_str().unwrap().strip_prefix("OAuth ").unwrap();
    let pairs = text.split(", ").map(|pair| pair.split_once('=').unwrap());
    let decoded = pairs.map(|(name, value)| {
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        (name.to_owned(), percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned())
    });
    decoded.collect()
}

fn signed(client: &Client, request: reqwest::RequestBuilder) -> Result<HashMap<String, String>, ApiError> {
    let token = OAuth1Token::new("nnch734d00sl2jdk", "pfkkdhi9sl3r4s00");
    let request = client.sign(request.build().unwrap(), &token, NOW)?;
    let header = &request.headers()[header::AUTHORIZATION];
    assert!(header.is_sensitive() && request.headers().get_all(header::AUTHORIZATION).iter().count() == 1);
    Ok(parameters(header))
}

/// The signature that [`signed`] must have computed, with these parameters of the request.
fn expected(client: &Client, method: &Method, url: &str, form: &[u8], signed: &HashMap<String, String>) -> String {
    let own = [
        "oauth_consumer_key",
        "oauth_signature_method",
        "oauth_timestamp",
        "oauth_nonce",
        "oauth_version",
        "oauth_token",
    ];
    let own: Vec<_> = own.into_iter().map(|name| (name, signed[name].as_str())).collect();
    client.signature(method, &Url::parse(url).unwrap(), form, &own, "pfkkdhi9sl3r4s00").unwrap()
}

/// Section 1.2, the three requests.
#[test]
fn signatures_equal_those_of_the_rfc() {
    let printer = printer(SignatureMethod::HmacSha1);
    let initiate = [
        ("oauth_timestamp", "137131200"),
        ("oauth_nonce", "wIjqoS"),
        ("oauth_callback", "http://printer.example.com/ready"),
    ];
    let found = signature(&printer, &Method::POST, "https://photos.example.net/initiate", &initiate, "");
    assert_eq!(found, "74KNZJeDHnMBp0EMJ9ZHt/XKycU=");
    let token = [
        ("oauth_token", "hh5s93j4hdidpola"),
        ("oauth_timestamp", "137131201"),
        ("oauth_nonce", "walatlh"),
        ("oauth_verifier", "hfdp7dh39dks9884"),
    ];
    let found = signature(&printer, &Method::POST, "https://photos.example.net/token", &token, "hdhd0244k9j7ao03");
    assert_eq!(found, "gKgrFCywp7rO0OXSjdot/IHF7IU=");
    assert_eq!(photo(&printer), "MdpQcU8iPSUjWoN/UDMsK2sui9I=");
}

fn photo(client: &Client) -> String {
    let own = [("oauth_token", "nnch734d00sl2jdk"), ("oauth_timestamp", "137131202"), ("oauth_nonce", "chapoH")];
    let url = "http://photos.example.net/photos?file=vacation.jpg&size=original";
    signature(client, &Method::GET, url, &own, "pfkkdhi9sl3r4s00")
}

/// Section 3.4.1.1 with the signature of erratum 2550.
#[test]
fn the_signature_of_a_form_equals_that_of_the_rfc() {
    let client = client(SignatureMethod::HmacSha1, "9djdj82h48djs9d2", "j49sk3j29djd");
    let url = Url::parse("http://example.com/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b").unwrap();
    let own = [
        ("oauth_consumer_key", "9djdj82h48djs9d2"),
        ("oauth_token", "kkk9d7dh3k39sjv7"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131201"),
        ("oauth_nonce", "7d8f3e4a"),
    ];
    let found = client.signature(&Method::POST, &url, b"c2&a3=2+q", &own, "dh893hdasih9").unwrap();
    assert_eq!(found, "r6/TJjbCOr97/+UU0NsvSne7s5g=");
}

/// The third request of section 1.2 with the other methods; oauthlib 4.0.1 computed the values.
#[test]
fn other_methods_sign_as_other_libraries_do() {
    let sha256 = photo(&printer(SignatureMethod::HmacSha256));
    assert_eq!(sha256, "HtMwoX2zenlFjgGg/SNEoKEQmL7CzxYFEKzs7er044Y=");
    let odd = client(SignatureMethod::Plaintext, "key", "a&b %+\u{fc}");
    assert_eq!(signature(&odd, &Method::GET, "https://a.example", &[], "s/~"), "a%26b%20%25%2B%C3%BC&s%2F~");
    assert_eq!(signature(&odd, &Method::GET, "https://a.example", &[], ""), "a%26b%20%25%2B%C3%BC&");
}

#[cfg(feature = "rsa-sha1")]
#[test]
fn rsa_signs_with_a_key_in_either_format() {
    let sha1 = "MFlw1OajRkt48XByZ6XHBElBPTztOMyj1oXcUoSR2w0bGOS9EeaZKB2x2/36FP6SOTCycSCNBijOmb2Z30zNRYEjXvkMKnEKlCWdzp/\
                G1DbvlikfPli48vMqBqNbahrD8kekX9rgYoMqllLGlzTgNK1lroD0RCZUaVjTLj2qQss=";
    let sha256 = "tCfZduZZ77jaVvI9mingM9VOI0H4tvXDttmkggQNbzJ6KlUfca3lut8SEmMgTANDbDKbDuPemf3b69J2bAJw0LCNPGcQ52sI+8Vz70fX\
                  omgSxQf/9nykJHJDfocgPoKwM5zcjDGiCxXCsCY8aZxHv1OAZDwWvovSl1eCICF+YY0=";
    for pem in [include_str!("test_keys/pkcs8.pem"), include_str!("test_keys/pkcs1.pem")] {
        for (method, signature) in [(SignatureMethod::RsaSha1, sha1), (SignatureMethod::RsaSha256, sha256)] {
            let client = client(method, "dpf43f3p2l4k3l03", pem);
            assert_eq!(photo(&client), signature, "{method:?}");
            let middle = &pem[100..140];
            assert!(!format!("{client:?}").contains(middle));
        }
    }
    for wrong in ["secret", "", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        let error = try_client(SignatureMethod::RsaSha256, "key", wrong).unwrap_err().to_string();
        assert!(error.starts_with("provider photos: client_secret is not an RSA private key"), "{error}");
    }
}

#[cfg(not(feature = "rsa-sha1"))]
#[test]
fn rsa_needs_its_feature() {
    for method in [SignatureMethod::RsaSha1, SignatureMethod::RsaSha256] {
        let error = try_client(method, "key", "secret").unwrap_err().to_string();
        assert!(error.contains("feature `rsa-sha1`"), "{error}");
    }
}

#[test]
fn queries_and_forms_are_signed_as_they_are_sent() {
    let http = reqwest::Client::new();
    let client = printer(SignatureMethod::HmacSha1);
    let odd = [("b", "2"), ("a", "1"), ("a", ""), ("a", "1"), ("\u{fc} +", "'()*!~%&="), ("", "x")];
    let url = "https://photos.example.net/photos?file=a%20b%2Bc";

    let request = http.get(url).query(&odd);
    let sent = request.try_clone().unwrap().build().unwrap().url().clone();
    let found = signed(&client, request).unwrap();
    let by_hand = client.signature(&Method::GET, &sent, b"", &[], "").unwrap();
    assert_ne!(found["oauth_signature"], by_hand);
    assert_eq!(found["oauth_signature"], expected(&client, &Method::GET, sent.as_str(), b"", &found));
    assert_eq!((found["realm"].as_str(), found["oauth_version"].as_str()), ("Photos", "1.0"));
    assert_eq!(found["oauth_timestamp"], "1700000000");

    let form = http.post(url).form(&odd);
    let body = form.try_clone().unwrap().build().unwrap().body().unwrap().as_bytes().unwrap().to_vec();
    let found = signed(&client, form).unwrap();
    assert_eq!(found["oauth_signature"], expected(&client, &Method::POST, url, &body, &found));
    assert_ne!(found["oauth_signature"], expected(&client, &Method::POST, url, b"", &found), "the form counts");

    for (kind, counts) in [
        ("Application/X-WWW-Form-URLencoded; charset=UTF-8", true),
        ("application/json", false),
        ("text/plain", false),
        ("application/x-www-form-urlencoded-not", false),
    ] {
        let request = http.put(url).header(header::CONTENT_TYPE, kind).body("a=1");
        let found = signed(&client, request).unwrap();
        let form: &[u8] = if counts { b"a=1" } else { b"" };
        assert_eq!(found["oauth_signature"], expected(&client, &Method::PUT, url, form, &found), "{kind}");
    }
    let json = signed(&client, http.post(url).json(&odd)).unwrap();
    assert_eq!(json["oauth_signature"], expected(&client, &Method::POST, url, b"", &json));
}

#[test]
fn requests_cannot_set_parameters_of_the_protocol() {
    let http = reqwest::Client::new();
    let client = printer(SignatureMethod::HmacSha1);
    for request in [
        http.get("https://photos.example.net/?oauth_token=other"),
        http.get("https://photos.example.net/").query(&[("oauth_signature", "x")]),
        http.post("https://photos.example.net/").form(&[("oauth_nonce", "x")]),
    ] {
        assert!(matches!(signed(&client, request), Err(ApiError::Request(_))));
    }
}

#[test]
fn every_request_has_its_own_nonce() {
    let (http, client) = (reqwest::Client::new(), printer(SignatureMethod::HmacSha1));
    let nonce = || signed(&client, http.get("https://photos.example.net/")).unwrap().remove("oauth_nonce").unwrap();
    let nonces: HashSet<String> = (0..1000).map(|_| nonce()).collect();
    assert_eq!(nonces.len(), 1000);
    assert!(nonces.iter().all(|nonce| nonce.len() == 30 && nonce.chars().all(|c| c.is_ascii_alphanumeric())));
}

type Change<'a> = &'a dyn Fn(&mut crate::Provider);

#[test]
fn a_configuration_is_checked() {
    let plain = |change: Change<'_>| {
        let mut provider = crate::Provider::oauth1(
            "photos",
            "https://photos.example.net/initiate",
            "https://photos.example.net/authorize?lang=en&oauth_token=evil",
            "https://photos.example.net/token",
        );
        change(&mut provider);
        Registered::check(provider.client("key", "S3CRET"))
    };
    let registered = plain(&|_| {}).unwrap();
    assert!(!format!("{registered:?}").contains("S3CRET"));
    let params = [("perms".to_owned(), "read write".to_owned()), ("lang".to_owned(), "de".to_owned())];
    let url = authorization_url(registered.authorization_endpoint(), &"a&b".into(), params);
    assert_eq!(url.as_str(), "https://photos.example.net/authorize?perms=read+write&lang=de&oauth_token=a%26b");

    let oauth1 =
        |provider: &mut crate::Provider, change: &dyn Fn(&mut OAuth1)| change(provider.oauth1.as_mut().unwrap());
    let wrong: [(&str, Change<'_>); 8] = [
        ("temporary_credentials_endpoint", &|p| {
            oauth1(p, &|oauth1| oauth1.temporary_credentials_endpoint = "http://photos.example.net/".to_owned());
        }),
        ("realm", &|p| oauth1(p, &|oauth1| oauth1.realm = Some("a\"b".to_owned()))),
        ("scopes", &|p| p.scopes = vec!["read".to_owned()]),
        ("issuer", &|p| p.issuer = Some("https://photos.example.net".to_owned())),
        ("revocation_endpoint", &|p| p.revocation_endpoint = Some("https://photos.example.net/revoke".to_owned())),
        ("quirks", &|p| p.quirks.without_pkce = true),
        ("authorization_params", &|p| drop(p.authorization_params.insert("oauth_callback".to_owned(), "x".to_owned()))),
        // PLAINTEXT sends the secrets themselves.
        ("token_endpoint", &|p| {
            p.token_endpoint = "http://photos.example.net/token".to_owned();
            oauth1(p, &|oauth1| oauth1.signature_method = SignatureMethod::Plaintext);
        }),
    ];
    for (field, change) in wrong {
        let error = plain(change).unwrap_err().to_string();
        assert!(error.starts_with(&format!("provider photos: {field} ")), "{error}");
    }
    let public = crate::Provider::oauth1("photos", "https://a.example", "https://a.example", "https://a.example");
    assert!(Registered::check(public.public_client("key")).is_err(), "no secret to sign with");
}
