//! Logins that one replica starts and another one finishes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oauth_dance_core::{Clock, Filter, PageRequest, Timestamp, Token};
use oauth_dance_mcp::{LoginCallback, LoginRequest, McpConnection, McpError, McpServer};
use rmcp::transport::auth::CredentialStore as _;
use serde_json::json;
use support::{AuthorizationServer, CALLBACK, World, authorize, is_unknown};
use url::Url;

async fn start(connection: &McpConnection) -> LoginCallback {
    authorize(&connection.start_login(LoginRequest::default()).await.unwrap()).await
}

#[tokio::test]
async fn any_replica_finishes_a_login() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let token = alice.token().await.unwrap();
    assert_eq!(world.id.resource_of(token.access_token.expose()).as_deref(), Some(world.notes.url()));
    assert_eq!(token.scope.unwrap(), ["notes"], "the scope of the server's metadata");

    let exchange = &world.id.requests("authorization_code")[0];
    assert_eq!(exchange["resource"], world.notes.url());
    assert!(world.connection("bob").token().await.unwrap_err().needs_login());
}

#[tokio::test]
async fn the_application_registers_itself_once() {
    let world = World::start().await;
    for user in ["alice", "bob", "carol", "alice"] {
        world.connect(user).await;
    }
    let registrations = world.id.registrations();
    assert_eq!(registrations.len(), 1, "{registrations:?}");
    assert_eq!(registrations[0]["redirect_uris"], json!([CALLBACK]));
    assert_eq!(registrations[0]["application_type"], "web");

    assert!(world.replica().forget_client(&world.server()).await.unwrap());
    world.connect("alice").await;
    assert_eq!(world.id.registrations().len(), 2);

    // Another redirect URI needs another client.
    let moved = McpServer::new(world.notes.url(), "http://127.0.0.1:3000/callback").unwrap();
    let connection = world.replica().connection(&moved, "alice").unwrap();
    connection.start_login(LoginRequest::default()).await.unwrap();
    assert_eq!(world.id.registrations()[2]["application_type"], "native");
}

/// The secret is stored with the token, so that a process that does not know it can refresh.
#[tokio::test]
async fn a_secret_is_sent_as_the_metadata_says() {
    let world = World::start().await;
    let (id, secret) = ("our id", "p@ss:w/rd CANARY");
    let server = world.server().with_client(id, Some(secret.into()));
    let basic = format!("Basic {}", STANDARD.encode("our+id:p%40ss%3Aw%2Frd+CANARY"));
    for (methods, is_in_form) in [
        (json!(null), false),
        (json!(["client_secret_basic", "client_secret_post"]), false),
        (json!(["client_secret_post"]), true),
    ] {
        world.id.set_metadata(json!({ "token_endpoint_auth_methods_supported": methods }));
        world.id.set_lifetime(0);
        let alice = world.replica().connection(&server, "alice").unwrap();
        alice.finish_login(start(&alice).await).await.unwrap();
        world.id.set_lifetime(3600);
        let elsewhere = world.connection("alice");
        elsewhere.token().await.unwrap();

        for grant_type in ["authorization_code", "refresh_token"] {
            let request = world.id.requests(grant_type).pop().unwrap();
            let expected = if is_in_form { (Some(id), Some(secret), "") } else { (None, None, basic.as_str()) };
            let text = |name: &str| request.get(name).map(String::as_str);
            assert_eq!((text("client_id"), text("client_secret"), request["authorization"].as_str()), expected);
        }
        let credentials = elsewhere.credentials().load().await.unwrap().unwrap();
        assert!(!serde_json::to_string(&credentials).unwrap().contains("p@ss"), "the SDK does not get the secret");
        assert!(!format!("{server:?} {alice:?}").contains("p@ss"));
    }
    assert!(world.id.registrations().is_empty());
}

#[tokio::test]
async fn a_metadata_document_is_used_if_it_is_supported() {
    let world = World::start().await;
    let url = "https://app.example/client.json";
    let server = world.server().with_client_metadata_url(url);
    for (is_supported, registrations) in [(true, 0), (false, 1)] {
        world.id.set_metadata(json!({ "client_id_metadata_document_supported": is_supported }));
        let alice = world.replica().connection(&server, "alice").unwrap();
        alice.finish_login(start(&alice).await).await.unwrap();
        let exchange = world.id.requests("authorization_code").pop().unwrap();
        assert_eq!(exchange["client_id"] == url, is_supported);
        assert_eq!(world.id.registrations().len(), registrations);
    }
}

