//! A provider configured by its issuer alone: metadata and keys, also of a malicious, failing or hanging issuer.

use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{CLIENT, Endpoint, IdTokenSignature, ScriptedResponse, TestProvider};
use oauth_dance::{ConfigError, KeyRing, MemoryStorage, OAuth, Provider, User};
use serde_json::{Value, json};

use crate::support::{Browser, Ear, Notes, Site, openid_site, openid_site_with, with_parameter};

/// The pause after a failed fetch.
const PAUSE: Duration = Duration::from_secs(5);

/// Starts a login, and returns its error.
async fn start(site: &Site, notes: &Notes) -> Result<(), String> {
    let page = Browser::of(site).get("/login/acme").await;
    match notes.failure() {
        None => {
            assert_eq!(page.status, StatusCode::SEE_OTHER);
            Ok(())
        }
        Some(failure) => {
            assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{page:?}");
            assert!(page.set_cookies().is_empty());
            Err(failure)
        }
    }
}

/// The result of a login with this response for the issuer's metadata.
async fn start_with(metadata: ScriptedResponse) -> Result<(), String> {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site_with(&provider, |_| {}, |b| b.timeout(Duration::from_millis(300))).await;
    provider.next_response(Endpoint::Metadata, metadata);
    let since = Instant::now();
    let outcome = start(&site, &notes).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    outcome
}

#[tokio::test]
async fn ar_18_metadata_must_be_of_exactly_the_issuer() {
    let provider = TestProvider::start().await.unwrap();
    for other in [
        json!("https://issuer.example"),
        json!(format!("{}/", provider.url())),
        json!(provider.url().to_uppercase()),
        json!(""),
        json!(7),
        Value::Null,
    ] {
        let (site, notes) = openid_site(&provider).await;
        provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().member("issuer", other.clone()));
        assert_eq!(start(&site, &notes).await, Err("Discovery".to_owned()), "{other}");
    }
    assert_eq!(start_with(ScriptedResponse::normal()).await, Ok(()));
}

#[tokio::test]
async fn ar_18_metadata_is_fetched_once_a_day() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    assert!(provider.requests().is_empty(), "nothing is fetched before it is needed");
    let alice = Browser::signed_in(&site, "alice");
    for _ in 0..5 {
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    }
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 1);
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 1);
    // A day later, the endpoints may have moved.
    site.clock.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 2);
}

#[tokio::test]
async fn ar_17_endpoints_of_metadata_must_be_https_too() {
    for endpoint in ["authorization_endpoint", "token_endpoint"] {
        for bad in ["javascript:alert(1)", "http://10.0.0.1/x", "file:///etc/passwd", "//x.example", "", "/authorize"] {
            let outcome = start_with(ScriptedResponse::normal().member(endpoint, bad)).await;
            assert_eq!(outcome, Err("Discovery".to_owned()), "{endpoint}: {bad}");
        }
    }
    for required in ["authorization_endpoint", "token_endpoint"] {
        assert_eq!(
            start_with(ScriptedResponse::normal().without(required)).await,
            Err("Discovery".to_owned()),
            "{required}"
        );
    }
    assert_eq!(start_with(ScriptedResponse::normal().without("userinfo_endpoint")).await, Ok(()));
}

/// Unusable metadata is not cached for a day.
#[tokio::test]
async fn ar_17_corrected_metadata_is_used_soon() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    provider.next_response(
        Endpoint::Metadata,
        ScriptedResponse::normal().member("token_endpoint", "http://10.0.0.1/token"),
    );
    assert_eq!(start(&site, &notes).await, Err("Discovery".to_owned()));
    site.clock.advance(PAUSE);
    assert_eq!(start(&site, &notes).await, Ok(()));
}

#[tokio::test]
async fn ar_17_an_issuer_must_be_https_too() {
    let build = |provider: Provider| {
        OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
            .provider(provider.client("id", "secret"))
            .anonymous_users()
            .build()
    };
    for bad in ["http://issuer.example", "issuer.example", "javascript:x", "", "https://i.example?x=y", "https://i/#x"]
    {
        let error = build(Provider::openid("acme", bad)).unwrap_err();
        assert!(matches!(error, ConfigError::Invalid { .. }), "{bad}: {error}");
    }
    assert!(build(Provider::openid("acme", "https://issuer.example/tenant/")).is_ok());
    let family = Provider::openid("acme", "https://issuer.example/{tenantid}");
    assert!(build(family).unwrap_err().to_string().contains("metadata_url"));
}

#[tokio::test]
async fn ar_05_metadata_cannot_disable_pkce() {
    let challenges = |methods: Value| ScriptedResponse::normal().member("code_challenge_methods_supported", methods);
    assert_eq!(start_with(challenges(json!(["plain"]))).await, Err("Discovery".to_owned()));
    assert_eq!(start_with(challenges(json!([]))).await, Ok(()), "it says nothing");
    assert_eq!(start_with(challenges(json!(["plain", "S256"]))).await, Ok(()));
    assert_eq!(start_with(ScriptedResponse::normal().without("code_challenge_methods_supported")).await, Ok(()));
}

