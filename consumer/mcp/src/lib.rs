//! OAuth tokens of many users at many servers of the [Model Context Protocol](https://modelcontextprotocol.io), for its [Rust
//! SDK](https://docs.rs/rmcp): sealed in any [`TokenStorage`], shared by all replicas, and refreshed exactly once.
//!
//! # When to use it
//!
//! Use it if a **server** connects its users to MCP servers, for example an agent or a chat application: every user
//! logs in at every MCP server, and each call needs that user's token for that server. The SDK's own store holds the
//! token of one user in memory. If two replicas or two tasks load the same credentials, both send the same refresh
//! token, and an authorization server that rotates refresh tokens logs the user out.
//!
//! This crate was built against **rmcp 3.11.0** (2026-11-30), and accepts only 3.11.x: statements about the SDK are
//! based on its source, and tested.
//!
//! # Example
//!
//! ```
//! use oauth_dance_core::{KeyRing, MemoryStorage, Tokens};
//! use oauth_dance_mcp::{LoginCallback, LoginRequest, McpConnector, McpError, McpServer};
//! use rmcp::ServiceExt as _;
//!
//! /// A POST route redirects the browser to the result. `user` is the signed-in user.
//! async fn connect(mcp: &McpConnector, server: &McpServer, user: &str) -> Result<String, McpError> {
//!     mcp.connection(server, user)?.start_login(LoginRequest::default()).await
//! }
//!
//! /// The route of the redirect URI deserializes the callback from its query. Any replica may receive it.
//! async fn callback(mcp: &McpConnector, server: &McpServer, user: &str, query: LoginCallback) -> Result<(), McpError> {
//!     mcp.connection(server, user)?.finish_login(query).await
//! }
//!
//! /// From then on, any replica calls tools as this user.
//! async fn tools(mcp: &McpConnector, server: &McpServer, user: &str) -> Result<usize, Box<dyn std::error::Error>> {
//!     let client = ().serve(mcp.connection(server, user)?.transport()).await?;
//!     let tools = client.list_all_tools().await?;
//!     client.cancel().await?;
//!     Ok(tools.len())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In production, `PostgresStorage` or another storage that the replicas share, and `KeyRing::parse`.
//! let mcp = McpConnector::new(Tokens::sealed(MemoryStorage::new(), KeyRing::generate()))?;
//! let notes = McpServer::new("https://mcp.example.com/mcp", "https://app.example/mcp/notes/callback")?;
//! # let _ = (connect, callback, tools, mcp, notes);
//! # Ok(())
//! # }
//! ```
//!
//! [`examples/mcp`](https://github.com/oauth-dance/oauth-dance/tree/main/examples/mcp) is the complete application,
//! which a test runs as two replicas.
//!
//! # With an `AuthorizationManager`
//!
//! If your code already uses the SDK's `AuthorizationManager` or `OAuthState`, pass it the stores of this crate. Its
//! login and its `AuthClient` then work as before, and only the refresh is different; see [`McpCredentials`] for the
//! limits.
//!
//! ```
//! # use oauth_dance_mcp::{McpConnection, McpError};
//! use rmcp::transport::auth::{AuthError, AuthorizationManager};
//!
//! async fn manager(alice: &McpConnection) -> Result<AuthorizationManager, AuthError> {
//!     let mut manager = AuthorizationManager::new(alice.server().url()).await?;
//!     manager.set_credential_store(alice.credentials());
//!     manager.set_state_store(alice.states());
//!     Ok(manager)
//! }
//! # let _ = manager;
//! ```
//!
//! # What is stored
//!
//! | record | provider of the key | user of the key | retained |
//! | --- | --- | --- | --- |
//! | token | the URL of the server | the user, with the tenant if there is one | until it is deleted |
//! | registered client | `mcp-client:` and the URL of the server | `application` | until [`forget_client`](McpConnector::forget_client) |
//! | login in progress | the URL of the server | a hash; not listed | ten minutes |
//!
//! All records are sealed, and are ordinary token records: [`Tokens`] and the `oauth-dance` program list, inspect and
//! reseal them. A token's record also contains where its refresh token is redeemed: the token endpoint, the client, and
//! the resource indicator. They are fixed at the login. A server that later names another authorization server receives
//! no refresh token. In a SQL database, the URL of a server may have at most 255 bytes.
//!
//! # Security
//!
//! * A token is sent to the URL of its server only, and was requested for it (`resource`, RFC 8707). [`McpClient`] verifies the
//!   URL of each request.
//! * A login works once, for the user and the server that it was started for, whichever replica finishes it. It has PKCE, and the
//!   issuer of the callback is verified (RFC 9207).
//! * The URLs in the metadata need TLS, and do not lead into a private network unless the server itself is in one
//!   (SSRF).
//! * If users can enter the URL of a server, your application decides which ones to accept. The SDK sends requests to any.
//!
//! # Where to go next
//!
//! * [`McpConnector`] and [`McpServer`]: the settings.
//! * [`McpConnection`]: login, token, client and logout of one user at one server.
//! * [`McpError`]: what can fail, and what to do about it.
//!
//! [`TokenStorage`]: oauth_dance_core::TokenStorage
//! [`Tokens`]: oauth_dance_core::Tokens
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod connection;
mod connector;
mod endpoint;
mod error;
mod grant;
mod leased;
mod login;
mod pending;
mod reach;
mod registration;
mod response;
mod server;
mod store;

pub use client::McpClient;
pub use connection::McpConnection;
pub use connector::McpConnector;
pub use error::McpError;
pub use login::{LoginCallback, LoginRequest};
pub use server::McpServer;
pub use store::{McpCredentials, McpStates};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
