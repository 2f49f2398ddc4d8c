//! Programs without a web framework: `Connector`, tested over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod calls;
mod client_credentials;
mod crates;
mod exchange;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
#[cfg(feature = "reqwest-middleware")]
mod redirects;

use std::sync::Arc;

use oauth_dance::testing::{TestClock, TestProvider};
use oauth_dance::{Connector, ConnectorBuilder, KeyRing, MemoryStorage, TokenKey};

/// A provider, and what several processes share.
#[derive(Debug)]
pub struct World {
    pub provider: TestProvider,
    pub clock: TestClock,
    pub storage: Arc<MemoryStorage>,
    keys: KeyRing,
}

impl World {
    pub async fn start() -> Self {
        let clock = TestClock::new();
        let provider = TestProvider::start().await.unwrap();
        provider.configure(|settings| settings.clock = clock.clock());
        let storage = Arc::new(MemoryStorage::new().with_clock(clock.clock()));
        Self { provider, clock, storage, keys: KeyRing::generate() }
    }

    pub fn builder(&self) -> ConnectorBuilder {
        Connector::builder(Arc::clone(&self.storage), self.keys.clone()).clock(self.clock.clock())
    }

    /// A process: its refreshes are coordinated with others only through the storage.
    pub fn process(&self) -> Connector {
        self.builder().provider(self.provider.registration("acme")).build().unwrap()
    }

    /// A process with a connection of alice.
    pub async fn connected(&self) -> Connector {
        let connector = self.process();
        self.provider.connect_key(&connector, &alice()).await.unwrap();
        connector
    }
}

pub fn alice() -> TokenKey {
    TokenKey::new("acme", "alice").unwrap()
}

/// What the test provider's API received.
pub async fn seen(client: &oauth_dance::ApiClient) -> serde_json::Value {
    client.get("/notes").send().await.unwrap().success().unwrap().json().unwrap()
}
