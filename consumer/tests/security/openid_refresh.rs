//! ID tokens that come with a refresh, and logging out at the provider.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, IdToken, IdTokenSignature, ScriptedResponse, TestProvider};
use oauth_dance::{ConnectError, RefreshEvent, User};
use oauth_dance_core::Precondition;
use url::Url;

use crate::support::{Browser, FragileStorage, Notes, Setup, Site, openid_site, openid_site_with};

/// Alice, connected an hour ago.
async fn expired(store_id_token: bool) -> (TestProvider, Site, Notes) {
    let provider = TestProvider::start().await.unwrap();
    let change = |known: &mut oauth_dance::Provider| known.store_id_token = store_id_token;
    let (site, notes) = openid_site_with(&provider, change, |builder| builder).await;
    assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
    site.clock.advance(Duration::from_secs(3601));
    provider.clear_requests();
    (provider, site, notes)
}

fn is_foreign(event: &RefreshEvent) -> bool {
    matches!(event, RefreshEvent::DifferentSubject { .. })
}

fn is_doubtful(event: &RefreshEvent) -> bool {
    matches!(event, RefreshEvent::Unverified { .. })
}

#[tokio::test]
async fn id_08_a_refresh_retains_the_subject() {
    for store in [false, true] {
        let (_provider, site, notes) = expired(store).await;
        let before = site.token("alice").await.unwrap();
        let client = site.oauth.client("acme", &User::new("alice")).await.unwrap();
        assert_eq!(client.userinfo_claims().await.unwrap()["sub"], "test-user");
        let after = site.token("alice").await.unwrap();
        assert_ne!(after.access_token, before.access_token);
        assert_eq!(after.subject, before.subject);
        assert_eq!(after.id_token.is_some(), store);
        assert_eq!(store, after.id_token != before.id_token, "the new one took its place");
        assert_eq!(notes.events(), [RefreshEvent::Refreshed]);
    }
}

#[tokio::test]
async fn id_08_a_different_subject_s_token_is_revoked() {
    type Change = fn(&mut IdToken);
    let changes: [Change; 2] = [
        |id_token| drop(id_token.claims.insert("sub".to_owned(), "mallory".into())),
        |id_token| {
            id_token.claims.insert("sub".to_owned(), "mallory".into());
            id_token.signature = IdTokenSignature::None;
        },
    ];
    for change in changes {
        let (provider, site, notes) = expired(false).await;
        provider.next_id_token(change);
        let alice = User::new("alice");
        assert!(matches!(site.oauth.client("acme", &alice).await, Err(ConnectError::NotConnected)));
        assert!(site.token("alice").await.is_none());
        let events = notes.events();
        assert!(events.len() == 2 && events[0] == RefreshEvent::Refreshed && is_foreign(&events[1]), "{events:?}");
        site.oauth.finish().await;
        let revoked = provider.requests_to(Endpoint::Revocation);
        assert_eq!(revoked.len(), 2, "the refresh token and the access token");
        assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn id_08_an_unverified_token_is_stored_and_reported() {
    type Change = fn(&mut IdToken);
    let changes: [Change; 5] = [
        |id_token| id_token.signature = IdTokenSignature::UnknownKey,
        |id_token| drop(id_token.claims.insert("iss".to_owned(), "https://issuer.example".into())),
        |id_token| drop(id_token.claims.insert("aud".to_owned(), "another-client".into())),
        |id_token| drop(id_token.claims.insert("exp".to_owned(), 1.into())),
        |id_token| drop(id_token.claims.insert("at_hash".to_owned(), "x".into())),
    ];
    for change in changes {
        let (provider, site, notes) = expired(false).await;
        let before = site.access_token("alice").await;
        provider.next_id_token(change);
        assert!(site.oauth.client("acme", &User::new("alice")).await.is_ok());
        assert_ne!(site.access_token("alice").await, before);
        let events = notes.events();
        assert!(events.len() == 2 && events[0] == RefreshEvent::Refreshed && is_doubtful(&events[1]), "{events:?}");
    }
    // The keys are temporarily unavailable: no token is lost.
    let (provider, site, notes) = expired(false).await;
    provider.rotate_keys();
    provider.next_response(Endpoint::Keys, ScriptedResponse::status(503));
    assert!(site.oauth.client("acme", &User::new("alice")).await.is_ok());
    assert!(notes.events().iter().any(is_doubtful));
    assert!(site.token("alice").await.is_some());
}

/// An issuer may move to a custom domain, with the same users and refresh tokens.
#[tokio::test]
async fn id_08_an_issuer_may_change_its_name() {
    let (_provider, site, notes) = expired(false).await;
    let (tokens, key) = (site.oauth.tokens(), User::new("alice").key("acme").unwrap());
    let stored = tokens.get(&key).await.unwrap().unwrap();
    let mut token = stored.value.as_oauth2().unwrap().clone();
    token.subject.as_mut().unwrap().issuer = "https://tenant.issuer.example".to_owned();
    tokens.put(&key, &token.into(), Precondition::Version(stored.version)).await.unwrap();
    let before = site.access_token("alice").await;
    assert!(site.oauth.client("acme", &User::new("alice")).await.is_ok());
    assert_ne!(site.access_token("alice").await, before);
    assert_eq!(notes.events(), [RefreshEvent::Refreshed]);
}

/// Slow metadata does not shorten the token request, whose response is the only copy of a new refresh token.
#[tokio::test]
async fn slow_metadata_does_not_shorten_a_token_request() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site_with(&provider, |_| {}, |builder| builder.timeout(Duration::from_secs(2))).await;
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let before = site.refresh_token("alice").await.unwrap();
    site.clock.advance(Duration::from_secs(3601));
    provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().after(Duration::from_millis(900)));
    provider.next_response(Endpoint::Token, ScriptedResponse::normal().after(Duration::from_millis(1500)));
    assert!(site.oauth.client("acme", &alice).await.is_ok());
    assert_ne!(site.refresh_token("alice").await.unwrap(), before);
    assert_eq!(provider.counters().families_revoked, 0);
}

