use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::E2E;

const STARTING: Duration = Duration::from_secs(60);

/// A running program of `tests/e2e`. It gets its settings as an argument, and prints the address on which it listens as a
/// first line of JSON. It ends when this is dropped.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts the program, and returns its first line too.
    ///
    /// # Panics
    /// If the first line is not JSON.
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
            panic!("{script} did not print within {STARTING:?} on which address it listens");
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
