//! The stores of this crate in the Rust SDK's own `AuthorizationManager` and `AuthClient`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use oauth_dance_mcp::McpConnection;
use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{
    AuthClient, AuthError, AuthorizationManager, AuthorizationRequest, CredentialStore as _, OAuthClientConfig,
    OAuthState, StoredCredentials,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use support::{AuthorizationServer, CALLBACK, World, authorize};

async fn manager(connection: &McpConnection) -> AuthorizationManager {
    let mut manager = AuthorizationManager::new(connection.server().url()).await.unwrap();
    manager.set_credential_store(connection.credentials());
    manager.set_state_store(connection.states());
    manager
}

/// A manager of an application that has just started.
async fn started(connection: &McpConnection) -> AuthorizationManager {
    let mut manager = manager(connection).await;
    assert!(manager.initialize_from_store().await.unwrap(), "there are credentials");
    manager
}

/// The SDK's login, which another process finishes.
#[tokio::test]
async fn the_login_of_the_sdk_is_finished_by_another_process() {
    let world = World::start().await;
    let mut first = manager(&world.connection("alice")).await;
    let metadata = first.resolve_metadata().await.unwrap().metadata;
    first.set_metadata(metadata.clone());
    let client = first.register_client("app", CALLBACK, &[]).await.unwrap();
    let callback = authorize(&first.get_authorization_url(&["notes"]).await.unwrap()).await;
    let (code, state) = (callback.code.unwrap(), callback.state.unwrap());

    let mut tries = Vec::new();
    for user in ["bob", "alice", "alice"] {
        let mut second = manager(&world.connection(user)).await;
        second.resolve_metadata().await.unwrap();
        second.set_metadata(metadata.clone());
        second.configure_client(OAuthClientConfig::new(&client.client_id, CALLBACK)).unwrap();
        tries.push(second.exchange_code_for_token_with_issuer(&code, &state, callback.iss.as_deref()).await.is_ok());
    }
    assert_eq!(tries, [false, true, false], "for the same user, and once");

    let alice = world.connection("alice");
    let token = alice.token().await.unwrap();
    assert!(token.refresh_token.is_some(), "the record has it");
    assert_eq!(world.id.requests("authorization_code").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_sdk_works_once() {
    let world = World::start().await;
    let mut first = manager(&world.connection("alice")).await;
    let metadata = first.resolve_metadata().await.unwrap().metadata;
    first.set_metadata(metadata.clone());
    let client = first.register_client("app", CALLBACK, &[]).await.unwrap();
    let callback = authorize(&first.get_authorization_url(&["notes"]).await.unwrap()).await;
    let mut managers = Vec::new();
    for _ in 0..8 {
        let mut manager = manager(&world.connection("alice")).await;
        manager.resolve_metadata().await.unwrap();
        manager.set_metadata(metadata.clone());
        manager.configure_client(OAuthClientConfig::new(&client.client_id, CALLBACK)).unwrap();
        managers.push(manager);
    }
    let tries = managers.into_iter().map(|manager| {
        let callback = callback.clone();
        tokio::spawn(async move {
            let (code, state) = (callback.code.unwrap(), callback.state.unwrap());
            manager.exchange_code_for_token_with_issuer(&code, &state, callback.iss.as_deref()).await.is_ok()
        })
    });
    let mut finished = 0;
    for tried in tries.collect::<Vec<_>>() {
        finished += usize::from(tried.await.unwrap());
    }
    assert_eq!((finished, world.id.requests("authorization_code").len()), (1, 1));
}

/// The complete state machine of the SDK.
#[tokio::test]
async fn oauth_state_logs_in_and_refreshes() {
    let world = World::start().await;
    let alice = world.connection("alice");
    world.id.set_lifetime(0);
    let mut state = OAuthState::Unauthorized(manager(&alice).await);
    state.start_authorization(AuthorizationRequest::new(CALLBACK)).await.unwrap();
    let callback = authorize(&state.get_authorization_url().await.unwrap()).await;
    let (code, csrf) = (callback.code.unwrap(), callback.state.unwrap());
    state.handle_callback_with_issuer(&code, &csrf, callback.iss.as_deref()).await.unwrap();

    world.id.set_lifetime(3600);
    let manager = state.into_authorization_manager().unwrap();
    let token = manager.get_access_token().await.unwrap();
    assert_eq!(world.id.resource_of(&token).as_deref(), Some(world.notes.url()));
    assert_eq!(world.id.refreshes(), 1, "the expired token was refreshed by the core");
    let refresh = &world.id.requests("refresh_token")[0];
    assert_eq!(refresh["resource"], world.notes.url());
}

#[tokio::test]
async fn the_sdk_never_gets_a_refresh_token() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let credentials = alice.credentials().load().await.unwrap().unwrap();
    let text = serde_json::to_string(&credentials).unwrap();
    assert!(text.contains("access-") && !text.contains("refresh-"), "{text}");
    assert_eq!(credentials.token_received_at, None, "the SDK does not decide when it is about to expire");
    assert_eq!(credentials.granted_scopes, ["notes"]);
    assert_eq!(credentials.issuer.as_deref(), Some(world.id.issuer()));
    assert!(!format!("{credentials:?}").contains("CANARY"));

    let manager = started(&alice).await;
    assert!(manager.refresh_token().await.is_err());
    assert_eq!(world.id.refreshes(), 0);
}

/// Two processes with many tasks each, on one token that has expired.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_managers_redeem_once() {
    let world = World::start().await;
    let alice = world.connect_expired("alice").await;
    let mut tasks = Vec::new();
    for replica in world.crowd("alice") {
        // The other way to initialize a manager reads the token, and refreshes it.
        let manager = manager(&replica).await;
        tasks.push(manager);
    }
    let tasks = tasks.into_iter().map(|manager| tokio::spawn(async move { manager.get_access_token().await.unwrap() }));
    let tasks: Vec<_> = tasks.collect();
    let mut tokens = std::collections::BTreeSet::new();
    for task in tasks {
        tokens.insert(task.await.unwrap());
    }
    assert_eq!((world.id.refreshes(), tokens.len()), (1, 1));
    assert!(!world.id.has_dead_grants());
    assert_eq!(alice.token().await.unwrap().access_token.expose(), tokens.first().unwrap());
}

/// Without this crate, the same managers log the user out.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_alone_redeems_twice() {
    let world = World::start().await;
    world.connect_expired("alice").await;
    let refresh_token = {
        let found = world.replica().tokens().get(world.connection("alice").key()).await.unwrap().unwrap();
        found.value.as_oauth2().unwrap().refresh_token.clone().unwrap()
    };
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let mut manager = AuthorizationManager::new(world.notes.url()).await.unwrap();
        let credentials = serde_json::json!({
            "client_id": world.id.requests("authorization_code")[0]["client_id"],
            "token_received_at": 1,
            "token_response": {
                "access_token": "expired", "token_type": "bearer", "expires_in": 1,
                "refresh_token": refresh_token.expose(),
            },
        });
        let credentials: StoredCredentials = serde_json::from_value(credentials).unwrap();
        let store = rmcp::transport::auth::InMemoryCredentialStore::new();
        store.save(credentials).await.unwrap();
        manager.set_credential_store(store);
        manager.initialize_from_store().await.unwrap();
        tasks.push(manager);
    }
    for manager in tasks {
        let _ = manager.get_access_token().await;
    }
    assert_eq!(world.id.refreshes(), 2);
    assert!(world.id.has_dead_grants(), "the user is logged out");
}

