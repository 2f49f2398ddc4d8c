//! How the tests of the macro end: skipped, failed, or with a timeout.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_conformance::{Harness, PROPERTIES, Stop, run_all, server_from_env};
use oauth_dance_core::{MemoryStorage, TokenStorage};

/// The variable with which the tests below need a server.
const NEEDS_SERVER: &str = "CONFORMANCE_NEEDS_A_SERVER";

mod nowhere {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        if std::env::var(NEEDS_SERVER).is_ok() {
            server_from_env("NO_SUCH_SERVER_URL")?;
        }
        Ok(MemoryStorage::new())
    });
}

#[test]
fn a_missing_server_is_a_loud_skip() {
    let output = run_again("0");
    let output_text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output_text}");
    assert_eq!(output_text.matches("SKIP runner::nowhere: NO_SUCH_SERVER_URL is not set").count(), 1, "{output_text}");
}

#[test]
fn a_missing_server_fails_if_backends_are_required() {
    let output = run_again("1");
    let output_text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{output_text}");
    assert!(output_text.contains("NO_SUCH_SERVER_URL is not set, although REQUIRE_BACKENDS=1 is set"), "{output_text}");
}

/// Runs some of the tests above without their server.
fn run_again(require_backends: &str) -> Output {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(["nowhere::conformance::map", "--test-threads=2"]).env_remove("RUST_BACKTRACE");
    tests.env(NEEDS_SERVER, "1").env("REQUIRE_BACKENDS", require_backends).output().unwrap()
}

#[test]
fn a_report_counts_missing_servers_as_skipped() {
    let report = run_all("nowhere", || async {
        server_from_env("NO_SUCH_SERVER_URL")?;
        Ok(MemoryStorage::new())
    });
    assert_eq!((report.passed(), report.failed().len(), report.skipped().len()), (0, 0, PROPERTIES.len()));
}

#[test]
fn a_call_that_blocks_its_thread_is_named_in_time() {
    let begun = Instant::now();
    let why = failure_of(Broken::Blocks);
    assert!(why.starts_with(r#"get(user "missing", provider "github") did not return within 100ms"#), "{why}");
    assert!(why.contains("CONFORMANCE_SEED="), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn an_unexpected_error_is_named_with_its_call() {
    let why = failure_of(Broken::Fails);
    let wanted = r#"get(user "missing", provider "github") returned an error: the token storage is unavailable"#;
    assert!(why.starts_with(wanted), "{why}");
}

#[test]
fn a_panic_is_named_with_its_call() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let why = failure_of(Broken::Panics);
    std::panic::set_hook(hook);
    assert!(why.starts_with(r#"get(user "missing", provider "github") panicked: no such column"#), "{why}");
}

fn failure_of(broken: Broken) -> String {
    let missing = PROPERTIES.iter().find(|property| property.name == "missing_is_none").unwrap();
    match missing.run(move || async move { Ok(broken) }) {
        Err(Stop::Failed(why)) => why,
        outcome => panic!("{outcome:?}"),
    }
}

/// What the reads of a storage do.
#[derive(Clone, Copy)]
enum Broken {
    Blocks,
    Fails,
    Panics,
}

impl Harness for Broken {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(broken::Storage(*self))
    }

    fn time_limit(&self) -> Duration {
        Duration::from_millis(100)
    }
}

mod broken {
    use oauth_dance_conformance::async_trait;
    use oauth_dance_core::{
        Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
        Versioned,
    };

    use super::Broken;

    pub(super) struct Storage(pub(super) Broken);

    #[async_trait]
    impl TokenStorage for Storage {
        async fn get(&self, _: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
            match self.0 {
                Broken::Blocks => loop {
                    std::thread::park();
                },
                Broken::Fails => Err(StorageError::unavailable("connection refused")),
                Broken::Panics => panic!("no such column"),
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
            Capabilities::new("broken")
        }
    }
}
