//! No secret is in any log, page, error or debug output.
//!
//! The log of this process is collected at the finest level, from this library and its dependencies. All secrets
//! carry a marker, or are known after the fact, and are searched for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::response::Response;
use http::{HeaderValue, header};
use oauth_dance::testing::{Client, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Authorized, BoxError, Decision, FailedLogin, Hooks, OAuthBuilder, SignatureMethod, User};
use oauth_dance_core::{Precondition, Record, TokenStorage as _};
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use support::{Browser, FragileStorage, Log, Page, Setup, Site, state_of, with_parameter};

const MARKER: &str = "CANARY";
const SECRET: &str = "CANARY client secret";

/// What the whole process logs.
fn everything_logged() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let start = || {
        let log = Log::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        tracing_subscriber::registry().with(layer).init();
        log
    };
    LOG.get_or_init(start).clone()
}

/// Records everything that hooks receive.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<String>>);

#[async_trait::async_trait]
impl Hooks for Shown {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let Authorized { token, client, parts, .. } = login;
        let parts = (&parts.uri, &parts.method);
        writeln!(self.0.lock().unwrap(), "{token:?} {client:?} {parts:?}")?;
        Ok(Decision::store())
    }

    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        let (error, uri) = (failure.error, &failure.parts.uri);
        writeln!(self.0.lock().unwrap(), "{error:?} {error} {uri} {}", causes(error)).unwrap();
        None
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        write!(text, " <- {source} {source:?}").unwrap();
        next = source.source();
    }
    text
}

/// An application, and everything that it has shown.
struct Stage {
    provider: TestProvider,
    site: Site,
    storage: Arc<FragileStorage>,
    shown: Shown,
    /// Secrets without a marker.
    secrets: Vec<String>,
}

impl Stage {
    /// With pushed requests and bound tokens, or without.
    async fn set(bound: bool) -> Self {
        let provider = TestProvider::start().await.unwrap();
        provider.configure(|settings| {
            settings.secret_prefix = MARKER.to_owned();
            settings.clients.insert("acme client".to_owned(), Client::confidential(SECRET));
        });
        let (shown, storage) = (Shown::default(), Arc::new(FragileStorage::default()));
        let (hooks, retained) = (shown.clone(), storage.clone());
        let mut acme = provider.provider("acme");
        acme.dpop = bound;
        acme.pushed_authorization_request_endpoint = bound.then(|| format!("{}/par", provider.url()));
        let registration = acme.client("acme client", SECRET);
        writeln!(shown.0.lock().unwrap(), "{registration:?}").unwrap();
        let setup = Setup { storage: retained, ..Setup::default() };
        let configure = move |builder: OAuthBuilder| {
            let builder = builder.provider(registration).hooks(hooks.clone()).timeout(Duration::from_millis(250));
            writeln!(hooks.0.lock().unwrap(), "{builder:?}").unwrap();
            builder
        };
        let site = setup.start(configure).await;
        provider.configure(|settings| settings.clock = site.clock.clock());
        Self { provider, site, storage, shown, secrets: Vec::new() }
    }

    fn show(&self, what: impl std::fmt::Debug) {
        writeln!(self.shown.0.lock().unwrap(), "{what:?}").unwrap();
    }

    fn show_page(&self, page: &Page) {
        // The browser is meant to have the attempt's cookie, which is sealed; only its value is omitted here.
        let mut headers = page.headers.clone();
        headers.remove(header::SET_COOKIE);
        self.show((page.status, headers, &page.body));
    }

    async fn login(&mut self, answer: ScriptedResponse) {
        let browser = Browser::signed_in(&self.site, "alice");
        let callback = browser.stopped_at_callback("acme").await;
        self.secrets.push(state_of(&callback));
        self.secrets.extend(browser.cookies().into_values().filter(|value| value != "alice"));
        self.provider.next_response(Endpoint::PushedRequest, answer.clone());
        let page = browser.get("/login/acme").await;
        if page.location().is_empty() {
            self.show_page(&page);
        }
        self.provider.clear_responses();
        self.provider.next_token_response(answer);
        for url in [
            with_parameter(&callback, "state", Some("forged")),
            callback.clone(),
            callback.clone(),
            with_parameter(&callback, "code", Some("")),
        ] {
            self.show_page(&browser.get(url.as_str()).await);
        }
        let callback = browser.stopped_at_callback("acme").await;
        self.secrets.push(state_of(&callback));
        let refused = with_parameter(&callback, "code", None);
        self.show_page(&browser.get(&format!("{refused}&error=server_error&error_description=x")).await);
        self.provider.clear_responses();
    }

