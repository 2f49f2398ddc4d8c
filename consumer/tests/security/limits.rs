//! Limits of the cost of one request or one provider.

use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};

use crate::support::{Browser, Site, world};

#[tokio::test]
async fn ds_02_large_requests_are_rejected() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let long = "x".repeat(40_000);
    for path in [
        format!("/login/acme?next=/{long}"),
        format!("/login/acme/authorized?state={long}"),
        format!("/login/acme/authorized?code=x&state=y&z={long}"),
    ] {
        assert_eq!(alice.get(&path).await.status, StatusCode::BAD_REQUEST, "{path:.60}");
    }
    for size in [20_000, 10 << 20] {
        let page = alice.post("/login/acme", &format!("next=/{}", "x".repeat(size)), &[]).await;
        assert!(page.status.is_client_error(), "{}", page.status);
        assert!(page.set_cookies().is_empty());
    }
    let endless = format!("GET /login/acme/authorized?code={} HTTP/1.1\r\n", "x".repeat(10 << 20));
    let status = site.raw(endless.as_bytes()).await;
    assert!((400..500).contains(&status), "{status}");
    assert!(provider.requests().is_empty());
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn ds_04_a_hanging_provider_does_not_affect_others() {
    let (slow, fast) = (TestProvider::start().await.unwrap(), TestProvider::start().await.unwrap());
    let site = Site::with(&slow, |builder| builder.provider(fast.registration("beta"))).await;
    let mut stuck = tokio::task::JoinSet::new();
    for user in 0..10 {
        slow.next_token_response(ScriptedResponse::normal().after(Duration::from_secs(2)));
        let browser = Browser::signed_in(&site, &format!("slow{user}"));
        stuck.spawn(async move { browser.login("acme").await.status });
    }
    while slow.requests_to(Endpoint::Token).len() < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let since = Instant::now();
    for user in 0..20 {
        let browser = Browser::signed_in(&site, &format!("fast{user}"));
        assert_eq!(browser.login("beta").await.status, StatusCode::SEE_OTHER);
        assert_eq!(browser.get("/me/beta").await.status, StatusCode::OK);
    }
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(stuck.try_join_next().is_none(), "all of them still wait");
    stuck.abort_all();
}
