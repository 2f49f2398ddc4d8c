//! The library's cookies, and the sessions that depend on them.

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::TestProvider;
use oauth_dance::{KeyRing, OAuthBuilder};
use oauth_dance_core::{Filter, PageRequest};

use crate::support::{Browser, Page, Setup, Site, world};

fn attributes(cookie: &str) -> Vec<&str> {
    let mut attributes: Vec<_> = cookie.split("; ").skip(1).collect();
    attributes.sort_unstable();
    attributes
}

#[tokio::test]
async fn sc_01_sc_02_cookie_attributes_are_strict() {
    let provider = TestProvider::start().await.unwrap();
    for (base, secure) in [(None, false), (Some("https://app.example".to_owned()), true)] {
        let registration = provider.registration("acme");
        let setup = Setup { base, ..Setup::default() };
        let site = setup.start(|builder| builder.provider(registration).anonymous_users()).await;
        let browser = Browser::of(&site);
        let start = browser.get("/login/acme").await;
        let callback = browser.approve(&start.location().parse().unwrap()).await;
        let end = browser.get(callback.as_str()).await;
        assert_eq!(end.status, StatusCode::SEE_OTHER);

        let all = [start.set_cookies(), end.set_cookies()].concat();
        assert_eq!(all.len(), 3, "an attempt, its end, and the user: {all:?}");
        for (cookie, age) in all.iter().zip(["Max-Age=660", "Max-Age=60", "Max-Age=15552000"]) {
            let mut expected = vec!["HttpOnly", age, "Path=/", "SameSite=Lax"];
            expected.extend(secure.then_some("Secure"));
            assert_eq!(attributes(cookie), expected, "{cookie}");
            assert_eq!(cookie.starts_with("__Host-"), secure, "{cookie}");
        }
        browser.forget_logins();
        assert_eq!(browser.cookies().len(), 1, "the browser stored them as intended");
    }
}

#[tokio::test]
async fn sc_05_a_user_cookie_cannot_be_forged() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    let browser = Browser::of(&site);
    browser.login("acme").await;
    browser.forget_logins();
    let (name, value) = browser.cookies().into_iter().next().unwrap();

    let other = Browser::of(&site);
    for forged in ["known", "", "AAAA", &value[..value.len() - 2], &format!("{value}A")] {
        other.set_cookie(&name, forged);
        let page = other.get("/me/acme").await;
        assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/login/acme?next=%2Fme%2Facme"));
        other.login("acme").await;
        assert_ne!(other.cookies()[&name], forged);
    }
    browser.start("acme").await;
    let attempt = browser.cookies().into_iter().find(|(found, _)| *found != name).unwrap().1;
    other.set_cookie(&name, &attempt);
    assert_eq!(other.get("/me/acme").await.status, StatusCode::SEE_OTHER, "one cookie is not another");

    site.clock.advance(Duration::from_secs(181 * 24 * 3600));
    assert_eq!(browser.get("/me/acme").await.status, StatusCode::SEE_OTHER, "nor indefinitely");
}

#[tokio::test]
async fn sc_08_nothing_personal_is_cached() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let mut pages = vec![
        alice.get("/login/acme").await,
        alice.get("/login/nobody").await,
        alice.get("/required").await,
        alice.get_with("/required", &[("accept", "application/json")]).await,
        alice.get_with("/login/acme", &[("sec-fetch-site", "cross-site")]).await,
        alice.get("/login/acme/authorized").await,
        alice.login("acme").await,
    ];
    pages.push(Browser::of(&site).get("/required").await);
    for page in pages {
        assert_eq!(page.header("cache-control"), "no-store", "{page:?}");
    }
}