    async fn refresh(&self, answer: ScriptedResponse) {
        let user = User::new("refresh");
        self.provider.connect(&self.site.oauth, "acme", &user).await.unwrap();
        self.site.clock.advance(Duration::from_secs(3601));
        self.provider.next_token_response(answer);
        match self.site.oauth.client("acme", &user).await {
            Ok(client) => self.show((&client, client.token())),
            Err(error) => self.show((&error, error.to_string(), causes(&error))),
        }
        let browser = Browser::signed_in(&self.site, "refresh");
        for path in ["/required", "/me/acme"] {
            self.show_page(&browser.get(path).await);
        }
        self.provider.clear_responses();
    }

    async fn call(&self, answer: ScriptedResponse) {
        let user = User::new("call");
        self.provider.connect(&self.site.oauth, "acme", &user).await.unwrap();
        let client = self.site.oauth.client("acme", &user).await.unwrap();
        self.provider.next_response(Endpoint::Api, answer);
        let request = client.post("/x").header(header::AUTHORIZATION, HeaderValue::from_static("Basic x"));
        self.show(request.send().await.map_err(|error| (error.to_string(), causes(&error))).err());
        let request = client.get("/x").timeout(Duration::from_millis(100)).max_response(1000);
        self.show(&request);
        match request.send().await {
            Ok(answer) => self.show(answer),
            Err(error) => self.show((&error, error.to_string(), causes(&error))),
        }
        self.show(client.get("http://127.0.0.1:9/").send().await.err());
        self.provider.clear_responses();
    }

    async fn revoke(&self, answer: ScriptedResponse) {
        let user = User::new("revoke");
        self.provider.connect(&self.site.oauth, "acme", &user).await.unwrap();
        self.provider.next_response(Endpoint::Revocation, answer);
        self.show_page(&Browser::signed_in(&self.site, "revoke").post("/disconnect/acme", "", &[]).await);
        self.provider.clear_responses();
    }

    /// Secrets in requests and in the storage that have no marker.
    async fn gather_secrets(&mut self) {
        let tokens = self.provider.requests_to(Endpoint::Token);
        self.secrets.extend(tokens.iter().filter_map(|request| request.field("code_verifier").map(str::to_owned)));
        let requests = self.provider.requests();
        self.secrets.extend(requests.iter().filter_map(|request| request.header("dpop").map(str::to_owned)));
        for user in ["alice", "refresh", "call"] {
            let key = self.site.token(user).await.and_then(|token| token.dpop_key);
            self.secrets.extend(key.map(|key| key.expose().to_owned()));
        }
    }