#[tokio::test]
async fn ar_15_requests_are_pushed_if_metadata_requires_it() {
    let provider = TestProvider::start().await.unwrap();
    for required in [false, true] {
        provider.configure(|settings| settings.requires_pushed_requests = required);
        let (site, notes) = openid_site(&provider).await;
        let alice = Browser::signed_in(&site, "alice");
        let authorization = alice.start("acme").await;
        assert_eq!(authorization.query_pairs().any(|(name, _)| name == "request_uri"), required);
        let callback = alice.approve(&authorization).await;
        assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
        assert_eq!(notes.identity().unwrap().subject, "test-user", "the nonce was pushed too");
    }
}

#[tokio::test]
async fn cb_10_an_announced_iss_parameter_is_required() {
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| settings.issuer_parameter = true);
    let (site, notes) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = with_parameter(&alice.stopped_at_callback("acme").await, "iss", None);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(notes.failure().as_deref(), Some("IssuerMismatch"));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn tr_02_the_client_authenticates_as_metadata_says() {
    let methods = |methods: Value| ScriptedResponse::normal().member("token_endpoint_auth_methods_supported", methods);
    for (response, basic) in [
        (ScriptedResponse::normal(), true),
        (ScriptedResponse::normal().without("token_endpoint_auth_methods_supported"), true),
        (methods(json!(["client_secret_post"])), false),
        (methods(json!(["client_secret_post", "client_secret_basic"])), true),
    ] {
        let provider = TestProvider::start().await.unwrap();
        let (site, _) = openid_site(&provider).await;
        provider.next_response(Endpoint::Metadata, response);
        assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
        let sent = provider.requests_to(Endpoint::Token).remove(0);
        assert_eq!((sent.header("authorization").is_some(), sent.field("client_secret").is_none()), (basic, basic));
    }
}

#[tokio::test]
async fn tr_04_redirects_of_metadata_and_keys_are_not_followed() {
    let ear = Ear::listen().await;
    for status in [301, 302, 307, 308] {
        assert_eq!(
            start_with(ScriptedResponse::redirect(status, &ear.url)).await,
            Err("Discovery".to_owned()),
            "{status}"
        );
        let provider = TestProvider::start().await.unwrap();
        let (site, notes) = openid_site(&provider).await;
        provider.next_response(Endpoint::Keys, ScriptedResponse::redirect(status, &ear.url));
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!((page.status, notes.failure().as_deref()), (StatusCode::BAD_GATEWAY, Some("Discovery")));
    }
    assert_eq!(ear.connections(), 0);
}

#[tokio::test]
async fn ft_01_to_07_invalid_metadata_is_a_typed_error() {
    for response in [
        ScriptedResponse::status(500).body("<html>"),
        ScriptedResponse::status(404),
        ScriptedResponse::status(204),
        ScriptedResponse::normal().body("<html>"),
        ScriptedResponse::normal().body(""),
        ScriptedResponse::normal().body("null"),
        ScriptedResponse::normal().body("[]"),
        ScriptedResponse::normal().map_body(|body| body[..body.len() / 2].to_vec()),
        ScriptedResponse::normal().body(b"\xff".to_vec()),
        ScriptedResponse::normal().body("[".repeat(100_000)),
        ScriptedResponse::huge(64 * 1024 * 1024),
        ScriptedResponse::endless(),
        ScriptedResponse::normal().hanging(),
        ScriptedResponse::normal().dripping(Duration::from_millis(50)),
        ScriptedResponse::normal().truncated(),
        ScriptedResponse::closed(),
        ScriptedResponse::normal().lost(),
    ] {
        let name = format!("{response:?}");
        assert_eq!(start_with(response).await, Err("Discovery".to_owned()), "{name}");
    }
    assert_eq!(start_with(ScriptedResponse::normal().after(Duration::from_millis(100))).await, Ok(()));
    assert_eq!(start_with(ScriptedResponse::normal().member("more", json!({ "x": [1] }))).await, Ok(()));
}

#[tokio::test]
async fn ft_01_to_07_invalid_keys_are_a_typed_error() {
    for response in [
        ScriptedResponse::status(500).body("<html>"),
        ScriptedResponse::normal().body("{}"),
        ScriptedResponse::normal().body("null"),
        ScriptedResponse::huge(64 * 1024 * 1024),
        ScriptedResponse::endless(),
        ScriptedResponse::normal().hanging(),
        ScriptedResponse::normal().lost(),
    ] {
        let provider = TestProvider::start().await.unwrap();
        let (site, notes) = openid_site_with(&provider, |_| {}, |b| b.timeout(Duration::from_millis(300))).await;
        let name = format!("{response:?}");
        provider.next_response(Endpoint::Keys, response);
        let alice = Browser::signed_in(&site, "alice");
        let callback = alice.stopped_at_callback("acme").await;
        let page = alice.get(callback.as_str()).await;
        assert_eq!((page.status, notes.failure().as_deref()), (StatusCode::BAD_GATEWAY, Some("Discovery")), "{name}");
        assert!(provider.requests_to(Endpoint::Token).is_empty(), "{name}: the code is not spent");
        site.clock.advance(PAUSE);
        let page = alice.get(callback.as_str()).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{name}: the very same callback works later");
        assert!(provider.bytes_streamed() < 4 * 1024 * 1024, "{name}");
    }
}

