//! Arbitrary input from a provider or a browser causes no panic, loses no token, and reveals no secret. `docs/testing.md`
//! describes how to run a target for a longer time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::cell::Cell;
use std::error::Error;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ApiError, ConnectError, OAuth2Token, Precondition, Secret, Timestamp, Token, User};
use oauth_dance_fuzz::check_some;
use tokio::runtime::Runtime;

use support::{Browser, Site, world};

/// One application for all inputs of a target, with a new user for each.
struct World {
    runtime: Runtime,
    provider: TestProvider,
    site: Site,
    users: Cell<u32>,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (provider, site) = runtime.block_on(world());
        Self { runtime, provider, site, users: Cell::new(0) }
    }

    fn new_user(&self) -> User {
        self.users.set(self.users.get() + 1);
        self.provider.clear_requests();
        User::new(self.users.get().to_string())
    }

    /// A user with a token whose secrets are known and which expires at this instant.
    async fn connected(&self, expires_at: Option<Timestamp>) -> User {
        let user = self.new_user();
        let mut token = OAuth2Token::bearer("CANARY-access");
        token.refresh_token = Some("CANARY-refresh".into());
        token.expires_at = expires_at;
        let key = user.key("acme").unwrap();
        self.site.oauth.tokens().put(&key, &Token::from(token), Precondition::Always).await.unwrap();
        user
    }

    async fn token(&self, user: &User) -> OAuth2Token {
        let found = self.site.oauth.tokens().get(&user.key("acme").unwrap()).await.unwrap();
        found.unwrap().value.as_oauth2().unwrap().clone()
    }
}

/// A response made from arbitrary bytes: the first byte selects the status and the content type.
fn response(bytes: &[u8]) -> ScriptedResponse {
    let (kind, body) = bytes.split_first().map_or((0, bytes), |(kind, body)| (*kind, body));
    let status = [200, 200, 200, 400, 401, 403, 429, 503][usize::from(kind % 8)];
    let label = ["application/json", "text/html", "application/x-www-form-urlencoded", ""][usize::from(kind / 8 % 4)];
    ScriptedResponse::status(status).header("content-type", label).header("retry-after", "1").body(body.to_vec())
}

fn text_of(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(" {cause} {cause:?}");
        next = cause.source();
    }
    text
}

/// An error shows no secret, and does not come from a panic in the task of a refresh.
fn is_clean(error: &ConnectError) {
    let text = text_of(error);
    assert!(!["CANARY-access", "CANARY-refresh"].iter().any(|secret| text.contains(secret)), "{text}");
    assert!(!matches!(error, ConnectError::Interrupted), "{text}");
}

/// A refresh ends with a token or an error, and a refresh token remains stored, whatever the response.
#[test]
fn token_responses_are_read() {
    let world = World::new();
    check_some("token_answers", 300, Vec::new(), |bytes| {
        world.runtime.block_on(async {
            let user = world.connected(Some(Timestamp::from_unix_seconds(1))).await;
            world.provider.next_token_response(response(bytes));
            let outcome = world.site.oauth.client("acme", &user).await;
            world.site.oauth.finish().await;
            let stored = world.token(&user).await;
            let old = Secret::from("CANARY-access");
            match outcome {
                Ok(client) => {
                    // A new refresh token alone is stored with the old access token for a minute.
                    let is_new = stored.access_token != old || stored.refresh_token != Some("CANARY-refresh".into());
                    assert!(*client.token().secret() == stored.access_token && is_new, "{stored:?}");
                }
                Err(error) => {
                    is_clean(&error);
                    assert!(stored.access_token != old || stored.refresh_token == Some("CANARY-refresh".into()));
                }
            }
            assert!(stored.refresh_token.is_some());
            assert_eq!(world.provider.requests_to(Endpoint::Token).len(), 1, "one request, whatever the response");
        });
    });
}

