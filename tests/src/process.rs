//! Several processes with the same data, and what the other processes do.
//!
//! A harness that can start another process returns a [`Command`] from [`Harness::process`](crate::Harness::process). That
//! program opens the same data and calls [`work`], which reads from the environment what to do. The simplest program is the
//! test itself, started again with the path of the data in an environment variable:
//!
//! ```no_run
//! use std::process::Command;
//! use std::sync::Arc;
//! use oauth_dance_conformance::{Harness, HarnessResult, async_trait, process};
//! use oauth_dance_core::TokenStorage;
//! # use oauth_dance_core::MemoryStorage;
//! # struct FileStorage;
//! # impl FileStorage { fn open(_: &str) -> std::io::Result<Arc<dyn TokenStorage>> { Ok(Arc::new(MemoryStorage::new())) } }
//!
//! struct InFile {
//!     path: String,
//!     storage: Arc<dyn TokenStorage>,
//! }
//!
//! #[async_trait]
//! impl Harness for InFile {
//!     fn storage(&self) -> Arc<dyn TokenStorage> {
//!         Arc::clone(&self.storage)
//!     }
//!
//!     async fn process(&self) -> HarnessResult<Command> {
//!         let mut command = Command::new(std::env::current_exe()?);
//!         command.env("PATH_OF_STORAGE", &self.path).args(["--exact", "other_process", "--nocapture"]);
//!         Ok(command)
//!     }
//! }
//!
//! # async fn example() {
//! // In the test `other_process`:
//! if let Ok(path) = std::env::var("PATH_OF_STORAGE") {
//!     process::work(FileStorage::open(&path).unwrap()).await.unwrap();
//! }
//! # }
//! ```

mod refreshes;

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{Entry, Filter, Precondition, Record, TokenStorage, Version, Versioned};
use tokio::task::JoinHandle;

pub use refreshes::each_refresh_token_is_redeemed_once;

use crate::calls::Call;
use crate::listing::are_listed;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::races::{count, count_up};
use crate::show::Show as _;
use crate::survival::{KINDS, LARGE, is_unchanged, record, write_kind};
use crate::tested_storage::{TestedStorage, key, list_all};

/// The environment variable with the job of the other process.
const JOB: &str = "OAUTH_DANCE_CONFORMANCE_JOB";
/// The prefix of a line about an acknowledged call. The version follows, or a dash for a delete.
const ACKNOWLEDGED: &str = "acknowledged ";
/// The user whose record is the signal that all processes have started.
const GO: &str = "go";
/// How long a process waits for the start of the others.
const START: Duration = Duration::from_secs(120);
/// How many keys the other process writes in turn.
const SLOTS: usize = 8;

/// Does what the test that started this process requests, on a storage with the data of the harness. It reports to the test
/// on the standard output, where nothing else may write whole lines at the same time.
///
/// # Errors
/// A description of what failed. The process must then end with a status other than 0.
pub async fn work(storage: Arc<dyn TokenStorage>) -> Result<(), String> {
    let job = std::env::var(JOB).map_err(|_| format!("{JOB} is not set: a conformance test starts this program"))?;
    let words: Vec<_> = job.split(' ').collect();
    let done = match words[..] {
        ["count", rounds, place] => match rounds.parse() {
            Ok(rounds) => count_with_others(storage, rounds, place).await,
            Err(error) => Err(Stop::from(error)),
        },
        ["count", rounds] => match rounds.parse() {
            Ok(rounds) => count_up(storage, rounds).await,
            Err(error) => Err(Stop::from(error)),
        },
        ["write", run] => write_indefinitely(storage.as_ref(), run).await,
        ["kinds", run, large] => match large.parse() {
            Ok(large) => write_kinds_indefinitely(storage.as_ref(), run, large).await,
            Err(error) => Err(Stop::from(error)),
        },
        ["refresh", port] => match port.parse() {
            Ok(port) => refreshes::work(storage, port).await,
            Err(error) => Err(Stop::from(error)),
        },
        _ => Err(Stop::failed(format_args!("{JOB} has the unknown value {job:?}"))),
    };
    done.map_err(|stop| format!("{stop:?}"))
}

