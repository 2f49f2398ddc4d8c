use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::program::Program;
use super::{Browser, Page, python};

/// A provider of OAuth 1.0a on PyPI's `oauthlib`, running: it checks signatures, nonces, verifiers. Ends when dropped.
pub struct OAuth1Provider {
    base: String,
    private_key: String,
    _program: Program,
}

impl OAuth1Provider {
    /// The client that it knows, by oauthlib's rules 20 to 30 letters and digits.
    pub const CLIENT_KEY: &'static str = "clientKey0123456789abcd";
    /// The kind of secret that goes wrong when it is not encoded as RFC 5849 section 3.6 says.
    pub const CLIENT_SECRET: &'static str = "p@ss w/rd+% and=more&~\u{fc}";

    /// Starts a provider, or says why it cannot.
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

    /// The private key that the client signs with by RSA-SHA1, in PEM.
    pub fn private_key(&self) -> &str {
        &self.private_key
    }

    /// Allows, on the provider's own page. The hops are those of the whole walk, after the ones that led to `page`.
    pub fn allow(&self, browser: &Browser, page: Page, user: &str) -> Page {
        browser.submit(&page.form("Allow").fill("user", user)).after(page)
    }

    /// Denies, on the provider's own page.
    pub fn deny(&self, browser: &Browser, page: Page) -> Page {
        browser.follow(&page, "Deny").after(page)
    }

    /// Every request of this path: its `Authorization` header and what it was answered.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        let log: Value = client().get(self.url("/_log")).send().unwrap().json().unwrap();
        log.as_array().unwrap().iter().filter(|entry| entry["path"] == path).cloned().collect()
    }

    /// Sends a `GET` request again, signature and all.
    pub fn replay(&self, path: &str, authorization: &str) -> u16 {
        let request = client().get(self.url(path)).header("authorization", authorization);
        request.send().unwrap().status().as_u16()
    }

    /// Forgets all token credentials.
    pub fn revoke_all(&self) {
        client().post(self.url("/_revoke")).send().unwrap().error_for_status().unwrap();
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}
