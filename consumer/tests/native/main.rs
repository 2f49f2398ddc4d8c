//! Logins of programs on the user's own machine, against the provider for tests.
#![cfg(all(feature = "native", feature = "testing"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub
)]

mod device;
mod loopback;
#[cfg(feature = "oidc")]
mod openid;

use std::time::Duration;

use oauth_dance::testing::{Client, TestProvider};
use oauth_dance::{Connector, KeyRing, MemoryStorage, OAuth2Token, Registration, TokenKey};

/// A provider, and a program that is a public client there.
pub struct Desktop {
    pub provider: TestProvider,
    pub connector: Connector,
    pub me: TokenKey,
}

impl Desktop {
    pub async fn new() -> Self {
        let provider = TestProvider::start().await.unwrap();
        provider.configure(|settings| _ = settings.clients.insert("program".to_owned(), Client::public()));
        let mut acme = provider.provider("acme");
        acme.title = "Acme & Co".to_owned();
        let registration = acme.public_client("program");
        Self::with(provider, registration)
    }

    pub fn with(provider: TestProvider, registration: Registration) -> Self {
        let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
            .provider(registration)
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        Self { provider, connector, me: TokenKey::new("acme", "me").unwrap() }
    }

    pub async fn stored(&self) -> Option<OAuth2Token> {
        let found = self.connector.tokens().get(&self.me).await.unwrap();
        found.map(|found| found.value.as_oauth2().unwrap().clone())
    }
}

/// A browser, which follows redirects.
pub fn browser() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A browser that shows where it is redirected to.
pub fn step_by_step() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// The URL to which the provider redirects the browser, with the code.
pub async fn callback(url: &str) -> String {
    let response = step_by_step().get(url).send().await.unwrap();
    response.headers()["location"].to_str().unwrap().to_owned()
}