#[tokio::test]
async fn sc_09_malformed_cookies_are_ignored() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    let browser = Browser::of(&site);
    browser.login("acme").await;
    browser.forget_logins();
    let (name, value) = browser.cookies().into_iter().next().unwrap();
    let malformed = [
        String::new(),
        "=".to_owned(),
        ";;;".to_owned(),
        "=;=;a".to_owned(),
        name.clone(),
        format!("{name}="),
        format!("{name}={name}={name}"),
        format!("{name}=\u{fffd}é"),
        format!("oauth-dance-login-={value}"),
        format!("oauth-dance-login-x={value}; oauth-dance-login-y={value}"),
        format!("{name}={}", "A".repeat(10_000)),
        (0..500).map(|i| format!("oauth-dance-login-{i}=x; ")).collect(),
    ];
    for cookies in &malformed {
        for path in ["/optional", "/required", "/login/acme", "/login/acme/authorized?state=x&code=y"] {
            let page = browser.get_with(path, &[("cookie", cookies)]).await;
            assert!(page.status.as_u16() < 500, "{path} {cookies:.80}: {}", page.status);
        }
    }
    let twice = format!("{name}=garbage; {name}={value}");
    assert_eq!(browser.get_with("/me/acme", &[("cookie", &twice)]).await.status, StatusCode::OK);
    let not_text = format!("GET /optional HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: {name}=");
    let raw = [not_text.as_bytes(), b"\xff\xfe\x80\r\n\r\n"].concat();
    assert_eq!(site.raw(&raw).await, 200);
}

#[tokio::test]
async fn sc_10_the_attempt_s_cookie_is_removed() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let ends = |page: &Page, age: &str| attributes(page.set_cookies()[0]).contains(&&*format!("Max-Age={age}"));
    assert!(ends(&alice.login("acme").await, "60"), "a minute after a login");

    provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    assert!(ends(&alice.login("acme").await, "60"), "after a refusal");
    provider.configure(|settings| settings.refuses = None);

    provider.next_token_response(oauth_dance::testing::ScriptedResponse::status(500));
    assert!(ends(&alice.login("acme").await, "60"), "after a failure");

    let callback = alice.stopped_at_callback("acme").await;
    alice.get(callback.as_str()).await;
    let again = alice.get(callback.as_str()).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    assert!(again.set_cookies().is_empty(), "no later for a second use");

    let callback = alice.stopped_at_callback("acme").await;
    site.clock.advance(Duration::from_secs(601));
    let late = alice.get(callback.as_str()).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
    assert!(ends(&late, "0"), "and at once after its time");
}

#[tokio::test]
async fn sc_11_two_applications_on_one_host_are_independent() {
    let provider = TestProvider::start().await.unwrap();
    let one = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    let two = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    // Ports do not separate cookies, so both applications share the browser's cookie jar.
    let (browser, elsewhere) = (Browser::of(&one), Browser::of(&two));
    let share =
        |from: &Browser, to: &Browser| from.cookies().iter().for_each(|(name, value)| to.set_cookie(name, value));

    let pending = browser.stopped_at_callback("acme").await;
    share(&browser, &elsewhere);
    assert_eq!(elsewhere.login("acme").await.status, StatusCode::SEE_OTHER);
    share(&elsewhere, &browser);
    assert_eq!(browser.get(pending.as_str()).await.status, StatusCode::SEE_OTHER);
    share(&browser, &elsewhere);
    assert_eq!(browser.get("/me/acme").await.status, StatusCode::OK);
    assert_eq!(elsewhere.get("/me/acme").await.status, StatusCode::OK, "a login there does not end the one here");
}

#[tokio::test]
async fn sc_11_processes_of_one_application_share_logins() {
    let provider = TestProvider::start().await.unwrap();
    let (keys, storage) = (KeyRing::generate(), Setup::default().storage);
    let setup = || Setup { keys: keys.clone(), storage: storage.clone(), ..Setup::default() };
    let start = || setup().start(|builder| builder.provider(provider.registration("acme")).anonymous_users());
    let (one, two) = (start().await, start().await);
    let (browser, elsewhere) = (Browser::of(&one), Browser::of(&two));
    browser.login("acme").await;
    browser.cookies().iter().for_each(|(name, value)| elsewhere.set_cookie(name, value));
    assert_eq!(elsewhere.get("/me/acme").await.status, StatusCode::OK);
}

