//! Tokens that no user has logged in for, from the certified npm package `oidc-provider`: the application's own, and exchanged
//! ones, in several processes that share a SQLite file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oauth_dance::{
    Audience, Clock, ConnectError, ConnectionState, Connector, KeyRing, OAuth2Token, Precondition, Provider,
    Revocation, SealingKey, Timestamp, TokenKey,
};
use oauth_dance_sqlx::SqliteStorage;
use serde_json::{Value, json};
use support::{Browser, OidcProvider};
use tempfile::TempDir;
use url::Url;

/// The settings of another process, as JSON.
const SETTINGS: &str = "CONNECTOR_WORKER";
/// The prefix of the line in which it reports its tokens.
const PREFIX: &str = "worker says ";
/// No server listens there, because the browser stops before it.
const REDIRECT_URI: &str = "http://127.0.0.1:9/login/corp/authorized";
/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const PROCESSES: usize = 4;
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

struct World {
    provider: OidcProvider,
    folder: TempDir,
    keys: String,
}

impl World {
    fn start() -> Option<Self> {
        let mut client = OidcProvider::client(REDIRECT_URI);
        let grants = ["authorization_code", "refresh_token", "client_credentials", TOKEN_EXCHANGE];
        client["grant_types"] = json!(grants);
        let provider = OidcProvider::start_with(&json!({ "clients": [client] }))?;
        let keys = SealingKey::generate().encode().to_string();
        Some(Self { provider, folder: tempfile::tempdir().unwrap(), keys })
    }

    fn settings(&self) -> Value {
        let storage = format!("sqlite:{}", self.folder.path().join("tokens.sqlite").display());
        json!({ "issuer": self.provider.issuer(), "storage": storage, "keys": self.keys })
    }

    /// A token of a user, from a login by hand: only its exchange is tested here.
    fn login(&self, user: &str) -> OAuth2Token {
        let query = [
            ("response_type", "code"),
            ("client_id", OidcProvider::CLIENT_ID),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid offline_access"),
            ("prompt", "consent"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        let browser = Browser::new().stopping_before(REDIRECT_URI);
        let page = browser.open(Url::parse_with_params(&self.provider.url("/auth"), query).unwrap());
        let page = self.provider.sign_in_and_consent(&browser, page, user);
        let callback = page.stopped_before.unwrap();
        let code = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let request = reqwest::blocking::Client::new().post(self.provider.url("/token")).form(&form);
        let request = request.basic_auth(encode(OidcProvider::CLIENT_ID), Some(encode(OidcProvider::CLIENT_SECRET)));
        let response: Value = request.send().unwrap().error_for_status().unwrap().json().unwrap();
        let now = Clock::system().now();
        let mut token = OAuth2Token::bearer(response["access_token"].as_str().unwrap());
        token.refresh_token = response["refresh_token"].as_str().map(Into::into);
        token.issued_at = Some(now);
        token.expires_at = Some(now.saturating_add(Duration::from_secs(response["expires_in"].as_u64().unwrap())));
        token
    }

    /// The tokens that several processes get, which start at the same time.
    fn tokens_of_processes(&self, what: &str) -> BTreeSet<String> {
        let mut settings = self.settings();
        settings["what"] = what.into();
        let children: Vec<Child> = (0..PROCESSES).map(|_| start(&settings)).collect();
        children.into_iter().flat_map(token_of).collect()
    }
}

fn start(settings: &Value) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["another_process", "--exact", "--ignored", "--nocapture"]);
    command.env(SETTINGS, settings.to_string()).stdout(Stdio::piped()).spawn().unwrap()
}

fn token_of(child: Child) -> Option<String> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let token = text.lines().find_map(|line| line.split_once(PREFIX)).map(|(_, token)| token.to_owned());
    assert!(token.is_some(), "{text}");
    token
}

