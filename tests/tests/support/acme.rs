use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::{Browser, Demo, DemoFiles, OidcProvider, Page};

/// The running demo, and a running OpenID provider that it knows as `acme`.
pub struct Acme {
    pub provider: OidcProvider,
    pub files: DemoFiles,
    pub demo: Demo,
}

impl Acme {
    /// Starts both. If something is missing, prints that and returns `None`.
    pub fn start() -> Option<Self> {
        let files = DemoFiles::new();
        let provider = OidcProvider::start(&files.redirect_uri())?;
        let files = files.with_provider(&provider);
        let demo = files.start();
        Some(Self { provider, files, demo })
    }

    /// Starts both, with a provider that requires pushed authorization requests, tokens that are bound to a key, and a nonce
    /// in every proof.
    pub fn start_bound() -> Option<Self> {
        let files = DemoFiles::new();
        let client = OidcProvider::bound_client(&files.redirect_uri());
        let provider = OidcProvider::start_with(&json!({ "clients": [client], "dpopNonce": true }))?;
        let endpoint = provider.url("/request");
        let fields = format!("pushed_authorization_request_endpoint = \"{endpoint}\"\ndpop = true");
        let files = files.with_provider_and(&provider, &fields);
        let demo = files.start();
        Some(Self { provider, files, demo })
    }

    /// Interrupts the demo, as an operator does, and starts it again with the same files.
    pub fn restart(self) -> Self {
        let Self { provider, files, demo } = self;
        let status = demo.interrupt();
        assert!(status.success(), "the demo ended with {status} after an interrupt");
        let demo = files.start();
        Self { provider, files, demo }
    }

    /// Presses Connect, and returns the provider's first page.
    pub fn begin(&self, browser: &Browser) -> Page {
        let home = browser.open(self.demo.url("/"));
        assert!(home.status().is_success(), "{}: {}", home.status(), home.text());
        browser.press(&home, "/login/acme").after(home)
    }

    /// The complete dance. Returns the page of the demo at which it ends, with every hop.
    pub fn connect(&self, browser: &Browser, user: &str) -> Page {
        let page = self.begin(browser);
        let page = self.provider.sign_in_and_consent(browser, page, user);
        assert_eq!(page.status(), StatusCode::OK, "{}: {}", page.url(), page.text());
        assert_eq!(page.url().as_str(), self.demo.url("/"));
        page
    }

    /// The dance up to the callback. Returns the URL of the callback without opening it.
    pub fn callback(&self, browser: &Browser, user: &str) -> Url {
        let halting = browser.stopping_before(self.files.redirect_uri());
        let page = self.begin(&halting);
        let page = self.provider.sign_in_and_consent(&halting, page, user);
        page.stopped_before
            .unwrap_or_else(|| panic!("no callback, but {}: {}", page.hops.last().unwrap().url, page.body))
    }

    /// The response of `/me/acme` to a program with the cookies of this browser.
    pub fn me(&self, browser: &Browser) -> (StatusCode, Value) {
        browser.json(self.demo.url("/me/acme"))
    }

    /// The subject of the token of this browser's user, according to the provider's API.
    pub fn subject(&self, browser: &Browser) -> String {
        let (status, response) = self.me(browser);
        assert_eq!(status, StatusCode::OK, "{response}");
        let subject = member(&response, "sub").unwrap_or_else(|| panic!("no sub in {response}"));
        subject.as_str().unwrap().to_owned()
    }

    /// Whether this browser is connected, according to the demo.
    pub fn is_connected(&self, browser: &Browser) -> bool {
        self.demo.is_connected(browser)
    }

    /// How often an authorization code was sent to the token endpoint.
    pub fn redemptions(&self) -> usize {
        self.provider.token_requests("authorization_code").len()
    }

    /// How often a refresh token was sent to the token endpoint.
    pub fn refreshes(&self) -> usize {
        self.provider.token_requests("refresh_token").len()
    }
}

/// A member with this name, at any depth.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(name).or_else(|| members.values().find_map(|inner| member(inner, name))),
        Value::Array(items) => items.iter().find_map(|inner| member(inner, name)),
        _ => None,
    }
}
