//! The callback: which requests are accepted, from which browser, and how often.

use http::{Method, StatusCode};
use oauth_dance::testing::{CLIENT, Endpoint, TestProvider};
use oauth_dance::{Hooks, OAuthBuilder, User};
use std::time::Duration;
use url::Url;

use crate::support::{Browser, Setup, Site, code_of, state_of, with_parameter, world};

pub(crate) fn redeemed(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Token).len()
}

#[tokio::test]
async fn cb_01_without_its_state_no_code_is_redeemed() {
    let (provider, site) = world().await;
    let (alice, bob) = (Browser::signed_in(&site, "alice"), Browser::signed_in(&site, "bob"));
    let callback = alice.stopped_at_callback("acme").await;
    let of_bob = state_of(&bob.stopped_at_callback("acme").await);
    for state in [None, Some(""), Some("x"), Some(of_bob.as_str()), Some(&"A".repeat(43)), Some("%00")] {
        let page = alice.get(with_parameter(&callback, "state", state).as_str()).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{state:?}");
        assert!(page.set_cookies().is_empty());
    }
    site.clock.advance(Duration::from_secs(601));
    let page = alice.get(callback.as_str()).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert_eq!(redeemed(&provider), 0);
}

#[tokio::test]
async fn cb_02_a_forged_callback_does_not_affect_the_real_one() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    for (forged, status) in [
        ("code=evil&state=evil", StatusCode::BAD_REQUEST),
        ("error=access_denied", StatusCode::FORBIDDEN),
        ("error=access_denied&state=evil", StatusCode::BAD_REQUEST),
        ("", StatusCode::BAD_REQUEST),
    ] {
        let page = alice.get(&format!("/login/acme/authorized?{forged}")).await;
        assert_eq!((page.status, page.set_cookies().len()), (status, 0), "{forged}");
    }
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert!(site.access_token("alice").await.is_some());
}

#[tokio::test]
async fn cb_03_tabs_do_not_affect_each_other() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let (one, two) = (alice.stopped_at_callback("acme").await, alice.stopped_at_callback("acme").await);
    assert_eq!(alice.get(one.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(alice.get(two.as_str()).await.status, StatusCode::SEE_OTHER);

    let mut last = None;
    for _ in 0..50 {
        last = Some(alice.start("acme").await);
        assert!(alice.cookie_header().len() < 4096);
    }
    let callback = alice.approve(&last.unwrap()).await;
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_03_tabs_of_a_new_browser_become_one_user() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    let browser = Browser::of(&site);
    let (one, two) = (browser.stopped_at_callback("acme").await, browser.stopped_at_callback("acme").await);
    assert_eq!(browser.get(one.as_str()).await.status, StatusCode::SEE_OTHER);
    let cookies = browser.cookies();
    let page = browser.get(two.as_str()).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
    let user = cookies.iter().find(|(name, _)| name.contains("user")).unwrap();
    assert_eq!(browser.cookies().get(user.0), Some(user.1), "the browser stays the user it is");
    assert_eq!(browser.get("/me/acme").await.status, StatusCode::OK);
}

#[tokio::test]
async fn cb_04_state_is_consumed_exactly_once() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let cookies = alice.cookie_header();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (url, cookies) = (callback.to_string(), cookies.clone());
        let browser = Browser::of(&site);
        calls.spawn(async move { browser.get_with(&url, &[("cookie", &cookies)]).await.status });
    }
    let statuses = calls.join_all().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::SEE_OTHER), "{statuses:?}");
    assert_eq!(redeemed(&provider), 1);

    let token = site.access_token("alice").await;
    let again = alice.get_with(callback.as_str(), &[("cookie", &cookies)]).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    assert_eq!((redeemed(&provider), site.access_token("alice").await), (1, token));
    assert_eq!(provider.counters().families_revoked, 0);
}

#[tokio::test]
async fn cb_05_the_whole_state_counts() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let state = state_of(&callback);
    for changed in [
        format!("{state}="),
        format!("{state} "),
        format!(" {state}"),
        state.to_lowercase(),
        state.to_uppercase(),
        state[..42].to_owned(),
        format!("{state}A"),
    ] {
        let page = alice.get(with_parameter(&callback, "state", Some(&changed)).as_str()).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{changed}");
    }
    assert_eq!(redeemed(&provider), 0);
}

