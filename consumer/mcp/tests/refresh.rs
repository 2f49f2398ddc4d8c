//! Refreshes: one redemption, at the authorization server of the login, and what each failure means.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use oauth_dance_core::{
    Clock, ConnectionState, Due, Lease, OAuth2Token, Precondition, RedeemError, RefreshError, Timestamp,
};
use oauth_dance_mcp::{LoginRequest, McpConnection, McpError, McpServer};
use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::json;
use support::{AuthorizationServer, CALLBACK, World};
use tokio::net::TcpListener;
use tokio::time::timeout;

async fn call(connection: &McpConnection) -> Result<String, String> {
    let client = ().serve(connection.transport()).await.map_err(|error| format!("{error:?}"))?;
    let called = client.call_tool(CallToolRequestParams::new("tool")).await.map_err(|error| format!("{error:?}"));
    client.cancel().await.unwrap();
    called.map(|result| result.content[0].as_text().unwrap().text.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_redeemed_once() {
    let world = World::start().await;
    world.connect_expired("alice").await;
    let calls = world.crowd("alice").into_iter().map(|alice| tokio::spawn(async move { call(&alice).await.unwrap() }));
    for called in calls.collect::<Vec<_>>() {
        assert_eq!(called.await.unwrap(), "tool");
    }
    assert_eq!(world.id.refreshes(), 1);
    assert!(!world.id.has_dead_grants());
    let refresh = &world.id.requests("refresh_token")[0];
    assert_eq!(refresh["resource"], world.notes.url());
    assert_eq!(refresh["client_id"], world.id.requests("authorization_code")[0]["client_id"]);
}

/// The server rejects a token that has not expired, in many calls at once. Some rejections arrive after the token was
/// replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_token_is_replaced_once() {
    let world = World::start().await;
    world.connect("alice").await;
    world.id.forget_access_tokens();
    world.notes.delay_rejections();
    let calls = world.crowd("alice").into_iter().map(|alice| tokio::spawn(async move { call(&alice).await.unwrap() }));
    for called in calls.collect::<Vec<_>>() {
        called.await.unwrap();
    }
    assert_eq!(world.id.refreshes(), 1);
    assert!(!world.id.has_dead_grants());
}

/// A server that rejects every token must not cause a refresh with each call.
#[tokio::test]
async fn a_server_that_rejects_everything_causes_one_refresh() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    for _ in 0..5 {
        world.id.forget_access_tokens();
        let _ = call(&alice).await;
    }
    assert_eq!(world.id.refreshes(), 1);

    let world = World::start().await;
    let bob = world.connect("bob").await;
    world.notes.explain_nothing();
    world.id.forget_access_tokens();
    let error = call(&bob).await.unwrap_err();
    assert!(error.contains("resource_metadata"), "the challenge is returned: {error}");
    assert_eq!(world.id.refreshes(), 0, "the token is new, and the server gave no reason");
}

/// The server's metadata names another authorization server after the login.
#[tokio::test]
async fn the_refresh_token_goes_to_the_server_of_the_login() {
    let world = World::start().await;
    let alice = world.connect_expired("alice").await;
    let evil = AuthorizationServer::start().await;
    world.notes.name_issuer(evil.issuer());
    assert_eq!(call(&alice).await.unwrap(), "tool");
    assert_eq!((world.id.refreshes(), evil.refreshes()), (1, 0));
}

#[tokio::test]
async fn a_token_response_cannot_move_the_refresh() {
    let world = World::start().await;
    let evil = AuthorizationServer::start().await;
    world.id.set_extra(json!({ "oauth-dance:mcp": { "token_endpoint": format!("{}/token", evil.issuer()) }, "a": 1 }));
    let alice = world.connect_expired("alice").await;
    world.id.set_lifetime(0);
    alice.token().await.unwrap();
    world.id.set_lifetime(3600);
    let token = alice.token().await.unwrap();
    assert_eq!((world.id.refreshes(), evil.refreshes()), (2, 0));
    assert_eq!(token.extra.get("a").unwrap(), 1);
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    for status in [302, 307, 308] {
        let world = World::start().await;
        let alice = world.connect_expired("alice").await;
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = format!("http://{}/token", elsewhere.local_addr().unwrap());
        world.id.set_fault(Some((status, json!({ "location": location }))));
        assert!(!alice.token().await.unwrap_err().needs_login());
        assert_eq!(world.id.refreshes(), 1, "{status}");
        assert!(timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err(), "{status}");
    }
}

/// The token of one server is never sent to another one.
#[tokio::test]
async fn a_token_goes_to_its_server_only() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let other = support::McpTestServer::start(&world.id).await;
    for uri in [other.url().to_owned(), format!("{}/other", world.notes.url()), "http://127.0.0.1:1/mcp".to_owned()] {
        let config = StreamableHttpClientTransportConfig::with_uri(uri.as_str());
        let client = alice.client(reqwest::Client::new());
        let failed = ().serve(StreamableHttpClientTransport::with_client(client, config)).await;
        let error = format!("{:?}", failed.err().unwrap());
        assert!(error.contains("is not the URL of the MCP server"), "{error}");
    }
    assert!(other.seen().is_empty());

    let server = McpServer::new(other.url(), CALLBACK).unwrap();
    let elsewhere = world.replica().connection(&server, "alice").unwrap();
    assert!(elsewhere.token().await.unwrap_err().needs_login());
    let error = call(&elsewhere).await.unwrap_err();
    assert!(error.contains("resource_metadata"), "{error}");
    assert!(other.seen().iter().all(Option::is_none), "it received no token");
    assert_eq!(call(&alice).await.unwrap(), "tool");
    let token = alice.token().await.unwrap();
    assert!(world.notes.seen().iter().flatten().all(|seen| seen == token.access_token.expose()));
}

