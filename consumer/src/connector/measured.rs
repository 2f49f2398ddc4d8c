//! Counts and times the operations of a storage.
//!
//! It is a storage in front of another one, so it measures any storage and can be left out. It is here and not in the core,
//! because the core has no dependency on metrics.

use std::time::Instant;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};

const OPERATIONS: &str = "oauth_dance_storage_operations_total";
const SECONDS: &str = "oauth_dance_storage_operation_seconds";

/// A storage whose operations are counted and timed, by the [`metrics`](https://docs.rs/metrics) crate. With the feature
/// `metrics`.
///
/// The labels are the operation, the name of the storage and the outcome: `ok`, `conflict`, `unavailable`, `ambiguous`,
/// `corrupt`, `misconfigured`, `rejected` for all other errors, and `dropped` if the caller did not wait for the
/// result. No label contains a user or a key.
/// [Operations](https://github.com/oauth-dance/oauth-dance/blob/main/docs/operating.md#metrics) describes the metrics,
/// and links a dashboard for them.
///
/// ```
/// use oauth_dance::{KeyRing, MeasuredStorage, MemoryStorage, OAuth};
///
/// let storage = MeasuredStorage::new(MemoryStorage::new());
/// let builder = OAuth::builder("http://localhost:3000", storage, KeyRing::generate());
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
pub struct MeasuredStorage<S> {
    inner: S,
}

impl<S: TokenStorage> MeasuredStorage<S> {
    /// Measures the operations of a storage, as soon as the application has installed a recorder of the `metrics` crate.
    /// Without a recorder, this costs two reads of the clock per operation.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The measured storage, for its own methods such as `migrate`. Calls through this reference are not measured.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let mut measurement = Measurement {
            operation,
            storage: self.inner.capabilities().name,
            outcome: "dropped",
            start: Instant::now(),
        };
        let result = call.await;
        measurement.outcome = outcome(&result);
        result
    }
}

/// One operation. It is recorded when this is dropped, which happens even if the caller drops the operation.
struct Measurement {
    operation: &'static str,
    storage: &'static str,
    outcome: &'static str,
    start: Instant,
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let Self { operation, storage, outcome, start } = *self;
        metrics::counter!(OPERATIONS, "operation" => operation, "storage" => storage, "outcome" => outcome)
            .increment(1);
        metrics::histogram!(SECONDS, "operation" => operation, "storage" => storage, "outcome" => outcome)
            .record(start.elapsed());
    }
}

fn outcome<T>(result: &Result<T, StorageError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StorageError::Conflict) => "conflict",
        Err(StorageError::Unavailable { .. }) => "unavailable",
        Err(StorageError::Ambiguous { .. }) => "ambiguous",
        Err(StorageError::Corrupt { .. }) => "corrupt",
        Err(StorageError::Misconfigured { .. }) => "misconfigured",
        Err(_) => "rejected",
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: TokenStorage> TokenStorage for MeasuredStorage<S> {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.measure("get", self.inner.get(key)).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        self.measure("put", self.inner.put(key, record, when)).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.measure("delete", self.inner.delete(key, only)).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.measure("list", self.inner.list(filter, page)).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.measure("purge", self.inner.purge(limit)).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
