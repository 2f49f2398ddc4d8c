//! The test's side of a [worker](crate::worker): starts it, sends it commands, and kills it.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::backend::Backend;
use crate::gate::{Point, Resume};
use crate::worker::{At, Command, PREFIX, SETTINGS, Settings};

/// A time limit for what should happen soon, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// The process ends when this is dropped.
pub struct Process {
    child: Mutex<Child>,
    input: tokio::sync::Mutex<ChildStdin>,
    pending: Arc<Mutex<Pending>>,
    held: tokio::sync::Mutex<mpsc::UnboundedReceiver<Point>>,
}

#[derive(Default)]
struct Pending {
    last: u64,
    /// `None` once the process has ended.
    waiting: Option<HashMap<u64, oneshot::Sender<Value>>>,
}

impl Process {
    /// A worker on a storage, with the usual settings.
    pub fn settings(backend: &Backend, keys: &str, providers: Vec<At>) -> Settings {
        Settings {
            storage: backend.url.clone(),
            namespace: backend.namespace.clone(),
            moves: None,
            storage_timeout: None,
            keys: keys.to_owned(),
            providers,
            timeout: Duration::from_secs(20),
            clock_offset: 0,
        }
    }

    pub async fn start(settings: &Settings) -> Self {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        let mut child = command
            .args(["worker", "--exact", "--ignored", "--nocapture"])
            .env(SETTINGS, serde_json::to_string(settings).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let pending = Arc::new(Mutex::new(Pending { last: 0, waiting: Some(HashMap::new()) }));
        let (ready, is_ready) = oneshot::channel();
        let (holds, held) = mpsc::unbounded_channel();
        let responses = Arc::clone(&pending);
        tokio::spawn(async move {
            let (mut lines, mut ready) = (BufReader::new(output).lines(), Some(ready));
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(said) = line.strip_prefix(PREFIX) else { continue };
                let mut said: Value = serde_json::from_str(said).unwrap();
                if let Some(id) = said["id"].as_u64() {
                    let waiting = responses.lock().unwrap().waiting.as_mut().and_then(|waiting| waiting.remove(&id));
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(said["response"].take());
                    }
                } else if let Ok(point) = serde_json::from_value(said["held"].take()) {
                    let _ = holds.send(point);
                } else if let Some(ready) = ready.take() {
                    let _ = ready.send(());
                }
            }
            responses.lock().unwrap().waiting = None;
        });
        timeout(SOON, is_ready).await.expect("a worker does not start").expect("a worker failed to start");
        Self { child: Mutex::new(child), input: input.into(), pending, held: held.into() }
    }

    /// The worker's response to a command, or `None` if it was killed first.
    pub async fn request<T: DeserializeOwned>(&self, command: &Command) -> Option<T> {
        let (sender, response) = oneshot::channel();
        let id = {
            let mut pending = self.pending.lock().unwrap();
            pending.last += 1;
            let id = pending.last;
            pending.waiting.as_mut()?.insert(id, sender);
            id
        };
        let line = serde_json::to_string(&(id, command)).unwrap() + "\n";
        self.input.lock().await.write_all(line.as_bytes()).await.ok()?;
        Some(serde_json::from_value(response.await.ok()?).unwrap())
    }

    /// Sends the worker a command without waiting for its response.
    pub async fn send(&self, command: &Command) {
        let line = serde_json::to_string(&(0, command)).unwrap() + "\n";
        self.input.lock().await.write_all(line.as_bytes()).await.unwrap();
    }

    /// Sends the worker a signal, such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.child.lock().unwrap().id().unwrap();
        let kill =
            std::process::Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()]).status();
        assert!(kill.unwrap().success(), "no signal {name}");
        // On a busy machine its threads may run for a moment longer.
        while name == "STOP" && !has_stopped(id) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Calls the API for a user, and returns the result.
    pub async fn call(&self, provider: &str, user: &str) -> String {
        let command = Command::Call { provider: provider.to_owned(), user: user.to_owned(), give_up: None };
        self.request(&command).await.unwrap_or_else(|| "killed".to_owned())
    }

    pub async fn disconnect(&self, provider: &str, user: &str) -> String {
        self.request(&Command::Disconnect { provider: provider.to_owned(), user: user.to_owned() }).await.unwrap()
    }

    pub async fn events(&self, user: &str) -> Vec<String> {
        self.request(&Command::Events { user: user.to_owned() }).await.unwrap()
    }

    pub async fn hold(&self, point: Point) {
        self.request::<()>(&Command::Hold(point)).await.unwrap();
    }

    /// Waits until the worker is blocked at its [`Point`].
    pub async fn is_held(&self) {
        let held = timeout(SOON, async { self.held.lock().await.recv().await }).await;
        held.expect("the worker does not reach this point").expect("the worker has ended");
    }

    pub async fn resume(&self, how: Resume) {
        self.request::<()>(&Command::Resume(how)).await.unwrap();
    }

    pub async fn offline(&self, is_offline: bool) {
        self.request::<()>(&Command::Offline(is_offline)).await.unwrap();
    }

    /// Kills the worker with SIGKILL, and waits until it has ended.
    pub async fn kill(&self) {
        self.child.lock().unwrap().start_kill().unwrap();
        while self.child.lock().unwrap().try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Whether every thread of a process is stopped, as far as the system shows it.
fn has_stopped(id: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return true };
    threads.flatten().all(|thread| {
        let state = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        state.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('T'))
    })
}
