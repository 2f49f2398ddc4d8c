//! Requests that the client of the `reqwest-middleware` crate redirects: they may have been processed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance::testing::{Endpoint, LoggedRequest, ScriptedResponse, TestProvider};
use oauth_dance::{Connector, TokenMiddleware};
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::Value;

use crate::{World, alice};

/// A connection with a token that is bound to a key.
async fn bound(world: &World) -> Connector {
    world.provider.configure(|settings| settings.requires_dpop = true);
    let mut acme = world.provider.provider("acme");
    acme.dpop = true;
    let connector = world.builder().provider(acme.client("test-client", "test-secret")).build().unwrap();
    world.provider.connect_key(&connector, &alice()).await.unwrap();
    connector
}

fn client(connector: &Connector, policy: Policy) -> ClientWithMiddleware {
    let http = reqwest::Client::builder().redirect(policy).build().unwrap();
    ClientBuilder::new(http).with(connector.middleware(&alice())).build()
}

fn url(provider: &TestProvider) -> String {
    format!("{}/api/notes", provider.url())
}

fn wants_nonce(nonce: &str) -> ScriptedResponse {
    let challenge = ScriptedResponse::status(401).header("www-authenticate", "DPoP error=\"use_dpop_nonce\"");
    challenge.header("dpop-nonce", nonce)
}

fn rejection() -> ScriptedResponse {
    ScriptedResponse::error(401, "invalid_token").header("www-authenticate", "Bearer error=\"invalid_token\"")
}

async fn post(http: &ClientWithMiddleware, world: &World) -> u16 {
    http.post(url(&world.provider)).body("x").send().await.unwrap().status().as_u16()
}

fn posts(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Api).iter().filter(|request| request.method == "POST").count()
}

/// The nonce in the proof of a request.
fn nonce(request: &LoggedRequest) -> Value {
    let payload = request.header("dpop").unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims["nonce"].clone()
}

#[tokio::test]
async fn a_processed_request_is_not_repeated_for_a_nonce() {
    for target in ["/api/notes/1", "/api/notes"] {
        let world = World::start().await;
        let http = client(&bound(&world).await, TokenMiddleware::redirect_policy());
        let created = ScriptedResponse::redirect(303, &format!("{}{target}", world.provider.url()));
        world.provider.next_response(Endpoint::Api, created);
        world.provider.next_response(Endpoint::Api, wants_nonce("n-1"));
        assert_eq!(post(&http, &world).await, 401);
        assert_eq!((posts(&world.provider), world.provider.requests_to(Endpoint::Api).len()), (1, 2), "{target}");

        assert_eq!(post(&http, &world).await, 200);
        assert_eq!(nonce(world.provider.requests_to(Endpoint::Api).last().unwrap()), "n-1", "its own nonce is used");
    }
}

#[tokio::test]
async fn a_processed_request_is_not_repeated_with_another_token() {
    for target in ["/api/notes/1", "/api/notes"] {
        let world = World::start().await;
        let http = client(&world.connected().await, TokenMiddleware::redirect_policy());
        let created = ScriptedResponse::redirect(303, &format!("{}{target}", world.provider.url()));
        world.provider.next_response(Endpoint::Api, created);
        world.provider.next_response(Endpoint::Api, rejection());
        assert_eq!(post(&http, &world).await, 401);
        assert_eq!((posts(&world.provider), world.provider.requests_to(Endpoint::Api).len()), (1, 2), "{target}");
    }
}

/// With another policy than that of the middleware.
#[tokio::test]
async fn a_stranger_causes_no_repetition_and_sets_no_nonce() {
    let (world, stranger) = (World::start().await, World::start().await);
    let http = client(&bound(&world).await, Policy::default());
    let elsewhere = ScriptedResponse::redirect(307, &url(&stranger.provider));
    world.provider.next_response(Endpoint::Api, elsewhere);
    stranger.provider.next_response(Endpoint::Api, wants_nonce("stranger"));
    assert_eq!(post(&http, &world).await, 401);
    assert_eq!((posts(&world.provider), posts(&stranger.provider)), (1, 1));

    assert_eq!(post(&http, &world).await, 200);
    assert!(nonce(world.provider.requests_to(Endpoint::Api).last().unwrap()).is_null());
}
