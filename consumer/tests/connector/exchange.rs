//! A user's token for another service (RFC 8693).

use std::time::Duration;

use oauth_dance::testing::{Endpoint, ScriptedResponse};
use oauth_dance::{
    ApiClient, ApiError, Audience, ConnectError, Connector, Filter, PageRequest, Precondition, Revocation, TokenKey,
};
use tokio::task::JoinSet;

use crate::{World, alice, seen};

const HOUR: Duration = Duration::from_secs(3601);

fn billing() -> Audience {
    Audience::new("billing")
}

async fn keys(connector: &Connector) -> Vec<TokenKey> {
    let page = connector.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap();
    page.entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test]
async fn a_token_is_exchanged_once_for_each_audience() {
    let world = World::start().await;
    let (one, two) = (world.connected().await, world.process());
    let mut calls = JoinSet::new();
    for connector in [&one, &two].into_iter().cycle().take(20) {
        let connector = connector.clone();
        calls.spawn(async move { connector.exchange(&alice(), &billing()).await.unwrap().token().clone() });
    }
    let tokens = calls.join_all().await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(world.provider.counters().exchanges, 1);

    let own = one.token(&alice()).await.unwrap();
    let request = &world.provider.requests_to(Endpoint::Token)[0];
    assert_eq!(request.field("grant_type"), Some("urn:ietf:params:oauth:grant-type:token-exchange"));
    assert_eq!(request.field("subject_token"), Some(own.secret().expose()));
    assert_eq!(request.field("subject_token_type"), Some("urn:ietf:params:oauth:token-type:access_token"));
    assert_eq!(request.field("audience"), Some("billing"));

    let client = two.exchange(&alice(), &billing()).await.unwrap();
    let received = seen(&client).await;
    assert_eq!((&received["user"], &received["audience"][0]), (&"alice".into(), &"billing".into()));
    let reports = one.exchange(&alice(), &Audience::new("reports").with_scopes(["read"])).await.unwrap();
    assert_eq!(seen(&reports).await["scope"], "read");
    assert_eq!(world.provider.counters().exchanges, 2);
}

#[tokio::test]
async fn users_and_accounts_do_not_share_exchanged_tokens() {
    let world = World::start().await;
    let connector = world.process();
    let users = [
        alice(),
        TokenKey::new("acme", "bob").unwrap(),
        alice().with_account("work").unwrap(),
        alice().with_tenant("other").unwrap(),
    ];
    for key in &users {
        world.provider.connect_key(&connector, key).await.unwrap();
    }
    let mut tokens = std::collections::HashSet::new();
    for key in &users {
        let client = connector.exchange(key, &billing()).await.unwrap();
        assert_eq!(seen(&client).await["user"], key.user());
        tokens.insert(client.token().secret().expose().to_owned());
    }
    assert_eq!(tokens.len(), users.len());
    for key in keys(&connector).await {
        assert!(users.iter().any(|user| key.parts()[..3] == user.parts()[..3]), "{key}");
    }
}

#[tokio::test]
async fn without_a_connection_nothing_is_exchanged() {
    let world = World::start().await;
    let connector = world.process();
    assert!(matches!(connector.exchange(&alice(), &billing()).await, Err(ConnectError::NotConnected)));
    assert!(keys(&connector).await.is_empty());
    assert!(world.provider.requests().is_empty());
}

#[tokio::test]
async fn an_ended_connection_takes_its_exchanged_tokens_along() {
    let world = World::start().await;
    let connector = world.connected().await;
    let work = alice().with_account("work").unwrap();
    world.provider.connect_key(&connector, &work).await.unwrap();
    let client = connector.exchange(&alice(), &billing()).await.unwrap();
    let other = connector.exchange(&work, &billing()).await.unwrap();
    connector.disconnect(&alice()).await.unwrap();
    assert_eq!(keys(&connector).await.len(), 2, "only those of the other account remain");
    assert!(matches!(connector.exchange(&alice(), &billing()).await, Err(ConnectError::NotConnected)));
    let revoked: Vec<_> = world.provider.requests_to(Endpoint::Revocation);
    let revoked = revoked.iter().filter_map(|request| request.field("token"));
    assert!(revoked.into_iter().any(|token| token == client.token().secret().expose()));
    assert_eq!(seen(&other).await["user"], "alice");
}