fn transport(
    connection: &McpConnection,
    manager: AuthorizationManager,
) -> StreamableHttpClientTransport<AuthClient<reqwest::Client>> {
    let config = StreamableHttpClientTransportConfig::with_uri(connection.server().url());
    StreamableHttpClientTransport::with_client(AuthClient::new(reqwest::Client::new(), manager), config)
}

/// The SDK's client cannot continue with the replaced token, but says that the call can be repeated.
#[tokio::test]
async fn a_rejected_token_of_the_sdk_client_is_replaced() {
    let world = World::start().await;
    // A rejection without a reason replaces only a token that is a minute old, or a quarter of its lifetime.
    world.id.set_lifetime(4);
    let alice = world.connect("alice").await;
    world.id.set_lifetime(3600);
    let client = ().serve(transport(&alice, started(&alice).await)).await.unwrap();
    let call = || client.call_tool(CallToolRequestParams::new("tool"));
    call().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    world.id.forget_access_tokens();

    let error = call().await.unwrap_err();
    assert!(error.auth_challenge().is_none(), "no login is needed: {error:?}");
    assert!(format!("{error:?}").contains("TokenRefreshFailed"), "{error:?}");
    call().await.unwrap();
    assert_eq!(world.id.refreshes(), 1);
}

#[tokio::test]
async fn without_a_token_the_sdk_gets_the_challenge() {
    let world = World::start().await;
    let alice = world.connection("alice");
    let mut manager = manager(&alice).await;
    assert!(!manager.initialize_from_store().await.unwrap());
    assert!(matches!(manager.get_access_token().await, Err(AuthError::AuthorizationRequired)));
    let error = ().serve(transport(&alice, manager)).await.unwrap_err();
    assert!(error.auth_challenge().unwrap().contains("resource_metadata"));
}

