//! ID tokens at a login: no token is stored and no hook is called before the ID token is verified.

use std::collections::HashSet;

use http::StatusCode;
use oauth_dance::testing::{
    CLIENT, Endpoint, IdToken, IdTokenSignature, ScriptedResponse, SigningAlgorithm, TestProvider,
};
use oauth_dance::{ApiError, Subject, User};
use serde_json::{Value, json};
use url::Url;

use crate::support::{Browser, Ear, Notes, Site, openid_site, openid_site_with};

async fn world() -> (TestProvider, Site, Notes) {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site(&provider).await;
    (provider, site, notes)
}

/// A login whose ID token is modified before it is signed. If it fails, no token was stored and no hook called.
async fn login_with(
    (provider, site, notes): &(TestProvider, Site, Notes),
    change: impl FnOnce(&mut IdToken) + Send + 'static,
) -> Result<(), String> {
    let alice = Browser::signed_in(site, "alice");
    provider.next_id_token(change);
    let page = alice.login("acme").await;
    let Some(failure) = notes.failure() else {
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
        assert_eq!(notes.identity().unwrap().subject, "test-user");
        site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
        return Ok(());
    };
    assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{page:?}");
    assert!(notes.identity().is_none(), "the hook was called");
    assert!(site.token("alice").await.is_none(), "a token is stored");
    Err(failure)
}

fn claim(name: &'static str, value: impl Into<Value>) -> impl FnOnce(&mut IdToken) + Send + 'static {
    let value = value.into();
    move |id_token: &mut IdToken| match value {
        Value::Null => drop(id_token.claims.remove(name)),
        value => drop(id_token.claims.insert(name.to_owned(), value)),
    }
}

#[tokio::test]
async fn id_01_only_the_issuer_s_signature_counts() {
    let world = world().await;
    let set = |algorithm: &'static str, signature: IdTokenSignature| {
        move |id_token: &mut IdToken| {
            id_token.header.insert("alg".to_owned(), algorithm.into());
            id_token.signature = signature;
        }
    };
    assert_eq!(login_with(&world, |_| {}).await, Ok(()));
    for none in ["none", "None", "nOnE"] {
        let refused = login_with(&world, set(none, IdTokenSignature::None)).await;
        assert_eq!(refused, Err("Algorithm".to_owned()), "{none}");
    }
    let unsigned = login_with(&world, set("ES256", IdTokenSignature::None)).await;
    assert_eq!(unsigned, Err("Signature".to_owned()));
    let unknown = login_with(&world, set("ES256", IdTokenSignature::UnknownKey)).await;
    assert_eq!(unknown, Err("Signature".to_owned()));
    assert_eq!(login_with(&world, set("RS256", IdTokenSignature::Good)).await, Err("Algorithm".to_owned()));
    let crit = |id_token: &mut IdToken| drop(id_token.header.insert("crit".to_owned(), json!(["exp"])));
    assert_eq!(login_with(&world, crit).await, Err("Malformed".to_owned()));
}

#[tokio::test]
async fn id_01_a_shared_secret_proves_nothing() {
    let world = world().await;
    for announced in [false, true] {
        world.0.configure(|settings| settings.id_token_algorithm = SigningAlgorithm::Rs256);
        let set: Value = reqwest::get(format!("{}/jwks", world.0.url())).await.unwrap().json().await.unwrap();
        let modulus = set["keys"][0]["n"].as_str().unwrap().to_owned();
        if announced {
            // An announcement of signatures with a shared secret is ignored too.
            world.1.clock.advance(std::time::Duration::from_secs(2 * 24 * 60 * 60));
            let algorithms = json!(["HS256", "RS256", "none"]);
            world.0.next_response(
                Endpoint::Metadata,
                ScriptedResponse::normal().member("id_token_signing_alg_values_supported", algorithms),
            );
        }
        for key in
            [set["keys"][0].to_string().into_bytes(), modulus.into_bytes(), CLIENT.1.as_bytes().to_vec(), Vec::new()]
        {
            let refused = login_with(&world, |id_token| {
                id_token.header.insert("alg".to_owned(), "HS256".into());
                id_token.signature = IdTokenSignature::Hmac(key);
            });
            assert_eq!(refused.await, Err("Algorithm".to_owned()));
        }
    }
}

