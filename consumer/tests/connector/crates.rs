//! What a program without a web framework compiles.

use std::process::Command;

/// The crates that `cargo tree` shows, and the features of `hyper`.
fn tree(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let common = ["tree", "--offline", "--package", "oauth-dance", "--edges", "normal,features", "--prefix", "none"];
    let output = Command::new(cargo).args(common).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_web_server_is_compiled_without_the_feature_axum() {
    let unwanted = ["axum v", "axum-core v", "cookie v", "matchit v", "hyper feature \"server\""];
    let with = tree(&["--features", "testing"]);
    for features in ["", "decompression,metrics,oauth1,oidc,cache,reqwest-middleware"] {
        let without = tree(&["--no-default-features", "--features", features]);
        assert!(without.contains("reqwest v"), "{without}");
        for line in without.lines() {
            assert!(!unwanted.iter().any(|unwanted| line.starts_with(unwanted)), "{features}: {line}");
        }
    }
    for unwanted in unwanted {
        assert!(with.lines().any(|line| line.starts_with(unwanted)), "{unwanted} is never in a tree");
    }
}
