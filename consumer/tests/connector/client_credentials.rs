//! The application's own token (RFC 6749 section 4.4).

use std::time::Duration;

use oauth_dance::testing::{Endpoint, ScriptedResponse};
use oauth_dance::{
    ApiError, Audience, ConfigError, ConnectError, Filter, OAuth2Token, PageRequest, Precondition, TokenStorage as _,
};
use tokio::task::JoinSet;

use crate::{World, alice, seen};

const HOUR: Duration = Duration::from_secs(3601);

#[tokio::test]
async fn the_application_acts_for_itself() {
    let world = World::start().await;
    let connector = world.process();
    let client = connector.client_credentials("acme").await.unwrap();
    assert_eq!(seen(&client).await["user"], "test-client");
    let request = &world.provider.requests_to(Endpoint::Token)[0];
    assert_eq!(request.form, [("grant_type".to_owned(), "client_credentials".to_owned())]);
    assert!(request.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
    assert_eq!(client.token().as_oauth2().unwrap().refresh_token, None);
}

/// All of them find no token, and then an expired one.
#[tokio::test]
async fn processes_request_one_token_together() {
    let world = World::start().await;
    let processes = [world.process(), world.process(), world.process()];
    for expected in 1..=3 {
        let mut calls = JoinSet::new();
        for connector in processes.iter().cycle().take(30) {
            let connector = connector.clone();
            calls.spawn(async move { connector.client_credentials("acme").await.unwrap().token().clone() });
        }
        let tokens = calls.join_all().await;
        assert!(tokens.iter().all(|token| *token == tokens[0]));
        assert_eq!(world.provider.counters().client_credentials, expected);
        assert_eq!(world.provider.requests_to(Endpoint::Token).len() as u64, expected);
        world.clock.advance(HOUR);
    }
}

#[tokio::test]
async fn each_audience_and_scope_has_its_own_token() {
    let world = World::start().await;
    let connector = world.process();
    let audiences = [
        Audience::default(),
        Audience::new("billing"),
        Audience::new("reports"),
        Audience::default().with_resource("https://reports.example/"),
        Audience::new("billing").with_scopes(["read"]),
        Audience::new("billing").with_scopes(["write", "read"]),
    ];
    for _ in 0..2 {
        for audience in &audiences {
            connector.client_credentials_for("acme", audience).await.unwrap();
        }
    }
    let reordered = Audience::new("billing").with_scopes(["read", "write"]);
    let client = connector.client_credentials_for("acme", &reordered).await.unwrap();
    assert_eq!(world.provider.counters().client_credentials, 6);
    let seen = seen(&client).await;
    assert_eq!((&seen["scope"], &seen["audience"][0]), (&"read write".into(), &"billing".into()));
    let requests = world.provider.requests_to(Endpoint::Token);
    assert_eq!(requests[3].field("resource"), Some("https://reports.example/"));
    assert_eq!(requests[4].field("scope"), Some("read"));
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let world = World::start().await;
    let client = world.process().client_credentials("acme").await.unwrap();
    world.provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
    seen(&client).await;
    assert_eq!(world.provider.counters().client_credentials, 2);

    // An API that rejects every token does not cause a request with each call.
    let client = world.process().client_credentials("acme").await.unwrap();
    for _ in 0..2 {
        world.provider.next_response(Endpoint::Api, ScriptedResponse::error(401, "invalid_token"));
        let rejected = client.get("/notes").send().await.unwrap().success();
        assert!(matches!(rejected, Err(ApiError::Status { status }) if status == 401));
    }
    assert_eq!(world.provider.counters().client_credentials, 2);

    // The token is as usable as before.
    seen(&world.process().client_credentials("acme").await.unwrap()).await;
}

/// An application has no user who could log in again, so no failure may require that.
#[tokio::test]
async fn no_failure_is_permanent() {
    let world = World::start().await;
    let connector = world.process();
    let failures = [
        ScriptedResponse::error(400, "invalid_grant"),
        ScriptedResponse::error(400, "unknown_reason"),
        ScriptedResponse::error(401, "invalid_client"),
        ScriptedResponse::error(400, "invalid_scope"),
        ScriptedResponse::status(503),
        ScriptedResponse::json(serde_json::json!({})),
        ScriptedResponse::normal().lost(),
    ];
    for failure in failures.iter().cycle().take(3 * failures.len()) {
        world.provider.next_token_response(failure.clone());
        let failed = connector.client_credentials("acme").await.map(drop);
        assert!(matches!(failed, Err(ConnectError::BackingOff { .. })), "{failed:?}");
        // The failure is known to all processes until the pause is over.
        let again = world.process().client_credentials("acme").await.map(drop);
        assert!(matches!(again, Err(ConnectError::BackingOff { .. })), "{again:?}");
        world.clock.advance(Duration::from_secs(13 * 3600));
    }
    assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 3 * failures.len());
    seen(&connector.client_credentials("acme").await.unwrap()).await;
}

