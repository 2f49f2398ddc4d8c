//! The dance of OAuth 1.0a (RFC 5849), with a provider that checks every signature.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use oauth_dance::testing::{CLIENT, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{
    Authorized, BoxError, Decision, FailedLogin, Hooks, OAuth1Token, OAuthBuilder, SignatureMethod, User,
};
use url::Url;

use crate::support::{Browser, Ear, Setup, Site, with_parameter};

pub(crate) async fn world() -> (TestProvider, Site) {
    world_with(|builder| builder).await
}

pub(crate) async fn world_with(configure: impl FnOnce(OAuthBuilder) -> OAuthBuilder) -> (TestProvider, Site) {
    let provider = TestProvider::start().await.unwrap();
    let registration = provider.oauth1_registration("acme");
    let site = Setup::default().start(|builder| configure(builder.provider(registration))).await;
    (provider, site)
}

pub(crate) async fn credentials(site: &Site, user: &str) -> Option<OAuth1Token> {
    let found = site.oauth.tokens().get(&User::new(user).key("acme").unwrap()).await.unwrap();
    found.map(|found| found.value.as_oauth1().unwrap().clone())
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(found, _)| found == name).unwrap().1.into_owned()
}

fn redeemed(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Token).len()
}

/// A valid response with a modified form.
fn changed(change: impl Fn(&mut Vec<(String, String)>) + Send + Sync + 'static) -> ScriptedResponse {
    ScriptedResponse::normal().map_body(move |body| {
        let mut pairs: Vec<_> = url::form_urlencoded::parse(&body).into_owned().collect();
        change(&mut pairs);
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into_bytes()
    })
}

#[tokio::test]
async fn o1_01_the_temporary_secret_signs_the_token_request() {
    let seen = Seen::default();
    let (provider, site) = world_with(|builder| builder.hooks(seen.clone())).await;
    let alice = Browser::signed_in(&site, "alice");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    assert!(credentials(&site, "alice").await.is_some());
    let me = alice.get("/required").await;
    assert_eq!((me.status, me.json()["sub"].as_str()), (StatusCode::OK, Some("test-user")));

    // The provider would have rejected a signature with any other secret.
    let forgotten = changed(|pairs| {
        pairs.iter_mut().for_each(|(name, value)| {
            if name == "oauth_token_secret" {
                *value = "another".to_owned();
            }
        });
    });
    provider.next_response(Endpoint::TemporaryCredentials, forgotten);
    let page = Browser::signed_in(&site, "bob").login("acme").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.last(), "token_request_failed: the provider responded with the error signature_invalid");
    assert!(credentials(&site, "bob").await.is_none());
}

#[tokio::test]
async fn o1_01_the_temporary_secret_is_sealed() {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.secret_prefix = "CANARY".to_owned());
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.get("/login/acme").await;
    let temporary = parameter(&Url::parse(page.location()).unwrap(), "oauth_token");
    assert!(temporary.starts_with("CANARYtemporary-"));
    assert!(!page.text().contains("CANARYtemporary-secret"));
    let cookie = page.set_cookies()[0];
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains("CANARY"), "{cookie}");
}

/// Otherwise a user who opens an attacker's callback would be connected to the attacker's account.
#[tokio::test]
async fn o1_02_a_callback_works_only_in_its_own_browser() {
    let (provider, site) = world().await;
    let (alice, mallory) = (Browser::signed_in(&site, "alice"), Browser::signed_in(&site, "mallory"));
    let of_alice = alice.stopped_at_callback("acme").await;
    let of_mallory = mallory.stopped_at_callback("acme").await;
    for victim in [&alice, &Browser::of(&site)] {
        let page = victim.get(of_mallory.as_str()).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.set_cookies().is_empty());
    }
    let mixed = with_parameter(&of_alice, "oauth_token", Some(&parameter(&of_mallory, "oauth_token")));
    assert_eq!(alice.get(mixed.as_str()).await.status, StatusCode::BAD_REQUEST);
    for token in [None, Some(""), Some("x"), Some("%00")] {
        let page = alice.get(with_parameter(&of_alice, "oauth_token", token).as_str()).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{token:?}");
    }
    let twice = format!("{of_alice}&oauth_token={}", parameter(&of_mallory, "oauth_token"));
    assert_eq!(alice.get(&twice).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(redeemed(&provider), 0);
    assert!(credentials(&site, "alice").await.is_none());

    assert_eq!(alice.get(of_alice.as_str()).await.status, StatusCode::SEE_OTHER, "the forgeries spoiled nothing");
    assert!(credentials(&site, "alice").await.is_some());
}

