//! Cookies of the library, and what depends on them.

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::TestProvider;
use oauth_dance::{KeyRing, OAuthBuilder};
use oauth_dance_core::{Filter, PageRequest};

use crate::support::{Browser, Setup, Site, world};

fn attributes(cookie: &str) -> Vec<&str> {
    let mut attributes: Vec<_> = cookie.split("; ").skip(1).collect();
    attributes.sort_unstable();
    attributes
}

#[tokio::test]
async fn sc_01_sc_02_cookies_are_kept_strictly() {
    let provider = TestProvider::start().await.unwrap();
    for (base, secure) in [(None, false), (Some("https://app.example".to_owned()), true)] {
        let registration = provider.registration("acme");
        let setup = Setup { base, ..Setup::default() };
        let site = setup.start(|builder| builder.provider(registration).each_browser_a_user()).await;
        let browser = Browser::of(&site);
        let start = browser.get("/login/acme").await;
        let callback = browser.approve(&start.location().parse().unwrap()).await;
        let end = browser.get(callback.as_str()).await;
        assert_eq!(end.status, StatusCode::SEE_OTHER);

        let all = [start.set_cookies(), end.set_cookies()].concat();
        assert_eq!(all.len(), 3, "an attempt, its end, and the user: {all:?}");
        for (cookie, age) in all.iter().zip(["Max-Age=600", "Max-Age=0", "Max-Age=15552000"]) {
            let mut expected = vec!["HttpOnly", age, "Path=/", "SameSite=Lax"];
            expected.extend(secure.then_some("Secure"));
            assert_eq!(attributes(cookie), expected, "{cookie}");
            assert_eq!(cookie.starts_with("__Host-"), secure, "{cookie}");
        }
        assert_eq!(browser.cookies().len(), 1, "the browser took and kept them as meant");
    }
}

#[tokio::test]
async fn sc_05_a_user_cookie_is_made_by_the_application_only() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::each_browser_a_user).await;
    let browser = Browser::of(&site);
    browser.login("acme").await;
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
    assert_eq!(browser.get("/me/acme").await.status, StatusCode::SEE_OTHER, "nor for ever");
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
async fn sc_09_strange_cookies_are_no_cookies() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::each_browser_a_user).await;
    let browser = Browser::of(&site);
    browser.login("acme").await;
    let (name, value) = browser.cookies().into_iter().next().unwrap();
    let strange = [
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
    for cookies in &strange {
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
async fn sc_10_the_attempt_s_cookie_goes_with_it() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let left = || alice.cookies().keys().filter(|name| name.contains("login")).count();
    alice.login("acme").await;
    assert_eq!(left(), 0, "after a login");

    provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    alice.login("acme").await;
    assert_eq!(left(), 0, "after a refusal");
    provider.configure(|settings| settings.refuses = None);

    provider.next_token_answer(oauth_dance::testing::Answer::status(500));
    alice.login("acme").await;
    assert_eq!(left(), 0, "after a failure");

    let callback = alice.stopped_at_callback("acme").await;
    let cookies = alice.cookies();
    alice.get(callback.as_str()).await;
    for (name, value) in &cookies {
        alice.set_cookie(name, value);
    }
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::CONFLICT);
    assert_eq!(left(), 0, "after a second use");

    let callback = alice.stopped_at_callback("acme").await;
    site.clock.advance(Duration::from_secs(601));
    assert_eq!(alice.get(callback.as_str()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(left(), 0, "after its time");
}

#[tokio::test]
async fn sc_11_two_applications_on_one_host() {
    let provider = TestProvider::start().await.unwrap();
    let one = Site::with(&provider, OAuthBuilder::each_browser_a_user).await;
    let two = Site::with(&provider, OAuthBuilder::each_browser_a_user).await;
    // Ports do not separate cookies, so the browser has one jar for both.
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
async fn sc_11_two_processes_of_one_application() {
    let provider = TestProvider::start().await.unwrap();
    let (keys, storage) = (KeyRing::generate(), Setup::default().storage);
    let setup = || Setup { keys: keys.clone(), storage: storage.clone(), ..Setup::default() };
    let start = || setup().start(|builder| builder.provider(provider.registration("acme")).each_browser_a_user());
    let (one, two) = (start().await, start().await);
    let (browser, elsewhere) = (Browser::of(&one), Browser::of(&two));
    browser.login("acme").await;
    browser.cookies().iter().for_each(|(name, value)| elsewhere.set_cookie(name, value));
    assert_eq!(elsewhere.get("/me/acme").await.status, StatusCode::OK);
}

#[tokio::test]
async fn sc_12_a_visit_leaves_nothing() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, OAuthBuilder::each_browser_a_user).await;
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

#[tokio::test]
async fn sc_15_keys_can_be_changed() {
    use oauth_dance_core::SealingKey;

    let provider = TestProvider::start().await.unwrap();
    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let storage = Setup::default().storage;
    let rings = [KeyRing::new(old.clone()), KeyRing::new(new.clone()).with_older(old), KeyRing::new(new)];
    let mut browser: Option<Browser> = None;
    for (step, keys) in rings.into_iter().enumerate() {
        let setup = Setup { keys, storage: storage.clone(), ..Setup::default() };
        let configure = |builder: OAuthBuilder| builder.provider(provider.registration("acme")).each_browser_a_user();
        let site = setup.start(configure).await;
        let next = Browser::of(&site);
        for (name, value) in browser.iter().flat_map(Browser::cookies) {
            next.set_cookie(&name, &value);
        }
        if step == 0 {
            next.login("acme").await;
        }
        let status = next.get("/me/acme").await.status;
        assert_eq!(status, if step < 2 { StatusCode::OK } else { StatusCode::SEE_OTHER }, "step {step}");
        browser = Some(next);
    }
}
