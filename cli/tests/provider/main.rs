//! The demo's provider over HTTP, with the requests of browsers and clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod authorization;
mod harness;
mod safety;
mod tokens;
