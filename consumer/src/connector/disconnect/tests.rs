use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, KeyRing, MemoryStorage, Page, PageRequest, Precondition, Record, TokenStorage, Version,
};

use super::*;
use crate::testing::{Endpoint, TestProvider};

/// What goes wrong with one deletion.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The token is deleted, and the response is lost.
    ResponseLost,
    /// The token is not deleted, and the connection breaks.
    RequestLost,
    /// The connection breaks, and the token is deleted after the next read.
    Late,
    /// The token is deleted, the response is lost, and no read succeeds afterwards.
    ThenDown,
}

/// A storage whose connection breaks during deletions.
#[derive(Default)]
struct BrokenStorage {
    memory: MemoryStorage,
    faults: Mutex<VecDeque<Fault>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_down: bool,
    late: Option<TokenKey>,
}

#[async_trait]
impl TokenStorage for BrokenStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        if self.state.lock().unwrap().is_down {
            return Err(StorageError::unavailable("down"));
        }
        let found = self.memory.get(key).await;
        let late = self.state.lock().unwrap().late.take();
        if let Some(late) = late {
            self.memory.delete(&late, None).await?;
        }
        found
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.memory.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let Some(fault) = self.faults.lock().unwrap().pop_front() else { return self.memory.delete(key, only).await };
        match fault {
            Fault::ResponseLost => drop(self.memory.delete(key, only).await?),
            Fault::RequestLost => {}
            Fault::Late => self.state.lock().unwrap().late = Some(key.clone()),
            Fault::ThenDown => {
                self.memory.delete(key, only).await?;
                self.state.lock().unwrap().is_down = true;
            }
        }
        Err(StorageError::ambiguous("cut off"))
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

/// Connects alice, disconnects her with these faults, and returns the number of revocations.
async fn disconnect(faults: &[Fault]) -> (Result<Disconnected, ConnectError>, usize) {
    let provider = TestProvider::start().await.unwrap();
    let storage = BrokenStorage { faults: Mutex::new(faults.iter().copied().collect()), ..BrokenStorage::default() };
    let connector = Connector::builder(storage, KeyRing::generate()).provider(provider.registration("acme"));
    let connector = connector.build().unwrap();
    let alice = TokenKey::new("acme", "alice").unwrap();
    provider.connect_key(&connector, &alice).await.unwrap();
    let outcome = connector.disconnect(&alice).await;
    (outcome, provider.requests_to(Endpoint::Revocation).len())
}

#[tokio::test]
async fn grant_is_revoked_if_a_response_is_lost() {
    use Fault::{Late, RequestLost, ResponseLost};
    for faults in [&[ResponseLost][..], &[RequestLost], &[RequestLost, RequestLost, ResponseLost], &[Late]] {
        let (outcome, revocations) = disconnect(faults).await;
        let disconnected = outcome.unwrap();
        assert_eq!((disconnected.removed, disconnected.revocation), (true, Revocation::Done), "{faults:?}");
        assert!(revocations > 0, "{faults:?}");
    }
}

#[tokio::test]
async fn lost_response_is_an_error_if_the_storage_is_down() {
    let (outcome, revocations) = disconnect(&[Fault::ThenDown]).await;
    assert!(matches!(outcome, Err(ConnectError::Storage(_))), "{outcome:?}");
    assert_eq!(revocations, 0);
}