/// Even if the record remains, as in a storage that cannot list.
#[tokio::test]
async fn a_token_of_an_earlier_connection_is_never_used() {
    let world = World::start().await;
    let connector = world.connected().await;
    let before = connector.exchange(&alice(), &billing()).await.unwrap();
    connector.tokens().delete(&alice(), None).await.unwrap();
    assert!(matches!(connector.exchange(&alice(), &billing()).await, Err(ConnectError::NotConnected)));

    let other = world.provider.issue("another-account").into();
    connector.tokens().put(&alice(), &other, Precondition::Always).await.unwrap();
    let after = connector.exchange(&alice(), &billing()).await.unwrap();
    assert_ne!(before.token(), after.token());
    assert_eq!(seen(&after).await["user"], "another-account");
}

#[tokio::test]
async fn an_expired_token_is_exchanged_again() {
    let world = World::start().await;
    let connector = world.connected().await;
    let before = connector.exchange(&alice(), &billing()).await.unwrap();
    world.clock.advance(HOUR);
    let after = connector.exchange(&alice(), &billing()).await.unwrap();
    assert_ne!(before.token(), after.token());
    assert_eq!((world.provider.counters().refreshes, world.provider.counters().exchanges), (1, 2));
    seen(&after).await;
}

#[tokio::test]
async fn a_rejected_token_is_exchanged_again_once() {
    let world = World::start().await;
    let client = world.connected().await.exchange(&alice(), &billing()).await.unwrap();
    world.provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
    assert_eq!(seen(&client).await["audience"][0], "billing");
    assert_eq!((world.provider.counters().exchanges, world.provider.counters().refreshes), (2, 0));
}

/// The server revokes access tokens without an expiry that the client could know. The refresh token still works.
#[tokio::test]
async fn a_refused_subject_token_is_refreshed() {
    let world = World::start().await;
    let connector = world.connected().await;
    world.clock.advance(Duration::from_secs(900));
    world.provider.next_token_response(ScriptedResponse::error(400, "invalid_request"));
    let client = connector.exchange(&alice(), &billing()).await.unwrap();
    assert_eq!(seen(&client).await["user"], "alice");
    let grants: Vec<_> = world.provider.requests_to(Endpoint::Token);
    let grants: Vec<_> = grants.iter().filter_map(|request| request.field("grant_type")?.rsplit(':').next()).collect();
    assert_eq!(grants, ["token-exchange", "refresh_token", "token-exchange"]);
}

#[tokio::test]
async fn a_refusal_does_not_end_the_connection() {
    let world = World::start().await;
    world.provider.configure(|settings| settings.audiences = vec!["reports".to_owned()]);
    let connector = world.connected().await;
    for _ in 0..4 {
        let refused = connector.exchange(&alice(), &billing()).await.map(drop);
        assert!(matches!(refused, Err(ConnectError::BackingOff { .. })), "{refused:?}");
        world.clock.advance(Duration::from_secs(13 * 3600));
    }
    assert_eq!(seen(&connector.client(&alice()).await.unwrap()).await["user"], "alice");
    assert!(connector.exchange(&alice(), &Audience::new("reports")).await.is_ok());
    assert_eq!(world.provider.counters().families_revoked, 0);
}

/// An audience that the server does not know is a fault of the configuration, and no user's token can help.
#[tokio::test]
async fn a_misconfigured_audience_affects_no_user() {
    let world = World::start().await;
    world.provider.configure(|settings| settings.audiences = vec!["reports".to_owned()]);
    let connector = world.process();
    let users = ["alice", "bob", "carol"].map(|user| TokenKey::new("acme", user).unwrap());
    for user in &users {
        world.provider.connect_key(&connector, user).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(900));
    for user in &users {
        let refused = connector.exchange(user, &billing()).await.map(drop);
        let Err(ConnectError::BackingOff { cause, .. }) = refused else { panic!("{refused:?}") };
        assert!(cause.contains("invalid_target") && cause.contains("the audience and the scopes"), "{cause}");
        world.provider.next_token_response(ScriptedResponse::error(400, "invalid_scope"));
        let narrow = Audience::new("reports").with_scopes(["unknown"]);
        assert!(connector.exchange(user, &narrow).await.is_err());
    }
    assert_eq!(world.provider.counters().refreshes, 0);
}

