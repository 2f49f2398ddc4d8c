//! The tokens of several connections, read at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance::testing::TestProvider;
use oauth_dance::{ConnectError, MemoryStorage, OAuthBuilder, TokenStorage, User};
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, Version, Versioned,
};
use support::{Browser, Setup, Site};

/// Memory whose reads take a while, and that counts how many are in flight.
#[derive(Clone, Default)]
struct Slow {
    memory: MemoryStorage,
    reads: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    most_in_flight: Arc<AtomicUsize>,
}

#[async_trait]
impl TokenStorage for Slow {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.memory.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.memory.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.memory.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.memory.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.memory.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }
}

async fn site(provider: &TestProvider) -> (Site, Slow) {
    let storage = Slow::default();
    let setup = Setup { storage: Arc::new(storage.clone()), ..Setup::default() };
    let names = ["acme", "other", "third"].map(|name| provider.registration(name));
    let site = setup.start(|builder| names.into_iter().fold(builder, OAuthBuilder::provider)).await;
    (site, storage)
}

#[tokio::test]
async fn clients_of_many_users_are_read_together_in_order() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = site(&provider).await;
    let users: Vec<_> = (0..100).map(|user| User::new(format!("user{user}"))).collect();
    for user in users.iter().step_by(2) {
        provider.connect(&site.oauth, "acme", user).await.unwrap();
    }
    storage.reads.store(0, Ordering::SeqCst);
    storage.most_in_flight.store(0, Ordering::SeqCst);

    // The future of a handler or a task has to be `Send`.
    let (oauth, copies) = (site.oauth.clone(), users.clone());
    let clients = tokio::spawn(async move {
        let wanted: Vec<_> = copies.iter().map(|user| ("acme", user)).collect();
        oauth.clients(&wanted).await
    });
    let clients = clients.await.unwrap();
    assert_eq!(clients.len(), users.len());
    for (index, (user, client)) in users.iter().zip(clients).enumerate() {
        let stored = site.access_token(user.id()).await;
        match client {
            Ok(client) => assert_eq!(Some(client.token().secret().expose().to_owned()), stored),
            Err(ConnectError::NotConnected) => assert!(index % 2 == 1 && stored.is_none()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(storage.most_in_flight.load(Ordering::SeqCst), 64, "no more than that at once");

    let unknown = site.oauth.clients(&[("nobody", &users[0]), ("acme", &users[0])]).await;
    assert!(matches!(unknown[0], Err(ConnectError::UnknownProvider(_))) && unknown[1].is_ok());
}

#[tokio::test]
async fn page_gets_every_client_of_its_user_at_once() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = site(&provider).await;
    let alice = User::new("alice");
    for name in ["acme", "third"] {
        provider.connect(&site.oauth, name, &alice).await.unwrap();
    }
    storage.reads.store(0, Ordering::SeqCst);
    storage.most_in_flight.store(0, Ordering::SeqCst);
    let page = Browser::signed_in(&site, "alice").get("/all").await;
    assert_eq!(page.body, "acme third");
    assert_eq!(storage.reads.load(Ordering::SeqCst), 3, "one for each provider");
    assert_eq!(storage.most_in_flight.load(Ordering::SeqCst), 3, "at the same time");
    assert_eq!(Browser::of(&site).get("/all").await.body, "", "nobody is signed in");
}

/// Expired tokens are refreshed, each once, and one that cannot be is an error of its own.
#[tokio::test]
async fn one_failure_leaves_the_other_clients() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = site(&provider).await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    let users = ["alice", "bob", "carol"].map(User::new);
    for user in &users {
        provider.connect(&site.oauth, "acme", user).await.unwrap();
    }
    site.clock.advance(Duration::from_secs(3601));
    provider.revoke_all_of("bob");
    let clients = site.oauth.clients(&users.each_ref().map(|user| ("acme", user))).await;
    let [alice, bob, carol] = <[_; 3]>::try_from(clients).unwrap();
    assert!(alice.is_ok() && carol.is_ok());
    assert!(bob.unwrap_err().needs_login());
    assert_eq!(provider.counters().refreshes, 2);
}
