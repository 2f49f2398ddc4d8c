//! Callbacks with an error: denials, errors of the provider, and how they are shown.

use http::StatusCode;

use super::callback::redeemed;
use crate::support::{Browser, with_parameter, world};

#[tokio::test]
async fn cb_07_an_error_takes_precedence_over_a_code() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let page = alice.get(&format!("{callback}&error=access_denied")).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);

    let callback = alice.stopped_at_callback("acme").await;
    let page = alice.get(with_parameter(&callback, "code", None).as_str()).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);

    // Some providers omit the state in a denial, but in no other response.
    for (response, status) in [("error=access_denied", 403), ("error=server_error", 400), ("code=c", 400)] {
        let page = alice.get(&format!("/login/acme/authorized?{response}")).await;
        assert_eq!(page.status.as_u16(), status, "{response}");
    }
    assert_eq!(redeemed(&provider), 0);
}

#[tokio::test]
async fn cb_07_nonstandard_denials_and_errors_are_recognised() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for (response, code) in [
        ("error=user_cancelled_login", "denied"),
        ("error=user_cancelled_authorize&error_description=no", "denied"),
        ("error=ACCESS_DENIED", "denied"),
        ("error_reason=user_denied&error_code=200", "denied"),
        ("error_code=1349003&error_message=This+app+is+in+sandbox+mode", "provider_error"),
        ("error=&error_message=oops", "provider_error"),
        ("error=server_error&error_description=a&error_description=b", "provider_error"),
    ] {
        let callback = with_parameter(&alice.stopped_at_callback("acme").await, "code", None);
        let page = alice.get_with(&format!("{callback}&{response}"), &[("accept", "application/json")]).await;
        assert_eq!(page.json()["error"], code, "{response}");
    }
    assert_eq!(redeemed(&provider), 0);
    let callback = alice.stopped_at_callback("acme").await;
    let good = alice.get(&format!("{callback}&error=&error_code=0&error_message=ok")).await;
    assert_eq!(good.status, StatusCode::SEE_OTHER, "a code is no error");
}

#[tokio::test]
async fn cb_08_a_denial_affects_only_its_own_login() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    let token = site.access_token("alice").await;
    assert!(token.is_some());

    let page = alice.get("/login/acme/authorized?error=access_denied").await;
    assert_eq!((page.status, page.set_cookies().len()), (StatusCode::FORBIDDEN, 0));

    provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    let callback = alice.stopped_at_callback("acme").await;
    let page = alice.get(callback.as_str()).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("Access was denied at the provider."));
    assert_eq!(page.set_cookies().len(), 1);
    let again = alice.get(callback.as_str()).await;
    assert_eq!((again.status, &again.body), (StatusCode::FORBIDDEN, &page.body), "the first outcome is repeated");

    provider.configure(|settings| settings.refuses = Some("temporarily_unavailable".to_owned()));
    assert_eq!(alice.login("acme").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(site.access_token("alice").await, token);
    assert_eq!(alice.get("/me/acme").await.status, StatusCode::OK);
}

#[tokio::test]
async fn cb_09_the_provider_s_texts_are_escaped_and_truncated() {
    let (_provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let long = "x".repeat(20_000);
    for (error, description) in [
        ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>"),
        ("a\r\nSet-Cookie: evil=1", "b\r\n\r\n<b>"),
        ("a\0b", "\u{202e}é"),
        ("\"><b>", long.as_str()),
        (long.as_str(), "'"),
    ] {
        for accept in ["text/html", "application/json"] {
            let callback = alice.stopped_at_callback("acme").await;
            let mut forged = with_parameter(&callback, "code", None);
            forged
                .query_pairs_mut()
                .append_pair("error", error)
                .append_pair("error_description", description)
                .append_pair("error_uri", "https://evil.test/");
            let page = alice.get_with(forged.as_str(), &[("accept", accept)]).await;
            assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{error}");
            assert!(page.body.len() < 4096, "{}", page.body.len());
            assert!(!page.body.contains("evil.test") && !page.body.contains('\r') && !page.body.contains('\0'));
            assert!(page.set_cookies().iter().all(|cookie| !cookie.starts_with("evil")));
            if accept == "text/html" {
                assert!(!page.body.contains("<script>") && !page.body.contains("<img") && !page.body.contains("<b>"));
            } else {
                assert_eq!(page.json()["error"], "provider_error");
            }
        }
    }
}