/// A counter that several processes increment with `get` and a conditional `put` loses no increment.
///
/// A lock in the memory of a process does not help here. Files need a lock of the operating system, or an atomic
/// rename.
pub async fn no_update_is_lost_between_processes(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    needs_shared(&on)?;
    let (processes, rounds) = (3, 60);
    let mut waiting = Vec::new();
    for place in 0..processes {
        let mut command = on.harness().process().await?;
        command.env(JOB, format!("count {rounds} {place}")).stdin(Stdio::null()).stdout(Stdio::null());
        waiting.push(tokio::task::spawn_blocking(move || command.status()));
    }
    let mut early = None;
    for place in 0..processes {
        let user = format!("ready {place}");
        let has_failed = || waiting.iter().any(JoinHandle::is_finished);
        let is_ready = wait_for(on.storage().as_ref(), &user, on.harness().time_limit(), has_failed).await?;
        if !is_ready {
            early = Some(user);
            break;
        }
    }
    on.storage().put(&key(GO)?, &Record::new(""), Precondition::Always).await?;
    if early.is_none() {
        count_up(Arc::clone(on.storage()), rounds).await?;
    }
    for process in waiting {
        let status = process.await??;
        ensure!(status.success(), "another process failed: {status}");
    }
    if let Some(user) = early {
        return Err(Stop::failed(format_args!("another process ended before it wrote {user:?}")));
    }
    let get = Call::get(&key("counter")?);
    let what = format!("{get}, after {} processes have incremented it {rounds} times each", processes + 1);
    ensure_eq!(count(on.storage().as_ref()).await?, (processes + 1) * rounds, "{what}");
    Ok(())
}

/// A write that was acknowledged in one process is visible in another: immediately, or after the declared `max_age`.
///
/// A buffer that is flushed later fails this.
pub async fn writes_are_seen_by_other_processes(on: Arc<TestedStorage>) -> PropertyResult {
    needs_shared(&on)?;
    for round in 1..=3 {
        let mut command = on.harness().process().await?;
        command.env(JOB, "count 1").stdin(Stdio::null()).stdout(Stdio::null());
        let status: ExitStatus = tokio::task::spawn_blocking(move || command.status()).await??;
        ensure!(status.success(), "another process failed: {status}");
        on.outlast_caches().await;
        ensure_eq!(
            count(on.storage().as_ref()).await?,
            2 * round - 1,
            "{} after another process has incremented it",
            Call::get(&key("counter")?)
        );
        count_up(Arc::clone(on.storage()), 1).await?;
    }
    Ok(())
}

/// If the application is killed (`kill -9`), no acknowledged write or delete of any kind is lost.
///
/// The application is killed at different points of its writes, because writes in batches are safe just after a batch.
pub async fn acknowledged_writes_survive_a_kill(on: Arc<TestedStorage>) -> PropertyResult {
    if !on.capabilities().durable {
        return Err(Stop::not_applicable("not durable"));
    }
    let mut random = on.random();
    // Kill it at different points, because writes in batches are safe right after a batch.
    for run in 0..4 {
        let writes = 30 + 11 * run + random.below(11);
        let mut command = on.harness().process().await?;
        command.env(JOB, format!("write {run}"));
        let acknowledged = tokio::task::spawn_blocking(move || kill_after(writes, command)).await??.len();
        ensure!(acknowledged >= writes, "the other process ended without being killed, after {acknowledged} writes");
        let storage = on.harness().reopen().await?;
        for slot in 0..SLOTS {
            let least = (1..=acknowledged).rev().find(|number| number % SLOTS == slot).unwrap_or_default();
            let key = key(&format!("run {run}, slot {slot}"))?;
            let found = storage.get(&key).await?;
            let number = found.as_ref().and_then(|found| std::str::from_utf8(&found.value.payload).ok()?.parse().ok());
            let get = Call::get(&key);
            ensure!(
                number.is_some_and(|number: usize| number >= least),
                "{get} after the kill is {}, but write {least} was acknowledged",
                found.show()
            );
        }
        storage.put(&key("after")?, &Record::new("x"), Precondition::Always).await?;
    }
    for run in 0..2 {
        every_kind_survives_a_kill(&on, run, KINDS + random.below(KINDS)).await?;
    }
    Ok(())
}

