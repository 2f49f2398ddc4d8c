//! The parts of the `oauth-dance` program, as a library.
//!
//! # When to use it
//!
//! Most people need only the program. After `cargo install oauth-dance-cli`, `oauth-dance demo` shows a login, a call,
//! a refresh and a logout with a provider of its own, and `oauth-dance migrate` manages the tables of a SQL database.
//!
//! The library exists so that its parts can be tested over HTTP and reused, for example to run the demo on your own
//! storage.
//!
//! # Example
//!
//! ```no_run
//! use oauth_dance_cli::demo::{self, Options};
//! use oauth_dance_core::MemoryStorage;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! demo::run_on(MemoryStorage::new(), Options::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go next
//!
//! * [`demo`]: a site that lists providers, connects and disconnects accounts, and calls APIs.
//! * [`operate`]: the commands for operators on stored tokens.
//! * [`migrate`]: creates the tables of a SQL database, shows their state, or prints their SQL.
//! * [The demo with your providers](https://github.com/oauth-dance/oauth-dance#the-demo-with-your-providers).
//!
//! There are no cargo features.

mod address;
mod advice;
mod connect;
pub mod demo;
mod exit;
mod key_file;
mod keys;
pub mod migrate;
mod open;
pub mod operate;
mod output;
mod progress;
pub mod provider;
mod state;

pub use address::UnusableStorage;
pub use keys::{AgeArgs, KeyArgs, KeysError, WrapArgs};
pub use open::{Place, StorageArgs};
pub use output::{OutputArgs, on_one_line};

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
