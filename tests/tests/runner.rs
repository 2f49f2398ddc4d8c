//! How the tests of the macro end: skipped, failed, or with a timeout.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_conformance::{Harness, HarnessResult, PROPERTIES, Property, Stop, run_all, server_from_env};
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
    let why = failure_of(Broken::Blocks, "missing_is_none");
    assert!(why.starts_with(r#"get(user "missing", provider "github") did not return within 100ms"#), "{why}");
    assert!(why.contains("CONFORMANCE_SEED="), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_storage_that_blocks_every_thread_is_reported_in_time() {
    let begun = Instant::now();
    let why = failure_of(Broken::Blocks, "one_creation_wins");
    assert!(why.starts_with("the property made no progress within 300ms"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn slow_calls_do_not_add_up_to_a_timeout() {
    let begun = Instant::now();
    assert_eq!(property("a_read_shows_the_last_write").run(|| async { Ok(Broken::Slow) }), Ok(()));
    assert!(begun.elapsed() > Broken::Slow.time_limit(), "this property has too few calls");
}

/// Properties that did not start must not be waited for.
#[test]
fn a_panic_of_the_maker_is_reported() {
    let report = run_all("panics", || -> std::future::Ready<HarnessResult<MemoryStorage>> { panic!("no folder") });
    assert_eq!(report.failed().len(), PROPERTIES.len());
    assert!(report.to_string().contains("the harness panicked: no folder"), "{report}");
}

#[test]
fn a_storage_may_need_the_runtime() {
    assert_eq!(property("missing_is_none").run(|| async { Ok(NeedsRuntime) }), Ok(()));
}

struct NeedsRuntime;

impl Harness for NeedsRuntime {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        tokio::spawn(async {});
        Arc::new(MemoryStorage::new())
    }
}

#[test]
fn an_unexpected_error_is_named_with_its_call() {
    let why = failure_of(Broken::Fails, "missing_is_none");
    let wanted = r#"get(user "missing", provider "github") returned an error: the token storage is unavailable"#;
    assert!(why.starts_with(wanted), "{why}");
}

#[test]
fn a_panic_is_named_with_its_call() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let why = failure_of(Broken::Panics, "missing_is_none");
    std::panic::set_hook(hook);
    assert!(why.starts_with(r#"get(user "missing", provider "github") panicked: no such column"#), "{why}");
}

fn failure_of(broken: Broken, name: &str) -> String {
    match property(name).run(move || async move { Ok(broken) }) {
        Err(Stop::Failed(why)) => why,
        outcome => panic!("{outcome:?}"),
    }
}

fn property(name: &str) -> &'static Property {
    PROPERTIES.iter().find(|property| property.name == name).unwrap()
}

/// What the calls of a storage do.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Blocks,
    Fails,
    Panics,
    /// They take a twentieth of the time limit, and are correct.
    Slow,
}

impl Harness for Broken {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(broken::Storage(*self, MemoryStorage::new()))
    }

    fn time_limit(&self) -> Duration {
        Duration::from_millis(if *self == Self::Slow { 1_000 } else { 100 })
    }
}

mod broken {
    use oauth_dance_conformance::async_trait;
    use oauth_dance_core::{
        Capabilities, Filter, MemoryStorage, Page, PageRequest, Precondition, Record, StorageError, TokenKey,
        TokenStorage, Version, Versioned,
    };
    use tokio::time::sleep;

    use super::{Broken, Duration};

    pub(super) struct Storage(pub(super) Broken, pub(super) MemoryStorage);

    impl Storage {
        async fn begin(&self) -> Result<(), StorageError> {
            match self.0 {
                Broken::Blocks => loop {
                    std::thread::park();
                },
                Broken::Fails => Err(StorageError::unavailable("connection refused")),
                Broken::Panics => panic!("no such column"),
                Broken::Slow => {
                    sleep(Duration::from_millis(50)).await;
                    Ok(())
                }
            }
        }
    }

    #[async_trait]
    impl TokenStorage for Storage {
        async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
            self.begin().await?;
            self.1.get(key).await
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
            self.begin().await?;
            self.1.put(key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            self.begin().await?;
            self.1.delete(key, only).await
        }

        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            self.1.list(filter, page).await
        }

        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            self.1.purge(limit).await
        }

        fn capabilities(&self) -> Capabilities {
            self.1.capabilities()
        }
    }
}