/// The token is for another service, which is not the provider's own API.
#[tokio::test]
async fn the_provider_and_the_other_service_get_only_what_is_theirs() {
    let (world, service) = (World::start().await, World::start().await);
    let mut acme = world.provider.provider("acme");
    acme.api_headers.insert("x-api-key".to_owned(), "CANARY".to_owned());
    let connector = world.builder().provider(acme.client("test-client", "test-secret")).build().unwrap();
    world.provider.connect_key(&connector, &alice()).await.unwrap();
    let billing = billing().with_api_base(format!("{}/api", service.provider.url()));
    let exchanged = connector.exchange(&alice(), &billing).await.unwrap();
    let application = connector.client_credentials_for("acme", &billing).await.unwrap();
    for client in [exchanged, application] {
        assert!(matches!(client.userinfo().send().await, Err(ApiError::ForeignOrigin)));
        assert!(matches!(client.userinfo_claims().await, Err(ApiError::ForeignOrigin)));
        service.provider.next_response(Endpoint::Api, ScriptedResponse::status(200));
        client.get("/invoices").send().await.unwrap();
    }
    assert!(world.provider.requests_to(Endpoint::Userinfo).is_empty());
    let received = service.provider.requests_to(Endpoint::Api);
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|request| request.header("x-api-key").is_none()));

    let own = connector.client(&alice()).await.unwrap();
    assert!(own.userinfo().send().await.unwrap().status().is_success());
    seen(&own).await;
    assert_eq!(world.provider.requests_to(Endpoint::Api)[0].header("x-api-key"), Some("CANARY"));
}

#[tokio::test]
async fn a_revocation_includes_what_was_exchanged() {
    let world = World::start().await;
    let connector = world.connected().await;
    let work = alice().with_account("work").unwrap();
    world.provider.connect_key(&connector, &work).await.unwrap();
    let client = connector.exchange(&alice(), &billing()).await.unwrap();
    let other = connector.exchange(&work, &billing()).await.unwrap();
    assert_eq!(connector.revoke(&alice()).await.unwrap(), Revocation::Done);
    assert_eq!(keys(&connector).await.len(), 4, "nothing is deleted");
    let revoked = world.provider.requests_to(Endpoint::Revocation);
    let has_revoked = |client: &ApiClient| {
        let secret = client.token().secret().expose().to_owned();
        revoked.iter().any(|request| request.field("token") == Some(&secret))
    };
    assert_eq!((has_revoked(&client), has_revoked(&other)), (true, false));

    world.provider.next_response(Endpoint::Revocation, ScriptedResponse::status(503));
    assert_eq!(connector.revoke(&alice()).await.unwrap(), Revocation::Failed);
}

/// A logout while the token is exchanged: the answer arrives afterwards.
#[tokio::test]
async fn a_logout_during_an_exchange_leaves_nothing() {
    let world = World::start().await;
    let connector = world.connected().await;
    world.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(400)));
    let exchanging = tokio::spawn({
        let connector = connector.clone();
        async move { connector.exchange(&alice(), &billing()).await.map(drop) }
    });
    while world.provider.requests_to(Endpoint::Token).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Not `disconnect`, which would remove the claimed record: it is what a storage that cannot list leaves.
    connector.tokens().delete(&alice(), None).await.unwrap();
    let ended = exchanging.await.unwrap();
    assert!(matches!(ended, Err(ConnectError::NotConnected)), "{ended:?}");
    connector.finish().await;
    assert!(keys(&connector).await.is_empty());
    assert_eq!(world.provider.requests_to(Endpoint::Revocation).len(), 1);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn an_exchanged_token_is_not_an_account() {
    use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};

    let world = World::start().await;
    let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
        .provider(world.provider.registration("acme"))
        .clock(world.clock.clock())
        .anonymous_users()
        .build()
        .unwrap();
    let alice_in_app = User::new("alice");
    world.provider.connect(&oauth, "acme", &alice_in_app).await.unwrap();
    oauth.connector().exchange(&alice(), &billing()).await.unwrap();
    assert_eq!(oauth.accounts(&alice_in_app).await.unwrap().len(), 1);
    oauth.disconnect("acme", &alice_in_app).await.unwrap();
    assert!(keys(oauth.connector()).await.is_empty());
}
