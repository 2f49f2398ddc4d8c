//! How the dance and the extractors use the storage.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, TestProvider};
use oauth_dance::{ConnectError, TokenStorage, User};
use oauth_dance_core::{Precondition, Record};

use crate::support::{Browser, FragileStorage, Setup, Site, world};

#[tokio::test]
async fn st_01_a_token_belongs_to_one_user() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    assert_eq!(alice.get("/optional").await.body, "connected");
    for browser in [Browser::signed_in(&site, "bob"), Browser::of(&site)] {
        assert_eq!(browser.get("/optional").await.body, "not connected");
        assert_eq!(browser.get("/required").await.status, StatusCode::SEE_OTHER);
        let page = browser.get_with("/me/acme", &[("accept", "application/json")]).await;
        assert_eq!((page.status, page.json()["error"].as_str()), (StatusCode::UNAUTHORIZED, Some("not_connected")));
    }
    assert!(matches!(site.oauth.client("acme", &User::new("")).await, Err(ConnectError::Key(_))));
    assert!(provider.requests_to(Endpoint::Userinfo).is_empty());
}

async fn fragile(provider: &TestProvider) -> (Site, Arc<FragileStorage>) {
    let storage = Arc::new(FragileStorage::default());
    let setup = Setup { storage: storage.clone(), ..Setup::default() };
    (setup.start(|builder| builder.provider(provider.registration("acme"))).await, storage)
}

#[tokio::test]
async fn st_10_sc_13_an_outage_is_not_reported_as_not_connected() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = fragile(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    let secret = site.access_token("alice").await.unwrap();

    storage.switch(true);
    for path in ["/required", "/optional", "/me/acme", "/nested/x/required"] {
        for accept in ["text/html", "application/json"] {
            let page = alice.get_with(path, &[("accept", accept)]).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            match accept {
                "text/html" => assert!(page.body.contains("<h1>This page is not available</h1>"), "{page:?}"),
                _ => assert_eq!(page.json()["error"], "storage_failed"),
            }
            assert!(page.location().is_empty() && !page.text().contains(&secret));
        }
    }
    let error = site.oauth.client("acme", &User::new("alice")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Storage(_)) && error.status() == 503, "{error:?}");
    assert!(site.oauth.disconnect("acme", &User::new("alice")).await.is_err());

    storage.switch(false);
    assert_eq!(alice.get("/required").await.status, StatusCode::OK, "without a restart");
}

#[tokio::test]
async fn st_10_no_code_is_spent_while_the_storage_is_down() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = fragile(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    storage.switch(true);
    let page = alice.get(callback.as_str()).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(provider.requests_to(Endpoint::Token).is_empty());

    storage.switch(false);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER, "the same callback goes on");
    assert_eq!(alice.get("/required").await.status, StatusCode::OK);
}

#[tokio::test]
async fn st_10_an_outage_after_the_exchange_is_reported() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = fragile(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    storage.writes_left.store(1, Ordering::SeqCst);
    let page = alice.get(callback.as_str()).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.location().is_empty(), "it is not called a success");
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
    storage.switch(false);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn st_12_a_login_replaces_an_unreadable_record() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let key = User::new("alice").key("acme").unwrap();
    let foreign = {
        provider.connect(&site.oauth, "acme", &User::new("bob")).await.unwrap();
        site.storage.get(&User::new("bob").key("acme").unwrap()).await.unwrap().unwrap().value
    };
    let garbage = [vec![], vec![0; 100], b"{\"format\":99}".to_vec(), b"null".to_vec(), b"\xff\xfe".to_vec()];
    for record in garbage.map(Record::new).into_iter().chain([foreign]) {
        site.storage.put(&key, &record, Precondition::Always).await.unwrap();
        let page = alice.get_with("/required", &[("accept", "application/json")]).await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(page.json()["error"], "storage_failed");
        assert_eq!(site.storage.get(&key).await.unwrap().unwrap().value.payload, record.payload);
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
        assert_eq!(alice.get("/required").await.status, StatusCode::OK);

        site.storage.put(&key, &record, Precondition::Always).await.unwrap();
        assert!(site.oauth.disconnect("acme", &User::new("alice")).await.unwrap().removed, "or is forgotten");
    }
    assert!(provider.requests_to(Endpoint::Revocation).is_empty(), "what cannot be read cannot be revoked");
}

#[tokio::test]
async fn st_13_st_16_nothing_remains_after_a_logout() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.login("acme").await;
    let token = site.access_token("alice").await.unwrap();
    let record = site.storage.get(&User::new("alice").key("acme").unwrap()).await.unwrap().unwrap().value;
    assert!(!record.payload.windows(token.len()).any(|window| window == token.as_bytes()), "it is sealed");
    assert!(page.set_cookies().iter().all(|cookie| cookie.contains("Max-Age=60")), "and not in a cookie");

    site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    assert!(site.storage.get(&User::new("alice").key("acme").unwrap()).await.unwrap().is_none());
    assert_eq!(alice.get("/optional").await.body, "not connected");
}

#[tokio::test]
async fn reading_writes_nothing() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = fragile(&provider).await;
    let alice = User::new("alice");
    provider.connect(&site.oauth, "acme", &alice).await.unwrap();
    let written = storage.writes.load(Ordering::SeqCst);
    let browser = Browser::signed_in(&site, "alice");
    for _ in 0..3 {
        let client = site.oauth.client("acme", &alice).await.unwrap();
        client.get("/notes").send().await.unwrap().success().unwrap();
        assert!(site.oauth.connection("acme", &alice).await.unwrap().is_some());
        assert_eq!(site.oauth.accounts(&alice).await.unwrap().len(), 1);
        assert_eq!(browser.get("/required").await.status, StatusCode::OK);
    }
    assert_eq!(storage.writes.load(Ordering::SeqCst), written);
}
