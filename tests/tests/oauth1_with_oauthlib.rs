//! OAuth 1.0a with a provider that uses oauthlib: the dance, calls with every signature method, and the demo.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use http::{HeaderValue, Method, header};
use oauth_dance::{ApiClient, ApiError, ConnectError, KeyRing, MemoryStorage, OAuth, Provider, SignatureMethod, User};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Browser, DemoFiles, OAuth1Provider, Page};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const METHODS: [SignatureMethod; 5] = [
    SignatureMethod::HmacSha1,
    SignatureMethod::HmacSha256,
    SignatureMethod::RsaSha1,
    SignatureMethod::RsaSha256,
    SignatureMethod::Plaintext,
];

/// Parameters that are easily encoded wrongly.
const ODD: [(&str, &str); 8] = [
    ("b", "2"),
    ("a", "1"),
    ("a", "0"),
    ("a", "1"),
    ("empty", ""),
    ("sp ace", "x y+z"),
    ("sub'()*!-._~", "%&=;,/?:@[]#$\"\\<>^`{|}"),
    ("\u{fc}\u{df}", "\u{20ac}\u{1F511}\t\r\n"),
];

/// A running application whose user is always alice, and a running provider.
struct World {
    provider: OAuth1Provider,
    oauth: OAuth,
    base: String,
    runtime: Runtime,
}

impl World {
    fn start(method: SignatureMethod) -> Option<Self> {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let provider = OAuth1Provider::start(&format!("{base}/login/acme/authorized"))?;
        let secret = match method {
            SignatureMethod::RsaSha1 | SignatureMethod::RsaSha256 => provider.private_key(),
            _ => OAuth1Provider::CLIENT_SECRET,
        };
        let (initiate, authorize) = (provider.url("/initiate"), provider.url("/authorize"));
        let mut acme = Provider::oauth1("acme", initiate, authorize, provider.url("/token"));
        acme.api_base = Some(provider.url("/api"));
        let registration = acme.with_signature_method(method).client(OAuth1Provider::CLIENT_KEY, secret);
        let oauth = OAuth::builder(&base, MemoryStorage::new(), KeyRing::generate())
            .provider(registration)
            .user(|_: http::HeaderMap| async { Some(User::new("alice")) })
            .build()
            .unwrap();
        let app = axum::Router::new().route("/", axum::routing::get(|| async { "home" })).merge(oauth.routes::<()>());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Some(Self { provider, oauth, base, runtime })
    }

    /// Opens the login, up to the provider's page.
    fn begin(&self, browser: &Browser) -> Page {
        let page = browser.open(format!("{}/login/acme", self.base));
        assert_eq!(page.status(), StatusCode::OK, "{}: {}", page.url(), page.text());
        page
    }

    fn connect(&self) -> Page {
        let browser = Browser::new();
        let page = self.begin(&browser);
        self.provider.allow(&browser, page, "alice")
    }

    fn client(&self) -> Result<ApiClient, ConnectError> {
        self.runtime.block_on(self.oauth.client("acme", &User::new("alice")))
    }

    fn send(&self, request: oauth_dance::ApiRequest) -> Result<Value, ApiError> {
        self.runtime.block_on(request.send())?.success()?.json()
    }
}

#[test]
fn every_signature_method_connects_and_calls() {
    for method in METHODS {
        let Some(world) = World::start(method) else { return };
        let page = world.connect();
        assert_eq!((page.status(), page.body.as_str()), (StatusCode::OK, "home"), "{method:?}: {}", page.url());

        let client = world.client().unwrap();
        let odd = json!(ODD);
        for verb in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let request = client.request(verb.clone(), "/echo/%C3%BC%20~x?fixed=%2B&fixed=a+b").query(&ODD).form(&ODD);
            let response = world.send(request).unwrap_or_else(|error| panic!("{method:?} {verb}: {error}"));
            assert_eq!(response["signatureMethod"], method.as_str());
            assert_eq!((&response["user"], &response["method"]), (&json!("alice"), &json!(verb.as_str())));
            assert_eq!(response["form"], odd, "{method:?} {verb}");
            let fixed = [json!(["fixed", "+"]), json!(["fixed", "a b"])];
            let query: Vec<Value> = fixed.into_iter().chain(odd.as_array().unwrap().clone()).collect();
            assert_eq!(response["query"], json!(query), "{method:?} {verb}");
        }
        let body = json!({ "oauth_token": "not ours", "a": "\u{fc} &=+" });
        let response = world.send(client.post("/json").query(&[("q", "1")]).json(&body)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(response["body"].as_str().unwrap()).unwrap(), body);
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");
        let request = client.put("/form").header(header::CONTENT_TYPE, kind).body("a=1&b=%2B+x&a=");
        assert_eq!(world.send(request).unwrap()["form"], json!([["a", "1"], ["b", "+ x"], ["a", ""]]));
    }
}

