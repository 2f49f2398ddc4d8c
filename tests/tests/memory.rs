//! The suite on the storages of the core, and many times on a correct storage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bench;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::busy::Busy;
use bench::tuned::Tuned;
use bench::unusual::{Storage, Unusual};
use bench::{Bench, Front, Server};
use oauth_dance_conformance::{Fault, Harness, HarnessResult, PROPERTIES, Report, Stop, async_trait, run_all};
use oauth_dance_core::{Cache, MemoryStorage, TokenKey, TokenStorage, Tokens};

/// The reference, with one line and on the system's clock.
mod reference {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Ok(MemoryStorage::new()) });
}

/// The example in the documentation of `TokenStorage`.
mod example_of_the_contract {
    mod example {
        include!("../../storage-core/src/storage_example.rs");

        pub(super) fn storage() -> std::sync::Arc<dyn TokenStorage> {
            std::sync::Arc::new(MyStorage::default())
        }
    }

    oauth_dance_conformance::conformance_tests!(|| async { Ok(example::storage()) });
}

/// The reference, with its operations counted and timed.
mod measured {
    use oauth_dance::MeasuredStorage;

    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Ok(MeasuredStorage::new(MemoryStorage::new())) });
}

/// A correct storage whose harness can do nearly everything.
mod behind_a_server {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Ok(correct()) });
}

/// The same storage behind the cache of the core, which declares a `max_age`.
mod behind_a_cache {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        Ok(OutlastsCaches(Bench::new(cached).with_long_time_limit()))
    });
}

const TABLE: &str = include_str!("../PROPERTIES.md");
const MAX_AGE: Duration = Duration::from_millis(30);

fn cached(server: Server) -> Arc<dyn TokenStorage> {
    let tokens = Tokens::dangerous_plaintext(server).with_cache(Cache::new(MAX_AGE));
    Arc::clone(tokens.storage())
}

/// A harness that waits after each change from outside, until no cached record hides the change.
struct OutlastsCaches(Bench);

#[async_trait]
impl Harness for OutlastsCaches {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        self.0.storage()
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        self.0.reopen().await
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        self.0.sibling(namespace).await
    }

    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        self.0.advance(by).await?;
        tokio::time::sleep(MAX_AGE).await;
        Ok(())
    }

    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        self.0.raw_dump().await
    }

    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        self.0.corrupt(key).await?;
        tokio::time::sleep(MAX_AGE).await;
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        self.0.inject(fault).await?;
        tokio::time::sleep(MAX_AGE).await;
        Ok(())
    }

    async fn heal(&self) -> HarnessResult<()> {
        self.0.heal().await
    }

    fn printed(&self) -> HarnessResult<String> {
        self.0.printed()
    }

    fn time_limit(&self) -> Duration {
        self.0.time_limit()
    }
}

/// The server itself, which is a correct storage.
fn correct() -> Bench {
    Bench::new(|server| Arc::new(server)).with_long_time_limit()
}

#[test]
fn a_correct_storage_never_fails() {
    // Set it to 100 after a change of the suite.
    let runs = std::env::var("CONFORMANCE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20);
    for run in 0..runs {
        let report = run_all("correct", || async { Ok(correct()) });
        assert!(report.failed().is_empty() && report.skipped().is_empty(), "run {run}: {report}");
    }
}

#[test]
#[ignore = "prints how long each property takes, for changes of the suite"]
fn survey_of_the_time_of_each_property() {
    let begun = Instant::now();
    let report = run_all("correct", || async { Ok(correct()) });
    let mut times: Vec<_> = PROPERTIES.iter().map(|property| (report.took(property.name), property.name)).collect();
    times.sort();
    eprintln!("{times:#?} {:?} in all", begun.elapsed());
}

#[test]
fn a_correct_storage_with_a_small_limit_passes() {
    let [one, four]: [Front; 2] = [|server| tuned(server, 0, Some(1_024)), |server| tuned(server, 0, Some(4_096))];
    for front in [one, four] {
        let report = run_all("limited", || async move { Ok(Bench::new(front).with_long_time_limit()) });
        assert!(report.failed().is_empty() && report.skipped().is_empty(), "{report}");
        assert_eq!(report.outcome("too_large_is_refused"), Some(&Ok(())));
    }
}

#[test]
fn a_slow_storage_passes_in_under_a_minute() {
    let begun = Instant::now();
    let report = run_all("slow", || async { Ok(Bench::new(|server| tuned(server, 10, None)).with_long_time_limit()) });
    assert!(report.failed().is_empty() && report.skipped().is_empty(), "{report}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_storage_that_rejects_contending_writes_passes() {
    let report =
        run_all("busy", || async { Ok(Bench::new(|server| Arc::new(Busy::new(server))).with_long_time_limit()) });
    assert!(report.failed().is_empty() && report.skipped().is_empty(), "{report}");
}

#[test]
fn a_storage_that_scans_in_an_order_of_its_own_passes() {
    passes(|server| Arc::new(Storage(Unusual::Scans, server)));
}

#[test]
fn a_storage_with_a_limit_beyond_any_memory_passes() {
    let report = passes(|server| Arc::new(Storage(Unusual::HasAHugeLimit, server)));
    assert!(matches!(report.outcome("too_large_is_refused"), Some(Err(Stop::NotApplicable(_)))));
}

#[test]
fn a_storage_that_rejects_a_write_beside_a_dropped_one_passes() {
    passes(|server| Arc::new(Storage(Unusual::WritesInTasks, server)));
}

fn passes(front: Front) -> Report {
    let report = run_all("unusual", move || async move { Ok(Bench::new(front).with_long_time_limit()) });
    assert!(report.failed().is_empty() && report.skipped().is_empty(), "{report}");
    report
}

fn tuned(server: Server, millis: u64, limit: Option<usize>) -> Arc<dyn TokenStorage> {
    Arc::new(Tuned { server, call: Duration::from_millis(millis), limit })
}

#[test]
fn property_names_are_unique() {
    let names: HashSet<_> = PROPERTIES.iter().map(|property| property.name).collect();
    assert_eq!(names.len(), PROPERTIES.len());
}

#[test]
fn the_table_names_every_property_and_no_other() {
    let named: HashSet<_> = TABLE.split('`').filter(|text| is_property(text)).map(str::to_owned).collect();
    let exist: HashSet<_> = PROPERTIES.iter().map(|property| format!("{property:?}")).collect();
    assert_eq!(named, exist);
}

#[test]
fn the_table_quotes_the_documentation_of_each_property() {
    for property in PROPERTIES {
        let source = source_of(property.group);
        let (before, _) = source.split_once(&format!("\npub async fn {}(", property.name)).unwrap();
        let lines: Vec<_> = before.lines().rev().map_while(|line| line.strip_prefix("///")).collect();
        let promise: Vec<_> = lines.into_iter().rev().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let row = format!("| `{property:?}` | {} |", promise.join(" "));
        assert!(TABLE.contains(&row), "PROPERTIES.md has no row that begins with {row}");
    }
}

/// The module of a group, with its submodules.
fn source_of(group: &str) -> String {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(group);
    let mut source = fs::read_to_string(module.with_extension("rs")).unwrap();
    for file in fs::read_dir(module).into_iter().flatten() {
        source += &fs::read_to_string(file.unwrap().path()).unwrap();
    }
    source
}

/// Whether a text has the form `group::name`.
fn is_property(text: &str) -> bool {
    text.contains("::") && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_:".contains(&byte))
}
