//! URLs from a provider never lead nearer to this machine than the provider itself.

use oauth_dance::{
    ApiError, ConfigError, KeyRing, MemoryStorage, OAuth, OAuth2Token, Precondition, Provider, Registration, Token,
    User,
};
use serde_json::json;

use crate::support::Ear;

/// A provider on the Internet whose token response contains the user's API base.
fn acme() -> Provider {
    let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
    acme.quirks.api_base_member = Some("instance_url".to_owned());
    acme
}

fn build(registration: Registration, plain_http: &[&str]) -> OAuth {
    OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
        .dangerously_allow_http(plain_http.iter().copied())
        .provider(registration)
        .anonymous_users()
        .build()
        .unwrap()
}

/// The result of a call if the token response contained this API base.
async fn call(oauth: &OAuth, api_base: &str) -> Result<(), ApiError> {
    let alice = User::new("alice");
    let mut token = OAuth2Token::bearer("token");
    token.extra = [("instance_url".to_owned(), json!(api_base))].into_iter().collect::<serde_json::Map<_, _>>().into();
    let key = alice.key("acme").unwrap();
    oauth.tokens().put(&key, &Token::from(token), Precondition::Always).await.unwrap();
    oauth.client("acme", &alice).await.unwrap().get("/me").send().await.map(drop)
}

#[tokio::test]
async fn a_token_response_leads_to_no_nearer_zone() {
    let ear = Ear::listen().await;
    let port = ear.url.rsplit_once(':').unwrap().1;
    let oauth = build(acme().client("id", "secret"), &[]);
    for host in [
        "127.0.0.1",
        "localhost",
        "a.localhost",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "metadata.google.internal",
    ] {
        for scheme in ["http", "https"] {
            let outcome = call(&oauth, &format!("{scheme}://{host}:{port}")).await;
            assert!(matches!(outcome, Err(ApiError::Url)), "{scheme}://{host}: {outcome:?}");
        }
    }
    assert_eq!(ear.connections(), 0);
}

#[tokio::test]
async fn a_configured_host_is_never_too_near() {
    let ear = Ear::listen().await;
    let port = ear.url.rsplit_once(':').unwrap().1;
    let mut configured = acme();
    configured.api_base = Some("http://127.0.0.1:9".to_owned());
    let mut local = acme();
    local.token_endpoint = "http://127.0.0.1:9/token".to_owned();
    for (provider, plain_http) in [(configured, &[][..]), (local, &[]), (acme(), &["127.0.0.1"])] {
        let oauth = build(provider.client("id", "secret"), plain_http);
        call(&oauth, &format!("http://127.0.0.1:{port}")).await.unwrap();
    }
    assert_eq!(ear.connections(), 3);
}

#[test]
fn plain_http_is_used_only_for_allowed_hosts() {
    let oauth1 = Provider::oauth1("acme", "http://nas/request", "https://nas/authorize", "https://nas/token");
    let new = || Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
    let mut api = new();
    api.api_base = Some("http://nas:8080/api".to_owned());
    let registrations = || {
        [
            ("http://localhost:3000", Provider::new("acme", "http://nas/a", "http://nas/t").client("id", "secret")),
            ("http://localhost:3000", api.clone().client("id", "secret")),
            ("http://localhost:3000", oauth1.clone().client("id", "secret")),
            ("http://localhost:3000", new().client("id", "secret").with_redirect_uri("http://nas:3000/back")),
            #[cfg(feature = "oidc")]
            ("http://localhost:3000", Provider::openid("acme", "http://nas:8080/realms/dev").client("id", "secret")),
            ("http://nas:3000", new().client("id", "secret")),
        ]
    };
    let build = |base: &str, registration: Registration, hosts: &[&str]| {
        OAuth::builder(base, MemoryStorage::new(), KeyRing::generate())
            .dangerously_allow_http(hosts.iter().copied())
            .provider(registration)
            .anonymous_users()
            .build()
    };
    for hosts in [&[][..], &["acme.example"], &["na", "nas.example", "127.0.0.1"]] {
        for (base, registration) in registrations() {
            let error = build(base, registration, hosts).unwrap_err().to_string();
            assert!(error.contains("must be https") && error.contains("dangerously_allow_http"), "{error}");
        }
    }
    for (base, registration) in registrations() {
        build(base, registration, &["127.0.0.1", "nas"]).unwrap();
    }
    let error = build("http://localhost:3000", new().client("id", "secret"), &["http://nas"]).unwrap_err();
    assert!(matches!(&error, ConfigError::PlainHttpHost { host } if host == "http://nas"), "{error}");
}
