//! The suite on a storage that moves records from one storage to another: in each step, with and without records in the old
//! storage, and with storages that list in different orders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bench;

use std::sync::Arc;

use bench::{Bench, Server};
use oauth_dance_conformance::{async_trait, run_all};
use oauth_dance_core::{
    Capabilities, Cursor, Entry, Filter, Migrating, Page, PageRequest, Precondition, Record, StorageError, TokenKey,
    TokenStorage, Version, Versioned,
};

/// The old storage is empty.
mod moving_step {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Ok(bench(|server| Arc::new(moving(server)))) });
}

/// All records are in the old storage.
mod preparing_step {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Ok(bench(|server| Arc::new(preparing(server)))) });
}

fn bench(front: bench::Front) -> Bench {
    Bench::new(front).with_long_time_limit()
}

fn moving(server: Server) -> Migrating {
    Migrating::new(Arc::new(server.other_database()), Arc::new(server))
}

fn preparing(server: Server) -> Migrating {
    Migrating::prepare(Arc::new(server.other_database()), Arc::new(server))
}

fn both(server: Server) -> Arc<dyn TokenStorage> {
    Arc::new(Both { one: preparing(server.clone()), two: moving(server) })
}

fn in_two_orders(server: Server) -> Arc<dyn TokenStorage> {
    let new = Arc::new(server.other_database());
    let old = Arc::new(Backwards(server));
    Arc::new(Both { one: Migrating::prepare(new.clone(), old.clone()), two: Migrating::new(new, old) })
}

/// Two processes, used as one storage.
struct Both {
    one: Migrating,
    two: Migrating,
}

#[async_trait]
impl TokenStorage for Both {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.two.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        match when {
            Precondition::Version(_) => self.two.put(key, record, when).await,
            _ => self.one.put(key, record, when).await,
        }
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.two.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.one.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.two.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.two.capabilities()
    }
}

/// A storage that lists keys in descending order.
struct Backwards(Server);

#[async_trait]
impl TokenStorage for Backwards {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.0.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.0.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.0.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let before = page.after.as_ref().map(Cursor::key).transpose()?;
        let all = self.0.list(filter, PageRequest { after: None, limit: usize::MAX }).await?.entries;
        let is_next = |entry: &Entry| before.as_ref().is_none_or(|before| entry.key < *before);
        Ok(Page::collect(all.into_iter().rev().filter(is_next), page.limit))
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.0.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().with_ordered(false)
    }
}

/// Properties that do not permit a record to move during the test and to get a new version with the same content, as the
/// documentation of [`Migrating`] describes. Its own tests try the interleavings of two calls, lose the reply to every
/// call of a storage, and compare contents.
const DEPEND_ON_VERSIONS: &[&str] = &[
    "an_error_means_old_or_new",
    "a_dropped_delete_leaves_the_record_or_nothing",
    "histories_are_linearizable",
    "histories_with_faults_are_linearizable",
];

/// A process in step 1 creates records in the old storage, and a process in step 2 changes and deletes them.
#[test]
fn processes_in_both_steps_pass() {
    for _ in 0..2 {
        assert_passes("both steps", both);
    }
}

/// The old storage lists in a different order.
#[test]
fn storages_with_different_orders_pass() {
    assert_passes("in two orders", in_two_orders);
}

fn assert_passes(name: &str, front: bench::Front) {
    let report = run_all(name, || async move { Ok(bench(front)) });
    let mut failed = report.failed();
    failed.retain(|(property, _)| !DEPEND_ON_VERSIONS.contains(property));
    assert!(failed.is_empty() && report.skipped().is_empty(), "{report}");
}