#[tokio::test]
async fn unusable_metadata_starts_no_login() {
    for (name, value) in [
        ("token_endpoint", "http://id.example/token"),
        ("token_endpoint", "file:///etc/passwd"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("revocation_endpoint", "http://10.0.0.1/revoke"),
    ] {
        let world = World::start().await;
        world.id.set_metadata(json!({ name: value }));
        let result = world.connection("alice").start_login(LoginRequest::default()).await;
        assert!(matches!(result, Err(McpError::Metadata(_) | McpError::Sdk(_))), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn concurrent_first_logins_use_one_client() {
    let world = World::start().await;
    let mut logins = Vec::new();
    for user in ["alice", "bob", "carol", "dave"] {
        let connection = world.connection(user);
        logins.push(tokio::spawn(async move { connection.start_login(LoginRequest::default()).await.unwrap() }));
    }
    for (login, user) in logins.into_iter().zip(["alice", "bob", "carol", "dave"]) {
        let callback = authorize(&login.await.unwrap()).await;
        world.connection(user).finish_login(callback).await.unwrap();
    }
    world.connect("erin").await;
    let clients = world.id.requests("authorization_code");
    let clients: std::collections::BTreeSet<_> = clients.iter().map(|request| &request["client_id"]).collect();
    assert_eq!(clients.len(), 1, "{clients:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_finished_once() {
    let world = World::start().await;
    let callback = start(&world.connection("alice")).await;
    let tries = world.crowd("alice").into_iter().map(|connection| {
        let callback = callback.clone();
        tokio::spawn(async move { connection.finish_login(callback).await })
    });
    let mut finished = 0;
    for result in tries.collect::<Vec<_>>() {
        match result.await.unwrap() {
            Ok(()) => finished += 1,
            other => assert!(is_unknown(&other)),
        }
    }
    assert_eq!((finished, world.id.requests("authorization_code").len()), (1, 1));
    assert!(world.connection("alice").token().await.is_ok());
}

#[tokio::test]
async fn a_login_belongs_to_its_user_and_server() {
    let world = World::start().await;
    let callback = start(&world.connection("alice")).await;
    assert!(is_unknown(&world.connection("bob").finish_login(callback.clone()).await));
    let tenant = world.connection("alice").with_tenant("acme").unwrap();
    assert!(is_unknown(&tenant.finish_login(callback.clone()).await));
    let other = McpServer::new("https://calendar.example/mcp", CALLBACK).unwrap();
    let other = world.replica().connection(&other, "alice").unwrap();
    assert!(is_unknown(&other.finish_login(callback.clone()).await));
    assert!(world.id.requests("authorization_code").is_empty());

    world.connection("alice").finish_login(callback).await.unwrap();
}

#[tokio::test]
async fn a_forged_callback_does_not_end_the_login() {
    let world = World::start().await;
    let callback = start(&world.connection("alice")).await;
    for iss in [None, Some("https://evil.example".to_owned())] {
        for error in [None, Some("access_denied".to_owned())] {
            let mut forged = callback.clone();
            (forged.iss, forged.error) = (iss.clone(), error);
            let refused = world.connection("alice").finish_login(forged).await;
            assert!(matches!(refused, Err(McpError::WrongIssuer)), "{refused:?}");
        }
    }
    let mut guessed = callback.clone();
    guessed.state = Some("guessed".to_owned());
    assert!(is_unknown(&world.connection("alice").finish_login(guessed).await));
    assert!(is_unknown(&world.connection("alice").finish_login(LoginCallback::default()).await));
    assert!(world.id.requests("authorization_code").is_empty());
    world.connection("alice").finish_login(callback).await.unwrap();
}

#[tokio::test]
async fn a_denied_login_leaves_the_stored_token() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let mut denied = start(&alice).await;
    (denied.code, denied.error) = (None, Some("access_denied".to_owned()));
    let result = alice.finish_login(denied).await;
    assert!(matches!(&result, Err(McpError::Denied(text)) if text == "access_denied"), "{result:?}");
    assert!(alice.token().await.is_ok());
}

/// The server names another authorization server between the start of the login and its end.
#[tokio::test]
async fn the_code_goes_to_the_server_of_the_login() {
    let world = World::start().await;
    let evil = AuthorizationServer::start().await;
    let callback = start(&world.connection("alice")).await;
    world.notes.name_issuer(evil.issuer());
    world.connection("alice").finish_login(callback).await.unwrap();
    assert!(evil.requests("authorization_code").is_empty());
    assert_eq!(world.id.requests("authorization_code").len(), 1);
}

#[tokio::test]
async fn a_login_expires() {
    let world = World::start().await;
    let seconds = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_000_000));
    let reading = seconds.clone();
    let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(std::sync::atomic::Ordering::SeqCst)));
    let mut world = world;
    world.storage.0 = world.storage.0.with_clock(clock);
    let callback = start(&world.connection("alice")).await;
    seconds.fetch_add(Duration::from_secs(601).as_secs(), std::sync::atomic::Ordering::SeqCst);
    assert!(is_unknown(&world.connection("alice").finish_login(callback).await));
}

#[tokio::test]
async fn scopes_accumulate() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let request = LoginRequest::default()
        .with_challenge(r#"Bearer error="insufficient_scope", scope="notes:write""#)
        .with_scopes(["extra"]);
    let url = Url::parse(&alice.start_login(request).await.unwrap()).unwrap();
    let scope = url.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned();
    let scopes: std::collections::BTreeSet<_> = scope.split(' ').collect();
    assert_eq!(scopes, ["notes:write", "extra", "notes"].into());
}

#[tokio::test]
async fn records_are_ordinary_and_sealed() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let replica = world.replica();
    let page = replica.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap();
    let keys: Vec<_> = page.entries.iter().map(|entry| entry.key.parts().map(str::to_owned)).collect();
    assert_eq!(keys.len(), 2, "the token and the registered client, and no login: {keys:?}");
    assert_eq!(alice.key().provider(), world.notes.url());
    let found = replica.tokens().get(alice.key()).await.unwrap().unwrap();
    assert!(matches!(found.value, Token::OAuth2(_)));
    assert!(!format!("{found:?} {alice:?} {replica:?}").contains("CANARY"));
    for entry in page.entries {
        let record = oauth_dance_core::TokenStorage::get(&world.storage, &entry.key).await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&record.value.payload).contains("CANARY"));
    }
}

#[tokio::test]
async fn logout_ends_one_connection() {
    let world = World::start().await;
    let (alice, bob) = (world.connect("alice").await, world.connect("bob").await);
    let refresh_token = alice.token().await.unwrap().refresh_token.unwrap();
    assert!(alice.disconnect().await.unwrap());
    assert!(!alice.disconnect().await.unwrap());
    assert_eq!(world.id.revoked(), [refresh_token.expose()]);
    assert!(world.connection("alice").token().await.unwrap_err().needs_login());
    assert!(world.connection("alice").status().await.unwrap().is_none());
    assert!(bob.token().await.is_ok());
}