#[tokio::test]
async fn id_01_an_invalid_id_token_is_rejected() {
    let world = world().await;
    let (provider, site, notes) = &world;
    for (response, expected) in [
        (ScriptedResponse::normal().without("id_token"), "Missing"),
        (ScriptedResponse::normal().member("id_token", ""), "Missing"),
        (ScriptedResponse::normal().member("id_token", json!({})), "Missing"),
        (ScriptedResponse::normal().member("id_token", "garbage"), "Malformed"),
        (ScriptedResponse::normal().member("id_token", "e30.e30."), "Malformed"),
        (ScriptedResponse::normal().member("id_token", "..."), "Malformed"),
        (ScriptedResponse::normal().member("id_token", "é.é.é"), "Malformed"),
        (ScriptedResponse::normal().member("id_token", "e30.e30.e30.e30.e30"), "Malformed"),
        (ScriptedResponse::normal().member("id_token", "A".repeat(500_000)), "Malformed"),
    ] {
        provider.next_token_response(response);
        let page = Browser::signed_in(site, "alice").login("acme").await;
        assert_eq!((page.status, notes.failure().as_deref()), (StatusCode::BAD_GATEWAY, Some(expected)));
        assert!(site.token("alice").await.is_none() && notes.identity().is_none());
    }
}

#[tokio::test]
async fn id_02_every_common_algorithm_is_supported() {
    use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256, Rs512};
    for algorithm in [Rs256, Rs512, Ps256, Es256, Es384, EdDsa] {
        let provider = TestProvider::start().await.unwrap();
        provider.configure(|settings| settings.id_token_algorithm = algorithm);
        let (site, notes) = openid_site(&provider).await;
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{algorithm:?}: {:?}", notes.failure());
        let identity = notes.identity().unwrap();
        assert_eq!((identity.issuer.as_str(), identity.subject.as_str()), (provider.url(), "test-user"));
        assert_eq!(identity.verified_email(), Some("test-user@example.test"));
        site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
        // The same with a hash that does not match, for each algorithm.
        let wrong = login_with(&(provider, site, notes), claim("at_hash", "LDktKdoQak3Pk0cnXxCltA")).await;
        assert_eq!(wrong, Err("AccessTokenHash".to_owned()), "{algorithm:?}");
    }
}

