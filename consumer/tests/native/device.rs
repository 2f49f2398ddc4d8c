//! The login by device grant.

use std::time::{Duration, Instant};

use oauth_dance::LoginError;
use oauth_dance::testing::{Endpoint, ScriptedResponse};
use serde_json::json;

use crate::{Desktop, browser};

#[tokio::test]
async fn login_ends_when_the_user_has_entered_the_code() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.device_login(&desktop.me).scopes(["read"]).start().await.unwrap();
    let code = login.user_code().to_owned();
    assert_eq!((code.len(), code.as_bytes()[4]), (9, b'-'));
    assert_eq!(login.verification_uri(), format!("{}/device", desktop.provider.url()));
    assert!(login.expires_in() > Duration::from_secs(590));
    let device_code = desktop.provider.requests_to(Endpoint::DeviceAuthorization);
    assert_eq!((device_code[0].field("client_id"), device_code[0].field("scope")), (Some("program"), Some("read")));
    assert!(!format!("{login:?}").contains(&code));

    let page = format!("{}?user_code={code}", login.verification_uri());
    let entering = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        browser().get(&page).send().await.unwrap()
    };
    let start = Instant::now();
    let (page, ended) = tokio::join!(entering, login.finish());
    let login = ended.unwrap();
    assert!(login.scope_change.is_empty() && page.status() == 200);
    assert!(start.elapsed() >= Duration::from_secs(2), "the interval was respected: {:?}", start.elapsed());

    let asked = desktop.provider.requests_to(Endpoint::Token);
    assert_eq!(asked.len(), 2, "pending, and then the token");
    for request in asked {
        assert_eq!(request.field("grant_type"), Some("urn:ietf:params:oauth:grant-type:device_code"));
        assert!(request.field("device_code").is_some() && request.field("client_secret").is_none());
    }
    assert!(desktop.stored().await.unwrap().refresh_token.is_some());
    assert!(desktop.connector.client(&desktop.me).await.is_ok());
}

#[tokio::test]
async fn device_asks_less_often_if_the_provider_is_slow() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    browser().get(login.verification_uri_complete().unwrap()).send().await.unwrap();
    // Not one of these ends the login: section 3.5.
    desktop.provider.next_token_response(ScriptedResponse::closed());
    desktop.provider.next_token_response(ScriptedResponse::error(400, "slow_down"));
    let start = Instant::now();
    login.finish().await.unwrap();
    // After 1 s the connection breaks, after another 2 s the provider wants 5 s more, and after 7 s there is a token.
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(desktop.provider.requests_to(Endpoint::Token).len(), 3);
}

#[tokio::test]
async fn denial_ends_the_login() {
    let desktop = Desktop::new().await;
    desktop.provider.configure(|settings| settings.refuses = Some("access_denied".to_owned()));
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    browser().get(login.verification_uri_complete().unwrap()).send().await.unwrap();
    assert!(matches!(login.finish().await, Err(LoginError::Denied)));
    assert!(desktop.stored().await.is_none());
}

#[tokio::test]
async fn login_ends_with_its_code() {
    let desktop = Desktop::new().await;
    let short = ScriptedResponse::normal().member("expires_in", 2);
    desktop.provider.next_response(Endpoint::DeviceAuthorization, short);
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    let start = Instant::now();
    assert!(matches!(login.finish().await, Err(LoginError::Expired)));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    for (code, is_expired) in [("expired_token", true), ("invalid_grant", false), ("bad_verification_code", false)] {
        let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
        desktop.provider.next_token_response(ScriptedResponse::error(400, code));
        let ended = login.finish().await.unwrap_err();
        assert_eq!(matches!(ended, LoginError::Expired), is_expired, "{code}: {ended:?}");
        assert_eq!(matches!(ended, LoginError::Token(_)), !is_expired, "{code}: {ended:?}");
    }
}

#[tokio::test]
async fn unusable_responses_start_no_login() {
    let desktop = Desktop::new().await;
    for response in [
        ScriptedResponse::error(400, "unauthorized_client"),
        ScriptedResponse::status(503),
        ScriptedResponse::closed(),
        ScriptedResponse::json(
            json!({ "device_code": "d", "user_code": "\u{1b}[31mCANARY", "verification_uri": "https://p.example" }),
        ),
        ScriptedResponse::json(json!({ "device_code": "d", "user_code": "u", "verification_uri": "file:///CANARY" })),
        ScriptedResponse::json(
            json!({ "device_code": "d", "user_code": "u", "verification_uri": "http://CANARY.example/" }),
        ),
    ] {
        desktop.provider.next_response(Endpoint::DeviceAuthorization, response);
        let error = desktop.connector.device_login(&desktop.me).start().await.unwrap_err();
        assert!(matches!(error, LoginError::Device(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
    }

    let mut acme = desktop.provider.provider("acme");
    acme.device_authorization_endpoint = None;
    let desktop = Desktop::with(desktop.provider, acme.public_client("program"));
    let error = desktop.connector.device_login(&desktop.me).start().await.unwrap_err();
    assert!(matches!(error, LoginError::Unsupported(_)), "{error:?}");
}

#[tokio::test]
async fn token_is_stored_although_the_caller_is_gone() {
    let desktop = Desktop::new().await;
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    browser().get(login.verification_uri_complete().unwrap()).send().await.unwrap();
    desktop.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(500)));
    let waiting = tokio::spawn(login.finish());
    while desktop.provider.requests_to(Endpoint::Token).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waiting.abort();
    desktop.connector.finish().await;
    assert!(desktop.stored().await.is_some());

    // A login that is dropped while it waits asks no more.
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(50), login.finish()).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(desktop.provider.requests_to(Endpoint::Token).len(), 1);
}

#[tokio::test]
async fn token_is_bound_to_a_key() {
    let desktop = Desktop::new().await;
    desktop.provider.configure(|settings| settings.requires_dpop = true);
    let mut acme = desktop.provider.provider("acme");
    acme.dpop = true;
    let desktop = Desktop::with(desktop.provider, acme.public_client("program"));
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    browser().get(login.verification_uri_complete().unwrap()).send().await.unwrap();
    login.finish().await.unwrap();
    assert!(desktop.stored().await.unwrap().dpop_key.is_some());
}
