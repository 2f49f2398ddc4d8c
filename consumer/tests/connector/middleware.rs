//! The token for a client of the `reqwest-middleware` crate.

use std::time::Duration;

use oauth_dance::testing::{Endpoint, ScriptedResponse};
use oauth_dance::{ConnectError, ConnectedRejection, Connector, ErrorPattern, Precondition, TokenKey, TokenMiddleware};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use serde_json::{Value, json};

use crate::{World, alice};

fn client(connector: &Connector, key: &TokenKey) -> ClientWithMiddleware {
    let http = reqwest::Client::builder().redirect(TokenMiddleware::redirect_policy()).build().unwrap();
    ClientBuilder::new(http).with(connector.middleware(key)).build()
}

fn rejection() -> ScriptedResponse {
    ScriptedResponse::error(401, "invalid_token").header("www-authenticate", "Bearer error=\"invalid_token\"")
}

fn url(world: &World, path: &str) -> String {
    format!("{}{path}", world.provider.url())
}

#[tokio::test]
async fn requests_to_the_provider_carry_the_current_token() {
    let world = World::start().await;
    let connector = world.connected().await;
    let http = client(&connector, &alice());
    let send = || async { http.get(url(&world, "/api/notes")).send().await.unwrap().json::<Value>().await.unwrap() };
    assert_eq!(send().await["user"], "alice");
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(send().await["user"], "alice");
    assert_eq!(world.provider.counters().refreshes, 1);
    let claims = http.get(url(&world, "/userinfo")).send().await.unwrap();
    assert_eq!(claims.json::<Value>().await.unwrap()["sub"], "alice");
}

#[tokio::test]
async fn no_other_origin_gets_the_token() {
    let (world, other) = (World::start().await, World::start().await);
    let connector = world.connected().await;
    let http = client(&connector, &alice());
    http.get(url(&other, "/api/notes")).send().await.unwrap();

    // Redirects, with the policy of the middleware and with the usual one.
    let usual = ClientBuilder::new(reqwest::Client::new()).with(connector.middleware(&alice())).build();
    for http in [&http, &usual] {
        let elsewhere = ScriptedResponse::status(302).header("location", &url(&other, "/api/notes"));
        world.provider.next_response(Endpoint::Api, elsewhere);
        http.get(url(&world, "/api/notes")).send().await.unwrap();
    }
    let received = other.provider.requests_to(Endpoint::Api);
    assert_eq!(received.len(), 2, "the policy follows no redirect to another origin");
    assert!(received.iter().all(|request| !request.headers.contains_key("authorization")));
    // The strangers' rejections are not the provider's.
    assert_eq!(world.provider.counters().refreshes, 0);
    let token = connector.token(&alice()).await.unwrap();
    let sent = world.provider.requests_to(Endpoint::Api);
    let with_token = format!("Bearer {}", token.secret().expose());
    assert_eq!(sent.iter().filter(|sent| sent.header("authorization") == Some(&with_token)).count(), 2);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_and_the_request_repeated() {
    let world = World::start().await;
    let connector = world.connected().await;
    world.provider.next_response(Endpoint::Api, rejection());
    let request = client(&connector, &alice()).put(url(&world, "/api/notes/1")).header("etag", "x").body("text");
    let echo: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&echo["method"], &echo["body"]), (&json!("PUT"), &json!("text")));
    let calls = world.provider.requests_to(Endpoint::Api);
    assert_eq!((calls.len(), world.provider.counters().refreshes), (2, 1));
    assert_ne!(calls[0].header("authorization"), calls[1].header("authorization"));
    assert_eq!(calls[1].header("etag"), Some("x"));
}

/// A body that is a stream cannot be sent twice.
#[tokio::test]
async fn a_stream_is_sent_once() {
    let world = World::start().await;
    let connector = world.connected().await;
    world.provider.next_response(Endpoint::Api, rejection());
    let body = reqwest::Body::wrap(http_body_stream::Stream::of("text"));
    let response = client(&connector, &alice()).put(url(&world, "/api/notes/1")).body(body).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(world.provider.requests_to(Endpoint::Api).len(), 1);
    assert_eq!(world.provider.counters().refreshes, 1, "the next request has another token");
}

