use std::thread;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::program::Program;
use super::{Browser, Canaries, Form, Page, has_node_package};

const EXPIRING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The certified npm package `oidc-provider`, running: PKCE required, refresh tokens rotated. Ends when dropped.
pub struct OidcProvider {
    issuer: String,
    _program: Program,
}

impl OidcProvider {
    /// A client of the provider. The secret is the kind that goes wrong when it is not encoded as RFC 6749 section
    /// 2.3.1 says.
    pub const CLIENT_ID: &'static str = "demo";
    pub const CLIENT_SECRET: &'static str = "p@ss:w/rd+% and=more&";

    /// Starts a provider that knows one client, or says why it cannot.
    pub fn start(redirect_uri: &str) -> Option<Self> {
        Self::start_with(&json!({ "clients": [Self::client(redirect_uri)] }))
    }

    /// One client's metadata, for `start_with`.
    pub fn client(redirect_uri: &str) -> Value {
        json!({
            "client_id": Self::CLIENT_ID,
            "client_secret": Self::CLIENT_SECRET,
            "redirect_uris": [redirect_uri],
        })
    }

    /// One client's metadata that may do nothing but by pushed authorization requests and tokens bound to a key.
    pub fn bound_client(redirect_uri: &str) -> Value {
        let mut client = Self::client(redirect_uri);
        client["require_pushed_authorization_requests"] = true.into();
        client["dpop_bound_access_tokens"] = true.into();
        client
    }

    /// Starts a provider with the settings `oidc-provider.mjs` documents, or says why it cannot.
    pub fn start_with(settings: &Value) -> Option<Self> {
        if !has_node_package("oidc-provider") {
            return None;
        }
        let (program, start) = Program::start("node", "oidc-provider.mjs", settings);
        Some(Self { issuer: start["issuer"].as_str().unwrap().to_owned(), _program: program })
    }

    /// The provider's issuer identifier, which is also the base of its addresses.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The address of one of its pages.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// Walks a browser through the provider's own pages: signs in as `user` where asked, and consents.
    ///
    /// The page's hops are those of the whole walk, after the ones that led to `page`.
    pub fn sign_in_and_consent(&self, browser: &Browser, page: Page, user: &str) -> Page {
        let mut page = page;
        while self.is_asking(&page) {
            let form = match page.has_form("Sign-in") {
                true => sign_in(&page, user),
                false => page.form("Continue"),
            };
            page = browser.submit(&form).after(page);
        }
        page
    }

    /// Walks a browser up to the consent page, signing in where asked, and cancels there. The hops are those of the
    /// whole walk.
    pub fn sign_in_and_cancel(&self, browser: &Browser, page: Page, user: &str) -> Page {
        let consent = match page.has_form("Sign-in") {
            true => browser.submit(&sign_in(&page, user)).after(page),
            false => page,
        };
        assert!(consent.has_form("Continue"), "not the consent page: {}", consent.text());
        browser.follow(&consent, "Cancel").after(consent)
    }

    /// What was asked of `/request`, `/token`, `/me` and `/token/revocation`, oldest first.
    pub fn log(&self) -> Vec<Value> {
        let log: Value = self.get("/_log");
        log.as_array().unwrap().clone()
    }

    /// The part of the log about one path.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        self.log().into_iter().filter(|entry| entry["path"] == path).collect()
    }

    /// The token requests of one grant type.
    pub fn token_requests(&self, grant_type: &str) -> Vec<Value> {
        self.requests("/token").into_iter().filter(|entry| entry["grantType"] == grant_type).collect()
    }

    /// One list of `/_tokens`: `codes`, `codeVerifiers`, `accessTokens`, `refreshTokens`, `idTokens` or `requestUris`.
    pub fn seen(&self, kind: &str) -> Vec<String> {
        let tokens: Value = self.get("/_tokens");
        let list = tokens[kind].as_array().unwrap_or_else(|| panic!("no list {kind}"));
        list.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// Everything secret that went over the wire, and the client's secret.
    pub fn secrets(&self) -> Canaries {
        let mut canaries = Canaries::default();
        canaries.add("client secret", Self::CLIENT_SECRET);
        for kind in ["codes", "codeVerifiers", "accessTokens", "refreshTokens", "idTokens", "requestUris"] {
            for value in self.seen(kind) {
                canaries.add(kind, &value);
            }
        }
        canaries
    }

    /// The status of the userinfo endpoint for an access token.
    pub fn userinfo_status(&self, access_token: &str) -> u16 {
        let answer = client().get(self.url("/me")).bearer_auth(access_token).send().unwrap();
        answer.status().as_u16()
    }

    /// Waits until the provider refuses an access token: its clock is not ours to move.
    ///
    /// # Panics
    /// When it goes on accepting it.
    pub fn wait_until_refused(&self, access_token: &str) {
        let until = Instant::now() + EXPIRING;
        while self.userinfo_status(access_token) != 401 {
            assert!(Instant::now() < until, "the access token does not expire");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// How many seconds access tokens issued from now on live.
    pub fn set_access_token_ttl(&self, seconds: u64) {
        self.set(&json!({ "accessTokenTtl": seconds }));
    }

    fn set(&self, settings: &Value) {
        let answer = client().post(self.url("/_settings")).json(settings).send().unwrap();
        answer.error_for_status().unwrap();
    }

    fn is_asking(&self, page: &Page) -> bool {
        page.stopped_before.is_none() && page.url().as_str().starts_with(&self.url("/interaction/"))
    }

    fn get(&self, path: &str) -> Value {
        client().get(self.url(path)).send().unwrap().json().unwrap()
    }
}

fn sign_in(page: &Page, user: &str) -> Form {
    page.form("Sign-in").fill("login", user).fill("password", "anything")
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}
