//! A server of one test's own, started by the project's script.

use std::path::PathBuf;
use std::process::Command;

use crate::cases;

/// Stopped with this object.
pub struct PrivateServer {
    pub kind: &'static str,
    folder: String,
    pub url: String,
}

impl PrivateServer {
    /// Starts a server whose script exports this variable, with others set. `None` if the test run has none of its `like`.
    pub fn start(kind: &'static str, variable: &str, like: &str, set: &[(&str, &str)]) -> Option<Self> {
        // Where a test run has no such server, there need not be the means to start one either.
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

    /// Kills it and leaves it dead for a second.
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