#[tokio::test]
async fn id_03_every_claim_is_checked() {
    let world = world().await;
    let (issuer, now) = (world.0.url().to_owned(), world.1.clock.clock().now().as_unix_seconds());
    let client = CLIENT.0;
    let mut wrong = Vec::new();
    for (name, value, expected) in [
        ("iss", json!("https://issuer.example"), Some("Issuer")),
        ("iss", json!(format!("{issuer}/")), Some("Issuer")),
        ("iss", json!(issuer.to_uppercase()), Some("Issuer")),
        ("iss", Value::Null, Some("Malformed")),
        ("aud", json!("another-client"), Some("Audience")),
        ("aud", json!([]), Some("Audience")),
        ("aud", json!(["another-client"]), Some("Audience")),
        ("aud", json!([client]), None),
        ("aud", json!([client, "another-client"]), None),
        ("aud", json!(client.to_uppercase()), Some("Audience")),
        ("azp", json!("another-client"), Some("Audience")),
        ("azp", json!(client), None),
        ("exp", json!(now - 61), Some("Expired")),
        ("exp", json!(now - 60), Some("Expired")),
        ("exp", json!(now - 59), None),
        ("exp", json!(0), Some("Expired")),
        ("exp", Value::Null, Some("Malformed")),
        ("iat", json!(now + 61), Some("IssuedInFuture")),
        ("iat", json!(now + 60), None),
        ("iat", Value::Null, Some("Malformed")),
        ("nonce", json!("another-nonce"), Some("Nonce")),
        ("nonce", json!(""), Some("Nonce")),
        ("nonce", Value::Null, Some("Nonce")),
        ("sub", json!(""), Some("Subject")),
        ("sub", Value::Null, Some("Malformed")),
    ] {
        let outcome = login_with(&world, claim(name, value.clone())).await.err();
        if outcome.as_deref() != expected {
            wrong.push(format!("{name}: {value}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let two = |id_token: &mut IdToken| {
        id_token.claims.insert("aud".to_owned(), json!(["another-client", CLIENT.0]));
        id_token.claims.insert("azp".to_owned(), CLIENT.0.into());
    };
    assert_eq!(login_with(&world, two).await, Ok(()), "azp says that it is for us");
}

/// Types that differ from the standard, as real issuers send them.
#[tokio::test]
async fn id_03_unused_claims_are_ignored() {
    let world = world().await;
    let odd = |id_token: &mut IdToken| {
        let claims = json!({
            "address": ["Main Street 1"], "email_verified": "True", "picture": { "data": {} }, "updated_at": "2026-11-29",
            "auth_time": "yesterday", "locale": ["de"], "website": "none", "birthdate": 0, "phone_number_verified": 1,
            "name": { "first": "A" }, "profile": "", "amr": "pwd", "acr": 1, "nbf": "soon", "azp": null, "sid": {},
        });
        id_token.claims.extend(claims.as_object().unwrap().clone());
    };
    assert_eq!(login_with(&world, odd).await, Ok(()));
}

/// `max_age` from the configuration, or from a link.
#[tokio::test]
async fn id_03_auth_time_is_checked_if_max_age_is_requested() {
    let provider = TestProvider::start().await.unwrap();
    let change = |known: &mut oauth_dance::Provider| {
        known.authorization_params.insert("max_age".to_owned(), "300".to_owned());
        known.login_params = vec!["max_age".to_owned()];
    };
    let (site, notes) = openid_site_with(&provider, change, |builder| builder).await;
    let now = site.clock.clock().now().as_unix_seconds();
    for (link, auth_time, expected) in [
        ("", json!(now), Ok(())),
        ("", json!(now - 300), Ok(())),
        ("", json!(now - 361), Err("SignInTime")),
        ("", Value::Null, Err("SignInTime")),
        ("", json!("yesterday"), Err("SignInTime")),
        ("?max_age=3600", json!(now - 361), Ok(())),
        ("?max_age=0", json!(now - 61), Err("SignInTime")),
        ("?max_age=0", json!(now), Ok(())),
    ] {
        provider.next_id_token(claim("auth_time", auth_time.clone()));
        let alice = Browser::signed_in(&site, "alice");
        let page = alice.get(&format!("/login/acme{link}")).await;
        let callback = alice.approve(&page.location().parse().unwrap()).await;
        // The user waits at the provider after the sign-in.
        site.clock.advance(std::time::Duration::from_secs(1));
        alice.get(callback.as_str()).await;
        let failure = notes.failure();
        assert_eq!(failure.as_deref().map_or(Ok(()), Err), expected, "{link} {auth_time}");
    }
}

/// Microsoft serves all tenants under one address, and each has its own issuer, which `tid` identifies.
#[tokio::test]
async fn id_03_a_tenant_s_token_is_issued_by_that_tenant() {
    let tenant = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let other = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let provider = TestProvider::start().await.unwrap();
    let family = format!("{}/{{tenantid}}/v2.0", provider.url());
    let of = |tenant: &str| family.replace("{tenantid}", tenant);
    let metadata_url = format!("{}/.well-known/openid-configuration", provider.url());
    let change = |known: &mut oauth_dance::Provider| {
        known.issuer = Some(family.clone());
        known.metadata_url = Some(metadata_url.clone());
    };
    // For all tenants, the metadata contains the placeholder; for one tenant, its identifier.
    for (described, iss, tid, expected) in [
        (family.clone(), of(tenant), Some(tenant), None),
        (family.clone(), of(tenant), Some(other), Some("Issuer")),
        (family.clone(), of(tenant), None, Some("Issuer")),
        (family.clone(), family.clone(), Some("{tenantid}"), Some("Issuer")),
        (family.clone(), of("x/../y"), Some("x/../y"), Some("Issuer")),
        (of(tenant), of(tenant), Some(tenant), None),
        (of(tenant), of(other), Some(other), Some("Issuer")),
    ] {
        let (site, notes) = openid_site_with(&provider, change, |builder| builder).await;
        provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().member("issuer", described.clone()));
        let (iss, tid) = (iss.clone(), tid.map(str::to_owned));
        provider.next_id_token(move |id_token| {
            id_token.claims.insert("iss".to_owned(), iss.into());
            id_token.claims.extend(tid.map(|tid| ("tid".to_owned(), tid.into())));
        });
        Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!(notes.failure().as_deref(), expected, "{described}");
        if expected.is_none() {
            assert!(site.token("alice").await.unwrap().subject.unwrap().issuer.contains(tenant));
        }
    }
}

#[tokio::test]
async fn id_04_at_hash_is_checked_if_present() {
    let world = world().await;
    assert_eq!(login_with(&world, claim("at_hash", Value::Null)).await, Ok(()));
    for wrong in ["", "LDktKdoQak3Pk0cnXxCltA", "x"] {
        assert_eq!(login_with(&world, claim("at_hash", wrong)).await, Err("AccessTokenHash".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn id_05_key_locations_in_a_token_are_ignored() {
    let (world, ear) = (world().await, Ear::listen().await);
    for (header, signature) in [("jku", IdTokenSignature::UnknownKey), ("x5u", IdTokenSignature::Good)] {
        let url = ear.url.clone();
        let expected = if signature == IdTokenSignature::Good { Ok(()) } else { Err("Signature".to_owned()) };
        let outcome = login_with(&world, move |id_token| {
            id_token.header.insert(header.to_owned(), url.into());
            id_token.signature = signature;
        });
        assert_eq!(outcome.await, expected);
    }
    assert_eq!(ear.connections(), 0);
}

#[tokio::test]
async fn id_06_userinfo_must_be_for_the_same_subject() {
    let (provider, site, _) = world().await;
    assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
    let client = site.oauth.client("acme", &User::new("alice")).await.unwrap();
    assert_eq!(client.userinfo_claims().await.unwrap()["sub"], "test-user");
    for other in [json!("mallory"), json!("SOMEBODY"), json!(7), Value::Null] {
        provider.next_response(Endpoint::Userinfo, ScriptedResponse::normal().member("sub", other));
        assert!(matches!(client.userinfo_claims().await, Err(ApiError::OtherSubject)));
    }
    provider.next_response(Endpoint::Userinfo, ScriptedResponse::normal().without("sub"));
    assert!(matches!(client.userinfo_claims().await, Err(ApiError::OtherSubject)));
}

#[tokio::test]
async fn id_07_one_address_at_two_issuers_is_two_accounts() {
    let mut accounts = HashSet::new();
    for _ in 0..2 {
        let (_provider, site, notes) = world().await;
        assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
        let identity = notes.identity().unwrap();
        assert_eq!(identity.email(), Some("test-user@example.test"));
        let stored = site.token("alice").await.unwrap().subject.unwrap();
        assert_eq!(stored, Subject { issuer: identity.issuer.clone(), subject: identity.subject.clone() });
        accounts.insert(identity.account());
    }
    assert_eq!(accounts.len(), 2);
}

#[tokio::test]
async fn id_09_userinfo_of_another_type_is_an_error() {
    let (provider, site, _) = world().await;
    Browser::signed_in(&site, "alice").login("acme").await;
    let client = site.oauth.client("acme", &User::new("alice")).await.unwrap();
    for (content_type, body) in
        [("application/jwt", "e30.e30.e30"), ("text/html", "<html>"), ("application/json", "[]")]
    {
        let response = ScriptedResponse::status(200).header("content-type", content_type).body(body);
        provider.next_response(Endpoint::Userinfo, response);
        assert!(matches!(client.userinfo_claims().await, Err(ApiError::Body { .. })), "{content_type}");
    }
    provider.next_response(Endpoint::Userinfo, ScriptedResponse::status(500).body("<html>"));
    assert!(matches!(client.userinfo_claims().await, Err(ApiError::Status { .. })));
}

#[tokio::test]
async fn id_10_without_the_scope_nothing_is_verified() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site_with(&provider, |known| known.scopes = vec!["read".to_owned()], |b| b).await;
    for response in [ScriptedResponse::normal(), ScriptedResponse::normal().member("id_token", "garbage")] {
        provider.next_token_response(response);
        let alice = Browser::signed_in(&site, "alice");
        let authorization = alice.start("acme").await;
        assert!(!authorization.query_pairs().any(|(name, _)| name == "nonce"));
        let callback = alice.approve(&authorization).await;
        assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
        assert!(notes.identity().is_none());
        assert_eq!(site.token("alice").await.unwrap().subject, None);
    }
    assert!(provider.requests_to(Endpoint::Keys).is_empty());
}

#[tokio::test]
async fn ar_14_every_login_has_its_own_nonce() {
    let world = world().await;
    let (provider, site, _) = &world;
    let mut nonces = HashSet::new();
    for _ in 0..20 {
        let authorization = Browser::of(site).start("acme").await;
        let nonce = parameter(&authorization, "nonce");
        assert!(nonce.len() >= 22, "{nonce}");
        nonces.insert(nonce);
    }
    assert_eq!(nonces.len(), 20);
    // The nonce belongs to this browser: an ID token of one login is invalid in another.
    let (alice, bob) = (Browser::signed_in(site, "alice"), Browser::signed_in(site, "bob"));
    let (hers, his) = (alice.start("acme").await, bob.start("acme").await);
    let stolen = parameter(&hers, "nonce");
    provider.next_id_token(claim("nonce", stolen));
    let callback = bob.approve(&his).await;
    assert_eq!(bob.get(callback.as_str()).await.status, StatusCode::BAD_GATEWAY);
    assert!(site.token("bob").await.is_none());
    for cookie in alice.cookies().values() {
        assert!(!cookie.contains(&parameter(&hers, "nonce")));
    }
}

#[tokio::test]
async fn an_id_token_is_stored_only_if_configured() {
    let provider = TestProvider::start().await.unwrap();
    for store in [false, true] {
        let (site, _) = openid_site_with(&provider, |known| known.store_id_token = store, |builder| builder).await;
        Browser::signed_in(&site, "alice").login("acme").await;
        let token = site.token("alice").await.unwrap();
        assert_eq!((token.id_token.is_some(), token.subject.is_some()), (store, true));
    }
}

/// Without a nonce, everything else is still verified.
#[tokio::test]
async fn a_provider_without_nonces_gets_none() {
    let provider = TestProvider::start().await.unwrap();
    let (site, notes) = openid_site_with(&provider, |known| known.quirks.without_nonce = true, |builder| builder).await;
    let world = (provider, site, notes);
    let authorization = Browser::of(&world.1).start("acme").await;
    assert!(!authorization.query_pairs().any(|(name, _)| name == "nonce"));
    assert_eq!(login_with(&world, |_| {}).await, Ok(()));
    assert_eq!(login_with(&world, claim("aud", "another-client")).await, Err("Audience".to_owned()));
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(found, _)| found == name).unwrap().1.into_owned()
}
