//! How the tests that the macro makes end: skipped, failed, hung.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_conformance::{Harness, PROPERTIES, Stop, run_all, server_from_env};
use oauth_dance_core::{MemoryStorage, TokenStorage};

/// Set where the server below is to be looked for.
const LOOK: &str = "CONFORMANCE_LOOKS_FOR_A_SERVER";

mod nowhere {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        if std::env::var(LOOK).is_ok() {
            server_from_env("NO_SUCH_SERVER_URL")?;
        }
        Ok(MemoryStorage::new())
    });
}

#[test]
fn a_missing_server_is_a_loud_skip() {
    let output = run_again("0");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("SKIP runner::nowhere: NO_SUCH_SERVER_URL is not set").count(), 1, "{told}");
}

#[test]
fn a_missing_server_fails_where_backends_are_required() {
    let output = run_again("1");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("NO_SUCH_SERVER_URL is not set, and REQUIRE_BACKENDS=1 asks for it"), "{told}");
}

/// Runs some of the tests above without their server.
fn run_again(require_backends: &str) -> Output {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(["nowhere::conformance::map", "--test-threads=2"]).env_remove("RUST_BACKTRACE");
    tests.env(LOOK, "1").env("REQUIRE_BACKENDS", require_backends).output().unwrap()
}

#[test]
fn a_report_counts_what_is_missing_as_skipped() {
    let report = run_all("nowhere", || async {
        server_from_env("NO_SUCH_SERVER_URL")?;
        Ok(MemoryStorage::new())
    });
    assert_eq!((report.passed(), report.failed().len(), report.skipped().len()), (0, 0, PROPERTIES.len()));
}

#[test]
fn a_storage_that_blocks_its_thread_fails_in_time() {
    let begun = Instant::now();
    let missing = PROPERTIES.iter().find(|property| property.name == "missing_is_none").unwrap();
    let outcome = missing.run(|| async { Ok(Blocked) });
    let Err(Stop::Failed(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("not done after 100ms") && why.contains("CONFORMANCE_SEED="), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// A storage whose thread never comes back.
struct Blocked;

impl Harness for Blocked {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(blocked::Storage)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(100)
    }
}

mod blocked {
    use oauth_dance_conformance::async_trait;
    use oauth_dance_core::{
        Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
        Versioned,
    };

    pub(super) struct Storage;

    #[async_trait]
    impl TokenStorage for Storage {
        async fn get(&self, _: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
            loop {
                std::thread::park();
            }
        }

        async fn put(&self, _: &TokenKey, _: &Record, _: Precondition) -> Result<Version, StorageError> {
            Err(StorageError::Conflict)
        }

        async fn delete(&self, _: &TokenKey, _: Option<Version>) -> Result<bool, StorageError> {
            Ok(false)
        }

        async fn list(&self, _: &Filter, _: PageRequest) -> Result<Page, StorageError> {
            Err(StorageError::Unsupported("listing"))
        }

        async fn purge(&self, _: usize) -> Result<u64, StorageError> {
            Ok(0)
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::new("blocked")
        }
    }
}
