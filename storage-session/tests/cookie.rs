//! Tokens in a cookie, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{Clock, KeyRing, Precondition, Record, RequestStorage, SealingKey, StorageError, Timestamp};
use oauth_dance_session::CookieTokens;
use support::{Browser, routes, serve};

const BASE: &str = "https://app.example";
const NAME: &str = "__Host-oauth-dance-tokens";

fn app(tokens: CookieTokens) -> Router {
    routes().layer(tokens)
}

/// A browser of an application with these keys, and a limit of three chunks.
async fn browser(keys: &KeyRing) -> Browser {
    Browser::new(&serve(app(CookieTokens::new(BASE, keys.clone()).with_limit(12_288))).await, true)
}

#[tokio::test]
async fn record_is_stored_in_the_browser() {
    let browser = browser(&KeyRing::generate()).await;
    assert_eq!(browser.get("/get/alice").await.body, "none");
    assert_eq!(browser.get("/put/alice/100").await.body, "put");
    assert_eq!(browser.get("/put/bob/200").await.body, "put");
    assert_eq!(browser.get("/get/alice").await.body, "100");
    assert_eq!(browser.get("/get/bob").await.body, "200");
    assert_eq!(browser.get("/delete/alice").await.body, "true");
    assert_eq!(browser.get("/delete/alice").await.body, "false");
    assert_eq!(browser.get("/get/alice").await.body, "none");
    assert_eq!(browser.get("/delete/bob").await.body, "true");
    assert!(browser.names().is_empty(), "the last delete removes the cookie");
}

#[tokio::test]
async fn cookie_of_an_older_key_is_resealed() {
    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let before = browser(&KeyRing::new(old.clone())).await;
    before.get("/put/alice/5000").await;
    let both = browser(&KeyRing::new(new.clone()).with_older(old)).await;
    *both.jar.lock().unwrap() = before.cookies();
    assert!(both.get("/idle").await.set_cookies().is_empty(), "a request that uses no token opens no cookie");
    let page = both.get("/get/alice").await;
    assert_eq!((page.body.as_str(), page.set_cookies().len()), ("5000", 2));
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(both.get("/get/alice").await.set_cookies().is_empty(), "once");

    let after = browser(&KeyRing::new(new)).await;
    *after.jar.lock().unwrap() = both.cookies();
    assert_eq!(after.get("/get/alice").await.body, "5000");
}

#[tokio::test]
async fn cookie_attributes_are_strict_on_set_and_removal() {
    let browser = browser(&KeyRing::generate()).await;
    let set = browser.get("/put/alice/10").await;
    let [cookie] = set.set_cookies()[..] else { panic!("{set:?}") };
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert!(pair.starts_with(&format!("{NAME}.0=")), "{pair}");
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=34560000");
    assert_eq!(set.header("cache-control"), "no-store");
    let removal = browser.get("/delete/alice").await;
    let expected = format!("{NAME}.0=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0");
    assert_eq!(removal.set_cookies(), [expected]);
    let cached = browser.get("/put-cached/alice/10").await;
    assert_eq!(cached.header("cache-control"), "no-store", "no cache may serve it to another user");

    let plain = serve(app(CookieTokens::new("http://localhost:3000", KeyRing::generate()))).await;
    let browser = Browser::new(&plain, false);
    let set = browser.get("/put/alice/10").await;
    let (pair, attributes) = set.set_cookies()[0].split_once("; ").unwrap();
    assert!(pair.starts_with("oauth-dance-tokens.0="), "{pair}");
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Path=/; Max-Age=34560000");
}