    async fn spoil_the_storage(&self) {
        let browser = Browser::signed_in(&self.site, "spoiled");
        browser.login("acme").await;
        let callback = browser.stopped_at_callback("acme").await;
        self.storage.down.store(true, Ordering::SeqCst);
        for path in ["/required", callback.as_str()] {
            self.show_page(&browser.get(path).await);
        }
        self.storage.down.store(false, Ordering::SeqCst);
        let key = User::new("spoiled").key("acme").unwrap();
        let plain = Record::new(r#"{"format":1,"access_token":"CANARY"}"#);
        let foreign = self.storage.get(&User::new("alice").key("acme").unwrap()).await.unwrap().unwrap().value;
        for record in [plain, Record::new("CANARY"), foreign] {
            self.storage.put(&key, &record, Precondition::Always).await.unwrap();
            self.show_page(&browser.get("/required").await);
            self.show_page(&browser.post("/disconnect/acme", "", &[]).await);
        }
    }
}

fn faults() -> Vec<ScriptedResponse> {
    let echo = json!({"error": format!("unknown {SECRET}"), "error_description": format!("{SECRET} is wrong")});
    vec![
        ScriptedResponse::normal(),
        ScriptedResponse::normal().lost(),
        ScriptedResponse::normal().hanging(),
        ScriptedResponse::normal().with_status(500),
        ScriptedResponse::normal().member("token_type", "mac"),
        ScriptedResponse::normal().member("access_token", "CANARY\r\n"),
        ScriptedResponse::normal().member("error", "server_error"),
        ScriptedResponse::normal().map_body(|body| body[..body.len().saturating_sub(1)].to_vec()),
        ScriptedResponse::normal().member("note", "CANARY of another kind"),
        ScriptedResponse::closed(),
        ScriptedResponse::normal().truncated(),
        ScriptedResponse::endless(),
        ScriptedResponse::redirect(307, "http://127.0.0.1:9/?CANARY"),
        ScriptedResponse::json(echo.clone()),
        ScriptedResponse::json(echo).with_status(400),
        ScriptedResponse::error(400, "invalid_grant"),
        ScriptedResponse::status(502).body("<html>CANARY</html>"),
    ]
}

#[tokio::test]
async fn lg_01_lg_02_lg_03_lg_04_no_secret_is_shown() {
    for bound in [false, true] {
        nothing_secret_is_shown(bound).await;
    }
}

async fn nothing_secret_is_shown(bound: bool) {
    let log = everything_logged();
    let mut stage = Stage::set(bound).await;
    for answer in faults() {
        stage.login(answer.clone()).await;
        stage.refresh(answer.clone()).await;
        stage.call(answer.clone()).await;
        stage.revoke(answer).await;
    }
    stage.login(ScriptedResponse::normal()).await;
    stage.spoil_the_storage().await;
    stage.show((&stage.site.oauth, stage.site.oauth.tokens()));
    stage.gather_secrets().await;

    let (logged, shown) = (log.text(), stage.shown.0.lock().unwrap().clone());
    for expected in ["login finished", "login failed", "starting new connection", "disconnected", "not be revoked"] {
        assert!(logged.contains(expected), "{expected:?} should be in the log, or nothing is tested here");
    }
    assert!(logged.contains("TRACE") && logged.contains("DEBUG"));
    assert!(stage.secrets.len() > if bound { 200 } else { 50 }, "{}", stage.secrets.len());
    for (place, text) in [("log", &logged), ("output", &shown)] {
        for line in text.lines() {
            assert!(!line.contains(MARKER), "the {place} shows a secret: {line:.1000}");
        }
        for secret in &stage.secrets {
            assert!(!text.contains(secret.as_str()), "the {place} shows a secret: {secret}");
        }
    }
}

/// With PLAINTEXT, which puts all secrets into each request.
#[tokio::test]
async fn lg_01_lg_04_no_secret_of_oauth_1_is_shown() {
    let log = everything_logged();
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| {
        settings.secret_prefix = MARKER.to_owned();
        settings.clients.insert("acme client".to_owned(), Client::confidential(SECRET));
    });
    let (shown, user) = (Shown::default(), User::new("alice"));
    let acme = provider.oauth1_provider("acme").with_signature_method(SignatureMethod::Plaintext);
    let registration = acme.client("acme client", SECRET);
    let show = |text: String| writeln!(shown.0.lock().unwrap(), "{text}").unwrap();
    show(format!("{registration:?}"));
    let hooks = shown.clone();
    let configure =
        |builder: OAuthBuilder| builder.provider(registration).hooks(hooks).timeout(Duration::from_millis(250));
    let site = Setup::default().start(configure).await;
    let browser = Browser::signed_in(&site, "alice");
    let echo = format!("oauth_problem=CANARY+client+secret&oauth_problem_advice={SECRET}");
    let answers = faults()
        .into_iter()
        .chain([ScriptedResponse::status(401).body(echo.clone()), ScriptedResponse::status(200).body(echo)]);
    for answer in answers {
        provider.next_response(Endpoint::TemporaryCredentials, answer.clone());
        let page = browser.get("/login/acme").await;
        // The redirect contains the identifier of the temporary credentials, as the protocol requires, and no secret.
        assert!(!page.text().contains("secret"), "{page:?}");
        show(page.body);
        provider.clear_responses();
        let callback = browser.stopped_at_callback("acme").await;
        provider.next_response(Endpoint::Token, answer.clone());
        let page = browser.get(callback.as_str()).await;
        show(format!("{} {:?}", page.body, page.headers.get(header::LOCATION)));
        provider.clear_responses();
        provider.connect_oauth1(&site.oauth, "acme", &user).await.unwrap();
        let client = site.oauth.client("acme", &user).await.unwrap();
        provider.next_response(Endpoint::Api, answer);
        match client.get("/x").query(&[("a", "b")]).timeout(Duration::from_millis(100)).send().await {
            Ok(answer) => show(format!("{:?}", answer.success().map_err(|error| (error.to_string(), causes(&error))))),
            Err(error) => show(format!("{error:?} {error} {}", causes(&error))),
        }
        provider.clear_responses();
        show(format!("{client:?} {:?} {:?}", client.token(), site.oauth));
    }
    assert_eq!(browser.login("acme").await.status, http::StatusCode::SEE_OTHER);
    let sent = provider.requests_to(Endpoint::Token);
    assert!(sent.iter().all(|request| request.header("authorization").unwrap().contains("CANARYtemporary-secret")));
    for (place, text) in [("log", log.text()), ("output", shown.0.lock().unwrap().clone())] {
        let line = text.lines().find(|line| line.contains(MARKER));
        assert!(line.is_none(), "the {place} shows a secret: {:.1000}", line.unwrap());
    }
}

