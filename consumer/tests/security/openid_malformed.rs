//! Issuers with malformed metadata and keys that are not needed: every login works.

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, SigningAlgorithm, TestProvider};
use oauth_dance::{Revocation, User};
use serde_json::{Value, json};

use crate::support::{Browser, openid_site};

/// Logs in at an issuer whose metadata has these members, and returns the result of a disconnection.
async fn login_with_metadata(members: &[(&str, Value)]) -> Revocation {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    let metadata =
        members.iter().fold(ScriptedResponse::normal(), |response, (name, value)| response.member(name, value.clone()));
    provider.next_response(Endpoint::Metadata, metadata);
    let page = Browser::signed_in(&site, "alice").login("acme").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{members:?}: {:?}", notes.failure());
    site.oauth.disconnect("acme", &User::new("alice")).await.unwrap().revocation
}

#[tokio::test]
async fn ar_18_invalid_unused_metadata_is_ignored() {
    for bad in
        [json!(""), Value::Null, json!("http://issuer.example/x"), json!("/x"), json!("TBD"), json!(7), json!({})]
    {
        let endpoints = ["userinfo_endpoint", "end_session_endpoint", "registration_endpoint", "check_session_iframe"];
        let rest = [
            "pushed_authorization_request_endpoint",
            "require_pushed_authorization_requests",
            "authorization_response_iss_parameter_supported",
            "id_token_signing_alg_values_supported",
            "token_endpoint_auth_methods_supported",
            "revocation_endpoint_auth_methods_supported",
            "code_challenge_methods_supported",
            "response_modes_supported",
            "service_documentation",
            "scopes_supported",
            "mtls_endpoint_aliases",
        ];
        let members: Vec<_> = endpoints.iter().chain(&rest).map(|name| (*name, bad.clone())).collect();
        assert_eq!(login_with_metadata(&members).await, Revocation::Done, "{bad}");
        let revocation = [("revocation_endpoint", bad.clone())];
        assert_eq!(login_with_metadata(&revocation).await, Revocation::NotPossible, "{bad}");
    }
}

#[tokio::test]
async fn ar_18_documents_are_json_whatever_their_content_type() {
    let provider = TestProvider::start().await.unwrap();
    for content_type in ["text/html", "text/plain; charset=iso-8859-1", "application/octet-stream", ""] {
        let (site, notes) = openid_site(&provider).await;
        for endpoint in [Endpoint::Metadata, Endpoint::Keys] {
            let marked = |body: Vec<u8>| [b"\xef\xbb\xbf".to_vec(), body, b"\n".to_vec()].concat();
            provider.next_response(
                endpoint,
                ScriptedResponse::normal().header("content-type", content_type).map_body(marked),
            );
        }
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{content_type}: {:?}", notes.failure());
    }
}

#[tokio::test]
async fn a_client_authenticates_as_each_endpoint_offers() {
    for (methods, basic) in [
        (json!(["client_secret_post"]), false),
        (json!(["client_secret_basic"]), true),
        (json!(["client_secret_post", "client_secret_basic"]), true),
        (json!(["private_key_jwt"]), true),
        (Value::Null, true),
    ] {
        let provider = TestProvider::start().await.unwrap();
        let (site, _) = openid_site(&provider).await;
        let metadata = ScriptedResponse::normal().member("revocation_endpoint_auth_methods_supported", methods.clone());
        provider.next_response(Endpoint::Metadata, metadata);
        Browser::signed_in(&site, "alice").login("acme").await;
        assert!(provider.requests_to(Endpoint::Token)[0].header("authorization").is_some());
        let done = site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
        assert_eq!(done.revocation, Revocation::Done, "{methods}");
        for sent in provider.requests_to(Endpoint::Revocation) {
            let found = (sent.header("authorization").is_some(), sent.field("client_secret").is_none());
            assert_eq!(found, (basic, basic), "{methods}");
        }
    }
}

#[tokio::test]
async fn id_05_an_unknown_key_does_not_affect_other_keys() {
    let unknown = json!([
        { "kty": "AKP", "alg": "ML-DSA-65", "kid": "a", "pub": "AA" },
        { "kty": "RSA", "kid": "b", "use": "sig", "x5c": ["MIIB"] },
        { "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" },
        { "kty": "oct", "k": "AA" },
        { "kty": 7, "kid": [], "use": {} },
        {}, null, "RSA",
    ]);
    for (algorithm, change) in [
        (SigningAlgorithm::Es256, json!({})),
        (SigningAlgorithm::Rs256, json!({ "kid": null })),
        (SigningAlgorithm::Rs256, json!({ "alg": "RS256", "use": null, "key_ops": "verify" })),
    ] {
        let provider = TestProvider::start().await.unwrap();
        provider.configure(|settings| settings.id_token_algorithm = algorithm);
        let (site, notes) = openid_site(&provider).await;
        let (more, change) = (unknown.clone(), change.clone());
        provider.next_response(
            Endpoint::Keys,
            ScriptedResponse::normal().map_body(move |body| {
                let mut set: Value = serde_json::from_slice(&body).unwrap();
                set["keys"][0].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
                let good = set["keys"][0].take();
                let keys: Vec<Value> = more.as_array().unwrap().iter().cloned().chain([good]).collect();
                json!({ "keys": keys }).to_string().into_bytes()
            }),
        );
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{algorithm:?}: {:?}", notes.failure());
    }
}

/// Metadata without a URL of the keys is not cached for a day.
#[tokio::test]
async fn ar_18_metadata_without_keys_is_fetched_again() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    for _ in 0..2 {
        provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().without("jwks_uri"));
    }
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(notes.failure().as_deref(), Some("Discovery"));
    site.clock.advance(Duration::from_secs(60));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "{:?}", notes.failure());
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 3);
}

/// One login a second at an issuer that never responds: no login waits for another.
#[tokio::test]
async fn ds_04_logins_do_not_queue_for_a_hanging_issuer() {
    let provider = TestProvider::start().await.unwrap();
    let limit = Duration::from_millis(300);
    let (site, _) = crate::support::openid_site_with(&provider, |_| {}, |builder| builder.timeout(limit)).await;
    for _ in 0..10 {
        provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().hanging());
    }
    let since = std::time::Instant::now();
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let browser = Browser::of(&site);
        logins.spawn(async move { browser.get("/login/acme").await.status });
    }
    while let Some(status) = logins.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::BAD_GATEWAY);
    }
    assert!(since.elapsed() < limit * 5, "{:?}", since.elapsed());
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 1);
}

/// Some gateways compress responses although no request allows it.
#[tokio::test]
async fn compressed_metadata_and_keys_are_read() {
    let gzip = |body: Vec<u8>| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &body).unwrap();
        gzip.finish().unwrap()
    };
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    for endpoint in [Endpoint::Metadata, Endpoint::Keys] {
        provider.next_response(endpoint, ScriptedResponse::normal().map_body(gzip).header("content-encoding", "gzip"));
    }
    assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
}
