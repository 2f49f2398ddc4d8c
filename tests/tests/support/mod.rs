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
mod installed;
mod oauth1_provider;
mod oidc_provider;
mod port;
mod program;

pub use acme::Acme;
pub use browser::{Browser, Hop, Page};
pub use canaries::Canaries;
pub use demo::{Demo, DemoFiles};
pub use desktop::{Desktop, put_on_bus, without_bus};
pub use form::Form;
pub use installed::{has_node_package, missing};
pub use oauth1_provider::OAuth1Provider;
pub use oidc_provider::OidcProvider;
pub use port::free_port;

/// The folder of the Node programs and their packages.
pub const E2E: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e");

/// The path of Chromium in Debian.
pub const CHROMIUM: &str = "/usr/bin/chromium";

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
