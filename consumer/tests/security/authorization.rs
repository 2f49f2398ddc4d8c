//! The authorization request: its URL and its parameters.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use oauth_dance::testing::{Client, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ConfigError, KeyRing, MemoryStorage, OAuth, OAuthBuilder, Provider};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::support::{Browser, Site, state_of, with_parameter, world};

fn parameters(url: &Url, name: &str) -> Vec<String> {
    url.query_pairs().filter(|(found, _)| found == name).map(|(_, value)| value.into_owned()).collect()
}

#[tokio::test]
async fn ar_01_only_codes_are_requested() {
    let (_provider, site) = world().await;
    let url = Browser::of(&site).start("acme").await;
    assert_eq!(parameters(&url, "response_type"), ["code"]);
    assert_eq!(parameters(&url, "response_mode"), [""; 0]);
}

#[tokio::test]
async fn ar_02_every_state_is_new_and_long() {
    let (_provider, site) = world().await;
    let browser = Browser::of(&site);
    let mut states = HashSet::new();
    for _ in 0..300 {
        let state = state_of(&browser.start("acme").await);
        assert!(URL_SAFE_NO_PAD.decode(&state).unwrap().len() >= 16, "{state}");
        states.insert(state);
    }
    assert_eq!(states.len(), 300);
}

#[tokio::test]
async fn ar_03_a_state_works_only_in_its_own_browser() {
    let (provider, site) = world().await;
    let (alice, bob) = (Browser::signed_in(&site, "alice"), Browser::signed_in(&site, "bob"));
    let callback = bob.stopped_at_callback("acme").await;
    for victim in [&alice, &Browser::of(&site)] {
        let page = victim.get(callback.as_str()).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.set_cookies().is_empty());
    }
    assert!(provider.requests_to(Endpoint::Token).is_empty());
    assert_eq!(site.access_token("alice").await, None);

    // Not even if the victim has a login in progress.
    alice.start("acme").await;
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bob.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn ar_04_pkce_with_s256_always() {
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| {
        settings.clients.insert("public".to_owned(), Client::public());
    });
    let registrations = [provider.registration("acme"), provider.provider("public").public_client("public")];
    let site = crate::support::Setup::default()
        .start(|builder| registrations.into_iter().fold(builder, OAuthBuilder::provider))
        .await;
    let browser = Browser::signed_in(&site, "alice");

    let mut challenges = HashSet::new();
    for name in ["acme", "acme", "public"] {
        let url = browser.start(name).await;
        assert_eq!(parameters(&url, "code_challenge_method"), ["S256"]);
        let challenge = parameters(&url, "code_challenge").concat();
        assert_eq!(challenge.len(), 43);
        let callback = browser.approve(&url).await;
        assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);

        let request = provider.requests_to(Endpoint::Token).pop().unwrap();
        let verifier = request.field("code_verifier").unwrap();
        assert!((43..=128).contains(&verifier.len()));
        assert!(verifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)));
        assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)), challenge);
        challenges.insert(challenge);
    }
    assert_eq!(challenges.len(), 3);
}

#[tokio::test]
async fn ar_05_a_refused_exchange_is_not_retried_without_pkce() {
    let (provider, site) = world().await;
    let browser = Browser::signed_in(&site, "alice");
    provider.next_token_response(ScriptedResponse::error(400, "invalid_request"));
    let page = browser.login("acme").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
    assert_eq!(provider.requests_to(Endpoint::Authorization).len(), 1);
}

#[tokio::test]
async fn ar_06_the_browser_never_sees_the_verifier() {
    let (provider, site) = world().await;
    let browser = Browser::signed_in(&site, "alice");
    let start = browser.get("/login/acme").await;
    let callback = browser.approve(&Url::parse(start.location()).unwrap()).await;
    browser.get(callback.as_str()).await;

    let verifier = provider.requests_to(Endpoint::Token)[0].field("code_verifier").unwrap().to_owned();
    assert!(!start.text().contains(&verifier));
    for cookie in start.set_cookies() {
        let value = cookie.split(['=', ';']).nth(1).unwrap();
        let decoded = URL_SAFE_NO_PAD.decode(value).unwrap();
        assert!(!decoded.windows(8).any(|window| verifier.as_bytes().windows(8).any(|part| part == window)));
        assert!(!cookie.contains(&state_of(&callback)));
    }
}

