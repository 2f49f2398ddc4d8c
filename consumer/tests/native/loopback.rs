//! The login by loopback redirect.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use oauth_dance::testing::{Endpoint, ScriptedResponse};
use oauth_dance::{LoginError, LoopbackHost};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::{Desktop, browser, callback, step_by_step};

fn query(url: &str) -> HashMap<String, String> {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

#[tokio::test]
async fn login_ends_with_a_stored_token_and_a_page() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let (url, redirect_uri) = (login.url().to_owned(), login.redirect_uri().to_owned());
    let asked = query(&url);
    assert!(redirect_uri.starts_with("http://127.0.0.1:") && redirect_uri.ends_with("/callback"), "{redirect_uri}");
    assert_eq!((&asked["redirect_uri"], asked["code_challenge_method"].as_str()), (&redirect_uri, "S256"));
    assert_eq!((asked["state"].len(), asked["code_challenge"].len()), (43, 43));
    let shown = format!("{login:?}");
    assert!(!shown.contains(&asked["state"]), "{shown}");

    let (page, ended) = tokio::join!(async { browser().get(&url).send().await.unwrap() }, login.finish());
    assert!(ended.unwrap().identity.is_none());
    assert_eq!(page.status(), 200);
    let final_url = page.url().to_string();
    assert!(final_url.starts_with(&redirect_uri));
    let headers = page.headers().clone();
    let text = page.text().await.unwrap();
    assert!(text.contains("Acme &amp; Co is connected") && text.contains("You can close this window"), "{text}");
    assert!(!text.contains(&query(&final_url)["code"]) && !text.contains(&asked["state"]) && !text.contains("<script"));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));

    let requests = desktop.provider.requests_to(Endpoint::Token);
    assert_eq!(requests[0].field("redirect_uri"), Some(redirect_uri.as_str()));
    assert_eq!((requests[0].field("client_id"), requests[0].field("client_secret")), (Some("program"), None));
    assert!(desktop.stored().await.unwrap().refresh_token.is_some());
    assert!(desktop.connector.client(&desktop.me).await.is_ok());
    assert!(browser().get(&redirect_uri).send().await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn other_requests_do_not_end_the_login() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let redirect_uri = login.redirect_uri().to_owned();
    let state = query(login.url())["state"].clone();
    let right = callback(login.url()).await;
    let root = redirect_uri.strip_suffix("/callback").unwrap().to_owned();
    let url = login.url().to_owned();
    let finish = tokio::spawn(login.finish());

    let browser = step_by_step();
    let long = "x".repeat(9000);
    for (request, status, what) in [
        (browser.get(format!("{root}/favicon.ico")), 404, "an icon"),
        (browser.get(&root), 404, "the root"),
        (browser.get(&redirect_uri), 400, "no parameters"),
        (browser.get(format!("{redirect_uri}?code=x")), 400, "no state"),
        (browser.get(format!("{redirect_uri}?code=x&state=")), 400, "an empty state"),
        (browser.get(format!("{redirect_uri}?code=x&state={}", state.to_lowercase())), 400, "a state like it"),
        (browser.get(format!("{redirect_uri}?code=x&state={state}x")), 400, "a longer state"),
        (browser.get(format!("{redirect_uri}?error=access_denied&state=other")), 400, "a denial of another login"),
        (browser.get(format!("{redirect_uri}?error=access_denied")), 403, "a denial without a state"),
        (browser.get(format!("{redirect_uri}?code=x&state={state}&state={state}")), 400, "a repeated parameter"),
        (browser.get(format!("{redirect_uri}?code={long}&state={state}")), 400, "a long code"),
        (browser.get(format!("{redirect_uri}?access_token=x&state={state}")), 400, "a token"),
        (browser.get(&right).header("host", "evil.example"), 421, "another host"),
        (browser.get(&right).header("host", "localhost"), 421, "another name of this machine"),
        (browser.get(&right).header("sec-purpose", "prefetch"), 425, "a prefetch"),
        (browser.post(&right).body("x"), 405, "a form"),
        (browser.head(&right), 405, "only the headers"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{what}");
        assert!(!response.text().await.unwrap().contains(&state), "{what}");
    }
    assert!(desktop.provider.requests_to(Endpoint::Token).is_empty(), "nothing was redeemed");
    // A connection that sends nothing delays no one.
    let _silent = TcpStream::connect(root.strip_prefix("http://").unwrap()).await.unwrap();

    assert_eq!(crate::browser().get(&url).send().await.unwrap().status(), 200);
    finish.await.unwrap().unwrap();
    assert!(desktop.stored().await.is_some());
}

#[tokio::test]
async fn only_the_first_response_counts() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let right = callback(login.url()).await;
    let state = query(&right)["state"].clone();
    let forged = format!("{}?code=forged&state={state}", login.redirect_uri());
    desktop.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(500)));
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        step_by_step().get(&forged).send().await.unwrap().status()
    };
    let (first, second, ended) = tokio::join!(step_by_step().get(&right).send(), later, login.finish());
    assert_eq!((first.unwrap().status().as_u16(), second.as_u16()), (200, 409));
    ended.unwrap();
    assert_eq!(desktop.provider.requests_to(Endpoint::Token).len(), 1);
}