/// Records of every kind are as the killed process wrote them, and none that it deleted is stored.
async fn every_kind_survives_a_kill(on: &TestedStorage, run: usize, writes: usize) -> PropertyResult {
    let (mut command, large, begun) = (on.harness().process().await?, on.accepted_length(LARGE), on.now());
    command.env(JOB, format!("kinds {run} {large}"));
    let acknowledged = tokio::task::spawn_blocking(move || kill_after(writes, command)).await??;
    ensure!(
        acknowledged.len() >= writes,
        "the other process ended without being killed, after {} writes",
        acknowledged.len()
    );
    let storage = on.harness().reopen().await?;
    let (mut keys, mut entries) = (BTreeSet::new(), Vec::new());
    for (number, version) in acknowledged.into_iter().enumerate() {
        let key = key(&format!("run {run}, kind {number}"))?;
        let version = version.map(|version| Version::from_bytes(version.to_be_bytes()));
        let stored = version.map(|version| Versioned::new(record(number, large), version));
        let found = storage.get(&key).await?;
        let done = if stored.is_some() { "written" } else { "deleted" };
        let what = format!("{} after the kill of the process that has {done} it", Call::get(&key));
        is_unchanged(found.as_ref(), stored.as_ref(), (Duration::ZERO, on.now() - begun), &what)?;
        entries.extend(stored.map(|stored| Entry::new(key.clone(), stored.version, &stored.value)));
        keys.insert(key);
    }
    if on.capabilities().listable {
        let mut listed = list_all(storage.as_ref(), &Filter::everything(), 100).await?;
        listed.retain(|entry| keys.contains(&entry.key));
        are_listed(&listed, &entries, "list after the kill of the process that has written the records")?;
    }
    Ok(())
}

/// Runs a process that writes, and kills it after that many acknowledged writes. Returns the versions of all acknowledged
/// writes, and `None` for deletes.
fn kill_after(writes: usize, mut command: Command) -> io::Result<Vec<Option<u128>>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut acknowledged = Vec::new();
    let Some(output) = child.stdout.take() else { return Ok(acknowledged) };
    let read = || -> io::Result<()> {
        for line in BufReader::new(output).lines() {
            let line = line?;
            let Some(version) = line.strip_prefix(ACKNOWLEDGED) else { continue };
            acknowledged.push(u128::from_str_radix(version, 16).ok());
            if acknowledged.len() == writes {
                child.kill()?;
            }
        }
        Ok(())
    };
    let done = read();
    // The process may have ended already.
    let _ = child.kill();
    child.wait()?;
    done.map(|()| acknowledged)
}

/// Increments the counter after all processes have started, so that they run at the same time.
async fn count_with_others(storage: Arc<dyn TokenStorage>, rounds: usize, place: &str) -> PropertyResult {
    storage.put(&key(&format!("ready {place}"))?, &Record::new(""), Precondition::Always).await?;
    wait_for(storage.as_ref(), GO, START, || false).await?;
    count_up(storage, rounds).await
}

/// Waits until the user has a record. Returns whether it does, or `false` if it never will.
async fn wait_for(
    storage: &dyn TokenStorage,
    user: &str,
    limit: Duration,
    is_hopeless: impl Fn() -> bool,
) -> PropertyResult<bool> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if storage.get(&key(user)?).await?.is_some() {
            return Ok(true);
        }
        if is_hopeless() {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(Stop::failed(format_args!("another process did not write {user:?} within {limit:?}")))
}

/// Writes numbers until the process is killed.
async fn write_indefinitely(storage: &dyn TokenStorage, run: &str) -> PropertyResult {
    for number in 1_usize.. {
        let key = key(&format!("run {run}, slot {}", number % SLOTS))?;
        let version = storage.put(&key, &Record::new(number.to_string()), Precondition::Always).await?;
        acknowledge(Some(version))?;
    }
    Ok(())
}

/// Writes and deletes records of all kinds until the process is killed.
async fn write_kinds_indefinitely(storage: &dyn TokenStorage, run: &str, large: usize) -> PropertyResult {
    for number in 0.. {
        let (_, version) = write_kind(storage, &key(&format!("run {run}, kind {number}"))?, number, large).await?;
        acknowledge(version)?;
    }
    Ok(())
}

/// Reports an acknowledged call to the test.
fn acknowledge(version: Option<Version>) -> io::Result<()> {
    let version =
        version.map_or_else(|| "-".to_owned(), |version| format!("{:032x}", u128::from_be_bytes(*version.as_bytes())));
    let mut output = io::stdout().lock();
    writeln!(output, "{ACKNOWLEDGED}{version}")?;
    output.flush()
}

fn needs_shared(on: &TestedStorage) -> PropertyResult {
    on.capabilities().shared.then_some(()).ok_or_else(|| Stop::not_applicable("not shared between processes"))
}