/// A call ends with a response or an error without secrets, and loses no token.
#[test]
fn api_responses_are_read() {
    let world = World::new();
    check_some("token_answers", 200, Vec::new(), |bytes| {
        world.runtime.block_on(async {
            let user = world.connected(None).await;
            let client = world.site.oauth.client("acme", &user).await.unwrap();
            let header: String =
                bytes.iter().filter(|byte| matches!(byte, b' '..=b'~')).map(|byte| char::from(*byte)).collect();
            world.provider.next_response(Endpoint::Api, response(bytes).header("www-authenticate", &header));
            world.provider.next_token_response(ScriptedResponse::status(503));
            let read =
                client.get("/x").send().await.and_then(|response| response.success()?.json::<serde_json::Value>());
            if let Err(error) = &read {
                assert!(!matches!(error, ApiError::NeedsAuthorization(_)), "{error:?}");
            }
            world.site.oauth.finish().await;
            assert_eq!(world.token(&user).await.refresh_token, Some("CANARY-refresh".into()));
        });
    });
}

/// A request head with a query and cookies made from arbitrary bytes; invalid bytes are dropped or encoded.
fn head(method: &str, path: &str, query: &[u8], cookies: &[u8]) -> Vec<u8> {
    let query: String = query
        .iter()
        .map(|byte| match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}#".contains(byte) => char::from(*byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let cookies: Vec<u8> = cookies.iter().copied().filter(|byte| *byte >= b' ' && *byte != 0x7f).take(8192).collect();
    let line = format!("{method} {path}?{query} HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\n");
    [line.as_bytes(), b"cookie: who=alice; ", &cookies, b"\r\n"].concat()
}

