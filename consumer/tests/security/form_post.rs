//! Providers that respond with a form, as Apple does (OAuth 2.0 Form Post Response Mode).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use oauth_dance::presets::Apple;
use oauth_dance::testing::{CLIENT, Endpoint, TestProvider};
use oauth_dance::{Authorized, BoxError, ClientAuthentication, ClientKey, Decision, Hooks, OAuthBuilder};
use url::Url;

use crate::support::{Browser, Setup, Site};

/// Apple's data about a user at the first login.
const USER: &str = r#"{"name":{"firstName":"Zoë","lastName":"O'Neill"},"email":"zoe@example.test"}"#;

#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Option<String>>>);

#[async_trait::async_trait]
impl Hooks for Noted {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        *self.0.lock().unwrap() = login.posted_user.map(|user| user.expose().to_owned());
        Ok(Decision::store())
    }
}

async fn world() -> (TestProvider, Site, Noted) {
    let provider = TestProvider::start().await.unwrap();
    let mut known = provider.provider("acme");
    known.quirks.form_post = true;
    let (registration, noted) = (known.client("test-client", "test-secret"), Noted::default());
    let hooks = noted.clone();
    let site = Setup::default().start(|builder| builder.provider(registration).hooks(hooks)).await;
    (provider, site, noted)
}

/// The form that the provider lets the browser send, encoded.
async fn form(browser: &Browser) -> String {
    let authorization = browser.start("acme").await;
    let requested = authorization.query_pairs().find(|(name, _)| name == "response_mode").unwrap();
    assert_eq!(requested.1, "form_post");
    let page = reqwest::get(authorization).await.unwrap().text().await.unwrap();
    let inputs = page.split("<input type=\"hidden\" name=\"").skip(1).map(|input| {
        let (name, rest) = input.split_once("\" value=\"").unwrap();
        (name, rest.split_once("\">").unwrap().0.replace("&quot;", "\"").replace("&amp;", "&"))
    });
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(inputs).finish()
}

/// Headers of a form from another site: without cookies that are `SameSite=Lax`.
const CROSS_SITE: [(&str, &str); 3] =
    [("cookie", "other=1"), ("sec-fetch-site", "cross-site"), ("origin", "https://appleid.apple.com")];

