//! Calls, refreshes and the end of a connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use oauth_dance::testing::{Endpoint, ScriptedResponse};
use oauth_dance::{ConfigError, ConnectError, Connector, Due, KeyRing, MemoryStorage, Provider, Revocation, TokenKey};

use crate::{World, alice, seen};

const HOUR: Duration = Duration::from_secs(3601);

#[tokio::test]
async fn an_expired_token_is_refreshed_once() {
    let world = World::start().await;
    let (one, two) = (world.connected().await, world.process());
    world.clock.advance(HOUR);
    let alice = alice();
    let (first, second) = tokio::join!(one.client(&alice), two.token(&alice));
    assert_eq!(first.unwrap().token(), &second.unwrap());
    assert_eq!((world.provider.counters().refreshes, world.provider.counters().families_revoked), (1, 0));
    one.finish().await;
}

#[tokio::test]
async fn a_rejected_token_is_replaced() {
    let world = World::start().await;
    let client = world.connected().await.client(&alice()).await.unwrap();
    world.provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
    assert_eq!(seen(&client).await["user"], "alice");
    assert_eq!(world.provider.counters().refreshes, 1);
}

#[tokio::test]
async fn each_key_has_its_own_client() {
    let world = World::start().await;
    let connector = world.connected().await;
    let bob = TokenKey::new("acme", "bob").unwrap();
    let unknown = TokenKey::new("other", "alice").unwrap();
    let clients = connector.clients(&[alice(), bob.clone(), unknown.clone()]).await;
    assert!(clients[0].is_ok());
    assert!(matches!(clients[1], Err(ConnectError::NotConnected)));
    assert!(matches!(&clients[2], Err(ConnectError::UnknownProvider(name)) if name == "other"));
    assert!(connector.connection(&bob).await.unwrap().is_none());
    assert!(connector.connection(&unknown).await.is_err());
}

#[tokio::test]
async fn a_disconnected_token_is_deleted_and_revoked() {
    let world = World::start().await;
    let connector = world.connected().await;
    let token = connector.token(&alice()).await.unwrap();
    let disconnected = connector.disconnect(&alice()).await.unwrap();
    assert_eq!((disconnected.removed, disconnected.revocation), (true, Revocation::Done));
    let url = format!("{}/api/notes", world.provider.url());
    let call = reqwest::Client::new().get(url).bearer_auth(token.secret().expose()).send().await.unwrap();
    assert_eq!(call.status(), 401);
    assert!(!connector.disconnect(&alice()).await.unwrap().removed);
    assert!(connector.disconnect(&TokenKey::new("other", "alice").unwrap()).await.is_err());
}

#[tokio::test]
async fn refreshes_are_observed_and_made_ahead_of_time() {
    let world = World::start().await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let connector = world.builder().provider(world.provider.registration("acme"));
    let connector = connector.observer(move |key, event| seen.lock().unwrap().push((key.clone(), event.name())));
    let connector = connector.build().unwrap();
    world.provider.connect_key(&connector, &alice()).await.unwrap();
    world.clock.advance(HOUR);
    let report = connector.refresh_due(&Due::expiring_within(Duration::from_secs(60))).await.unwrap();
    assert_eq!(report.refreshed, 1);
    assert_eq!(*events.lock().unwrap(), [(alice(), "refreshed")]);
}

#[test]
fn a_wrong_configuration_is_rejected() {
    let builder = || Connector::builder(MemoryStorage::new(), KeyRing::generate());
    let acme = || Provider::new("acme", "https://acme.example/a", "https://acme.example/t");
    let twice = builder().provider(acme().client("id", "s")).provider(acme().client("id", "s")).build();
    assert!(matches!(twice, Err(ConfigError::DuplicateProvider { .. })));
    let mut bound = acme();
    bound.dpop = true;
    let plain = builder().provider(bound.client("id", "s")).dangerous_plaintext_tokens().build();
    assert!(matches!(plain, Err(ConfigError::Invalid { field: "dpop", .. })));
    let plain_http = Provider::new("acme", "https://acme.example/a", "http://acme.example/t").client("id", "s");
    assert!(builder().provider(plain_http.clone()).build().is_err());
    assert!(builder().provider(plain_http).dangerously_allow_http(["acme.example"]).build().is_ok());
}

/// An application and a worker share the storage and the keys, and nothing else.
#[cfg(feature = "axum")]
#[tokio::test]
async fn a_worker_uses_what_an_application_has_stored() {
    use oauth_dance::{OAuth, User};

    let world = World::start().await;
    let keys = KeyRing::generate();
    let oauth = OAuth::builder("http://localhost:3000", Arc::clone(&world.storage), keys.clone())
        .provider(world.provider.registration("acme"))
        .clock(world.clock.clock())
        .anonymous_users()
        .build()
        .unwrap();
    world.provider.connect(&oauth, "acme", &User::new("alice")).await.unwrap();
    let worker = Connector::builder(Arc::clone(&world.storage), keys).clock(world.clock.clock());
    let worker = worker.provider(world.provider.registration("acme")).build().unwrap();
    world.clock.advance(HOUR);
    let (alice, alice_in_app) = (alice(), User::new("alice"));
    let (in_worker, in_app) = tokio::join!(worker.client(&alice), oauth.client("acme", &alice_in_app));
    assert_eq!(seen(&in_worker.unwrap()).await["user"], "alice");
    assert_eq!(seen(&in_app.unwrap()).await["user"], "alice");
    assert_eq!(world.provider.counters().refreshes, 1);
    assert!(oauth.connector().connection(&alice).await.unwrap().is_some());
}
