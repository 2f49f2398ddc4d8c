//! The properties with several processes, on a storage in a folder, and on broken ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod folder;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use folder::{Flaw, Folder};
use oauth_dance_conformance::{Harness, HarnessResult, PROPERTIES, Stop, async_trait, process};
use oauth_dance_core::{Clock, TokenKey, TokenStorage};

const PATH: &str = "CONFORMANCE_FOLDER";
const FLAW: &str = "CONFORMANCE_FLAW";

mod in_a_folder {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Sandbox::new(Flaw::Nothing) });
}

#[test]
fn flaws_between_processes_are_detected() {
    for (flaw, caught_by) in [
        (Flaw::NoLock, "no_update_is_lost_between_processes"),
        (Flaw::Cache, "each_refresh_token_is_redeemed_once"),
        (Flaw::WritesLater, "each_refresh_token_is_redeemed_once"),
        (Flaw::Cache, "writes_are_seen_by_other_processes"),
        (Flaw::WritesLater, "acknowledged_writes_survive_a_kill"),
        (Flaw::RetentionLater, "acknowledged_writes_survive_a_kill"),
        (Flaw::OneNamespace, "namespaces_are_apart"),
    ] {
        let property = PROPERTIES.iter().find(|property| property.name == caught_by).unwrap();
        let outcome = property.run(move || async move { Sandbox::new(flaw) });
        assert!(matches!(outcome, Err(Stop::Failed(_))), "{caught_by} does not detect {flaw:?}: {outcome:?}");
    }
}

/// Not a test: the tests above start it as another process.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    let flaw = match std::env::var(FLAW).unwrap().as_str() {
        "NoLock" => Flaw::NoLock,
        "Cache" => Flaw::Cache,
        "WritesLater" => Flaw::WritesLater,
        "RetentionLater" => Flaw::RetentionLater,
        _ => Flaw::Nothing,
    };
    let storage = Folder::open(std::env::var(PATH).unwrap().as_ref(), Clock::system(), flaw).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(process::work(Arc::new(storage))).unwrap();
}

struct Sandbox {
    folder: tempfile::TempDir,
    storage: Folder,
    flaw: Flaw,
    passed: Arc<AtomicU64>,
}

impl Sandbox {
    fn new(flaw: Flaw) -> HarnessResult<Self> {
        let folder = tempfile::tempdir()?;
        let passed = Arc::<AtomicU64>::default();
        let storage = Folder::open(&folder.path().join("tokens"), clock(&passed), flaw)?;
        Ok(Self { folder, storage, flaw, passed })
    }
}

fn clock(passed: &Arc<AtomicU64>) -> Clock {
    let passed = Arc::clone(passed);
    Clock::new(move || Clock::system().now().saturating_add(Duration::from_secs(passed.load(Ordering::SeqCst))))
}

#[async_trait]
impl Harness for Sandbox {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.storage.clone())
    }

    fn time_limit(&self) -> Duration {
        // Some flaws use all of the time.
        Duration::from_secs(if self.flaw == Flaw::Nothing { 60 } else { 15 })
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        self.sibling("tokens").await
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        let namespace = if self.flaw == Flaw::OneNamespace { "tokens" } else { namespace };
        Ok(Arc::new(Folder::open(&self.folder.path().join(namespace), clock(&self.passed), self.flaw)?))
    }

    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        self.passed.fetch_add(by.as_secs(), Ordering::SeqCst);
        Ok(())
    }

    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        let mut dump = Vec::new();
        for file in std::fs::read_dir(self.folder.path().join("tokens"))? {
            dump.extend(std::fs::read(file?.path())?);
        }
        Ok(dump)
    }

    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        Ok(std::fs::write(self.storage.file(key), "garbage")?)
    }

    async fn process(&self) -> HarnessResult<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["another_process", "--exact", "--ignored", "--nocapture"]);
        command.env(PATH, self.folder.path().join("tokens")).env(FLAW, format!("{:?}", self.flaw));
        Ok(command)
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?}", self.storage))
    }
}
