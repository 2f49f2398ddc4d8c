use std::sync::Arc;

use axum::Router;
use oauth_dance::{OAuth, OAuthBuilder};
use oauth_dance_core::{KeyRing, MemoryStorage, TokenStorage};
use oauth_dance_session::{CookieTokens, SessionTokens};
use oauth_dance_sqlx::SqliteStorage;
use tower_sessions::cookie::{Key, SameSite};
use tower_sessions::{MemoryStore, SessionManagerLayer};

use super::DemoError;

/// Where the tokens are, and what the page says of it.
pub(super) struct Storage {
    place: Place,
    pub(super) description: &'static str,
}

enum Place {
    /// In one storage for everybody.
    Shared(Arc<dyn TokenStorage>),
    /// In the session of each browser.
    Session,
    /// In the cookies of each browser.
    Cookie,
}

/// Opens the storage that a URL names, and brings its tables up to date.
pub(super) async fn open(url: &str) -> Result<Storage, DemoError> {
    let (scheme, _) = url.split_once(':').unwrap_or((url, ""));
    let (place, description) = match scheme {
        "memory" => (Place::Shared(Arc::new(MemoryStorage::new())), "in memory, until the demo stops"),
        "sqlite" => {
            let storage = SqliteStorage::connect(url).await?;
            storage.migrate().await?;
            (Place::Shared(Arc::new(storage)), "in a SQLite file")
        }
        "session" => (Place::Session, "in each browser's session, in memory, until the demo stops"),
        "cookie" => (Place::Cookie, "in an encrypted cookie of each browser"),
        _ => return Err(DemoError::UnknownStorage { url: scheme.to_owned() }),
    };
    Ok(Storage { place, description })
}

impl Storage {
    /// One storage for everybody.
    pub(super) fn shared(storage: impl TokenStorage) -> Self {
        Self { place: Place::Shared(Arc::new(storage)), description: "in a storage of your own" }
    }

    /// Starts the configuration of a site with its tokens here.
    pub(super) fn configure(&self, base_url: &str, keys: KeyRing) -> OAuthBuilder {
        match &self.place {
            Place::Shared(storage) => OAuth::builder(base_url, Arc::clone(storage), keys),
            Place::Session | Place::Cookie => OAuth::per_request(base_url, keys),
        }
    }

    /// Puts around the site what it needs to find its tokens.
    pub(super) fn around(self, site: Router, base_url: &str, keys: KeyRing) -> Router {
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