#[tokio::test]
async fn only_a_confidential_client_of_oauth2_may_use_it() {
    let world = World::start().await;
    let (public, oauth1) =
        (world.provider.provider("public").public_client("id"), world.provider.oauth1_registration("old"));
    let connector = world.builder().provider(public).provider(oauth1).build().unwrap();
    for provider in ["public", "old"] {
        let refused = connector.client_credentials(provider).await.map(drop);
        assert!(matches!(refused, Err(ConnectError::Config(_))), "{refused:?}");
    }
    let unsafe_api = Audience::new("billing").with_api_base("http://billing.example");
    let connector = world.process();
    let refused = connector.client_credentials_for("acme", &unsafe_api).await.map(drop);
    let invalid = matches!(refused, Err(ConnectError::Config(ConfigError::Invalid { field: "api_base", .. })));
    assert!(invalid, "{refused:?}");
    assert!(matches!(connector.client_credentials("other").await, Err(ConnectError::UnknownProvider(_))));
    assert!(world.provider.requests().is_empty());
}

#[tokio::test]
async fn the_token_is_sealed_and_belongs_to_no_user() {
    let world = World::start().await;
    let connector = world.process();
    let client = connector.client_credentials("acme").await.unwrap();
    let entries = connector.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
    let key = &entries[0].key;
    assert_eq!((key.tenant(), key.user(), key.provider()), (Some("oauth-dance:application"), "test-client", "acme"));
    assert!(key.account().is_some());
    let record = world.storage.get(key).await.unwrap().unwrap().value;
    let secret = client.token().secret().expose();
    assert!(!record.payload.windows(secret.len()).any(|window| window == secret.as_bytes()));
    // A user whose key looks like this one does not get the application's token.
    assert!(matches!(connector.client(key).await, Err(ConnectError::NotConnected)));
    assert!(matches!(connector.token(key).await, Err(ConnectError::NotConnected)));
}

/// A token that was not requested by the application, such as that of a user with a strange tenant, is not used.
#[tokio::test]
async fn a_token_of_another_origin_is_not_used() {
    let world = World::start().await;
    let connector = world.process();
    connector.client_credentials("acme").await.unwrap();
    let entries = connector.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
    let stranger = OAuth2Token::bearer("a-user-s-token").into();
    connector.tokens().put(&entries[0].key, &stranger, Precondition::Always).await.unwrap();
    let client = connector.client_credentials("acme").await.unwrap();
    assert_ne!(client.token().secret().expose(), "a-user-s-token");
    assert_eq!(seen(&client).await["user"], "test-client");
}

#[tokio::test]
async fn a_pass_over_due_tokens_leaves_it_alone() {
    let world = World::start().await;
    let connector = world.connected().await;
    connector.client_credentials("acme").await.unwrap();
    world.clock.advance(HOUR);
    let due = oauth_dance::Due::expiring_within(Duration::from_secs(60));
    let report = connector.refresh_due(&due).await.unwrap();
    assert_eq!((report.refreshed, report.skipped, report.failed), (1, 1, 0));
    assert!(connector.client(&alice()).await.is_ok());
}

/// The token may be for another API than the provider's, and then is sent only there.
#[tokio::test]
async fn the_api_base_of_an_audience_is_the_only_origin() {
    let (world, other) = (World::start().await, World::start().await);
    let connector = world.process();
    let elsewhere = Audience::new("notes").with_api_base(format!("{}/api/v2", other.provider.url()));
    let client = connector.client_credentials_for("acme", &elsewhere).await.unwrap();
    let response = client.get("/notes").send().await.unwrap();
    assert_eq!(response.status(), 401, "the other provider knows another token");
    assert_eq!(other.provider.requests_to(Endpoint::Api)[0].path, "/api/v2/notes");
    assert!(world.provider.requests_to(Endpoint::Api).is_empty());
    let own = format!("{}/api/notes", world.provider.url());
    assert!(matches!(client.get(&own).send().await, Err(ApiError::ForeignOrigin)));
}

#[tokio::test]
async fn a_token_can_be_bound_to_a_key() {
    let world = World::start().await;
    world.provider.configure(|settings| settings.requires_dpop = true);
    let mut bound = world.provider.provider("acme");
    bound.dpop = true;
    let registration = bound.client("test-client", "test-secret");
    let connector = world.builder().provider(registration).build().unwrap();
    for _ in 0..2 {
        let client = connector.client_credentials("acme").await.unwrap();
        assert_eq!(client.token().as_oauth2().unwrap().token_type, "DPoP");
        assert_eq!(seen(&client).await["user"], "test-client");
        world.clock.advance(HOUR);
    }
}
