//! Logins of a command-line program with the certified npm package `oidc-provider`, as a public client of the type `native`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod support;

use oauth_dance::{Connector, KeyRing, LoggedIn, LoginError, MemoryStorage, Provider, TokenKey};
use serde_json::json;
use support::{Browser, OidcProvider, Page};

const CLIENT: &str = "program";

struct Desktop {
    provider: OidcProvider,
    connector: Connector,
    me: TokenKey,
}

impl Desktop {
    fn new() -> Option<Self> {
        let client = json!({
            "client_id": CLIENT,
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        });
        let provider = OidcProvider::start_with(&json!({ "clients": [client], "accessTokenTtl": 2 }))?;
        let mut openid = Provider::openid("openid", provider.issuer()).with_scopes(["openid", "offline_access"]);
        openid.authorization_params.insert("prompt".to_owned(), "consent".to_owned());
        let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
            .provider(openid.public_client(CLIENT))
            .build()
            .unwrap();
        Some(Self { provider, connector, me: TokenKey::new("openid", "me").unwrap() })
    }

    /// Logs in by loopback redirect, and returns what the browser shows.
    fn by_loopback(&self, end: impl FnOnce(&Browser, Page) -> Page) -> (Result<LoggedIn, LoginError>, Page) {
        let runtime = runtime();
        let login = runtime.block_on(self.connector.loopback_login(&self.me).start()).unwrap();
        let url = login.url().to_owned();
        let ended = runtime.spawn(login.finish());
        let browser = Browser::new();
        let page = browser.open(&url);
        let page = end(&browser, page);
        (runtime.block_on(ended).unwrap(), page)
    }

    /// The token is refreshed after it has expired, and works.
    fn is_usable(&self) {
        let runtime = runtime();
        let first = runtime.block_on(self.connector.token(&self.me)).unwrap();
        self.provider.wait_until_refused(first.secret().expose());
        let status = runtime.block_on(async {
            let client = self.connector.client(&self.me).await.unwrap();
            client.userinfo().send().await.unwrap().status()
        });
        assert_eq!(status, 200);
        let refreshes = self.provider.token_requests("refresh_token");
        assert!(refreshes.iter().all(|request| request["status"] == 200) && !refreshes.is_empty(), "{refreshes:?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn person_logs_in_by_loopback_redirect() {
    let Some(desktop) = Desktop::new() else { return };
    let (ended, page) =
        desktop.by_loopback(|browser, page| desktop.provider.sign_in_and_consent(browser, page, "alice"));
    assert_eq!(ended.unwrap().identity.unwrap().subject, "alice");
    assert_eq!(page.status(), 200);
    assert!(page.text().contains("You can close this window"), "{}", page.text());
    for (kind, secrets) in
        [("codes", desktop.provider.seen("codes")), ("tokens", desktop.provider.seen("accessTokens"))]
    {
        assert!(secrets.iter().all(|secret| !page.body.contains(secret)) && !secrets.is_empty(), "{kind}");
    }
    let exchange = &desktop.provider.token_requests("authorization_code")[0];
    assert_eq!(exchange["clientSecretInBody"], false);
    assert_eq!(exchange["codeVerifierLength"], 43);
    desktop.is_usable();
}

#[test]
fn person_cancels_the_consent() {
    let Some(desktop) = Desktop::new() else { return };
    let (ended, page) =
        desktop.by_loopback(|browser, page| desktop.provider.sign_in_and_cancel(browser, page, "alice"));
    assert!(matches!(ended, Err(LoginError::Denied)));
    assert_eq!(page.status(), 403);
    assert!(desktop.provider.requests("/token").is_empty());
}

#[test]
fn person_enters_the_code_of_a_device() {
    let Some(desktop) = Desktop::new() else { return };
    let runtime = runtime();
    let login = runtime.block_on(desktop.connector.device_login(&desktop.me).start()).unwrap();
    let (code, page) = (login.user_code().to_owned(), login.verification_uri().to_owned());
    let ended = runtime.spawn(login.finish());
    let browser = Browser::new();
    let page = browser.open(&page);
    let page = browser.submit(&page.form("Continue").fill("user_code", &code));
    assert!(page.text().contains(&code), "{}", page.text());
    let page = browser.submit(&page.form("Continue"));
    let page = desktop.provider.sign_in_and_consent(&browser, page, "bob");
    assert_eq!(page.status(), 200);
    assert_eq!(runtime.block_on(ended).unwrap().unwrap().identity.unwrap().subject, "bob");
    desktop.is_usable();
}
