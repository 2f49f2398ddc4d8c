use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::program::Program;
use super::{Browser, Page, python};

/// A running provider of OAuth 1.0a that uses `oauthlib` from PyPI. It checks signatures, nonces and verifiers, and ends when
/// this is dropped.
pub struct OAuth1Provider {
    base: String,
    private_key: String,
    _program: Program,
}

impl OAuth1Provider {
    /// The key of its client. `oauthlib` requires 20 to 30 letters and digits.
    pub const CLIENT_KEY: &'static str = "clientKey0123456789abcd";
    /// A secret that has to be encoded according to RFC 5849 section 3.6.
    pub const CLIENT_SECRET: &'static str = "p@ss w/rd+% and=more&~\u{fc}";

    /// Starts a provider. If something is missing, prints that and returns `None`.
    pub fn start(callback: &str) -> Option<Self> {
        let settings =
            json!({ "clientKey": Self::CLIENT_KEY, "clientSecret": Self::CLIENT_SECRET, "callback": callback });
        let (program, start) = Program::start(python()?, "oauth1-provider.py", &settings);
        let text = |name: &str| start[name].as_str().unwrap().to_owned();
        Some(Self { base: text("base"), private_key: text("privateKey"), _program: program })
    }

    /// The address of one of its pages.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The private key of the client for RSA-SHA1, in PEM.
    pub fn private_key(&self) -> &str {
        &self.private_key
    }

    /// Grants access on the provider's page. The result has all hops after those that led to `page`.
    pub fn allow(&self, browser: &Browser, page: Page, user: &str) -> Page {
        browser.submit(&page.form("Allow").fill("user", user)).after(page)
    }

    /// Denies access on the provider's page.
    pub fn deny(&self, browser: &Browser, page: Page) -> Page {
        browser.follow(&page, "Deny").after(page)
    }

    /// All requests of this path, each with its `Authorization` header and the status of its response.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        let log: Value = client().get(self.url("/_log")).send().unwrap().json().unwrap();
        log.as_array().unwrap().iter().filter(|entry| entry["path"] == path).cloned().collect()
    }

    /// Sends a `GET` request again, with the same signature.
    pub fn replay(&self, path: &str, authorization: &str) -> u16 {
        let request = client().get(self.url(path)).header("authorization", authorization);
        request.send().unwrap().status().as_u16()
    }

    /// Revokes all token credentials.
    pub fn revoke_all(&self) {
        client().post(self.url("/_revoke")).send().unwrap().error_for_status().unwrap();
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}