#[tokio::test]
async fn cb_15_a_form_is_redirected_to_the_callback() {
    let (provider, site, noted) = world().await;
    for user in [None, Some(USER)] {
        provider.configure(|settings| settings.posted_user = user.map(str::to_owned));
        let alice = Browser::signed_in(&site, "alice");
        let form = form(&alice).await;
        let hop = alice.post("/login/acme/authorized", &form, &CROSS_SITE).await;
        assert_eq!(hop.status, StatusCode::SEE_OTHER, "{hop:?}");
        assert_eq!((hop.header("cache-control"), hop.header("referrer-policy")), ("no-store", "no-referrer"));
        let callback = Url::parse(hop.location()).unwrap();
        let names: Vec<_> = callback.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["code", "state"], "nothing personal is in the URL");
        for cookie in hop.set_cookies() {
            assert!(cookie.contains("SameSite=Lax") && cookie.contains("HttpOnly") && !cookie.contains("firstName"));
        }
        let page = alice.get(callback.as_str()).await;
        assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/"));
        assert!(site.token("alice").await.is_some());
        assert_eq!(noted.0.lock().unwrap().take().as_deref(), user);
        alice.forget_logins();
        let left: Vec<_> = alice.cookies().into_keys().filter(|name| name.contains("oauth-dance")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn cb_15_a_form_alone_has_no_effect() {
    let (provider, site, noted) = world().await;
    let (alice, mallory) = (Browser::signed_in(&site, "alice"), Browser::signed_in(&site, "mallory"));
    let (hers, stolen) = (form(&alice).await, form(&mallory).await);
    // Another site's form leads to a callback of a login that this browser did not start.
    let hop = alice.post("/login/acme/authorized", &stolen, &CROSS_SITE).await;
    assert_eq!(alice.get(hop.location()).await.status, StatusCode::BAD_REQUEST);
    for (form, expected) in [
        ("", StatusCode::BAD_REQUEST),
        ("code=x", StatusCode::BAD_REQUEST),
        ("state=x&access_token=y&id_token=z&code=c", StatusCode::BAD_REQUEST),
        (&format!("{hers}&state=again"), StatusCode::BAD_REQUEST),
        ("%ff%fe&&&=&%%%", StatusCode::BAD_REQUEST),
    ] {
        let hop = alice.post("/login/acme/authorized", form, &CROSS_SITE).await;
        assert_eq!(hop.status, StatusCode::SEE_OTHER, "{form}");
        assert!(!hop.location().contains("access_token") && !hop.location().contains("id_token"), "{form}");
        assert!(hop.location().starts_with(&site.base), "{form}");
        assert_eq!(alice.get(hop.location()).await.status, expected, "{form}");
    }
    let long = alice.post("/login/acme/authorized", &"x".repeat(20_000), &CROSS_SITE).await;
    assert_eq!(long.status, StatusCode::BAD_REQUEST);
    assert!(provider.requests_to(Endpoint::Token).is_empty());
    assert!(site.token("alice").await.is_none());

    // Data about the user that is too long is dropped, and the login continues.
    let much = format!("{hers}&user={}", "x".repeat(8_000));
    let hop = alice.post("/login/acme/authorized", &much, &CROSS_SITE).await;
    assert!(hop.set_cookies().is_empty());
    assert_eq!(alice.get(hop.location()).await.location(), "/");
    assert_eq!(*noted.0.lock().unwrap(), None);
    // A form for an unknown provider, and for one that does not use forms.
    assert_eq!(alice.post("/login/nobody/authorized", "", &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

/// The `.p8` file of a new key.
fn key_file() -> String {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()))
}

/// Apple has no permanent secret: a new one is generated from the key, and sent in the body.
#[tokio::test]
async fn tr_02_a_client_with_a_key_generates_its_secret() {
    let provider = TestProvider::start().await.unwrap();
    let mut known = provider.provider("acme");
    known.client_authentication = ClientAuthentication::Body;
    let file = key_file();
    let registration = known.client_with_key(CLIENT.0, ClientKey::apple("TEAM123456", "KEY1234567", file.as_str()));
    assert!(!format!("{registration:?}").contains("BEGIN"));
    let site = Setup::default().start(|builder| builder.provider(registration)).await;

    // The test provider does not accept such secrets, and repeats this one in its refusal.
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let alice = Browser::signed_in(&site, "alice");
        let page = alice.login("acme").await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY);
        let sent = provider.requests_to(Endpoint::Token).pop().unwrap();
        assert!(sent.header("authorization").is_none() && sent.field("client_id") == Some(CLIENT.0));
        let secret = sent.field("client_secret").unwrap().to_owned();
        assert!(!page.text().contains(&secret));
        let claims = URL_SAFE_NO_PAD.decode(secret.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let now = site.clock.clock().now().as_unix_seconds();
        assert_eq!((&claims["iss"], &claims["sub"]), (&"TEAM123456".into(), &CLIENT.0.into()));
        assert_eq!((claims["iat"].as_u64(), claims["exp"].as_u64()), (Some(now), Some(now + 300)));
        secrets.push(secret);
        site.clock.advance(Duration::from_secs(3600));
    }
    assert_ne!(secrets[0], secrets[1]);
}

#[tokio::test]
async fn apple_is_requested_to_respond_with_a_form() {
    let registration =
        Apple::provider().client_with_key("com.example.app", ClientKey::apple("TEAM123456", "KEY1234567", key_file()));
    let change = |builder: OAuthBuilder| builder.provider(registration);
    let site = Setup::default().start(change).await;
    let requested = Browser::of(&site).start("apple").await;
    let requested: HashMap<_, _> = requested.query_pairs().into_owned().collect();
    assert_eq!(
        (requested["client_id"].as_str(), requested["response_mode"].as_str()),
        ("com.example.app", "form_post")
    );
    assert_eq!(
        (requested["scope"].as_str(), requested.contains_key("nonce")),
        ("openid email name", cfg!(feature = "oidc"))
    );
}

#[tokio::test]
async fn cb_15_a_form_sent_twice_is_one_login() {
    let (provider, site, _) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let form = form(&alice).await;
    provider.next_token_response(oauth_dance::testing::ScriptedResponse::normal().after(Duration::from_millis(200)));
    let first = alice.post("/login/acme/authorized", &form, &CROSS_SITE).await;
    alice.hang_up(first.location(), || !provider.requests_to(Endpoint::Token).is_empty()).await;
    let second = alice.post("/login/acme/authorized", &form, &CROSS_SITE).await;
    let page = alice.get(second.location()).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/"));
    assert!(site.token("alice").await.is_some());
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
}