/// The new tokens are stored before they are verified, so that keys which never arrive lose no token.
#[tokio::test]
async fn id_08_tokens_are_stored_before_they_are_verified() {
    let (provider, site, _) = expired(false).await;
    let before = site.refresh_token("alice").await.unwrap();
    provider.rotate_keys();
    provider.next_response(Endpoint::Keys, ScriptedResponse::normal().hanging());
    let oauth = site.oauth.clone();
    let refreshing = tokio::spawn(async move { oauth.client("acme", &User::new("alice")).await.is_ok() });
    while provider.requests_to(Endpoint::Keys).is_empty() {
        tokio::task::yield_now().await;
    }
    let stored = site.refresh_token("alice").await.unwrap();
    assert_ne!(stored, before, "the refresh token's successor is safe");
    refreshing.abort();
}

/// An outage of the storage delays the deletion of a different subject's token, but does not prevent it.
#[tokio::test]
async fn id_08_an_outage_only_delays_the_deletion() {
    let provider = TestProvider::start().await.unwrap();
    let (storage, notes) = (Arc::new(FragileStorage::default()), Notes::default());
    let registration = provider.openid_registration("acme");
    let setup = Setup { storage: storage.clone(), ..Setup::default() };
    let site = setup.start(|builder| builder.provider(registration).hooks(notes.clone())).await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    Browser::signed_in(&site, "alice").login("acme").await;
    site.clock.advance(Duration::from_secs(3601));
    provider.next_id_token(|id_token| drop(id_token.claims.insert("sub".to_owned(), "mallory".into())));
    provider.rotate_keys();
    provider.next_response(Endpoint::Keys, ScriptedResponse::normal().after(Duration::from_millis(200)));
    provider.clear_requests();
    let oauth = site.oauth.clone();
    let refreshing = tokio::spawn(async move { oauth.client("acme", &User::new("alice")).await.map(drop) });
    while provider.requests_to(Endpoint::Keys).is_empty() {
        tokio::task::yield_now().await;
    }
    storage.switch(true);
    // The deletion is tried during the outage, and again afterwards.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!notes.events().iter().any(is_foreign));
    storage.switch(false);
    assert!(matches!(refreshing.await.unwrap(), Err(ConnectError::NotConnected)));
    assert!(site.token("alice").await.is_none());
}

#[tokio::test]
async fn lo_07_the_browser_ends_the_session_and_returns() {
    let provider = TestProvider::start().await.unwrap();
    let change = |known: &mut oauth_dance::Provider| known.store_id_token = true;
    let (site, _) = openid_site_with(&provider, change, |builder| builder).await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    let id_token = site.token("alice").await.unwrap().id_token.unwrap();

    let there = ask_to_end(&alice).await;
    let requested =
        |name: &str| there.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    assert!(there.as_str().starts_with(&format!("{}/end_session?", provider.url())));
    assert_eq!(requested("id_token_hint").as_deref(), Some(id_token.expose()));
    assert_eq!(requested("client_id").as_deref(), Some("test-client"));
    let registered = site.oauth.post_logout_redirect_uri("acme").unwrap();
    assert_eq!(requested("post_logout_redirect_uri"), Some(registered));
    assert!(requested("state").unwrap().len() >= 22);

    let back = alice.approve(&there).await;
    let page = alice.get(back.as_str()).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/optional?x=y"));
    assert_eq!(page.header("cache-control"), "no-store");
    // A repeated request, or one without a state of this browser, is redirected to the home page.
    for url in [back.as_str(), "/login/acme/ended", "/login/acme/ended?state=x", "/login/acme/ended?state=x&state=y"] {
        let page = alice.get(url).await;
        assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/"), "{url}");
    }
    let (there, other) = (ask_to_end(&alice).await, Browser::of(&site));
    let back = alice.approve(&there).await;
    assert_eq!(other.get(back.as_str()).await.location(), "/", "the state is of the browser that was sent away");
}

#[tokio::test]
async fn lo_07_without_an_id_token_the_client_id_is_sent() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    let there = ask_to_end(&alice).await;
    let names: Vec<_> = there.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["client_id", "post_logout_redirect_uri", "state"]);
}

#[tokio::test]
async fn lo_07_without_an_endpoint_nothing_is_sent() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = openid_site(&provider).await;
    provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().without("end_session_endpoint"));
    let end = site.oauth.end_session("acme", &User::new("alice"), "/").await.unwrap();
    assert!(end.is_none());
    for bad in ["javascript:x", "http://issuer.example/end", ""] {
        let (site, _) = openid_site(&provider).await;
        provider.next_response(Endpoint::Metadata, ScriptedResponse::normal().member("end_session_endpoint", bad));
        let end = site.oauth.end_session("acme", &User::new("alice"), "/").await.unwrap();
        assert!(end.is_none(), "{bad}");
    }
}

/// The URL at which the browser ends the session at the provider.
async fn ask_to_end(browser: &Browser) -> Url {
    let page = browser.post("/end_session/acme?next=/optional%3Fx%3Dy", "", &[]).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
    Url::parse(page.location()).unwrap()
}