#[tokio::test]
async fn denial_ends_the_login() {
    let desktop = Desktop::new().await;
    desktop.provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let url = login.url().to_owned();
    let (page, ended) = tokio::join!(browser().get(&url).send(), login.finish());
    assert!(matches!(ended, Err(LoginError::Denied)));
    let page = page.unwrap();
    assert_eq!(page.status(), 403);
    assert!(page.text().await.unwrap().contains("Acme &amp; Co was not connected"));
    assert!(desktop.stored().await.is_none());
}

/// RFC 9207, by the code of the web application's callback.
#[tokio::test]
async fn response_of_another_issuer_is_rejected() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let state = query(login.url())["state"].clone();
    let forged = format!("{}?code=x&state={state}&iss=https%3A%2F%2Fevil.example", login.redirect_uri());
    let (page, ended) = tokio::join!(browser().get(&forged).send(), login.finish());
    assert!(matches!(ended, Err(LoginError::IssuerMismatch { .. })));
    assert_eq!(page.unwrap().status(), 400);
    assert!(desktop.provider.requests_to(Endpoint::Token).is_empty(), "the code was not sent");

    desktop.provider.configure(|settings| settings.issuer_parameter = true);
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let url = login.url().to_owned();
    let (_, ended) = tokio::join!(browser().get(&url).send(), login.finish());
    ended.unwrap();
}

#[tokio::test]
async fn failed_exchange_is_shown_without_details() {
    let desktop = Desktop::new().await;
    desktop.provider.next_token_response(ScriptedResponse::error(401, "invalid_client"));
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let url = login.url().to_owned();
    let (page, ended) = tokio::join!(browser().get(&url).send(), login.finish());
    assert!(matches!(ended, Err(LoginError::Token(_))));
    let page = page.unwrap();
    assert_eq!(page.status(), 502);
    assert!(page.text().await.unwrap().contains("The token request failed"));
}

#[tokio::test]
async fn dropped_login_closes_the_port() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let address = Url::parse(login.redirect_uri()).unwrap().port().unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, address)).await.is_ok());
    drop(login);
    closed(address).await;

    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let address = Url::parse(login.redirect_uri()).unwrap().port().unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(50), login.finish()).await.unwrap_err();
    closed(address).await;
}

#[tokio::test]
async fn login_ends_after_its_time_limit() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).time_limit(Duration::from_millis(200));
    let login = login.start().await.unwrap();
    let port = Url::parse(login.redirect_uri()).unwrap().port().unwrap();
    let start = Instant::now();
    assert!(matches!(login.finish().await, Err(LoginError::Expired)));
    assert!(start.elapsed() < Duration::from_secs(5));
    closed(port).await;
}

