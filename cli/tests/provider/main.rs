//! The demo's provider, driven over real HTTP as a browser and a client would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod authorization;
mod harness;
mod safety;
mod tokens;