#[tokio::test]
async fn each_failure_has_its_meaning() {
    let retried = |error: &McpError| matches!(error, McpError::Token(RefreshError::BackingOff { .. }));
    let dead = |error: &McpError| error.needs_login();
    type Check = fn(&McpError) -> bool;
    let cases: [(u16, serde_json::Value, Check); 9] = [
        (400, json!({"error": "invalid_grant"}), dead),
        (401, json!({"error": "invalid_grant"}), dead),
        (400, json!({"error": "invalid_request"}), retried),
        (401, json!({"error": "invalid_client"}), retried),
        (429, json!({}), retried),
        (503, json!({"error": "temporarily_unavailable"}), retried),
        (500, json!({"error": "invalid_client"}), retried),
        (200, json!({"token": "none"}), retried),
        (302, json!({}), retried),
    ];
    for (status, body, expected) in cases {
        let world = World::start().await;
        let alice = world.connect_expired("alice").await;
        world.id.set_fault(Some((status, body.clone())));
        let error = alice.token().await.unwrap_err();
        assert!(expected(&error), "{status} {body}: {error:?}");
        assert!(!format!("{error:?}").contains("CANARY"));
        assert_eq!(world.id.refreshes(), 1, "{status} {body}");
        let error = call(&alice).await.unwrap_err();
        assert_eq!(error.contains("resource_metadata"), error_is_login(&alice).await, "{status} {body}: {error}");
    }
}

async fn error_is_login(connection: &McpConnection) -> bool {
    let status = connection.status().await.unwrap().unwrap();
    matches!(status.state, ConnectionState::NeedsAuthorization { .. })
}

/// The process was suspended after it claimed the refresh token, and another one has taken over.
#[tokio::test]
async fn nothing_is_sent_after_the_lease_has_expired() {
    let world = World::start().await;
    let alice = world.connect_expired("alice").await;
    let stored = world.replica().tokens().get(alice.key()).await.unwrap().unwrap().value;
    let lease = Lease::start(Duration::ZERO, &Clock::system());
    let result = world.replica().redeem().redeem(stored.as_oauth2().unwrap(), &lease).await;
    assert_eq!(result, Err(RedeemError::LeaseExpired));
    assert_eq!(world.id.refreshes(), 0);
}

/// A record that this crate did not write does not say where the token is refreshed.
#[tokio::test]
async fn a_record_of_another_program_needs_a_login() {
    let world = World::start().await;
    let alice = world.connection("alice");
    let mut token = OAuth2Token::bearer("access");
    token.refresh_token = Some("refresh".into());
    token.expires_at = Some(Timestamp::from_unix_seconds(1));
    world.replica().tokens().put(alice.key(), &token.into(), Precondition::Always).await.unwrap();
    assert!(alice.token().await.unwrap_err().needs_login());
}

#[tokio::test]
async fn a_login_ends_a_dead_connection() {
    let world = World::start().await;
    let alice = world.connect_expired("alice").await;
    world.id.set_fault(Some((400, json!({"error": "invalid_grant"}))));
    assert!(alice.token().await.unwrap_err().needs_login());
    world.id.set_fault(None);
    world.connect("alice").await;
    assert_eq!(call(&alice).await.unwrap(), "tool");
}

/// The logout takes precedence over a refresh in flight, in any process.
#[tokio::test]
async fn a_logout_ends_the_refresh() {
    let world = World::start().await;
    let alice = world.connect_expired("alice").await;
    let refreshing = {
        let alice = alice.clone();
        tokio::spawn(async move { alice.token().await })
    };
    world.connection("alice").disconnect().await.unwrap();
    let _ = refreshing.await.unwrap();
    assert!(world.connection("alice").token().await.unwrap_err().needs_login());
}

#[tokio::test]
async fn due_tokens_are_refreshed_without_a_call() {
    let world = World::start().await;
    for user in ["alice", "bob"] {
        world.connect_expired(user).await;
    }
    let replica = world.replica();
    let due = Due::expiring_within(Duration::from_secs(60)).with_rate(1000);
    let report = replica.refresher().refresh_due(replica.tokens(), &due, |_| Some(replica.redeem())).await.unwrap();
    assert_eq!((report.refreshed, report.failed, world.id.refreshes()), (2, 0, 2));
}

/// A login in another process replaces the token that a running client uses.
#[tokio::test]
async fn a_running_client_uses_the_token_of_a_later_login() {
    let world = World::start().await;
    let alice = world.connect("alice").await;
    let client = ().serve(alice.transport()).await.unwrap();
    world.connection("alice").disconnect().await.unwrap();
    let error = client.call_tool(CallToolRequestParams::new("tool")).await.unwrap_err();
    let challenge = error.auth_challenge().unwrap().to_owned();
    let request = LoginRequest::default().with_challenge(challenge);
    let url = world.connection("alice").start_login(request).await.unwrap();
    world.connection("alice").finish_login(support::authorize(&url).await).await.unwrap();
    client.call_tool(CallToolRequestParams::new("tool")).await.unwrap();
    client.cancel().await.unwrap();
}