#[tokio::test]
async fn no_cookie_is_set_without_a_change() {
    let browser = browser(&KeyRing::generate()).await;
    for path in ["/idle", "/get/alice", "/delete/alice", "/put/alice/999999"] {
        let page = browser.get(path).await;
        assert!(page.set_cookies().is_empty() && page.header("cache-control").is_empty(), "{path}: {page:?}");
    }
    browser.get("/put/alice/10").await;
    for path in ["/idle", "/get/alice", "/get/bob", "/delete/bob", "/put/alice/999999"] {
        assert!(browser.get(path).await.set_cookies().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn written_tokens_are_set_for_any_status() {
    let browser = browser(&KeyRing::generate()).await;
    let page = browser.get("/put-500/alice/10").await;
    assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(browser.get("/get/alice").await.body, "10");
}

/// From one chunk to three and back: every response leaves exactly the chunks of its set.
#[tokio::test]
async fn chunks_grow_and_shrink() {
    let browser = browser(&KeyRing::generate()).await;
    for (size, chunks) in [(10, 1), (8_000, 3), (10, 1), (4_500, 2), (8_000, 3), (4_500, 2)] {
        assert_eq!(browser.get(&format!("/put/alice/{size}")).await.body, "put");
        let expected: Vec<_> = (0..chunks).map(|index| format!("{NAME}.{index}")).collect();
        assert_eq!(browser.names(), expected, "{size} bytes");
        assert_eq!(browser.get("/get/alice").await.body, size.to_string());
        assert!(browser.cookie_header().len() <= 12_288);
    }
    browser.get("/delete/alice").await;
    assert!(browser.names().is_empty());
}

#[tokio::test]
async fn only_complete_sets_join_and_own_cookies_are_cleared() {
    let browser = browser(&KeyRing::generate()).await;
    browser.get("/put/alice/8000").await;
    let old = browser.cookies();
    browser.get("/put/alice/7990").await;
    let set = browser.cookies();
    let chunk = |index: usize| format!("{NAME}.{index}={}", set[&format!("{NAME}.{index}")]);
    let foreign = format!("{NAME}.x=1; {NAME}_9=2; {NAME}.00=3; {NAME}=4; {NAME}.99=5; other=6; x{NAME}.0=7");

    let fine = [
        format!("{}; {}; {}", chunk(2), chunk(0), chunk(1)),
        format!("{foreign}; {}; {}; {}", chunk(0), chunk(1), chunk(2)),
        format!("{}; {}; {}; {}", chunk(0), chunk(1), chunk(1), chunk(2)),
        format!("{}; {}; {}; {NAME}.3={}", chunk(0), chunk(1), chunk(2), old[&format!("{NAME}.2")]),
    ];
    for cookies in fine {
        let page = browser.send("/get/alice", cookies.as_bytes()).await;
        assert!(page.body == "7990" && page.set_cookies().is_empty(), "{cookies}: {page:?}");
    }

    let swapped = |a: usize, b: usize| {
        let (name_a, name_b) = (format!("{NAME}.{a}"), format!("{NAME}.{b}"));
        let rest = (0..3).find(|index| *index != a && *index != b).unwrap();
        format!("{name_a}={}; {name_b}={}; {}", set[&name_b], set[&name_a], chunk(rest))
    };
    let broken = [
        (chunk(0), vec![0]),
        (format!("{}; {}; {foreign}", chunk(1), chunk(2)), vec![1, 2]),
        (format!("{}; {NAME}.1={}; {}", chunk(0), old[&format!("{NAME}.1")], chunk(2)), vec![0, 1, 2]),
        (swapped(0, 1), vec![0, 1, 2]),
        (swapped(1, 2), vec![0, 1, 2]),
        (format!("{}; {}; {}; {}x", chunk(0), chunk(1), chunk(2), chunk(2)), vec![0, 1, 2]),
    ];
    for (cookies, cleared) in broken {
        let page = browser.send("/get/alice", cookies.as_bytes()).await;
        assert_eq!((page.status, page.body.as_str()), (StatusCode::OK, "none"), "{cookies}");
        let names: Vec<_> = page.set_cookies().iter().map(|set| set.split_once('=').unwrap().0.to_owned()).collect();
        let expected: Vec<_> = cleared.iter().map(|index| format!("{NAME}.{index}")).collect();
        assert_eq!(names, expected, "{cookies}");
        assert!(page.set_cookies().iter().all(|set| set.ends_with("; Max-Age=0")));
        assert!(browser.send("/idle", cookies.as_bytes()).await.set_cookies().is_empty(), "the tokens were not used");
    }
}

#[tokio::test]
async fn too_large_token_is_rejected_and_the_old_remains() {
    let url = serve(app(CookieTokens::new(BASE, KeyRing::generate()))).await;
    let browser = Browser::new(&url, true);
    assert_eq!(browser.get("/put/alice/2000").await.body, "put");
    assert_eq!(browser.get("/put/bob/500").await.body, "put");
    let before = browser.cookies();
    for path in ["/put/alice/5000", "/put/alice/4100", "/put/carol/2500", "/put/alice/1000000"] {
        let page = browser.get(path).await;
        assert!(page.body.starts_with("TooLarge"), "{path}: {page:?}");
        assert!(page.set_cookies().is_empty(), "{path}");
    }
    assert_eq!(browser.cookies(), before);
    assert_eq!(browser.get("/get/alice").await.body, "2000");
    assert_eq!(browser.get("/put/alice/3500").await.body, "put", "there is room for that");
    assert!(browser.cookie_header().len() <= 6 * 1024);
    let long = browser.get(&format!("/put/{}/1", "x".repeat(300))).await;
    assert!(long.body.starts_with("KeyTooLong"), "{long:?}");
}

/// Malformed cookies are neither tokens nor errors.
#[tokio::test]
async fn malformed_cookie_counts_as_absent() {
    let browser = browser(&KeyRing::generate()).await;
    browser.get("/put/alice/10").await;
    let good = browser.cookie_header();
    let mut garbage: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b";;;=;".to_vec(),
        format!("{NAME}.0").into_bytes(),
        format!("{NAME}.0=").into_bytes(),
        format!("{NAME}.0=\"{}\"", "A".repeat(40)).into_bytes(),
        format!("{NAME}.0={}", "A".repeat(16_000)).into_bytes(),
        [format!("{NAME}.0=AAAAAAAA01").as_bytes(), &[0xff, 0xfe, 0x80]].concat(),
        [&[0xc3, 0x28, b'='], format!("; {NAME}.0=AAAAAAAA99AAAA").as_bytes()].concat(),
    ];
    garbage.extend((good.find('=').unwrap() + 1..good.len()).step_by(7).map(|index| {
        let mut changed = good.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        changed
    }));
    for cookies in garbage {
        let page = browser.send("/get/alice", &cookies).await;
        assert_eq!(
            (page.status, page.body.as_str()),
            (StatusCode::OK, "none"),
            "{}",
            String::from_utf8_lossy(&cookies)
        );
    }
    let mixed = [&[0xff, b'=', 0xfe, b';', b' '], good.as_bytes()].concat();
    assert_eq!(
        browser.send("/get/alice", &mixed).await.body,
        "10",
        "invalid bytes of other cookies do not hide a valid one"
    );
}

#[tokio::test]
async fn older_keys_open_and_the_first_key_seals() {
    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let before = browser(&KeyRing::new(old.clone())).await;
    before.get("/put/alice/10").await;

    let both = browser(&KeyRing::new(new.clone()).with_older(old)).await;
    *both.jar.lock().unwrap() = before.cookies();
    let read = both.get("/get/alice").await;
    assert!(read.body == "10" && read.set_cookies().len() == 1);
    both.get("/put/bob/20").await;

    let after = browser(&KeyRing::new(new)).await;
    *after.jar.lock().unwrap() = both.cookies();
    assert_eq!(after.get("/get/alice").await.body, "10", "the write has resealed everything");

    let without = browser(&KeyRing::generate()).await;
    *without.jar.lock().unwrap() = after.cookies();
    let unknown = without.get("/get/alice").await;
    assert_eq!((unknown.status, unknown.body.as_str()), (StatusCode::OK, "none"));
    assert!(unknown.set_cookies().is_empty(), "another process may have the key");
    assert_eq!(without.get("/put/alice/30").await.body, "put");
    assert_eq!(without.get("/get/alice").await.body, "30");
}

#[tokio::test]
async fn cookie_is_bound_to_its_name() {
    let keys = KeyRing::generate();
    let first = browser(&keys).await;
    first.get("/put/alice/10").await;
    let other = CookieTokens::new(BASE, keys).with_name("second").unwrap();
    let second = Browser::new(&serve(app(other)).await, true);
    let renamed = first.cookie_header().replace("oauth-dance-tokens", "second");
    let page = second.send("/get/alice", renamed.as_bytes()).await;
    assert_eq!(page.body, "none");
    assert_eq!(page.set_cookies().len(), 1);
    for name in ["", "a b", "a=b", "a;b", "é", &"x".repeat(65)] {
        assert!(CookieTokens::new(BASE, KeyRing::generate()).with_name(name).is_err(), "{name}");
    }
}

#[tokio::test]
async fn record_ends_with_its_lifetime_for_any_browser() {
    let seconds = Arc::new(AtomicU64::new(1_000_000));
    let reading = Arc::clone(&seconds);
    let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
    let tokens = CookieTokens::new(BASE, KeyRing::generate()).with_clock(clock).with_lifetime(Duration::from_secs(100));
    let browser = Browser::new(&serve(app(tokens)).await, true);
    let set = browser.get("/put/alice/10").await;
    assert!(set.set_cookies()[0].ends_with("; Max-Age=100"));
    seconds.fetch_add(60, Ordering::SeqCst);
    browser.get("/put/bob/20").await;
    seconds.fetch_add(39, Ordering::SeqCst);
    assert_eq!(browser.get("/get/alice").await.body, "10");
    seconds.fetch_add(1, Ordering::SeqCst);
    assert_eq!(browser.get("/get/alice").await.body, "none", "the write of another record does not extend it");
    assert_eq!(browser.get("/get/bob").await.body, "20");
}

/// The cookie contains no part of a token in readable form.
#[tokio::test]
async fn cookie_reveals_nothing() {
    let browser = browser(&KeyRing::generate()).await;
    browser.get("/put/alice-the-user/300").await;
    let texts = browser.cookie_header();
    let raw = URL_SAFE_NO_PAD.decode(&texts[texts.find('=').unwrap() + 11..]).unwrap();
    for needle in [&b"alice-the-user"[..], b"github", &support::payload(16)] {
        assert!(!raw.windows(needle.len()).any(|window| window == needle));
        assert!(!texts.as_bytes().windows(needle.len()).any(|window| window == needle));
    }
    let other = self::browser(&KeyRing::generate()).await;
    other.get("/put/alice-the-user/300").await;
    assert_ne!(texts, other.cookie_header());
}

/// A write after the response is rejected, and not lost silently. Its size does not matter: a refresh that has no room
/// for its claim redeems the refresh token only if the request can still store the new one.
#[tokio::test]
async fn write_after_the_response_is_an_error() {
    let (answers, mut results) = tokio::sync::mpsc::unbounded_channel();
    let late = move |Extension(storage): Extension<RequestStorage>, Path(hang): Path<bool>| async move {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for size in [1, 100_000] {
                let record = Record::new(support::payload(size));
                let put = storage.storage().put(&support::key("alice"), &record, Precondition::Always).await;
                answers.send(put.map(drop)).unwrap();
            }
        });
        if hang {
            std::future::pending::<()>().await;
        }
    };
    let tokens = CookieTokens::new(BASE, KeyRing::generate());
    let url = serve(Router::new().route("/late/{hang}", get(late)).layer(tokens)).await;
    let browser = Browser::new(&url, true);
    browser.get("/late/false").await;
    for _ in 0..2 {
        assert!(matches!(results.recv().await, Some(Err(StorageError::Unsupported(_)))), "the response was sent");
    }

    let gone = tokio::time::timeout(Duration::from_millis(50), browser.get("/late/true")).await;
    assert!(gone.is_err(), "the browser disconnects");
    for _ in 0..2 {
        let late = results.recv().await;
        assert!(matches!(late, Some(Err(StorageError::Unsupported(_)))), "the browser has disconnected");
    }
}