#[tokio::test]
async fn cb_06_a_repeated_parameter_is_rejected() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    for (name, value) in
        [("code", code_of(&callback)), ("state", state_of(&callback)), ("iss", provider.url().to_owned())]
    {
        for second in [value.as_str(), "other", ""] {
            let mut twice = callback.clone();
            if name == "iss" {
                twice.query_pairs_mut().append_pair(name, &value);
            }
            twice.query_pairs_mut().append_pair(name, second);
            assert_eq!(alice.get(twice.as_str()).await.status, StatusCode::BAD_REQUEST, "{twice}");
        }
    }
    let errors = format!("{callback}&error=a&error=b");
    assert_eq!(alice.get(&errors).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(redeemed(&provider), 0);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_14_a_provider_s_fragment_is_removed() {
    let provider = TestProvider::start().await.unwrap();
    let mut facebook = provider.provider("acme");
    facebook.quirks = oauth_dance::presets::Facebook::provider().quirks;
    let site = Setup::default().start(|builder| builder.provider(facebook.client(CLIENT.0, CLIENT.1))).await;
    let alice = Browser::signed_in(&site, "alice");
    for (next, location) in [("/", "/#"), ("/required?a=b", "/required?a=b#"), ("/required#there", "/required#there")] {
        let start = alice.post("/login/acme", &format!("next={}", next.replace('#', "%23")), &[]).await;
        let callback = alice.approve(&start.location().parse().unwrap()).await;
        for _ in 0..2 {
            assert_eq!(alice.get(callback.as_str()).await.location(), location, "browsers keep it otherwise");
        }
    }
}

#[tokio::test]
async fn cb_10_another_issuer_is_rejected() {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.issuer_parameter = true);
    let alice = Browser::signed_in(&site, "alice");
    for issuer in ["https://evil.test", &format!("{}/", provider.url()), &provider.url().to_uppercase()] {
        for refused in [false, true] {
            let callback = alice.stopped_at_callback("acme").await;
            let mut changed = with_parameter(&callback, "iss", Some(issuer));
            if refused {
                changed.query_pairs_mut().append_pair("error", "access_denied");
            }
            let page = alice.get(changed.as_str()).await;
            assert_eq!(page.status, StatusCode::BAD_REQUEST, "{changed}");
            // The page names both issuers, which shows an extra slash.
            assert!(page.body.contains(issuer) && page.body.contains(provider.url()), "{}", page.body);
        }
    }
    assert_eq!(redeemed(&provider), 0);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
    // A provider that does not announce the parameter may omit it, ...
    let callback = with_parameter(&alice.stopped_at_callback("acme").await, "iss", None);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);

    // ... but a provider that announces it may not.
    let mut strict = provider.provider("acme");
    strict.requires_issuer = true;
    let registration = strict.client("test-client", "test-secret");
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = with_parameter(&alice.stopped_at_callback("acme").await, "iss", None);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_12_a_callback_belongs_to_its_provider() {
    let (one, two) = (TestProvider::start().await.unwrap(), TestProvider::start().await.unwrap());
    let site = Site::with(&one, |builder| builder.provider(two.registration("beta"))).await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let moved = callback.as_str().replace("/login/acme/", "/login/beta/");
    assert_eq!(alice.get(&moved).await.status, StatusCode::BAD_REQUEST);
    assert!(two.requests().is_empty());
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_13_every_provider_has_its_own_redirect_uri() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.provider(provider.registration("beta"))).await;
    let (one, two) = (site.oauth.redirect_uri("acme").unwrap(), site.oauth.redirect_uri("beta").unwrap());
    assert!(one.ends_with("/login/acme/authorized") && two.ends_with("/login/beta/authorized"), "{one} {two}");
}

#[tokio::test]
async fn cb_14_the_code_does_not_outlive_the_callback() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let page = alice.get(callback.as_str()).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/"));
    let failed = alice.get(callback.as_str()).await;
    for page in [page, failed] {
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert!(!page.text().contains(&code_of(&callback)) && !page.text().contains(&state_of(&callback)));
    }
}

