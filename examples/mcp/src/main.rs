//! A server whose users connect MCP servers and call their tools. Any number of replicas of it share one storage.
//!
//! ```sh
//! export OAUTH_DANCE_KEYS="$(openssl rand -base64 32)" SESSION_KEY="$(openssl rand -base64 64 | tr -d '\n')"
//! export MCP_SERVERS="notes=https://mcp.example.com/mcp"
//! cargo run -p oauth-dance-example-mcp
//! ```
//!
//! | variable | what it is | default |
//! | --- | --- | --- |
//! | `LISTEN` | the address of this replica | `127.0.0.1:3000` |
//! | `BASE_URL` | the URL of all replicas, to which the browser returns from a login | `http://` and `LISTEN` |
//! | `DATABASE_URL` | where all replicas store the tokens: `sqlite:…` on one machine, or `postgres://…` | `sqlite:mcp.sqlite` |
//! | `MCP_SERVERS` | the MCP servers, as `name=URL`, separated by spaces | none |
//! | `OAUTH_DANCE_KEYS` | the key ring that seals the tokens | required |
//! | `SESSION_KEY` | a secret of at least 64 characters that signs the cookie of a signed-in user | required |

mod app;
mod pages;
mod users;

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{KeyRing, TokenStorage, Tokens};
use oauth_dance_mcp::{McpConnector, McpServer};
use oauth_dance_sqlx::{PostgresStorage, SqliteStorage};
use tokio::net::TcpListener;

use crate::app::App;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = setting("LISTEN", "127.0.0.1:3000");
    let base = setting("BASE_URL", &format!("http://{listen}"));
    let storage = storage(&setting("DATABASE_URL", "sqlite:mcp.sqlite")).await?;
    let mcp = McpConnector::new(Tokens::sealed(storage, KeyRing::parse(&env::var("OAUTH_DANCE_KEYS")?)?))?;
    let servers = servers(&setting("MCP_SERVERS", ""), &base)?;
    let session_key = cookie::Key::try_from(env::var("SESSION_KEY")?.as_bytes())?;

    let app = App { mcp: mcp.clone(), servers: Arc::new(servers), session_key };
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(TcpListener::bind(&listen).await?, app::router(app)).with_graceful_shutdown(stop).await?;
    // Refreshes in flight store their tokens first, if that takes no longer than this.
    let _ = tokio::time::timeout(Duration::from_secs(10), mcp.finish()).await;
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Opens the storage. Any number of replicas may create its table at the same time.
async fn storage(url: &str) -> Result<Arc<dyn TokenStorage>, Box<dyn Error>> {
    if url.starts_with("sqlite:") {
        let storage = SqliteStorage::connect(url).await?;
        storage.migrate().await?;
        return Ok(Arc::new(storage));
    }
    let storage = PostgresStorage::connect(url).await?;
    storage.migrate().await?;
    Ok(Arc::new(storage))
}

/// The MCP servers by name. Each has a redirect URI of its own.
fn servers(text: &str, base: &str) -> Result<BTreeMap<String, McpServer>, Box<dyn Error>> {
    let mut servers = BTreeMap::new();
    for named in text.split_whitespace() {
        let (name, url) = named.split_once('=').ok_or("MCP_SERVERS contains an entry that is not name=URL")?;
        let server = McpServer::new(url, &format!("{base}/mcp/{name}/callback"))?;
        servers.insert(name.to_owned(), server.with_client_name("oauth-dance example"));
    }
    Ok(servers)
}