#[tokio::test]
async fn o1_02_a_callback_works_once_and_in_time() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let cookies = alice.cookie_header();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (url, cookies, browser) = (callback.to_string(), cookies.clone(), Browser::of(&site));
        calls.spawn(async move { browser.get_with(&url, &[("cookie", &cookies)]).await.status });
    }
    let statuses = calls.join_all().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::SEE_OTHER), "{statuses:?}");
    assert_eq!(redeemed(&provider), 1);

    let late = alice.stopped_at_callback("acme").await;
    site.clock.advance(Duration::from_secs(601));
    assert_eq!(alice.get(late.as_str()).await.status, StatusCode::BAD_REQUEST);
    let (one, two) = (alice.stopped_at_callback("acme").await, alice.stopped_at_callback("acme").await);
    assert_eq!(alice.get(one.as_str()).await.status, StatusCode::SEE_OTHER, "two tabs");
    assert_eq!(alice.get(two.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(redeemed(&provider), 3);
}

#[tokio::test]
async fn o1_03_the_callback_must_be_confirmed() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for value in [None, Some("false"), Some("")] {
        provider.next_response(
            Endpoint::TemporaryCredentials,
            changed(move |pairs| {
                pairs.retain(|(name, _)| name != "oauth_callback_confirmed");
                pairs.extend(value.map(|value| ("oauth_callback_confirmed".to_owned(), value.to_owned())));
            }),
        );
        let page = alice.get("/login/acme").await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{value:?}");
        assert!(page.set_cookies().is_empty() && !page.headers.contains_key("location"));
    }
    let loud = |pairs: &mut Vec<(String, String)>| pairs[2].1 = "True".to_owned();
    provider.next_response(Endpoint::TemporaryCredentials, changed(loud));
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    let callback = provider.requests_to(Endpoint::TemporaryCredentials)[0].header("authorization").unwrap().to_owned();
    let sent: String =
        url::form_urlencoded::byte_serialize(format!("{}/login/acme/authorized", site.base).as_bytes()).collect();
    assert!(callback.contains(&format!("oauth_callback=\"{sent}\"")), "{callback}");
}

#[tokio::test]
async fn o1_04_without_the_verifier_nothing_is_redeemed() {
    let seen = Seen::default();
    let (provider, site) = world_with(|builder| builder.hooks(seen.clone())).await;
    let alice = Browser::signed_in(&site, "alice");
    let long = "v".repeat(9000);
    for verifier in [None, Some(""), Some(long.as_str())] {
        let callback = alice.stopped_at_callback("acme").await;
        let page = alice.get(with_parameter(&callback, "oauth_verifier", verifier).as_str()).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(redeemed(&provider), 0);
    let callback = alice.stopped_at_callback("acme").await;
    let page = alice.get(with_parameter(&callback, "oauth_verifier", Some("wrong")).as_str()).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.last(), "token_request_failed: the provider responded with the error verifier_invalid");
    assert!(credentials(&site, "alice").await.is_none());
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Hooks for Seen {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let me: serde_json::Value = login.client.userinfo().send().await?.success()?.json()?;
        let token = login.token.as_oauth1().ok_or("not OAuth 1.0a")?;
        let user_id = token.extra.get("user_id").cloned().unwrap_or_default();
        self.0.lock().unwrap().push(format!("{} {} {user_id} {}", login.provider, me["sub"], login.parts.uri));
        Ok(Decision::store().redirect("/welcome"))
    }

    async fn failed(&self, failure: FailedLogin<'_>) -> Option<axum::response::Response> {
        assert_eq!(failure.parts.uri, "/login/acme/authorized", "no verifier is in it");
        let cause = failure.error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.0.lock().unwrap().push(format!("{}{cause}", failure.error.code()));
        None
    }
}

impl Seen {
    fn last(&self) -> String {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test]
async fn o1_05_a_denial_is_recognised_in_any_form() {
    let seen = Seen::default();
    let (provider, site) = world_with(|builder| builder.hooks(seen.clone())).await;
    let alice = Browser::signed_in(&site, "alice");
    let refusals: [&dyn Fn(&Url) -> String; 5] = [
        &|callback| with_parameter(callback, "oauth_verifier", Some("denied")).into(),
        &|callback| format!("/login/acme/authorized?denied={}", parameter(callback, "oauth_token")),
        &|callback| format!("{callback}&error=access_denied"),
        &|callback| format!("{callback}&oauth_problem=user_refused"),
        &|callback| format!("{callback}&oauth_problem=permission_denied"),
    ];
    for refusal in refusals {
        let callback = alice.stopped_at_callback("acme").await;
        let page = alice.get(&refusal(&callback)).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{page:?}");
        assert_eq!(page.set_cookies().len(), 1, "the temporary credentials are dropped");
        assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::FORBIDDEN, "it stays refused");
    }
    let outcomes: Vec<_> = seen.0.lock().unwrap().iter().step_by(2).cloned().collect();
    assert_eq!(outcomes, ["denied"; 5]);

