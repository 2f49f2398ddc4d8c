//! A private server of one test, started by the project's script.

use std::path::PathBuf;
use std::process::Command;

use crate::cases;

/// The server is stopped when this object is dropped.
pub struct PrivateServer {
    pub kind: &'static str,
    folder: String,
    pub url: String,
}

impl PrivateServer {
    /// Starts a server whose script exports this variable, with others set. `None` if the test run has no server of its
    /// kind.
    pub fn start(kind: &'static str, variable: &str, like: &str, set: &[(&str, &str)]) -> Option<Self> {
        // If a test run has no such server, it may lack the programs to start one.
        if std::env::var_os(like).is_none() {
            return cases::skip(like);
        }
        let mut start = Command::new(script("start"));
        let started = start.arg(kind).env_remove(variable).envs(set.iter().copied()).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let exports = String::from_utf8(started.stdout).unwrap();
        let export = |name: &str| {
            let line = exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap().trim_matches('\'').to_owned()
        };
        Some(Self { kind, folder: export("SERVERS_FOLDER"), url: export(variable) })
    }

    /// Kills the server, and restarts it after a second.
    pub async fn crash(&self) {
        let mut restart = Command::new(script("restart"));
        restart.args([self.kind, "1"]).env("SERVERS_FOLDER", &self.folder);
        let status = tokio::task::spawn_blocking(move || restart.status()).await.unwrap();
        assert!(status.unwrap().success());
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = Command::new(script("stop")).env("SERVERS_FOLDER", &self.folder).status();
    }
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/servers").join(name)
}
