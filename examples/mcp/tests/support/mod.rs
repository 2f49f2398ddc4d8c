//! Two replicas of the example, MCP servers of the Rust SDK, and the parts of the other end-to-end tests: the certified
//! provider and the browser.
#![allow(dead_code, unreachable_pub, unused_imports)]

#[path = "../../../../tests/tests/support/browser.rs"]
mod browser;
#[path = "../../../../tests/tests/support/canaries.rs"]
mod canaries;
#[path = "../../../../tests/tests/support/form.rs"]
mod form;
#[path = "../../../../tests/tests/support/installed.rs"]
mod installed;
mod mcp_server;
#[path = "../../../../tests/tests/support/oidc_provider.rs"]
mod oidc_provider;
#[path = "../../../../tests/tests/support/port.rs"]
mod port;
#[path = "../../../../tests/tests/support/program.rs"]
mod program;
mod replica;

pub use browser::{Browser, Hop, Page};
pub use canaries::Canaries;
pub use form::Form;
pub use installed::{has_node_package, missing};
pub use mcp_server::{Call, McpTestServer};
pub use oidc_provider::OidcProvider;
pub use port::free_port;
pub use replica::{Replica, World};

/// The folder of the Node programs and their packages.
pub const E2E: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e");