#[tokio::test]
async fn a_request_that_was_redirected_is_not_repeated() {
    let world = World::start().await;
    let connector = world.connected().await;
    let moved = ScriptedResponse::status(307).header("location", &url(&world, "/api/other"));
    world.provider.next_response(Endpoint::Api, moved);
    world.provider.next_response(Endpoint::Api, rejection());
    let response = client(&connector, &alice()).post(url(&world, "/api/notes")).body("x").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(world.provider.requests_to(Endpoint::Api).len(), 2);
}

/// The rejection is found in the first bytes of the body, and the caller gets the whole response.
#[tokio::test]
async fn a_response_is_returned_unchanged() {
    let world = World::start().await;
    let connector = world.connected().await;
    for length in [0, 1, 4096, 4097, 300_000] {
        let body = "x".repeat(length);
        let scripted = ScriptedResponse::status(404).header("x-note", "1").body(body.clone());
        world.provider.next_response(Endpoint::Api, scripted);
        let response = client(&connector, &alice()).get(url(&world, "/api/notes?a=b")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["x-note"].to_str().unwrap()), (404, "1"));
        assert_eq!(response.url().as_str(), url(&world, "/api/notes?a=b"));
        assert_eq!(response.text().await.unwrap(), body, "{length}");
    }
}