    provider.configure(|settings| settings.refuses = Some("internal<error>".to_owned()));
    let page = alice.login("acme").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.body.contains("internal&lt;error&gt;"), "{page:?}");
    assert_eq!(redeemed(&provider), 0);
}

#[tokio::test]
async fn o1_hooks_extractors_and_logout_are_the_same() {
    let seen = Seen::default();
    let (provider, site) = world_with(|builder| builder.hooks(seen.clone())).await;
    let alice = Browser::signed_in(&site, "alice");
    let page = alice.get("/required").await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/login/acme?next=%2Frequired"));
    assert_eq!(alice.get("/optional").await.body, "not connected");
    assert_eq!(alice.login("acme").await.location(), "/welcome");
    assert_eq!(*seen.0.lock().unwrap(), ["acme \"test-user\" \"test-user\" /login/acme/authorized"]);
    assert_eq!(alice.get("/optional").await.body, "connected");
    assert_eq!(Browser::signed_in(&site, "bob").get("/optional").await.body, "not connected");

    let connection = site.oauth.connection("acme", &User::new("alice")).await.unwrap().unwrap();
    assert!(connection.token.expires_at().is_none() && connection.token.scope().is_none());
    site.clock.advance(Duration::from_secs(10 * 365 * 86_400));
    assert!(site.oauth.client("acme", &User::new("alice")).await.is_ok(), "it does not expire");
    let page = alice.post("/disconnect/acme", "", &[]).await;
    assert_eq!(page.body, "Disconnected { removed: true, revocation: NotPossible }");
    assert!(credentials(&site, "alice").await.is_none());
    assert_eq!(provider.requests_to(Endpoint::Revocation).len(), 0);
}

#[tokio::test]
async fn o1_10_every_signature_method_works() {
    for method in [SignatureMethod::HmacSha1, SignatureMethod::HmacSha256, SignatureMethod::Plaintext] {
        let provider = TestProvider::start().await.unwrap();
        let registration = provider.oauth1_provider("acme").with_signature_method(method).client(CLIENT.0, CLIENT.1);
        let site = Setup::default().start(|builder| builder.provider(registration)).await;
        let alice = Browser::signed_in(&site, "alice");
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "{method:?}");
        assert_eq!(alice.get("/required").await.status, StatusCode::OK, "{method:?}");
        let sent = provider.requests_to(Endpoint::Token)[0].header("authorization").unwrap().to_owned();
        assert!(sent.contains(&format!("oauth_signature_method=\"{}\"", method.as_str())));
    }
}

#[tokio::test]
async fn o1_11_the_protocol_stays_in_the_header() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    alice.get("/required").await;
    for endpoint in [Endpoint::TemporaryCredentials, Endpoint::Token, Endpoint::Userinfo] {
        let request = &provider.requests_to(endpoint)[0];
        assert!(request.query.is_empty() && request.body.is_empty(), "{request:?}");
        let header = request.header("authorization").unwrap();
        let names: Vec<_> = header[6..].split(", ").map(|pair| pair.split('=').next().unwrap()).collect();
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(names.len(), distinct.len(), "{header}");
    }
}

