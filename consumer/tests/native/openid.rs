//! Logins with OpenID Connect: the endpoints come from metadata, and the ID token is verified.

use oauth_dance::testing::{Client, TestProvider};
use oauth_dance::{LoginError, Provider};

use crate::{Desktop, browser};

async fn desktop() -> Desktop {
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| _ = settings.clients.insert("program".to_owned(), Client::public()));
    let registration = Provider::openid("acme", provider.url()).public_client("program");
    Desktop::with(provider, registration)
}

async fn by_loopback(desktop: &Desktop) -> Result<oauth_dance::LoggedIn, LoginError> {
    let login = desktop.connector.loopback_login(&desktop.me).start().await.unwrap();
    let url = login.url().to_owned();
    tokio::join!(browser().get(&url).send(), login.finish()).1
}

async fn by_device(desktop: &Desktop) -> Result<oauth_dance::LoggedIn, LoginError> {
    let login = desktop.connector.device_login(&desktop.me).start().await.unwrap();
    browser().get(login.verification_uri_complete().unwrap()).send().await.unwrap();
    login.finish().await
}

#[tokio::test]
async fn identity_is_verified() {
    let desktop = desktop().await;
    for login in [by_loopback(&desktop).await, by_device(&desktop).await] {
        let identity = login.unwrap().identity.unwrap();
        assert_eq!((identity.subject.as_str(), identity.issuer.as_str()), ("test-user", desktop.provider.url()));
        let stored = desktop.stored().await.unwrap();
        assert_eq!(stored.subject.unwrap().subject, "test-user");
        assert!(stored.id_token.is_none(), "it is stored only if that is declared");
    }
}

#[tokio::test]
async fn forged_id_token_stores_nothing() {
    let desktop = desktop().await;
    let forge = |claim: &'static str| {
        desktop.provider.next_id_token(move |token| _ = token.claims.insert(claim.to_owned(), "evil".into()));
    };
    for claim in ["aud", "iss", "nonce"] {
        forge(claim);
        assert!(matches!(by_loopback(&desktop).await, Err(LoginError::IdToken(_))), "{claim}");
    }
    for claim in ["aud", "iss"] {
        forge(claim);
        assert!(matches!(by_device(&desktop).await, Err(LoginError::IdToken(_))), "{claim}");
    }
    assert!(desktop.stored().await.is_none());
}

/// `Tokens::put_login`, as in a web application.
#[tokio::test]
async fn refresh_token_of_the_same_subject_is_retained() {
    let desktop = desktop().await;
    by_loopback(&desktop).await.unwrap();
    let first = desktop.stored().await.unwrap();
    desktop.provider.configure(|settings| settings.refresh_tokens = false);
    by_device(&desktop).await.unwrap();
    let second = desktop.stored().await.unwrap();
    assert_ne!(first.access_token, second.access_token);
    assert!(first.refresh_token.is_some() && first.refresh_token == second.refresh_token);

    desktop.provider.configure(|settings| settings.user = "another".to_owned());
    by_loopback(&desktop).await.unwrap();
    assert!(desktop.stored().await.unwrap().refresh_token.is_none(), "it belongs to another subject");
}
