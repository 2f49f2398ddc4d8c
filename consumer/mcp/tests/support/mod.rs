//! An authorization server that rotates refresh tokens, and an MCP server of the Rust SDK. The end-to-end test in
//! `examples/mcp` uses a real authorization server; this one can also be told to fail.
#![allow(dead_code, unreachable_pub)]

mod authorization_server;
mod mcp_server;
mod slow_storage;

use std::time::Duration;

pub use authorization_server::AuthorizationServer;
pub use mcp_server::McpTestServer;
use oauth_dance_core::{KeyRing, MemoryStorage, Tokens};
use oauth_dance_mcp::{LoginCallback, LoginRequest, McpConnection, McpConnector, McpError, McpServer};
pub use slow_storage::SlowStorage;
use url::Url;

/// Where the browser returns to. No one listens there.
pub const CALLBACK: &str = "https://app.example/mcp/notes/callback";

/// A running MCP server with its authorization server, and the storage that all replicas share.
pub struct World {
    pub id: AuthorizationServer,
    pub notes: McpTestServer,
    pub storage: SlowStorage,
    keys: KeyRing,
}

impl World {
    pub async fn start() -> Self {
        let id = AuthorizationServer::start().await;
        let notes = McpTestServer::start(&id).await;
        Self { id, notes, storage: SlowStorage(MemoryStorage::new()), keys: KeyRing::generate() }
    }

    /// Another process on the same storage.
    pub fn replica(&self) -> McpConnector {
        McpConnector::new(Tokens::sealed(self.storage.clone(), self.keys.clone())).unwrap()
    }

    pub fn server(&self) -> McpServer {
        McpServer::new(self.notes.url(), CALLBACK).unwrap()
    }

    /// Several connections of a user in each of several processes.
    pub fn crowd(&self, user: &str) -> Vec<McpConnection> {
        let processes: Vec<_> = (0..3).map(|_| self.connection(user)).collect();
        (0..6).flat_map(|_| processes.clone()).collect()
    }

    /// A user's connection in another process.
    pub fn connection(&self, user: &str) -> McpConnection {
        self.replica().connection(&self.server(), user).unwrap()
    }

    /// Connects a user, by a login that one replica starts and another one finishes.
    pub async fn connect(&self, user: &str) -> McpConnection {
        let url = self.connection(user).start_login(LoginRequest::default()).await.unwrap();
        let connection = self.connection(user);
        connection.finish_login(authorize(&url).await).await.unwrap();
        connection
    }

    /// Connects a user with a token that has expired.
    pub async fn connect_expired(&self, user: &str) -> McpConnection {
        self.id.set_lifetime(0);
        let connection = self.connect(user).await;
        self.id.set_lifetime(3600);
        connection
    }
}

/// Opens an authorization URL as the browser does, and returns what the redirect to the application contains.
pub async fn authorize(url: &str) -> LoginCallback {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let response = client.get(url).timeout(Duration::from_secs(10)).send().await.unwrap();
    let location = Url::parse(response.headers()["location"].to_str().unwrap()).unwrap();
    assert!(location.as_str().starts_with(CALLBACK), "{location}");
    let mut callback = LoginCallback::default();
    for (name, value) in location.query_pairs() {
        match &*name {
            "code" => callback.code = Some(value.into_owned()),
            "state" => callback.state = Some(value.into_owned()),
            "iss" => callback.iss = Some(value.into_owned()),
            _ => panic!("{name}"),
        }
    }
    callback
}

pub fn is_unknown<T: std::fmt::Debug>(result: &Result<T, McpError>) -> bool {
    matches!(result, Err(McpError::UnknownLogin))
}