#[tokio::test]
async fn ar_07_the_redirect_uri_does_not_follow_the_request() {
    let (_provider, site) = world().await;
    let browser = Browser::of(&site);
    for headers in [
        [("host", "evil.test"), ("x-forwarded-host", "evil.test")],
        [("forwarded", "host=evil.test;proto=https"), ("x-forwarded-proto", "https")],
        [("x-forwarded-prefix", "/evil"), ("x-original-url", "https://evil.test/")],
    ] {
        let page = browser.get_with("/login/acme", &headers).await;
        let url = Url::parse(page.location()).unwrap();
        assert_eq!(parameters(&url, "redirect_uri"), [format!("{}/login/acme/authorized", site.base)]);
        assert!(!page.text().contains("evil"));
    }
}

#[tokio::test]
async fn ar_08_the_endpoint_s_own_query_is_retained() {
    let provider = TestProvider::start().await.unwrap();
    let mut tenant = provider.provider("tenant");
    tenant.authorization_endpoint.push_str("?tenant=a%26b&state=x&client_id=evil&prompt=none");
    tenant.authorization_params.insert("prompt".to_owned(), "consent".to_owned());
    let site = Site::with(&provider, |builder| builder.provider(tenant.client("test-client", "test-secret"))).await;
    let browser = Browser::signed_in(&site, "alice");

    let url = browser.start("tenant").await;
    assert_eq!(parameters(&url, "tenant"), ["a&b"]);
    for name in ["state", "client_id", "redirect_uri", "response_type", "prompt"] {
        assert_eq!(parameters(&url, name).len(), 1, "{name} in {url}");
    }
    assert_eq!(parameters(&url, "prompt"), ["consent"]);
    assert_eq!(url.fragment(), None);
    let callback = browser.approve(&url).await;
    assert_eq!(browser.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn ar_09_untrusted_input_never_becomes_a_parameter() {
    let provider = TestProvider::start().await.unwrap();
    let scoped = provider.provider("scoped").with_scopes(["a&b=c", "d+e"]);
    let site = Site::with(&provider, |builder| builder.provider(scoped.client("test-client", "test-secret"))).await;
    let browser = Browser::of(&site);
    let passthrough = "/login/scoped?scope=admin&login_hint=eve&state=evil&redirect_uri=https://evil.test&prompt=none";
    let url = Url::parse(browser.get(passthrough).await.location()).unwrap();
    assert_eq!(parameters(&url, "scope"), ["a&b=c d+e"]);
    assert!(parameters(&url, "login_hint").is_empty() && parameters(&url, "prompt").is_empty());
    assert!(!url.as_str().contains("evil"));

    for reserved in ["state", "client_id", "redirect_uri", "code_challenge", "nonce", "response_type", "scope"] {
        let mut provider = provider.provider("acme");
        provider.authorization_params.insert(reserved.to_owned(), "evil".to_owned());
        let built = OAuth::builder("http://localhost", MemoryStorage::new(), KeyRing::generate())
            .provider(provider.client("id", "secret"))
            .anonymous_users()
            .build();
        assert!(matches!(built, Err(ConfigError::Invalid { field: "authorization_params", .. })), "{reserved}");
    }
}

#[tokio::test]
async fn ar_10_the_final_redirect_stays_in_the_application() {
    let (_provider, site) = world().await;
    let browser = Browser::signed_in(&site, "alice");
    let home: &[&str] = &[
        "//e",
        "/\\e",
        "/\t/e",
        "/\n/e",
        "\\\\e",
        "https:e",
        "https://e",
        "http://app@e",
        "/..//e",
        "/.//e",
        "/a/..//e",
        "javascript:alert(1)",
        "/x\r\nSet-Cookie:a=b",
        "",
        "e",
        "?e",
        "#e",
        "\u{2044}/e",
        " //e",
        "/\u{0}/e",
        "////e",
        "http:/e",
        "/\u{a0}//\\e",
    ];
    let retained: &[(&str, &str)] = &[
        ("/", "/"),
        ("/notes?a=b&c=d", "/notes?a=b&c=d"),
        ("/notes#top", "/notes#top"),
        ("/%2f%2fe", "/%2f%2fe"),
        ("/a/../b", "/b"),
        ("/@e", "/@e"),
        ("/https://e", "/https://e"),
    ];
    let table = home.iter().map(|next| (*next, "/")).chain(retained.iter().copied());
    for (next, expected) in table {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let start = browser.get(&format!("/login/acme?{query}")).await;
        let callback = browser.approve(&Url::parse(start.location()).unwrap()).await;
        let page = browser.get(callback.as_str()).await;
        assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, expected), "{next:?}");
        let base = Url::parse(&site.base).unwrap();
        assert_eq!(base.join(page.location()).unwrap().origin(), base.origin(), "{next:?}");
        assert_eq!(page.headers.get("a"), None);
    }
}

