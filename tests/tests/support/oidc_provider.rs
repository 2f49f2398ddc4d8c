use std::thread;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::program::Program;
use super::{Browser, Canaries, Form, Page, has_node_package};

const EXPIRING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The certified npm package `oidc-provider`, running. It requires PKCE, rotates refresh tokens, and ends when this is dropped.
pub struct OidcProvider {
    issuer: String,
    _program: Program,
}

impl OidcProvider {
    /// A client of the provider. Its secret has to be encoded according to RFC 6749 section 2.3.1.
    pub const CLIENT_ID: &'static str = "demo";
    pub const CLIENT_SECRET: &'static str = "p@ss:w/rd+% and=more&";

    /// Starts a provider with one client. If something is missing, prints that and returns `None`.
    pub fn start(redirect_uri: &str) -> Option<Self> {
        Self::start_with(&json!({ "clients": [Self::client(redirect_uri)] }))
    }

    /// The metadata of a client, for `start_with`.
    pub fn client(redirect_uri: &str) -> Value {
        json!({
            "client_id": Self::CLIENT_ID,
            "client_secret": Self::CLIENT_SECRET,
            "redirect_uris": [redirect_uri],
        })
    }

    /// The metadata of a client that has to use pushed authorization requests and tokens bound to a key.
    pub fn bound_client(redirect_uri: &str) -> Value {
        let mut client = Self::client(redirect_uri);
        client["require_pushed_authorization_requests"] = true.into();
        client["dpop_bound_access_tokens"] = true.into();
        client
    }

    /// Starts a provider with the settings that `oidc-provider.mjs` documents. If something is missing, prints that and
    /// returns `None`.
    pub fn start_with(settings: &Value) -> Option<Self> {
        if !has_node_package("oidc-provider") {
            return None;
        }
        let (program, start) = Program::start("node", "oidc-provider.mjs", settings);
        Some(Self { issuer: start["issuer"].as_str().unwrap().to_owned(), _program: program })
    }

    /// The provider's issuer identifier, which is also the base of its URLs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The address of one of its pages.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// Signs in as `user` on the provider's pages, if that is required, and consents.
    ///
    /// The result has all hops after those that led to `page`.
    pub fn sign_in_and_consent(&self, browser: &Browser, page: Page, user: &str) -> Page {
        let mut page = page;
        while self.is_interactive(&page) {
            let form = match page.has_form("Sign-in") {
                true => sign_in(&page, user),
                false => page.form("Continue"),
            };
            page = browser.submit(&form).after(page);
        }
        page
    }

    /// Signs in on the provider's pages, if that is required, and cancels on the consent page. The result has all hops after
    /// those that led to `page`.
    pub fn sign_in_and_cancel(&self, browser: &Browser, page: Page, user: &str) -> Page {
        let consent = match page.has_form("Sign-in") {
            true => browser.submit(&sign_in(&page, user)).after(page),
            false => page,
        };
        assert!(consent.has_form("Continue"), "not the consent page: {}", consent.text());
        browser.follow(&consent, "Cancel").after(consent)
    }

    /// The requests of `/request`, `/token`, `/me` and `/token/revocation`, oldest first.
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

    /// All secrets that were transferred, and the secret of the client.
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
        let response = client().get(self.url("/me")).bearer_auth(access_token).send().unwrap();
        response.status().as_u16()
    }

    /// Waits until the provider rejects an access token, because its clock cannot be moved.
    ///
    /// # Panics
    /// If the provider still accepts the token after a while.
    pub fn wait_until_refused(&self, access_token: &str) {
        let until = Instant::now() + EXPIRING;
        while self.userinfo_status(access_token) != 401 {
            assert!(Instant::now() < until, "the access token does not expire");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sets the lifetime of further access tokens in seconds.
    pub fn set_access_token_ttl(&self, seconds: u64) {
        self.set(&json!({ "accessTokenTtl": seconds }));
    }

    fn set(&self, settings: &Value) {
        let response = client().post(self.url("/_settings")).json(settings).send().unwrap();
        response.error_for_status().unwrap();
    }

    fn is_interactive(&self, page: &Page) -> bool {
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