#[tokio::test]
async fn cb_15_only_a_real_get_spends_the_attempt() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
        let page = alice.send(method.clone(), callback.as_str(), &[], String::new()).await;
        assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    for ahead in PREFETCHES {
        let page = alice.get_with(callback.as_str(), &[ahead]).await;
        assert_eq!(page.status, StatusCode::TOO_EARLY, "{ahead:?}");
        assert!(page.set_cookies().is_empty(), "{ahead:?}");
    }
    assert_eq!(redeemed(&provider), 0);
    let form = callback.query().unwrap();
    assert_eq!(alice.post("/login/acme/authorized", form, &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

/// Headers with which browsers announce that they only prefetch.
const PREFETCHES: [(&str, &str); 9] = [
    ("x-sec-purpose", "prefetch"),
    ("sec-purpose", "prefetch"),
    ("sec-purpose", "prefetch;prerender"),
    ("sec-purpose", "prefetch;anonymous-client-ip"),
    ("Sec-Purpose", "Prefetch"),
    ("purpose", "prefetch"),
    ("Purpose", "PREFETCH"),
    ("x-moz", "prefetch"),
    ("x-purpose", "preview"),
];

#[tokio::test]
async fn cb_15_a_prefetched_link_starts_no_login() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    for ahead in PREFETCHES {
        let page = alice.get_with("/login/acme?next=/required", &[ahead]).await;
        assert_eq!((page.status, page.location()), (StatusCode::TOO_EARLY, ""), "{ahead:?}");
        assert!(page.set_cookies().is_empty(), "no login gives way to it: {ahead:?}");
        assert_eq!(page.header("cache-control"), "no-store", "{ahead:?}");
    }
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    let real = alice.get_with("/login/acme", &[("sec-purpose", ""), ("purpose", "navigate")]).await;
    assert_eq!(real.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_16_unknown_parameters_are_ignored() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let more = format!("{callback}&session_state=x&authuser=0&scope=a+b&scope=c&prompt=none&hd=acme.example");
    assert_eq!(alice.get(&more).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_17_long_codes_are_sent_unchanged() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for (length, expected) in [(4096, 1), (8192, 2), (8193, 2), (20_000, 2)] {
        let code: String = "/+=% &é".chars().cycle().filter(char::is_ascii).take(length).collect();
        let callback = with_parameter(&alice.stopped_at_callback("acme").await, "code", Some(&code));
        let page = alice.get(callback.as_str()).await;
        assert!(page.status.is_client_error() || page.status == StatusCode::BAD_GATEWAY, "{}", page.status);
        assert_eq!(redeemed(&provider), expected, "{length}");
        if length <= 8192 {
            let sent = provider.requests_to(Endpoint::Token).pop().unwrap();
            assert_eq!(sent.field("code"), Some(code.as_str()));
        }
    }
}

#[tokio::test]
async fn cb_18_a_login_may_take_ten_minutes() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    site.clock.advance(Duration::from_secs(601));
    let page = alice.get(callback.as_str()).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.body.contains("took too long") && page.body.contains("href=\"/login/acme\""), "{}", page.body);
    assert_eq!(redeemed(&provider), 0);

    let callback = alice.stopped_at_callback("acme").await;
    site.clock.advance(Duration::from_secs(600));
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cb_19_another_user_cannot_finish_a_login() {
    let (provider, site) = world().await;
    for (then, now) in [(Some("u1"), Some("u2")), (Some("u1"), None), (None, Some("u2"))] {
        let browser = Browser::of(&site);
        let sign_in = |user: Option<&str>| match user {
            Some(user) => browser.set_cookie("who", user),
            None => browser.remove_cookie("who"),
        };
        sign_in(then);
        let callback = browser.stopped_at_callback("acme").await;
        sign_in(now);
        let page = browser.get(callback.as_str()).await;
        assert_eq!(page.status, StatusCode::CONFLICT, "{then:?} {now:?}");
        sign_in(then);
        assert!(browser.get(callback.as_str()).await.status.is_client_error(), "it is spent");
    }
    assert_eq!(redeemed(&provider), 0);
    assert_eq!((site.access_token("u1").await, site.access_token("u2").await), (None, None));
}

#[tokio::test]
async fn cb_20_tokens_in_the_callback_are_ignored() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let state = state_of(&callback);
    for query in ["access_token=x&token_type=Bearer".to_owned(), format!("access_token=x&id_token=y&state={state}")] {
        let page = alice.get(&format!("/login/acme/authorized?{query}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(redeemed(&provider), 0);
    assert_eq!(site.access_token("alice").await, None);
}

#[tokio::test]
async fn cb_21_no_page_can_be_framed() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let confirm = alice.get_with("/login/acme", &[("sec-fetch-site", "cross-site")]).await;
    let failure = alice.get("/login/acme/authorized?state=x").await;
    for page in [confirm, failure] {
        assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"), "{page:?}");
    }
}

struct ChoosesEve;

#[async_trait::async_trait]
impl Hooks for ChoosesEve {
    async fn authorized(
        &self,
        login: oauth_dance::Authorized<'_>,
    ) -> Result<oauth_dance::Decision, oauth_dance::BoxError> {
        assert_eq!(login.user, None);
        Ok(oauth_dance::Decision::store().for_user(User::new("eve")))
    }
}

#[tokio::test]
async fn a_visitor_s_login_needs_a_hook_that_names_the_user() {
    let (_provider, site) = world().await;
    let visitor = Browser::of(&site);
    let page = visitor.login("acme").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);

    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.hooks(ChoosesEve)).await;
    assert_eq!(Browser::of(&site).login("acme").await.status, StatusCode::SEE_OTHER);
    assert!(site.access_token("eve").await.is_some());
}

#[tokio::test]
async fn an_unknown_provider_is_not_found() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for path in ["/login/nobody", "/login/nobody/authorized?code=x&state=y", "/login/%00", "/login/..%2facme"] {
        assert_eq!(alice.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let unparsable = Url::parse(&format!("{}/login/acme/authorized?%ff%fe&&&=&%%%", site.base)).unwrap();
    assert_eq!(alice.get(unparsable.as_str()).await.status, StatusCode::BAD_REQUEST);
}