#[tokio::test]
async fn sc_12_a_visit_sets_and_stores_nothing() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::anonymous_users).await;
    for _ in 0..100 {
        let visitor = Browser::of(&site);
        for path in ["/", "/optional", "/required"] {
            assert!(visitor.get(path).await.set_cookies().is_empty(), "{path}");
        }
    }
    for _ in 0..20 {
        Browser::of(&site).start("acme").await;
    }
    let stored = site.storage.list(&Filter::everything(), PageRequest::default()).await.unwrap();
    assert!(stored.entries.is_empty(), "not even by logins that are only started");
}

/// Several processes on one storage, each with its own key ring.
async fn processes(rings: impl IntoIterator<Item = KeyRing>) -> (TestProvider, Vec<Site>) {
    let provider = TestProvider::start().await.unwrap();
    let storage = Setup::default().storage;
    let mut sites = Vec::new();
    for keys in rings {
        let base = Some("https://app.example".to_owned());
        let setup = Setup { base, keys, storage: storage.clone(), ..Setup::default() };
        let configure = |builder: OAuthBuilder| builder.provider(provider.registration("acme")).anonymous_users();
        sites.push(setup.start(configure).await);
    }
    (provider, sites)
}

/// The same browser at another process.
fn at(site: &Site, browser: &Browser) -> Browser {
    let moved = Browser::of(site);
    browser.cookies().iter().for_each(|(name, value)| moved.set_cookie(name, value));
    moved
}

async fn reseal(site: &Site) {
    let stored = site.oauth.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap();
    for entry in stored.entries {
        site.oauth.tokens().reseal(&entry.key).await.unwrap();
    }
}

#[tokio::test]
async fn sc_15_keys_can_be_changed() {
    use oauth_dance_core::SealingKey;

    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let second = KeyRing::new(old.clone()).with_older(new.clone());
    let first = KeyRing::new(new.clone()).with_older(old.clone());
    let (_provider, steps) = processes([KeyRing::new(old), second, first, KeyRing::new(new)]).await;
    let [before, second, first, dropped] = &steps[..] else { panic!() };

    // Processes with the old and the new configuration serve the same browsers.
    let (mut known, mut fresh) = (Browser::of(before), Browser::of(first));
    known.login("acme").await;
    known.forget_logins();
    fresh.login("acme").await;
    fresh.forget_logins();
    for step in [second, first, second, first] {
        for browser in [&mut known, &mut fresh] {
            *browser = at(step, browser);
            assert_eq!(browser.get("/me/acme").await.status, StatusCode::OK);
            assert_eq!(browser.cookies().len(), 1, "one cookie takes the other's place");
            assert!(browser.get("/me/acme").await.set_cookies().is_empty(), "and stays");
        }
    }
    reseal(first).await;
    for browser in [&known, &fresh] {
        assert_eq!(at(dropped, browser).get("/me/acme").await.status, StatusCode::OK, "the old key is gone");
    }
}

#[tokio::test]
async fn sc_15_a_login_reseals_the_cookie() {
    use oauth_dance_core::SealingKey;

    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let first = KeyRing::new(new.clone()).with_older(old.clone());
    let (_provider, steps) = processes([KeyRing::new(old), first, KeyRing::new(new)]).await;
    let browser = Browser::of(&steps[0]);
    browser.login("acme").await;
    steps[0].clock.advance(Duration::from_secs(24 * 3600));
    steps[1].clock.advance(Duration::from_secs(24 * 3600));

    let moved = at(&steps[1], &browser);
    let page = moved.get("/login/acme").await;
    let renewed = page.set_cookies().into_iter().find(|cookie| cookie.contains("user")).unwrap();
    let max_age: u64 = renewed.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    // The clocks of the processes start with the system's, so they may differ by some seconds.
    assert!((15_465_000..=15_465_600).contains(&max_age), "it lasts no longer than before: {renewed}");
    let callback = moved.approve(&page.location().parse().unwrap()).await;
    assert_eq!(moved.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    assert_eq!(at(&steps[2], &moved).get("/me/acme").await.status, StatusCode::OK);
}
