//! The parts of the `oauth-dance` program, as a library.
//!
//! The program is the `oauth-dance` binary of this package. Its parts are kept in a library so that
//! they can be tested over real HTTP and reused in the tests of an application:
//!
//! - [`demo`]: a site that lists providers, connects and disconnects them, and calls their APIs.
//! - [`migrate`]: creates the tables of a SQL database, shows how they stand, or prints their SQL.
//! - [`provider`]: a small local authorization server, so that the whole dance can be seen and tested
//!   without signing up anywhere.

mod address;
pub mod demo;
pub mod migrate;
pub mod provider;

pub use address::CannotUse;

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