async fn closed(port: u16) {
    let start = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "the port is still open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn token_is_stored_although_the_caller_is_gone() {
    let desktop = Desktop::new().await;
    desktop.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(500)));
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let url = login.url().to_owned();
    let waiting = tokio::spawn(login.finish());
    let page = tokio::spawn(async move { browser().get(&url).send().await });
    while desktop.provider.requests_to(Endpoint::Token).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waiting.abort();
    desktop.connector.finish().await;
    assert!(desktop.stored().await.is_some());
    let _ = page.await;
}

#[tokio::test]
async fn host_and_port_can_be_fixed() {
    let desktop = Desktop::new().await;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let settings =
        || desktop.connector.loopback_login(&desktop.me).port(free).path("/oauth/done").host(LoopbackHost::Localhost);
    let login = settings().start().await.unwrap();
    assert_eq!(login.redirect_uri(), format!("http://localhost:{free}/oauth/done"));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, free)).await.is_ok());
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
        // No other program can listen on the other address of the name.
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, free)).await.is_ok());
    }
    assert!(matches!(settings().start().await, Err(LoginError::Listener(_))), "the port is in use");
    let url = login.url().to_owned();
    let (page, ended) = tokio::join!(browser().get(&url).send(), login.finish());
    ended.unwrap();
    assert_eq!(page.unwrap().status(), 200);

    for path in ["", "callback", "/a?b", "/a#b", "//evil.example/x/../.."] {
        let invalid = desktop.connector.loopback_login(&desktop.me).path(path).start().await;
        assert!(matches!(invalid, Err(LoginError::Unsupported(_))), "{path}");
    }
}

/// If another program listens on one address of `localhost`, another port is chosen.
#[tokio::test]
async fn name_is_used_only_if_both_addresses_are_free() {
    let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let taken = other.local_addr().unwrap().port();
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).host(LoopbackHost::Localhost);
    assert!(matches!(login.clone().port(taken).start().await, Err(LoginError::Listener(_))));
    let login = login.start().await.unwrap();
    assert_ne!(Url::parse(login.redirect_uri()).unwrap().port().unwrap(), taken);
}

#[tokio::test]
async fn pushed_and_bound_requests_work() {
    let desktop = Desktop::new().await;
    desktop.provider.configure(|settings| {
        settings.requires_pushed_requests = true;
        settings.requires_dpop = true;
    });
    let mut acme = desktop.provider.provider("acme");
    acme.pushed_authorization_request_endpoint = Some(format!("{}/par", desktop.provider.url()));
    acme.dpop = true;
    let desktop = Desktop::with(desktop.provider, acme.public_client("program"));
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    assert_eq!(query(login.url()).len(), 2, "the browser carries a reference: {}", login.url());
    let url = login.url().to_owned();
    let (_, ended) = tokio::join!(browser().get(&url).send(), login.finish());
    ended.unwrap();
    assert!(desktop.stored().await.unwrap().dpop_key.is_some());
    assert!(desktop.connector.client(&desktop.me).await.unwrap().get("/x").send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn scopes_and_parameters_are_those_of_the_call() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.loopback_login(&desktop.me).scopes(["read", "write"]).param("prompt", "consent");
    let asked = query(login.start().await.unwrap().url());
    assert_eq!((asked["scope"].as_str(), asked["prompt"].as_str()), ("read write", "consent"));
    for reserved in ["state", "redirect_uri", "code_challenge", "client_id"] {
        let login = desktop.connector.loopback_login(&desktop.me).param(reserved, "evil").start().await;
        assert!(matches!(login, Err(LoginError::ReservedParameter { .. })), "{reserved}");
    }
    let unknown = oauth_dance::TokenKey::new("nobody", "me").unwrap();
    assert!(matches!(desktop.connector.loopback_login(&unknown).start().await, Err(LoginError::UnknownProvider)));
}
