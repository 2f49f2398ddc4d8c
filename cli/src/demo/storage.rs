//! The storage of the demo.

use std::sync::Arc;

use axum::Router;
use oauth_dance::{OAuth, OAuthBuilder};
use oauth_dance_core::{KeyRing, MemoryStorage, StorageError, TokenStorage};
use oauth_dance_redis::RedisStorage;
use oauth_dance_session::{CookieTokens, SessionTokens};
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use tower_sessions::cookie::{Key, SameSite};
use tower_sessions::{MemoryStore, SessionManagerLayer};

use super::DemoError;
use crate::UnusableStorage;
use crate::address::scheme;
use crate::open::is_redis;

/// Where the tokens are stored, and the description on the page.
pub(super) struct Storage {
    place: Place,
    pub(super) description: &'static str,
}

enum Place {
    /// In one storage for all browsers.
    Shared(Arc<dyn TokenStorage>),
    /// In the session of each browser.
    Session,
    /// In the cookies of each browser.
    Cookie,
}

/// Opens the storage of a URL, and updates its tables.
pub(super) async fn open(url: &str) -> Result<Storage, DemoError> {
    let scheme = scheme(url);
    let shared = match scheme {
        "memory" => Ok(Storage::of(MemoryStorage::new(), "in memory, until the demo stops")),
        "sqlite" => sqlite(url).await,
        "postgres" | "postgresql" => postgres(url).await,
        "mysql" | "mariadb" => mysql(url).await,
        "session" => {
            let description = "in each browser's session, in memory, until the demo stops";
            return Ok(Storage { place: Place::Session, description });
        }
        "cookie" => {
            return Ok(Storage { place: Place::Cookie, description: "in an encrypted cookie of each browser" });
        }
        _ if is_redis(scheme) => redis(url).await,
        _ => return Err(DemoError::UnknownStorage { scheme: scheme.to_owned() }),
    };
    match shared {
        Ok(storage) => Ok(storage),
        Err(error) => Err(UnusableStorage::new(url, error).await.into()),
    }
}

async fn sqlite(url: &str) -> Result<Storage, StorageError> {
    let storage = SqliteStorage::connect(url).await?;
    storage.migrate().await?;
    Ok(Storage::of(storage, "in a SQLite file"))
}

async fn postgres(url: &str) -> Result<Storage, StorageError> {
    let storage = PostgresStorage::connect(url).await?;
    storage.migrate().await?;
    Ok(Storage::of(storage, "in a PostgreSQL database"))
}

async fn mysql(url: &str) -> Result<Storage, StorageError> {
    let storage = MySqlStorage::connect(url).await?;
    storage.migrate().await?;
    Ok(Storage::of(storage, "in a MySQL or MariaDB database"))
}

async fn redis(url: &str) -> Result<Storage, StorageError> {
    let storage = RedisStorage::connect(url).await?;
    let description = match storage.capabilities().durable {
        true => "in Redis, on disk before a write is acknowledged",
        false => "in Redis, as durable as its configuration: a crash may lose recent writes, or all",
    };
    Ok(Storage::of(storage, description))
}

impl Storage {
    /// One storage for all browsers.
    pub(super) fn of(storage: impl TokenStorage, description: &'static str) -> Self {
        Self { place: Place::Shared(Arc::new(storage)), description }
    }

    /// Starts the configuration of a site whose tokens are in this storage.
    pub(super) fn configure(&self, base_url: &str, keys: KeyRing) -> OAuthBuilder {
        match &self.place {
            Place::Shared(storage) => OAuth::builder(base_url, Arc::clone(storage), keys),
            Place::Session | Place::Cookie => OAuth::per_request(base_url, keys).ledger(MemoryStorage::new()),
        }
    }

    /// Adds the layers through which the site finds its tokens.
    pub(super) fn layer(self, site: Router, base_url: &str, keys: KeyRing) -> Router {
        match self.place {
            Place::Shared(_) => site,
            Place::Session => {
                let store = MemoryStore::default();
                let sessions = SessionManagerLayer::new(store.clone())
                    .with_name("oauth-dance-demo-session")
                    .with_same_site(SameSite::Lax)
                    .with_secure(base_url.starts_with("https://"))
                    .with_signed(Key::generate());
                site.layer(SessionTokens::new(store)).layer(sessions)
            }
            Place::Cookie => site.layer(CookieTokens::new(base_url, keys)),
        }
    }
}