/// `set_credentials` with credentials from `load` must not remove the refresh token.
#[tokio::test]
async fn credentials_from_the_store_do_not_replace_it() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let before = world.replica().tokens().get(alice.key()).await.unwrap().unwrap();
    let store = alice.credentials();
    let loaded = store.load().await.unwrap().unwrap();
    world.connection("alice").credentials().save(loaded.clone()).await.unwrap();
    assert_eq!(world.replica().tokens().get(alice.key()).await.unwrap().unwrap().version, before.version);

    // Nor after another process has refreshed in the meantime.
    world.connect("alice").await;
    let newer = world.replica().tokens().get(alice.key()).await.unwrap().unwrap();
    store.save(loaded).await.unwrap();
    assert_eq!(world.replica().tokens().get(alice.key()).await.unwrap().unwrap().version, newer.version);
}

#[tokio::test]
async fn clear_is_a_logout_of_one_user() {
    let world = World::start().await;
    let (alice, bob) = (world.connect("alice").await, world.connect("bob").await);
    alice.credentials().clear().await.unwrap();
    assert!(alice.credentials().load().await.unwrap().is_none());
    assert!(bob.credentials().load().await.unwrap().is_some());
}

#[tokio::test]
async fn another_authorization_server_gets_no_token() {
    let world = World::start().await;
    let alice = world.connect_expired("alice").await;
    let other = AuthorizationServer::start().await;
    world.notes.name_issuer(other.issuer());
    let mut manager = manager(&alice).await;
    // The SDK loads the token, sees the other issuer, and clears the store.
    assert!(!manager.initialize_from_store().await.unwrap());
    assert_eq!(other.refreshes(), 0);
    assert!(alice.token().await.unwrap_err().needs_login());
}

/// The SDK saves credentials without a token if the issuer of a portable client has changed.
#[tokio::test]
async fn a_save_without_a_token_spares_a_newer_login() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let empty = |issuer: &str| {
        StoredCredentials::new("https://app.example/client.json".to_owned(), None, Vec::new(), None)
            .with_issuer(Some(issuer.to_owned()))
    };
    alice.credentials().save(empty(world.id.issuer())).await.unwrap();
    assert!(alice.token().await.is_ok(), "the token is from the current issuer");
    alice.credentials().save(empty("https://other.example")).await.unwrap();
    assert!(alice.token().await.unwrap_err().needs_login());
}