/// Sends a request and returns the status of the response. The connection stays open until then.
async fn ask(site: &Site, request: &[u8]) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(site.listener.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

fn is_no_accident(status: u16) {
    assert!(status < 500 || status == 502, "{status}");
}

#[test]
fn callbacks_are_read() {
    let world = World::new();
    let alice = Browser::signed_in(&world.site, "alice");
    let callback = world.runtime.block_on(alice.stopped_at_callback("acme"));
    let cookies = alice.cookie_header().into_bytes();
    let good = callback.query().unwrap().as_bytes().to_vec();
    check_some("callbacks", 200, vec![good], |bytes| {
        let query = &bytes[..bytes.len().min(16 * 1024)];
        let form =
            format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n", query.len());
        let get = [&head("GET", "/login/acme/authorized", query, &cookies)[..], b"\r\n"].concat();
        let post = [&head("POST", "/login/acme/authorized", b"", &cookies)[..], form.as_bytes(), query].concat();
        world.runtime.block_on(async {
            is_no_accident(ask(&world.site, &get).await);
            is_no_accident(ask(&world.site, &post).await);
        });
    });
    assert!(world.provider.requests_to(Endpoint::Token).len() <= 1, "a code is redeemed once");
}

/// A cookie that this application did not set has no effect.
#[test]
fn cookies_are_read() {
    let world = World::new();
    let alice = Browser::signed_in(&world.site, "alice");
    let callback = world.runtime.block_on(alice.stopped_at_callback("acme"));
    let good = alice.cookie_header().into_bytes();
    check_some("cookies", 150, vec![good.clone()], |bytes| {
        let whole = bytes.windows(good.len()).any(|window| window == good);
        let query = callback.query().unwrap().as_bytes();
        let paths: [(&str, &[u8]); 3] = [("/login/acme/authorized", query), ("/login/acme", b""), ("/required", b"")];
        // The attempt must not be spent.
        for (path, query) in &paths[usize::from(whole)..] {
            let request = [&head("GET", path, query, bytes)[..], b"\r\n"].concat();
            is_no_accident(world.runtime.block_on(ask(&world.site, &request)));
        }
    });
    let page = world.runtime.block_on(alice.get(callback.as_str()));
    assert!(page.status == StatusCode::SEE_OTHER || world.provider.requests_to(Endpoint::Token).len() == 1, "{page:?}");
}

#[cfg(feature = "oidc")]
mod openid {
    use oauth_dance::{KeyRing, MemoryStorage, OAuth, Provider};

    use super::*;
    use support::{Notes, openid_site_with};

    /// A login with arbitrary metadata fails, or redirects to the endpoint in the metadata.
    #[test]
    fn metadata_is_read() {
        let world = World::new();
        let issuer = world.provider.url();
        let document =
            |path: &str| format!("{{\"issuer\":\"{issuer}\",{}}}", path.replace("ISSUER", issuer)).into_bytes();
        let all = document(concat!(
            "\"authorization_endpoint\":\"ISSUER/authorize\",\"token_endpoint\":\"ISSUER/token\",\"jwks_uri\":\"ISSUER/jwks\",",
            "\"revocation_endpoint\":\"ISSUER/revoke\",\"userinfo_endpoint\":\"ISSUER/userinfo\",\"end_session_endpoint\":null,",
            "\"id_token_signing_alg_values_supported\":[\"ES256\"],\"code_challenge_methods_supported\":[\"S256\"]"
        ));
        let least = document(
            "\"authorization_endpoint\":\"ISSUER/authorize\",\"token_endpoint\":\"ISSUER/token\",\"jwks_uri\":\"ISSUER/jwks\"",
        );
        check_some("metadata", 60, vec![all, least], |bytes| {
            let registration = Provider::openid("acme", issuer).client("id", "CANARY");
            let oauth = OAuth::builder("http://localhost:1", MemoryStorage::new(), KeyRing::generate());
            let oauth = oauth.provider(registration).anonymous_users().build().unwrap();
            let user = world.new_user();
            let mut token = OAuth2Token::bearer("CANARY-access");
            token.refresh_token = Some("CANARY-refresh".into());
            token.expires_at = Some(Timestamp::from_unix_seconds(1));
            world.runtime.block_on(async {
                let key = user.key("acme").unwrap();
                oauth.tokens().put(&key, &Token::from(token), Precondition::Always).await.unwrap();
                world.provider.next_response(Endpoint::Metadata, ScriptedResponse::status(200).body(bytes.to_vec()));
                if let Err(error) = oauth.client("acme", &user).await {
                    is_clean(&error);
                }
            });
        });
    }

    /// An ID token with changes: every four bytes select the kind, the position and the value of one.
    fn changed(id_token: &str, changes: &[u8]) -> String {
        let mut bytes = id_token.as_bytes().to_vec();
        for change in changes.chunks_exact(4).take(8) {
            let at = usize::from(u16::from_be_bytes([change[1], change[2]])) % bytes.len().max(1);
            match change[0] % 4 {
                0 if !bytes.is_empty() => bytes[at] = change[3],
                1 => bytes.insert(at, change[3]),
                2 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A modified ID token is rejected, or still identifies the same user.
    #[test]
    fn id_tokens_are_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (provider, (site, notes)): (TestProvider, (Site, Notes)) = runtime.block_on(async {
            let provider = TestProvider::start().await.unwrap();
            let site = openid_site_with(&provider, |_| {}, |builder| builder).await;
            (provider, site)
        });
        check_some("id_token_changes", 100, Vec::new(), |bytes| {
            let changes = bytes.to_vec();
            provider.next_token_response(ScriptedResponse::normal().map_body(move |body| {
                let mut response: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let id_token = response["id_token"].as_str().unwrap().to_owned();
                response["id_token"] = changed(&id_token, &changes).into();
                response.to_string().into_bytes()
            }));
            let page = runtime.block_on(Browser::signed_in(&site, "alice").login("acme"));
            let identity = notes.identity();
            assert_eq!(identity.is_some(), page.status == StatusCode::SEE_OTHER, "{page:?}");
            assert!(identity.is_none_or(|identity| identity.subject == "test-user"));
            assert_ne!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
        });
    }
}
