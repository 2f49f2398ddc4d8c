//! The `oauth-dance` program, and the servers that it uses.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part")]

pub mod storages;

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::Value;

/// The result of a run of the program.
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

    /// The standard error is one line of the program, with these words and without a password of the tests.
    pub fn assert_one_line(&self, words: &[&str]) {
        let Self { stderr, .. } = self;
        assert!(stderr.starts_with("oauth-dance: ") && stderr.matches('\n').count() == 1, "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} are not in: {stderr}");
        self.assert_no_secret();
    }

    /// No part of a token, key or password of the tests is printed.
    pub fn assert_no_secret(&self) {
        let Self { stdout, stderr, .. } = self;
        for part in ["CANARY", "CAN", "ARY"] {
            assert!(!stderr.contains(part) && !stdout.contains(part), "{stdout}{stderr}");
        }
    }
}

/// The program, without settings from the environment of the tests.
pub fn oauth_dance() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oauth-dance"));
    command.env_remove("DATABASE_URL").env_remove("OAUTH_DANCE_STORAGE").env_remove("OAUTH_DANCE_KEYS");
    command.env_remove("RUST_LOG").env("NO_PROXY", "127.0.0.1");
    command
}

/// The JSON objects of the output, which contains no secret.
pub fn objects(run: &Run) -> Vec<Value> {
    run.assert_no_secret();
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The values of one column, in the order of the users.
pub fn column(run: &Run, name: &str) -> Vec<Value> {
    let mut objects = objects(run);
    objects.sort_by_key(|object| object["user"].to_string());
    objects.iter().map(|object| object[name].clone()).collect()
}

/// The server that a variable names.
pub fn backend(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        skip(&format!("{variable} is not set; `tests/servers/start` starts a server"));
    }
    url
}

/// The URL of the same server at an IPv6 address, which forwards connections.
pub fn over_ipv6(url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let listener = TcpListener::bind("[::1]:0").unwrap();
    url.set_host(Some("[::1]")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    url.into()
}

/// Reports that a test cannot run.
///
/// # Panics
/// With `REQUIRE_BACKENDS=1`.
pub fn skip(why: &str) {
    assert!(std::env::var("REQUIRE_BACKENDS").as_deref() != Ok("1"), "{why}, although REQUIRE_BACKENDS=1 is set");
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, whose output the test harness hides when a test passes.
    let _ = writeln!(std::io::stderr().lock(), "\nSKIP {test}: {why}\n");
}

/// A unique name for a table, schema or user.
pub fn random_name() -> String {
    format!("test_{:016x}", u64::from_le_bytes(oauth_dance_core::random_bytes()))
}