#[tokio::test]
async fn ar_11_the_final_redirect_is_not_in_the_state() {
    let (_provider, site) = world().await;
    let browser = Browser::signed_in(&site, "alice");
    let start = browser.get("/login/acme?next=/secret-garden").await;
    assert!(!start.text().contains("secret-garden"));
    let callback = browser.approve(&Url::parse(start.location()).unwrap()).await;
    let state = state_of(&callback);
    let decoded = URL_SAFE_NO_PAD.decode(&state).unwrap();
    assert!(!String::from_utf8_lossy(&decoded).contains("garden"));

    let last = if state.ends_with('A') { "B" } else { "A" };
    let tampered = format!("{}{last}", &state[..state.len() - 1]);
    let page = browser.get(with_parameter(&callback, "state", Some(&tampered)).as_str()).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert_eq!(browser.get(callback.as_str()).await.location(), "/secret-garden");
}

#[tokio::test]
async fn ar_12_another_site_cannot_connect_an_account() {
    let (_provider, site) = world().await;
    let (alice, visitor) = (Browser::signed_in(&site, "alice"), Browser::of(&site));
    let own = site.base.as_str();
    let cross = [("sec-fetch-site", "cross-site")];

    let page = alice.get_with("/login/acme?next=/notes", &cross).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("<form method=\"post\" action=\"/login/acme\">") && page.body.contains("/notes"));
    assert!(page.set_cookies().is_empty() && page.location().is_empty());
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!(page.header("referrer-policy"), "same-origin", "or the form's origin is null");

    // The form on that page, which the browser sends from the application's own origin.
    let page = alice.post("/login/acme", "next=%2Fnotes", &[("sec-fetch-site", "same-origin"), ("origin", own)]).await;
    let callback = alice.approve(&Url::parse(page.location()).unwrap()).await;
    assert_eq!(alice.get(callback.as_str()).await.location(), "/notes");

    let older = [("referer", "https://evil.test/")];
    assert_eq!(alice.get_with("/login/acme", &older).await.status, StatusCode::OK);
    for headers in [cross, [("origin", "https://evil.test")], [("origin", "null")], [("sec-fetch-site", "same-site")]] {
        for browser in [&alice, &visitor] {
            let page = browser.post("/login/acme", "", &headers).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{headers:?}");
            assert!(page.set_cookies().is_empty());
        }
    }
    // If no user is signed in, the state is sufficient.
    assert_eq!(visitor.get_with("/login/acme", &cross).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn ar_13_the_start_of_a_login_is_not_cached() {
    let (_provider, site) = world().await;
    let browser = Browser::of(&site);
    for page in [browser.get("/login/acme").await, browser.post("/login/acme", "next=/x", &[]).await] {
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.set_cookies().len(), 1);
    }
}

#[test]
fn ar_17_endpoints_are_https_or_local() {
    type Change = fn(&mut Provider, &str);
    let fields: [(&str, Change); 5] = [
        ("authorization_endpoint", |provider, url| provider.authorization_endpoint = url.to_owned()),
        ("token_endpoint", |provider, url| provider.token_endpoint = url.to_owned()),
        ("revocation_endpoint", |provider, url| provider.revocation_endpoint = Some(url.to_owned())),
        ("userinfo_endpoint", |provider, url| provider.userinfo_endpoint = Some(url.to_owned())),
        ("api_base", |provider, url| provider.api_base = Some(url.to_owned())),
    ];
    let bad =
        ["javascript:x", "http://10.0.0.1/", "http://acme.example/", "file:///etc/passwd", "ftp://a.example", "", "/x"];
    for (field, change) in fields {
        for url in bad {
            let mut provider = Provider::new("acme", "https://acme.example/a", "https://acme.example/t");
            change(&mut provider, url);
            let built = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
                .provider(provider.client("id", "secret"))
                .anonymous_users()
                .build();
            assert!(matches!(&built, Err(ConfigError::Invalid { field: found, .. }) if *found == field), "{built:?}");
        }
    }
}