async fn connector(settings: &Value) -> Connector {
    let storage = SqliteStorage::connect(settings["storage"].as_str().unwrap()).await.unwrap();
    storage.migrate().await.unwrap();
    let mut corp = Provider::openid("corp", settings["issuer"].as_str().unwrap());
    corp.api_base = Some(settings["issuer"].as_str().unwrap().to_owned());
    let keys = KeyRing::parse(settings["keys"].as_str().unwrap()).unwrap();
    let registration = corp.client(OidcProvider::CLIENT_ID, OidcProvider::CLIENT_SECRET);
    Connector::builder(storage, keys).provider(registration).build().unwrap()
}

fn alice() -> TokenKey {
    TokenKey::new("corp", "alice").unwrap()
}

fn billing() -> Audience {
    Audience::new("billing").with_scopes(["openid"])
}

/// Not a test: the tests start it as another process.
#[tokio::test]
#[ignore = "started by the other tests"]
async fn another_process() {
    let settings: Value = serde_json::from_str(&std::env::var(SETTINGS).unwrap()).unwrap();
    let connector = connector(&settings).await;
    let client = match settings["what"].as_str() {
        Some("exchange") => connector.exchange(&alice(), &billing()).await,
        _ => connector.client_credentials("corp").await,
    };
    println!("\n{PREFIX}{}", client.unwrap().token().secret().expose());
    connector.finish().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

#[test]
fn two_processes_request_one_token_at_oidc_provider() {
    let Some(world) = World::start() else { return };
    runtime().block_on(connector(&world.settings()));
    assert_eq!(world.tokens_of_processes("client_credentials").len(), 1);
    let requests = world.provider.token_requests("client_credentials");
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((&requests[0]["authorization"], &requests[0]["status"]), (&"Basic".into(), &200.into()));
    // The same token again, and nothing is sent.
    assert_eq!(world.tokens_of_processes("client_credentials").len(), 1);
    assert_eq!(world.provider.token_requests("client_credentials").len(), 1);
}

#[test]
fn a_user_s_token_is_exchanged_once_at_oidc_provider() {
    let Some(world) = World::start() else { return };
    let runtime = runtime();
    let connector = runtime.block_on(connector(&world.settings()));
    let token = world.login("alice");
    runtime.block_on(connector.tokens().put(&alice(), &token.clone().into(), Precondition::Always)).unwrap();

    let tokens = world.tokens_of_processes("exchange");
    assert_eq!((tokens.len(), world.provider.token_requests(TOKEN_EXCHANGE).len()), (1, 1));
    assert!(!tokens.contains(token.access_token.expose()));
    let exchanged = tokens.first().unwrap();
    assert_eq!(world.provider.userinfo_status(exchanged), 200);

    runtime.block_on(connector.disconnect(&alice())).unwrap();
    assert_eq!(world.provider.userinfo_status(exchanged), 401, "it was revoked");
    let ended = runtime.block_on(connector.exchange(&alice(), &billing())).map(drop);
    assert!(matches!(ended, Err(ConnectError::NotConnected)), "{ended:?}");
}

/// The provider ends the grant without notice. The user's connection is asked for another token, and reports its end.
#[test]
fn a_revoked_grant_is_noticed_at_oidc_provider() {
    let Some(world) = World::start() else { return };
    let runtime = runtime();
    let connector = runtime.block_on(connector(&world.settings()));
    let mut token = world.login("alice");
    runtime.block_on(connector.tokens().put(&alice(), &token.clone().into(), Precondition::Always)).unwrap();
    let revoked = runtime.block_on(connector.revoke(&alice())).unwrap();
    assert_eq!(revoked, Revocation::Done);
    // As after a minute: a younger token is not taken for rejected without a reason.
    token.issued_at = token.issued_at.map(|at| Timestamp::from_unix_seconds(at.as_unix_seconds() - 600));
    runtime.block_on(connector.tokens().put(&alice(), &token.into(), Precondition::Always)).unwrap();
    let refused = runtime.block_on(connector.exchange(&alice(), &billing())).map(drop);
    assert!(refused.is_err());
    assert_eq!(world.provider.token_requests("refresh_token").len(), 1);
    let own = runtime.block_on(connector.connection(&alice())).unwrap().unwrap();
    assert!(matches!(own.state, ConnectionState::NeedsAuthorization { .. }), "{:?}", own.state);
}
