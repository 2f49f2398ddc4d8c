//! What the tests do to etcd.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test file uses a part")]

mod cluster;
mod node;
mod proxy;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub use cluster::Cluster;
pub use node::{Node, PREFIX, USER};
use oauth_dance_conformance::{HarnessResult, process};
use oauth_dance_core::Clock;
use oauth_dance_example_etcd_storage::{ConnectOptions, EtcdStorage};
pub use proxy::Proxy;

const URLS: &str = "CONFORMANCE_ETCD_URLS";
const PREFIX_OF_PROCESS: &str = "CONFORMANCE_ETCD_PREFIX";

/// A clock that a test can move.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let passed = Arc::clone(&self.0);
        Clock::new(move || Clock::system().now().saturating_add(Duration::from_secs(passed.load(Ordering::SeqCst))))
    }
}

/// Sends a signal to a process, which may have ended.
fn signal(pid: &str, name: &str) -> HarnessResult<()> {
    Command::new("kill").args([&format!("-{name}"), pid]).stderr(Stdio::null()).status()?;
    // On a busy machine its threads may run for a moment longer.
    while name == "STOP" && !has_stopped(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether every thread of a process is stopped, or has ended.
fn has_stopped(pid: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let state = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        state.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['T', 'X', 'Z']))
    })
}

/// A free port below the range from which the system takes ports for connections, so that it is free again after a restart. No
/// two calls of a process return the same port.
fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| RandomState::new().build_hasher().finish().into());
    let mut ports = std::iter::repeat_with(|| 10_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 20_000) as u16);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// The options of a storage on a private server.
pub fn login() -> ConnectOptions {
    ConnectOptions::new().with_user(USER.0, USER.1)
}

/// The command of another process with the same data: this program, with one test that waits for it.
pub fn another_process(urls: &[String], prefix: &str) -> HarnessResult<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["another_process", "--exact", "--ignored", "--nocapture"]);
    command.env(URLS, urls.join(",")).env(PREFIX_OF_PROCESS, prefix);
    Ok(command)
}

/// What the other process does.
pub fn work(options: ConnectOptions) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let urls = std::env::var(URLS).unwrap();
        let urls: Vec<_> = urls.split(',').collect();
        let storage = EtcdStorage::lazy(&urls, options).unwrap();
        let storage = storage.with_prefix(&std::env::var(PREFIX_OF_PROCESS).unwrap()).unwrap();
        process::work(Arc::new(storage)).await.unwrap();
    });
}
