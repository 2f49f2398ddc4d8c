use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::E2E;

const STARTING: Duration = Duration::from_secs(60);

/// A program of `tests/e2e`, running: it takes its settings as an argument and says in its first line, in JSON, where it
/// listens. Ends when dropped.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts it, and returns what it said too.
    ///
    /// # Panics
    /// If it says nothing that can be read.
    pub fn start(interpreter: impl AsRef<OsStr>, script: &str, settings: &Value) -> (Self, Value) {
        let child = Command::new(interpreter)
            .args([script, &settings.to_string()])
            .current_dir(E2E)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut program = Self { child };
        let Some(said) = program.first_line() else {
            panic!("{script} did not say within {STARTING:?} where it listens");
        };
        (program, said)
    }

    fn first_line(&mut self) -> Option<Value> {
        let stdout = BufReader::new(self.child.stdout.take()?);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(stdout.lines().next()));
        serde_json::from_str(&receiver.recv_timeout(STARTING).ok()??.ok()?).ok()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
