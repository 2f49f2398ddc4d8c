use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::{Browser, Demo, DemoFiles, OidcProvider, Page};

/// The demo with the real OpenID provider configured under the name `acme`, both running.
pub struct Acme {
    pub provider: OidcProvider,
    pub files: DemoFiles,
    pub demo: Demo,
}

impl Acme {
    /// Starts both, or says what is missing.
    pub fn start() -> Option<Self> {
        let files = DemoFiles::new();
        let provider = OidcProvider::start(&files.redirect_uri())?;
        let files = files.with_provider(&provider);
        let demo = files.start();
        Some(Self { provider, files, demo })
    }

    /// Starts both, with pushed authorization requests and tokens bound to a key, which the provider insists on, and on a
    /// nonce in every proof.
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

    /// Stops the demo as an operator does, and starts it again with the same files.
    pub fn restart(self) -> Self {
        let Self { provider, files, demo } = self;
        let status = demo.interrupt();
        assert!(status.success(), "the demo ended with {status} after an interrupt");
        let demo = files.start();
        Self { provider, files, demo }
    }

    /// Presses Connect; the browser arrives at the provider's first page.
    pub fn begin(&self, browser: &Browser) -> Page {
        let home = browser.open(self.demo.url("/"));
        assert!(home.status().is_success(), "{}: {}", home.status(), home.text());
        browser.press(&home, "/login/acme").after(home)
    }

    /// The whole dance with every hop of it, to the page of the demo it ends on.
    pub fn connect(&self, browser: &Browser, user: &str) -> Page {
        let page = self.begin(browser);
        let page = self.provider.sign_in_and_consent(browser, page, user);
        assert_eq!(page.status(), StatusCode::OK, "{}: {}", page.url(), page.text());
        assert_eq!(page.url().as_str(), self.demo.url("/"));
        page
    }

    /// The dance up to the callback, whose address is returned and not opened.
    pub fn callback(&self, browser: &Browser, user: &str) -> Url {
        let halting = browser.stopping_before(self.files.redirect_uri());
        let page = self.begin(&halting);
        let page = self.provider.sign_in_and_consent(&halting, page, user);
        page.stopped_before
            .unwrap_or_else(|| panic!("no callback, but {}: {}", page.hops.last().unwrap().url, page.body))
    }

    /// What `/me/acme` answers to a program with this browser's cookies.
    pub fn me(&self, browser: &Browser) -> (StatusCode, Value) {
        browser.json(self.demo.url("/me/acme"))
    }

    /// Whom the provider's API says the token of this browser's user belongs to.
    pub fn subject(&self, browser: &Browser) -> String {
        let (status, answer) = self.me(browser);
        assert_eq!(status, StatusCode::OK, "{answer}");
        let subject = member(&answer, "sub").unwrap_or_else(|| panic!("no sub in {answer}"));
        subject.as_str().unwrap().to_owned()
    }

    /// Whether the demo says that this browser is connected.
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

/// A member of that name, however deep.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(name).or_else(|| members.values().find_map(|inner| member(inner, name))),
        Value::Array(items) => items.iter().find_map(|inner| member(inner, name)),
        _ => None,
    }
}
