//! A provider known by its issuer alone: metadata and keys, and an issuer that lies, is down or never ends.

use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{Answer, CLIENT, Endpoint, IdTokenSignature, TestProvider};
use oauth_dance::{ConfigError, KeyRing, MemoryStorage, OAuth, Provider, User};
use serde_json::{Value, json};

use crate::support::{Browser, Ear, Notes, Site, openid_site, openid_site_with, with_parameter};

/// Between two questions to an issuer that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Starts a login, and says what went wrong.
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

/// What a login fails with where the issuer's metadata is answered like this.
async fn start_with(metadata: Answer) -> Result<(), String> {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site_with(&provider, |_| {}, |b| b.timeout(Duration::from_millis(300))).await;
    provider.next_answer(Endpoint::Metadata, metadata);
    let since = Instant::now();
    let outcome = start(&site, &notes).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    outcome
}

#[tokio::test]
async fn ar_18_metadata_is_of_the_very_issuer() {
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
        provider.next_answer(Endpoint::Metadata, Answer::normal().member("issuer", other.clone()));
        assert_eq!(start(&site, &notes).await, Err("Discovery".to_owned()), "{other}");
    }
    assert_eq!(start_with(Answer::normal()).await, Ok(()));
}

#[tokio::test]
async fn ar_18_metadata_is_not_read_again_at_each_login() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    assert!(provider.requests().is_empty(), "it is not asked before it is needed");
    let alice = Browser::signed_in(&site, "alice");
    for _ in 0..5 {
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    }
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 1);
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 1);
    // A day later it may have moved.
    site.clock.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 2);
}

#[tokio::test]
async fn ar_17_endpoints_of_metadata_must_be_https_too() {
    for endpoint in ["authorization_endpoint", "token_endpoint"] {
        for bad in ["javascript:alert(1)", "http://10.0.0.1/x", "file:///etc/passwd", "//x.example", "", "/authorize"] {
            let outcome = start_with(Answer::normal().member(endpoint, bad)).await;
            assert_eq!(outcome, Err("Discovery".to_owned()), "{endpoint}: {bad}");
        }
    }
    for required in ["authorization_endpoint", "token_endpoint"] {
        assert_eq!(start_with(Answer::normal().without(required)).await, Err("Discovery".to_owned()), "{required}");
    }
    assert_eq!(start_with(Answer::normal().without("userinfo_endpoint")).await, Ok(()));
}

/// Metadata that cannot be used is not kept for a day.
#[tokio::test]
async fn ar_17_metadata_that_is_mended_is_taken() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    provider.next_answer(Endpoint::Metadata, Answer::normal().member("token_endpoint", "http://10.0.0.1/token"));
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
async fn ar_05_pkce_is_not_given_up_for_metadata() {
    let challenges = |methods: Value| Answer::normal().member("code_challenge_methods_supported", methods);
    assert_eq!(start_with(challenges(json!(["plain"]))).await, Err("Discovery".to_owned()));
    assert_eq!(start_with(challenges(json!([]))).await, Ok(()), "it says nothing");
    assert_eq!(start_with(challenges(json!(["plain", "S256"]))).await, Ok(()));
    assert_eq!(start_with(Answer::normal().without("code_challenge_methods_supported")).await, Ok(()));
}

