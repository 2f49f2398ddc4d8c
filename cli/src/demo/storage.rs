use std::sync::Arc;

use oauth_dance_core::{MemoryStorage, TokenStorage};
use oauth_dance_sqlx::SqliteStorage;

use super::DemoError;

/// A storage, and what the page says of it.
pub(super) struct Storage {
    pub(super) tokens: Arc<dyn TokenStorage>,
    pub(super) description: &'static str,
}

/// Opens the storage that a URL names, and brings its tables up to date.
pub(super) async fn open(url: &str) -> Result<Storage, DemoError> {
    let (scheme, _) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" => {
            Ok(Storage { tokens: Arc::new(MemoryStorage::new()), description: "in memory, until the demo stops" })
        }
        "sqlite" => {
            let storage = SqliteStorage::connect(url).await?;
            storage.migrate().await?;
            Ok(Storage { tokens: Arc::new(storage), description: "in a SQLite file" })
        }
        _ => Err(DemoError::UnknownStorage { url: scheme.to_owned() }),
    }
}
