//! The `oauth-dance` program, and the servers it is run against.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part")]

use std::io::Write as _;
use std::process::Command;

/// How a run of the program ended.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// One line of the program's own on the standard error, with these words and without a password of the tests.
    pub fn assert_one_line(&self, words: &[&str]) {
        let Self { stdout, stderr, .. } = self;
        assert!(stderr.starts_with("oauth-dance: ") && stderr.matches('\n').count() == 1, "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} are not in: {stderr}");
        for part in ["CANARY", "CAN", "ARY"] {
            assert!(!stderr.contains(part) && !stdout.contains(part), "{stdout}{stderr}");
        }
    }
}

/// The program without the settings of the tests' own environment.
pub fn oauth_dance() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oauth-dance"));
    command.env_remove("DATABASE_URL").env_remove("RUST_LOG").env("NO_PROXY", "127.0.0.1");
    command
}

/// The server that a variable names.
pub fn backend(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        skip(&format!("{variable} is not set; `tests/servers/start` starts a server"));
    }
    url
}

/// Reports that a test cannot run.
///
/// # Panics
/// With `REQUIRE_BACKENDS=1`.
pub fn skip(why: &str) {
    assert!(std::env::var("REQUIRE_BACKENDS").as_deref() != Ok("1"), "{why}, and REQUIRE_BACKENDS=1 asks for it");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, whose output the test harness hides when a test passes.
    let _ = writeln!(std::io::stderr().lock(), "\nSKIP {test}: {why}\n");
}

/// A unique name for a table, schema or user.
pub fn random_name() -> String {
    format!("test_{:016x}", u64::from_le_bytes(oauth_dance_core::random_bytes()))
}
