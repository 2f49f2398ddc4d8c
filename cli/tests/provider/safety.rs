//! Functions of the testing provider that the demo's provider must not have, or not without a decision of the user.

use reqwest::header;
use url::form_urlencoded::byte_serialize;

use crate::harness::{CLIENT_ID, Provider, REDIRECT_URI, authorize, basic, encode, send, text};

#[tokio::test]
async fn no_counters_are_served() {
    let provider = Provider::start().await;
    provider.tokens().await;
    let response = send(provider.get("/counters")).await;
    assert_eq!(response.status, 404);
    assert!(response.body.contains("Page not found"), "{}", response.body);
}

#[tokio::test]
async fn a_pushed_request_waits_for_the_decision() {
    let provider = Provider::start().await;
    let (_, query) = authorize(&[]).split_once('?').map(|(path, query)| (path.to_owned(), query.to_owned())).unwrap();
    let push = provider.post_as("application/x-www-form-urlencoded", "/par", query);
    let pushed = send(push.header(header::AUTHORIZATION, basic(CLIENT_ID, &provider.secret))).await;
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    let pushed = pushed.json();
    let reference = [("client_id", CLIENT_ID), ("request_uri", text(&pushed["request_uri"]))];
    let path = format!("/authorize?{}", encode(&reference));

    let mut browser = provider.browser();
    browser.sign_in("alice").await;
    let csrf = browser.get(&path).await.csrf();
    let response = browser.post(&path, &[("csrf", &csrf), ("action", "allow")]).await;
    assert_eq!(provider.redeem(&response.query("code").unwrap()).await.status, 200);
    assert_eq!(browser.get(&path).await.status, 400, "a reference is valid for one decision");
}

#[tokio::test]
async fn an_oauth1_login_waits_for_the_decision() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    browser.sign_in("alice").await;
    let path = provider.oauth1_authorization(REDIRECT_URI).await.unwrap();

    let consent = browser.get(&path).await;
    assert_eq!(consent.status, 200);
    assert!(consent.body.contains("Alice Adams"), "{}", consent.body);
    let form = [("csrf", &*consent.csrf()), ("action", "deny")];
    assert_eq!(browser.post(&path, &form).await.query("oauth_problem").as_deref(), Some("access_denied"));
    let form = [("csrf", &*consent.csrf()), ("action", "allow")];
    assert!(browser.post(&path, &form).await.query("oauth_verifier").is_some());
}

#[tokio::test]
async fn no_redirect_leads_to_an_unregistered_uri() {
    let provider = Provider::start().await;
    let evil = "https://evil.example/";
    let response = send(provider.get(&format!("/end_session?post_logout_redirect_uri={evil}"))).await;
    assert_eq!((response.status.as_u16(), response.location()), (200, ""));
    assert!(provider.oauth1_authorization(evil).await.is_none());
}

impl Provider {
    /// The path at which a browser decides on new temporary credentials, or `None` if they are refused.
    async fn oauth1_authorization(&self, callback: &str) -> Option<String> {
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let parameters = [
            ("oauth_consumer_key", CLIENT_ID),
            ("oauth_signature_method", "PLAINTEXT"),
            ("oauth_signature", &format!("{}&", self.secret)),
            ("oauth_timestamp", "1"),
            ("oauth_nonce", callback),
            ("oauth_callback", callback),
        ];
        let parameters = parameters.map(|(name, value)| format!("{name}=\"{}\"", encoded(value))).join(", ");
        let request = self.post("/oauth1/temporary", &[]).header(header::AUTHORIZATION, format!("OAuth {parameters}"));
        let response = send(request).await;
        let (token, _) = response.body.split_once("&oauth_token_secret=")?;
        Some(format!("/oauth1/authorize?{token}"))
    }
}