#[tokio::test]
async fn ar_15_requests_are_pushed_where_the_metadata_requires_it() {
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
async fn cb_10_an_issuer_that_announces_to_name_itself_has_to() {
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
async fn tr_02_the_client_authenticates_as_the_metadata_has_it() {
    let methods = |methods: Value| Answer::normal().member("token_endpoint_auth_methods_supported", methods);
    for (answer, basic) in [
        (Answer::normal(), true),
        (Answer::normal().without("token_endpoint_auth_methods_supported"), true),
        (methods(json!(["client_secret_post"])), false),
        (methods(json!(["client_secret_post", "client_secret_basic"])), true),
    ] {
        let provider = TestProvider::start().await.unwrap();
        let (site, _) = openid_site(&provider).await;
        provider.next_answer(Endpoint::Metadata, answer);
        assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
        let sent = provider.requests_to(Endpoint::Token).remove(0);
        assert_eq!((sent.header("authorization").is_some(), sent.field("client_secret").is_none()), (basic, basic));
    }
}

#[tokio::test]
async fn tr_04_redirects_of_metadata_and_keys_are_not_followed() {
    let ear = Ear::listen().await;
    for status in [301, 302, 307, 308] {
        assert_eq!(start_with(Answer::redirect(status, &ear.url)).await, Err("Discovery".to_owned()), "{status}");
        let provider = TestProvider::start().await.unwrap();
        let (site, notes) = openid_site(&provider).await;
        provider.next_answer(Endpoint::Keys, Answer::redirect(status, &ear.url));
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!((page.status, notes.failure().as_deref()), (StatusCode::BAD_GATEWAY, Some("Discovery")));
    }
    assert_eq!(ear.connections(), 0);
}

#[tokio::test]
async fn ft_01_to_07_whatever_metadata_may_be() {
    for answer in [
        Answer::status(500).body("<html>"),
        Answer::status(404),
        Answer::status(204),
        Answer::normal().body("<html>"),
        Answer::normal().body(""),
        Answer::normal().body("null"),
        Answer::normal().body("[]"),
        Answer::normal().map_body(|body| body[..body.len() / 2].to_vec()),
        Answer::normal().body(b"\xff".to_vec()),
        Answer::normal().body("[".repeat(100_000)),
        Answer::huge(64 * 1024 * 1024),
        Answer::endless(),
        Answer::normal().hanging(),
        Answer::normal().dripping(Duration::from_millis(50)),
        Answer::normal().cut_short(),
        Answer::closed(),
        Answer::normal().lost(),
    ] {
        let name = format!("{answer:?}");
        assert_eq!(start_with(answer).await, Err("Discovery".to_owned()), "{name}");
    }
    assert_eq!(start_with(Answer::normal().after(Duration::from_millis(100))).await, Ok(()));
    assert_eq!(start_with(Answer::normal().member("more", json!({ "x": [1] }))).await, Ok(()));
}

#[tokio::test]
async fn ft_01_to_07_whatever_keys_may_be() {
    for answer in [
        Answer::status(500).body("<html>"),
        Answer::normal().body("{}"),
        Answer::normal().body("null"),
        Answer::huge(64 * 1024 * 1024),
        Answer::endless(),
        Answer::normal().hanging(),
        Answer::normal().lost(),
    ] {
        let provider = TestProvider::start().await.unwrap();
        let (site, notes) = openid_site_with(&provider, |_| {}, |b| b.timeout(Duration::from_millis(300))).await;
        let name = format!("{answer:?}");
        provider.next_answer(Endpoint::Keys, answer);
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
async fn ft_15_an_issuer_that_is_down_at_start_stops_nothing() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site_with(
        &provider,
        |known| known.api_base = Some(format!("{}/api", provider.url())),
        |builder| builder,
    )
    .await;
    for _ in 0..3 {
        provider.next_answer(Endpoint::Metadata, Answer::closed());
    }
    assert_eq!(start(&site, &notes).await, Err("Discovery".to_owned()));
    // Whoever has a token can call the API.
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
async fn ft_15_an_issuer_that_goes_down_later_is_not_missed() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    for _ in 0..2 {
        provider.next_answer(Endpoint::Metadata, Answer::status(503));
        provider.next_answer(Endpoint::Keys, Answer::status(503));
    }
    site.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "what was there is good enough");
}

#[tokio::test]
async fn id_05_new_keys_are_honoured_without_a_restart() {
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
async fn id_05_unknown_keys_do_not_make_the_issuer_s_work() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    for number in 0..100 {
        provider.next_id_token(move |id_token| {
            id_token.header.insert("kid".to_owned(), format!("random-{number}").into());
            id_token.signature = IdTokenSignature::Strange;
        });
        let page = alice.login("acme").await;
        assert_eq!((page.status, notes.failure().as_deref()), (StatusCode::BAD_GATEWAY, Some("UnknownKey")));
    }
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 2);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn id_05_a_withdrawn_key_is_not_believed_for_long() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    Browser::signed_in(&site, "alice").login("acme").await;
    site.clock.advance(Duration::from_secs(60 * 60));
    Browser::signed_in(&site, "alice").login("acme").await;
    assert_eq!(provider.requests_to(Endpoint::Keys).len(), 2);
}

#[tokio::test]
async fn ds_04_one_fetch_serves_all_who_wait() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    provider.next_answer(Endpoint::Metadata, Answer::normal().after(Duration::from_millis(200)));
    let (one, two, three) = tokio::join!(start(&site, &notes), start(&site, &notes), start(&site, &notes));
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
    assert_eq!(provider.requests_to(Endpoint::Metadata).len(), 1);
}

/// Whoever has a token does not wait for an issuer that never answers.
#[tokio::test]
async fn ds_04_an_issuer_that_hangs_keeps_no_call_from_the_api() {
    let provider = TestProvider::start().await.unwrap();
    let change = |known: &mut Provider| known.api_base = Some(format!("{}/api", provider.url()));
    let (site, _) = openid_site_with(&provider, change, |b| b.timeout(Duration::from_secs(20))).await;
    for _ in 0..3 {
        provider.next_answer(Endpoint::Metadata, Answer::normal().hanging());
    }
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let since = Instant::now();
    let client = site.oauth.client("acme", &alice).await.unwrap();
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::OK);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test]
async fn what_the_configuration_says_is_not_discovered() {
    let (provider, other) = (TestProvider::start().await.unwrap(), TestProvider::start().await.unwrap());
    let change = |known: &mut Provider| known.authorization_endpoint = format!("{}/authorize", other.url());
    let (site, _) = openid_site_with(&provider, change, |builder| builder).await;
    let authorization = Browser::of(&site).start("acme").await;
    assert!(authorization.as_str().starts_with(other.url()));

    // With all endpoints given, metadata is needed for the keys only.
    let mut known = provider.provider("acme").with_scopes(["openid"]);
    known.revocation_endpoint = None;
    let registration = known.client(CLIENT.0, CLIENT.1);
    let site = crate::support::Setup::default().start(|builder| builder.provider(registration)).await;
    provider.clear_requests();
    Browser::of(&site).start("acme").await;
    assert!(provider.requests().is_empty());
}
