//! The client with which this application identifies itself at an authorization server.
//!
//! The Rust SDK registers a new client for each login. Here, one client is registered for all users and replicas, and is
//! stored like a token, under a key of its own.

use oauth_dance_core::{OAuth2Token, Precondition, Secret, StorageError, TokenKey, TokensError};
use rmcp::transport::auth::{AuthorizationManager, AuthorizationMetadata, OAuthClientConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::connection::McpConnection;
use crate::error::McpError;
use crate::grant;
use crate::server::{Client, McpServer, is_loopback};

/// A client that was registered dynamically (RFC 7591).
#[derive(Serialize, Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<String>,
    redirect_uri: String,
    issuer: Option<String>,
}

/// The key of a server's registered client. No server's URL starts like this provider.
pub(crate) fn key_of(server: &McpServer) -> Result<TokenKey, McpError> {
    Ok(TokenKey::new(format!("mcp-client:{}", server.url), "application")?)
}

/// The client for a server, in the order of priority of the MCP specification: registered in advance, by a metadata document,
/// or registered dynamically.
pub(crate) async fn client(
    connection: &McpConnection,
    manager: &mut AuthorizationManager,
    metadata: &AuthorizationMetadata,
) -> Result<Client, McpError> {
    let server = &connection.server;
    if let Some(client) = &server.registered {
        return Ok(client.clone());
    }
    let by_document = metadata.additional_fields.get("client_id_metadata_document_supported").and_then(Value::as_bool);
    if let (Some(url), Some(true)) = (&server.client_metadata_url, by_document) {
        return Ok(Client { id: url.clone(), secret: None });
    }
    let (found, when) = match stored(connection).await? {
        Some((found, version)) => (Some(found), Precondition::Version(version)),
        None => (None, Precondition::Absent),
    };
    if let Some(found) = found.filter(|found| found.fits(server, metadata)) {
        return Ok(found.into());
    }
    let registered = register(server, manager, metadata).await?;
    match put(connection, &registered, when).await {
        // Another process has registered a client in the meantime. Use the same one.
        Err(TokensError::Storage(StorageError::Conflict)) => {
            let theirs = stored(connection).await?.map(|(found, _)| found);
            Ok(theirs.filter(|found| found.fits(server, metadata)).unwrap_or(registered).into())
        }
        written => written.map(|()| registered.into()).map_err(McpError::from),
    }
}

/// The client with this id, with its secret if it has one and this application knows it.
pub(crate) async fn known(connection: &McpConnection, client_id: &str) -> Result<Client, McpError> {
    let registered = connection.server.registered.clone().filter(|client| client.id == client_id);
    if let Some(client) = registered {
        return Ok(client);
    }
    let stored = stored(connection).await?.map(|(found, _)| found).filter(|found| found.client_id == client_id);
    Ok(stored.map_or_else(|| Client { id: client_id.to_owned(), secret: None }, Client::from))
}

impl Registered {
    /// Whether the client was registered at this authorization server, and for this redirect URI.
    fn fits(&self, server: &McpServer, metadata: &AuthorizationMetadata) -> bool {
        self.redirect_uri == server.redirect_uri && self.issuer == metadata.issuer
    }
}

impl From<Registered> for Client {
    fn from(registered: Registered) -> Self {
        Self { id: registered.client_id, secret: registered.client_secret.map(Secret::from) }
    }
}

async fn stored(connection: &McpConnection) -> Result<Option<(Registered, oauth_dance_core::Version)>, McpError> {
    let found = connection.connector.tokens.get(&key_of(&connection.server)?).await?;
    Ok(found.and_then(|found| Some((grant::read(found.value.extra())?, found.version))))
}

async fn put(connection: &McpConnection, registered: &Registered, when: Precondition) -> Result<(), TokensError> {
    let mut record = OAuth2Token::bearer(registered.client_id.clone());
    record.extra = grant::with_member(Map::new(), registered);
    let key = key_of(&connection.server).map_err(|_| StorageError::Unsupported("this key"))?;
    connection.connector.tokens.put(&key, &record.into(), when).await.map(drop)
}

async fn register(
    server: &McpServer,
    manager: &mut AuthorizationManager,
    metadata: &AuthorizationMetadata,
) -> Result<Registered, McpError> {
    // A client with a redirect URI on the user's own machine is a native one (OpenID Connect Registration section 2). The
    // SDK reads the type from the configured client.
    let is_web = Url::parse(&server.redirect_uri).is_ok_and(|url| url.scheme() == "https" && !is_loopback(&url));
    let application_type = if is_web { "web" } else { "native" };
    let unregistered = OAuthClientConfig::new("", &server.redirect_uri).with_application_type(application_type);
    manager.configure_client(unregistered)?;
    let config = manager.register_client(&server.client_name, &server.redirect_uri, &[]).await?;
    Ok(Registered {
        client_id: config.client_id,
        client_secret: config.client_secret,
        redirect_uri: config.redirect_uri,
        issuer: metadata.issuer.clone(),
    })
}
