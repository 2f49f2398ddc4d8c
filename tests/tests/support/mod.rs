//! The parts of the end-to-end tests: real providers of both protocols, a browser that records every hop, and the
//! `oauth-dance` program itself.
//!
//! Each test file uses only a part of this module, so unused code causes no warnings.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod acme;
mod browser;
mod canaries;
mod demo;
mod desktop;
mod form;
mod oauth1_provider;
mod oidc_provider;
mod program;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

pub use acme::Acme;
pub use browser::{Browser, Hop, Page};
pub use canaries::Canaries;
pub use demo::{Demo, DemoFiles};
pub use desktop::{Desktop, put_on_bus, without_bus};
pub use form::Form;
pub use oauth1_provider::OAuth1Provider;
pub use oidc_provider::OidcProvider;

/// The folder of the Node programs and their packages.
pub const E2E: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e");

/// The path of Chromium in Debian.
pub const CHROMIUM: &str = "/usr/bin/chromium";

/// Prints that a test is skipped because `part` is missing. The caller then returns.
///
/// # Panics
/// If `REQUIRE_BACKENDS=1`.
pub fn missing(part: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var("REQUIRE_BACKENDS").as_deref() != Ok("1"),
        "{test} needs {part}, and may not be skipped because REQUIRE_BACKENDS=1 is set; `tests/run` installs what is missing"
    );
    // Not `eprintln!`, whose output the test harness hides when a test passes.
    let _ = writeln!(std::io::stderr().lock(), "\nSKIP {test}: {part} is missing; `tests/run` installs it\n");
}

/// Whether Node and the npm package are installed. Prints a message if they are not.
pub fn has_node_package(name: &str) -> bool {
    if !runs("node") {
        missing("Node");
        return false;
    }
    if !std::path::Path::new(E2E).join("node_modules").join(name).is_dir() {
        missing(&format!("the npm package {name} in tests/e2e"));
        return false;
    }
    true
}

/// The Python with the packages of `requirements.txt`. Prints a message if it is not installed.
pub fn python() -> Option<std::path::PathBuf> {
    let folder = std::path::Path::new(E2E);
    let read = |path| std::fs::read(folder.join(path)).ok();
    let installed = read(".venv/.installed");
    if installed.is_none() || installed != read("requirements.txt") {
        missing("a Python with the packages of tests/e2e/requirements.txt");
        return None;
    }
    Some(folder.join(".venv/bin/python"))
}

/// Whether Chromium is installed. Prints a message if it is not.
pub fn has_chromium() -> bool {
    let found = std::path::Path::new(CHROMIUM).exists();
    if !found {
        missing(CHROMIUM);
    }
    found
}

/// A free port, for programs whose address has to be known before they start.
///
/// It is below the range from which the system assigns ports, so that no other program gets it in the meantime. The next port
/// is for the demo's own provider.
pub fn free_port() -> u16 {
    let random = || (RandomState::new().build_hasher().finish() % 4_000) as u16;
    let mut ports = std::iter::repeat_with(|| 12_000 + 2 * random());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