#[tokio::test]
async fn a_dead_connection_is_reported_with_the_response() {
    let world = World::start().await;
    let connector = world.connected().await;
    let http = client(&connector, &alice());
    world.provider.revoke_all_of("alice");
    let response = http.get(url(&world, "/api/notes")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let rejection = response.extensions().get::<ConnectedRejection>().unwrap();
    assert!(rejection.error().needs_login());

    // The next request needs a login before it is sent.
    let error = http.get(url(&world, "/api/notes")).send().await.unwrap_err();
    let Error::Middleware(cause) = error else { panic!("{error:?}") };
    assert!(cause.downcast_ref::<ConnectError>().is_some_and(ConnectError::needs_login));
    assert_eq!(world.provider.requests_to(Endpoint::Api).len(), 1);
}

#[tokio::test]
async fn requests_elsewhere_need_no_connection() {
    let (world, other) = (World::start().await, World::start().await);
    let connector = world.process();
    assert!(client(&connector, &alice()).get(url(&other, "/api/notes")).send().await.is_ok());
    assert!(client(&connector, &alice()).get(url(&world, "/api/notes")).send().await.is_err());
}

/// A provider whose token response names the API of its user, such as Salesforce.
#[tokio::test]
async fn a_request_that_the_provider_does_not_own_passes_unchanged() {
    let (world, own, foreign) = (World::start().await, World::start().await, World::start().await);
    let mut acme = world.provider.provider("acme");
    acme.quirks.api_base_member = Some("instance_url".to_owned());
    let connector = world.builder().provider(acme.client("test-client", "test-secret")).build().unwrap();
    let http = client(&connector, &alice());
    let send = |to: &World| http.get(url(to, "/api/notes")).send();
    assert!(send(&foreign).await.is_ok(), "no account is connected");

    let mut token = world.provider.issue("alice");
    token.extra = json!({ "instance_url": own.provider.url() }).as_object().unwrap().clone().into();
    connector.tokens().put(&alice(), &token.into(), Precondition::Always).await.unwrap();
    let accepted = || own.provider.next_response(Endpoint::Api, ScriptedResponse::status(200));
    accepted();
    send(&own).await.unwrap();
    send(&foreign).await.unwrap();
    world.clock.advance(Duration::from_secs(3601));
    send(&foreign).await.unwrap();
    assert_eq!(world.provider.counters().refreshes, 0, "no token is needed elsewhere");
    accepted();
    send(&own).await.unwrap();
    assert_eq!(world.provider.counters().refreshes, 1);

    // It cannot be refreshed.
    world.provider.revoke_all_of("alice");
    world.clock.advance(Duration::from_secs(3601));
    assert!(send(&own).await.is_err());
    assert!(send(&foreign).await.is_ok());
    let with_token = |to: &World| {
        let requests = to.provider.requests_to(Endpoint::Api);
        requests.iter().filter(|request| request.header("authorization").is_some()).count()
    };
    assert_eq!((with_token(&own), with_token(&foreign)), (2, 0));
}

/// The API reports a rejected token with status 200, as Slack's does.
#[tokio::test]
async fn a_stream_is_returned_at_once() {
    let world = World::start().await;
    let mut acme = world.provider.provider("acme");
    acme.rejected_tokens.push(ErrorPattern::new([("error", "token_revoked")]).with_status(200));
    let connector = world.builder().provider(acme.client("test-client", "test-secret")).build().unwrap();
    world.provider.connect_key(&connector, &alice()).await.unwrap();
    let http = client(&connector, &alice());
    let send = || http.get(url(&world, "/api/notes")).send();

    for (kind, length) in
        [("text/event-stream", ""), ("application/x-ndjson", ""), ("", ""), ("application/json", "9999")]
    {
        let slow = ScriptedResponse::status(200).body("x".repeat(9999)).dripping(Duration::from_secs(60));
        world.provider.next_response(Endpoint::Api, slow.header("content-type", kind).header("content-length", length));
        let response = tokio::time::timeout(Duration::from_secs(10), send()).await;
        assert_eq!(response.unwrap().unwrap().status(), 200, "{kind}");
    }
    for kind in ["application/json; charset=utf-8", "application/problem+json"] {
        let refreshes = world.provider.counters().refreshes;
        // A token that replaced a rejected one is not replaced at once.
        world.clock.advance(Duration::from_secs(11 * 60));
        let rejected = ScriptedResponse::json(json!({ "ok": false, "error": "token_revoked" }));
        world.provider.next_response(Endpoint::Api, rejected.header("content-type", kind));
        assert_eq!(send().await.unwrap().json::<Value>().await.unwrap()["user"], "alice");
        assert_eq!(world.provider.counters().refreshes, refreshes + 1, "{kind}");
    }
}

#[tokio::test]
async fn proofs_are_attached_and_nonces_learned() {
    let world = World::start().await;
    world.provider.configure(|settings| {
        settings.requires_dpop = true;
        settings.dpop_nonce = Some("n-1".to_owned());
    });
    let mut bound = world.provider.provider("acme");
    bound.dpop = true;
    let connector = world.builder().provider(bound.client("test-client", "test-secret")).build().unwrap();
    world.provider.connect_key(&connector, &alice()).await.unwrap();
    let http = client(&connector, &alice());
    for calls in [2, 3] {
        let response = http.post(url(&world, "/api/notes")).body("x").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(world.provider.requests_to(Endpoint::Api).len(), calls);
    }
}

#[tokio::test]
async fn requests_of_oauth1_are_signed() {
    let world = World::start().await;
    let connector = world.builder().provider(world.provider.oauth1_registration("acme")).build().unwrap();
    world.provider.connect_key(&connector, &alice()).await.unwrap();
    let request = client(&connector, &alice()).post(url(&world, "/api/notes?a=b"));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body("text=milk+%26+eggs");
    let echo: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&echo["user"], &echo["form"][0][1]), (&json!("alice"), &json!("milk & eggs")));
}

mod http_body_stream {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body, Frame};

    /// A body of one frame that cannot be cloned.
    pub(super) struct Stream(Option<Bytes>);

    impl Stream {
        pub(super) fn of(text: &'static str) -> Self {
            Self(Some(Bytes::from_static(text.as_bytes())))
        }
    }

    impl Body for Stream {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }
}