/// Neither an ID token, nor its claims, nor a nonce. Only a wrong issuer is shown: it is no secret, and an
/// operator needs it.
#[cfg(feature = "oidc")]
#[tokio::test]
async fn lg_01_lg_04_no_id_token_or_claim_is_shown() {
    use oauth_dance::testing::{IdToken, IdTokenSignature};
    use support::openid_site_with;

    type Change = fn(&mut IdToken);
    let set = |id_token: &mut IdToken, name: &str| drop(id_token.claims.insert(name.to_owned(), "CANARY-claim".into()));
    let changes: [Change; 8] = [
        |_| {},
        |id_token| id_token.signature = IdTokenSignature::UnknownKey,
        |id_token| id_token.signature = IdTokenSignature::None,
        |id_token| drop(id_token.claims.insert("sub".to_owned(), "mallory".into())),
        |id_token| drop(id_token.claims.insert("iss".to_owned(), "https://other.example".into())),
        |id_token| drop(id_token.claims.insert("aud".to_owned(), "CANARY-client".into())),
        |id_token| drop(id_token.claims.insert("nonce".to_owned(), "CANARY-nonce".into())),
        |id_token| drop(id_token.header.insert("kid".to_owned(), "CANARY-key".into())),
    ];
    let log = everything_logged();
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| settings.secret_prefix = MARKER.to_owned());
    let shown = Shown::default();
    let hooks = shown.clone();
    let store_id_token = |known: &mut oauth_dance::Provider| known.store_id_token = true;
    let (site, _) = openid_site_with(&provider, store_id_token, |builder| builder.hooks(hooks)).await;
    let show = |text: String| writeln!(shown.0.lock().unwrap(), "{text}").unwrap();
    let (alice, user) = (Browser::signed_in(&site, "alice"), User::new("alice"));
    let mut secrets = Vec::new();
    for change in changes {
        let authorization = alice.start("acme").await;
        let nonce = authorization.query_pairs().find(|(name, _)| name == "nonce").unwrap().1.into_owned();
        let callback = alice.approve(&authorization).await;
        provider.next_id_token(move |id_token| {
            set(id_token, "name");
            change(id_token);
        });
        show(alice.get(callback.as_str()).await.text());
        assert_eq!(alice.login("acme").await.status, http::StatusCode::SEE_OTHER);
        let id_token = site.token("alice").await.unwrap().id_token.unwrap();
        let there = site.oauth.end_session("acme", &user, "/").await.unwrap().unwrap();
        show(format!("{there:?}"));
        site.clock.advance(Duration::from_secs(3601));
        provider.next_id_token(move |id_token| {
            set(id_token, "name");
            change(id_token);
        });
        show(format!("{:?}", site.oauth.client("acme", &user).await));
        show(format!("{:?}", site.token("alice").await));
        secrets.extend([nonce, id_token.expose().to_owned()]);
        secrets.extend(id_token.expose().split('.').map(str::to_owned).skip(1));
    }
    // The browser itself is sent its cookies, in the responses that are shown.
    let cookies: Vec<_> = alice.cookies().into_values().filter(|value| value != "alice").collect();
    let (logged, shown) = (log.text(), shown.0.lock().unwrap().clone());
    assert!(
        logged.contains("id_token_refused") && logged.contains("different_subject") && logged.contains("unverified")
    );
    assert!(secrets.len() > 30);
    for (place, text, more) in [("log", &logged, &cookies), ("output", &shown, &Vec::new())] {
        let secrets = secrets.iter().chain(more).map(String::as_str);
        let found = secrets.chain([MARKER]).find(|secret| text.contains(secret));
        assert!(found.is_none(), "the {place} shows a secret: {found:?}");
    }
}

#[tokio::test]
async fn lg_05_lg_06_events_are_one_line_each_with_their_code() {
    let log = everything_logged();
    let provider = TestProvider::start().await.unwrap();
    let site = Site::of(&provider).await;
    let alice = Browser::signed_in(&site, "alice");
    for forged in
        ["x%0aINFO+forged+line", "x%0d%0aINFO+forged+line", "x%e2%80%a8INFO+forged+line", "%1b[2JINFO+forged+line"]
    {
        let callback = alice.stopped_at_callback("acme").await;
        let refused = with_parameter(&callback, "code", None);
        alice.get(&format!("{refused}&error={forged}&error_description={forged}")).await;
        alice.get(&format!("/login/{forged}")).await;
        alice.get(&format!("/me/{forged}")).await;
    }
    alice.get("/login/acme/authorized?state=unknown&code=x").await;
    let text = log.text();
    let forged: Vec<_> = text.lines().filter(|line| line.contains("forged line")).collect();
    assert!(forged.len() >= 4, "{forged:?}");
    for line in forged {
        assert!(!line.trim_start().starts_with("INFO") && !line.contains(['\u{1b}', '\u{2028}', '\r']), "{line:?}");
    }
    assert!(text.contains("code=\"provider_error\"") && text.contains("code=\"unknown_attempt\""));
}
