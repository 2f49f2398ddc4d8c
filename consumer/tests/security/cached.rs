//! Tokens behind a cache in the memory of the process ([`OAuthBuilder::cache`]).

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{
    Cache, ConnectError, DeadReason, OAuth1Token, OAuth2Token, OAuthBuilder, Precondition, Token, Tokens, User,
};

use super::oauth1_dance::world_with as oauth1_world_with;
use crate::support::{Setup, Site};

fn alice() -> User {
    User::new("alice")
}

fn with_cache(builder: OAuthBuilder) -> OAuthBuilder {
    builder.cache(Cache::new(Duration::from_secs(60)))
}

/// A connected user, whose token is in the cache.
async fn connected() -> (TestProvider, Site) {
    let provider = TestProvider::start().await.unwrap();
    let site = Setup::default().start(|builder| with_cache(builder.provider(provider.registration("acme")))).await;
    provider.connect(&site.oauth, "acme", &alice()).await.unwrap();
    site.oauth.client("acme", &alice()).await.unwrap();
    (provider, site)
}

/// Replaces the token as another process does, which the cache does not see.
async fn replace_elsewhere(site: &Site, token: impl Into<Token>) {
    let tokens = Tokens::sealed(site.storage.clone(), site.keys.clone());
    tokens.put(&alice().key("acme").unwrap(), &token.into(), Precondition::Always).await.unwrap();
}

/// The access token of a new client.
async fn access_token(site: &Site) -> String {
    site.oauth.client("acme", &alice()).await.unwrap().token().secret().expose().to_owned()
}

#[tokio::test]
async fn a_token_of_another_process_is_seen_late() {
    let (_provider, site) = connected().await;
    let cached = access_token(&site).await;
    replace_elsewhere(&site, OAuth2Token::bearer("other")).await;
    assert_eq!(access_token(&site).await, cached);
    assert_eq!(site.access_token("alice").await.as_deref(), Some("other"), "the storage is read");
    assert_eq!(access_token(&site).await, "other", "and the cache has what was read");
}

#[tokio::test]
async fn a_disconnected_token_is_not_used_again() {
    let (_provider, site) = connected().await;
    site.oauth.disconnect("acme", &alice()).await.unwrap();
    assert!(matches!(site.oauth.client("acme", &alice()).await, Err(ConnectError::NotConnected)));
}

#[tokio::test]
async fn a_rejected_token_is_replaced_by_the_stored_one() {
    let (provider, site) = connected().await;
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    let other = provider.issue("alice");
    replace_elsewhere(&site, other.clone()).await;
    provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(provider.counters().refreshes, 0);
    assert_eq!(access_token(&site).await, other.access_token.expose());
}

#[tokio::test]
async fn a_token_that_was_rejected_for_good_needs_the_user() {
    let (provider, site) = connected().await;
    replace_elsewhere(&site, OAuth2Token::bearer("without a refresh token")).await;
    site.access_token("alice").await;
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
    assert!(client.get("/notes").send().await.unwrap().success().is_err());
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::NeedsAuthorization { reason: DeadReason::Rejected, .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_of_the_wrong_kind_is_an_error() {
    let (_provider, site) = connected().await;
    replace_elsewhere(&site, OAuth1Token::new("token", "secret")).await;
    site.oauth.tokens().get(&alice().key("acme").unwrap()).await.unwrap();
    let error = site.oauth.client("acme", &alice()).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongKind), "{error:?}");
}

#[tokio::test]
async fn refused_credentials_are_replaced_by_the_stored_ones() {
    let (provider, site) = oauth1_world_with(with_cache).await;
    let old = provider.connect_oauth1(&site.oauth, "acme", &alice()).await.unwrap();
    let client = site.oauth.client("acme", &alice()).await.unwrap();
    let other = Setup { storage: site.storage.clone(), keys: site.keys.clone(), ..Setup::default() };
    let other = other.start(|builder| builder.provider(provider.oauth1_registration("acme"))).await;
    let new = provider.connect_oauth1(&other.oauth, "acme", &alice()).await.unwrap();
    assert_eq!(access_token(&site).await, old.token.expose());

    for endpoint in [Endpoint::Api, Endpoint::Userinfo] {
        provider.next_response(endpoint, ScriptedResponse::status(401));
    }
    assert_eq!(client.get("/notes").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(access_token(&site).await, new.token.expose());
}