#[tokio::test]
async fn ft_15_an_issuer_may_be_unavailable_at_start() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site_with(
        &provider,
        |known| known.api_base = Some(format!("{}/api", provider.url())),
        |builder| builder,
    )
    .await;
    for _ in 0..3 {
        provider.next_response(Endpoint::Metadata, ScriptedResponse::closed());
    }
    assert_eq!(start(&site, &notes).await, Err("Discovery".to_owned()));
    // A user with a token can call the API.
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let client = site.oauth.client("acme", &alice).await.unwrap();
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::OK);

    for _ in 0..100 {
        assert!(start(&site, &notes).await.is_err());
    }
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 1, "it is left alone for a while");
    site.clock.advance(PAUSE);
    assert!(start(&site, &notes).await.is_err());
    site.clock.advance(PAUSE);
    assert!(start(&site, &notes).await.is_err());
    site.clock.advance(PAUSE);
    assert_eq!(start(&site, &notes).await, Ok(()), "it came up");
    let page = Browser::signed_in(&site, "alice").login("acme").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert_eq!(notes.identity().unwrap().subject, "test-user");
}

#[tokio::test]
async fn ft_15_cached_documents_bridge_an_issuer_s_outage() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    for _ in 0..2 {
        provider.next_response(Endpoint::Metadata, ScriptedResponse::status(503));
        provider.next_response(Endpoint::Keys, ScriptedResponse::status(503));
    }
    site.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "what was there is good enough");
}

#[tokio::test]
async fn id_05_new_keys_are_used_without_a_restart() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    provider.rotate_keys();
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "{:?}", notes.failure());
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 2);
    site.clock.advance(Duration::from_secs(60));
    provider.rotate_keys();
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 3);
}

#[tokio::test]
async fn id_05_unknown_keys_cause_few_fetches() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    for number in 0..100 {
        provider.next_id_token(move |id_token| {
            id_token.header.insert("kid".to_owned(), format!("random-{number}").into());
            id_token.signature = IdTokenSignature::UnknownKey;
        });
        let page = alice.login("acme").await;
        assert_eq!((page.status, notes.failure().as_deref()), (StatusCode::BAD_GATEWAY, Some("UnknownKey")));
    }
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 2);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn id_05_a_withdrawn_key_is_rejected_within_an_hour() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    Browser::signed_in(&site, "alice").login("acme").await;
    site.clock.advance(Duration::from_secs(60 * 60));
    Browser::signed_in(&site, "alice").login("acme").await;
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 2);
}

#[tokio::test]
async fn ds_04_all_waiting_callers_share_one_fetch() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().after(Duration::from_millis(200)));
    let (one, two, three) = tokio::join!(start(&site, &notes), start(&site, &notes), start(&site, &notes));
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 1);
}

/// A user with a token does not wait for an issuer that never responds.
#[tokio::test]
async fn ds_04_a_hanging_issuer_does_not_block_api_calls() {
    let provider = TestProvider::start().await.unwrap();
    let change = |known: &mut Provider| known.api_base = Some(format!("{}/api", provider.url()));
    let (site, _) = openid_site_with(&provider, change, |b| b.timeout(Duration::from_secs(20))).await;
    for _ in 0..3 {
        provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().hanging());
    }
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let since = Instant::now();
    let client = site.oauth.client("acme", &alice).await.unwrap();
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::OK);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test]
async fn configured_endpoints_are_not_discovered() {
    let (provider, other) = (TestProvider::start().await.unwrap(), TestProvider::start().await.unwrap());
    let change = |known: &mut Provider| known.authorization_endpoint = format!("{}/authorize", other.url());
    let (site, _) = openid_site_with(&provider, change, |builder| builder).await;
    let authorization = Browser::of(&site).start("acme").await;
    assert!(authorization.as_str().starts_with(other.url()));

    // If all endpoints are configured, metadata is needed only for the keys.
    let mut known = provider.provider("acme").with_scopes(["openid"]);
    known.revocation_endpoint = None;
    let registration = known.client(CLIENT.0, CLIENT.1);
    let site = crate::support::Setup::default().start(|builder| builder.provider(registration)).await;
    provider.clear_requests();
    Browser::of(&site).start("acme").await;
    assert!(provider.requests().is_empty());
}