#[tokio::test]
async fn o1_12_no_request_follows_a_redirect() {
    let (provider, site) = world().await;
    let ear = Ear::listen().await;
    let alice = Browser::signed_in(&site, "alice");
    for status in [301, 302, 303, 307, 308] {
        let redirect = ScriptedResponse::redirect(status, &format!("{}/", ear.url));
        provider.next_response(Endpoint::TemporaryCredentials, redirect.clone());
        assert_eq!(alice.get("/login/acme").await.status, StatusCode::BAD_GATEWAY);
        provider.next_response(Endpoint::Token, redirect);
        assert_eq!(alice.login("acme").await.status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(ear.connections(), 0);
    assert!(credentials(&site, "alice").await.is_none());
}

#[tokio::test]
async fn o1_13_a_bad_response_is_a_page_and_no_token() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let bad = || {
        [
            ScriptedResponse::status(401),
            ScriptedResponse::status(500).body("<html><script>alert(1)</script>"),
            ScriptedResponse::status(200),
            ScriptedResponse::status(204),
            ScriptedResponse::status(200).body("<html>"),
            ScriptedResponse::status(200).body("oauth_token=&oauth_token_secret=x&oauth_callback_confirmed=true"),
            ScriptedResponse::status(200).body("oauth_token=x&oauth_callback_confirmed=true"),
            ScriptedResponse::status(200)
                .body("oauth_token=a&oauth_token=b&oauth_token_secret=x&oauth_callback_confirmed=true"),
            ScriptedResponse::status(200).body(vec![0xff; 100]),
            ScriptedResponse::status(401).body(format!("oauth_problem=<b>{}", "x".repeat(4000))),
            ScriptedResponse::huge(64 * 1024 * 1024),
            ScriptedResponse::endless(),
            ScriptedResponse::closed(),
            ScriptedResponse::normal().truncated(),
        ]
    };
    for (first, second) in bad().into_iter().zip(bad()) {
        provider.next_response(Endpoint::TemporaryCredentials, first.clone());
        let page = alice.get("/login/acme").await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{first:?}");
        assert!(!page.body.contains("<script>") && !page.body.contains("<b>") && page.set_cookies().is_empty());
        provider.next_response(Endpoint::Token, second);
        let page = alice.login("acme").await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{first:?}");
        assert!(!page.body.contains("<script>") && !page.text().contains(CLIENT.1));
        assert!(credentials(&site, "alice").await.is_none(), "{first:?}");
        provider.clear_responses();
    }
    assert!(provider.bytes_streamed() < 20 * 1024 * 1024);
    // A form is read whatever its content type.
    for kind in ["application/json", "text/html", ""] {
        provider.next_response(Endpoint::TemporaryCredentials, ScriptedResponse::normal().header("content-type", kind));
        provider.next_response(Endpoint::Token, ScriptedResponse::normal().header("content-type", kind));
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "{kind}");
    }
}

#[tokio::test]
async fn o1_13_every_request_ends_in_time() {
    let (provider, site) = world_with(|builder| builder.timeout(Duration::from_millis(300))).await;
    let alice = Browser::signed_in(&site, "alice");
    provider.next_response(Endpoint::TemporaryCredentials, ScriptedResponse::normal().hanging());
    assert_eq!(alice.get("/login/acme").await.status, StatusCode::GATEWAY_TIMEOUT);
    provider.next_response(Endpoint::Token, ScriptedResponse::normal().hanging());
    assert_eq!(alice.login("acme").await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(redeemed(&provider), 1, "a verifier is sent once");
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    provider.next_response(Endpoint::Userinfo, ScriptedResponse::normal().hanging());
    assert_eq!(alice.get("/required").await.status, StatusCode::GATEWAY_TIMEOUT);
}

/// A hook may add only parameters that do not belong to the protocol.
#[tokio::test]
async fn o1_hooks_cannot_set_parameters_of_the_protocol() {
    struct Asks(&'static str);
    #[async_trait]
    impl Hooks for Asks {
        async fn before_login(&self, login: &mut oauth_dance::BeforeLogin<'_>) -> Result<(), BoxError> {
            match self.0 {
                "scopes" => login.scopes.push("read".to_owned()),
                name => drop(login.params.insert(name.to_owned(), "alice".to_owned())),
            }
            Ok(())
        }
    }
    for (name, status) in [("login_hint", 303), ("scope", 303), ("oauth_token", 500), ("scopes", 500)] {
        let (_provider, site) = world_with(|builder| builder.hooks(Asks(name))).await;
        let alice = Browser::signed_in(&site, "alice");
        let page = alice.get("/login/acme").await;
        assert_eq!(page.status.as_u16(), status, "{name}");
        if status == 303 {
            let url = Url::parse(page.location()).unwrap();
            assert_eq!(parameter(&url, name), "alice");
            assert!(alice.approve(&url).await.as_str().contains("oauth_verifier="));
        }
    }
}

#[tokio::test]
async fn o1_02_an_interrupted_callback_can_be_repeated() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(200)));
    alice.hang_up(callback.as_str(), || redeemed(&provider) == 1).await;
    let page = alice.get(callback.as_str()).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/"));
    assert!(credentials(&site, "alice").await.is_some());
    assert_eq!(redeemed(&provider), 1);
}