#[test]
fn replayed_and_altered_requests_are_rejected() {
    for method in METHODS {
        let Some(world) = World::start(method) else { return };
        world.connect();
        let client = world.client().unwrap();
        world.send(client.get("/once")).unwrap();
        let sent = world.provider.requests("/api/once")[0]["authorization"].as_str().unwrap().to_owned();
        assert_eq!(world.provider.replay("/api/once", &sent), 401, "{method:?}: the nonce was used");
        // PLAINTEXT does not sign the request; it relies on TLS.
        let (before, after) = sent.split_once("oauth_nonce=\"").unwrap();
        let fresh = format!("{before}oauth_nonce=\"g{}", &after[1..]);
        let expected = if method == SignatureMethod::Plaintext { 200 } else { 401 };
        assert_eq!(world.provider.replay("/api/once", &fresh), expected, "{method:?}: the nonce is signed");
        world.send(client.get("/once")).unwrap();
    }
}

#[test]
fn a_callback_works_once_and_in_one_browser() {
    let Some(world) = World::start(SignatureMethod::HmacSha1) else { return };
    let callback_path = format!("{}/login/acme/authorized", world.base);
    let mallory = Browser::new().stopping_before(&callback_path);
    let page = world.begin(&mallory);
    let callback = world.provider.allow(&mallory, page, "mallory").stopped_before.unwrap();

    let victim = Browser::new();
    world.begin(&victim);
    assert_eq!(victim.open(&callback).status(), StatusCode::BAD_REQUEST);
    assert!(world.provider.requests("/token").is_empty());
    assert!(matches!(world.client(), Err(ConnectError::NotConnected)));

    assert_eq!(mallory.open(&callback).status(), StatusCode::OK);
    assert_eq!(mallory.open(&callback).status(), StatusCode::OK, "the same browser gets the same outcome");
    assert_eq!(world.provider.requests("/token").len(), 1);
}

#[test]
fn a_denial_at_the_provider_is_shown() {
    let Some(world) = World::start(SignatureMethod::HmacSha1) else { return };
    let browser = Browser::new();
    let page = world.begin(&browser);
    let page = world.provider.deny(&browser, page);
    assert_eq!(page.status(), StatusCode::FORBIDDEN, "{}", page.text());
    assert!(world.provider.requests("/token").is_empty());
}

#[test]
fn a_wrong_secret_stores_no_token() {
    let Some(world) = World::start(SignatureMethod::HmacSha1) else { return };
    let mut acme = Provider::oauth1(
        "acme",
        world.provider.url("/initiate"),
        world.provider.url("/authorize"),
        world.provider.url("/token"),
    );
    acme.api_base = Some(world.provider.url("/api"));
    let oauth = OAuth::builder(&world.base, MemoryStorage::new(), KeyRing::generate())
        .provider(acme.client(OAuth1Provider::CLIENT_KEY, "another secret"))
        .anonymous_users()
        .build()
        .unwrap();
    let listener = world.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    world.runtime.spawn(async move { axum::serve(listener, oauth.routes::<()>()).await });
    let page = Browser::new().open(format!("http://{address}/login/acme"));
    assert_eq!(page.status(), StatusCode::BAD_GATEWAY, "{}", page.text());
    assert_eq!(world.provider.requests("/initiate")[0]["status"], 401);
}

#[test]
fn a_revoked_token_requires_a_new_login() {
    let Some(world) = World::start(SignatureMethod::HmacSha256) else { return };
    world.connect();
    let client = world.client().unwrap();
    world.provider.revoke_all();
    let error = world.send(client.get("/notes")).unwrap_err();
    assert!(matches!(error, ApiError::NeedsAuthorization(_)), "{error:?}");
    assert!(matches!(world.client(), Err(ConnectError::NeedsAuthorization { .. })));
    world.connect();
    world.send(world.client().unwrap().get("/notes")).unwrap();
}

/// The program with a configuration file, and a connection that survives a restart.
#[test]
fn the_demo_signs_with_rsa_if_configured() {
    let files = DemoFiles::new();
    let Some(provider) = OAuth1Provider::start(&files.redirect_uri()) else { return };
    let toml = format!(
        "[providers.acme]\ntitle = \"Acme\"\nrequest_token_url = \"{}\"\nauthorization_url = \"{}\"\naccess_token_url = \"{}\"\n\
         userinfo_url = \"{}\"\nsignature_method = \"RSA-SHA1\"\nclient_key = \"{}\"\nclient_secret = '''\n{}'''\n",
        provider.url("/initiate"),
        provider.url("/authorize"),
        provider.url("/token"),
        provider.url("/api/me"),
        OAuth1Provider::CLIENT_KEY,
        provider.private_key(),
    );
    let files = files.with_configuration(&toml);
    let demo = files.start();
    let browser = Browser::new();
    let home = browser.open(demo.url("/"));
    let page = browser.press(&home, "/login/acme");
    let page = provider.allow(&browser, page, "alice");
    assert_eq!((page.status(), page.url().as_str()), (StatusCode::OK, demo.url("/").as_str()), "{}", page.text());
    assert!(demo.is_connected(&browser));

    assert!(demo.interrupt().success());
    let demo = files.start();
    let (status, response) = browser.json(demo.url("/me/acme"));
    assert_eq!(status, StatusCode::OK, "{response}");
    assert!(response.to_string().contains("RSA-SHA1") && response.to_string().contains("alice"), "{response}");

    let middle = &provider.private_key()[100..160];
    let token = provider.requests("/api/me")[0]["authorization"].as_str().unwrap().to_owned();
    let token = token.split("oauth_token=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for secret in [middle, &token] {
        let shown = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!shown(&files.log()) && !shown(&files.database()));
    }
}
