use std::io::Write as _;
use std::process::{Command, Stdio};

use super::E2E;

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

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
