//! The test suite for token storages of [`oauth-dance`](https://docs.rs/oauth-dance): each property of the contract of
//! [`TokenStorage`](oauth_dance_core::TokenStorage) as a test of its own.
//!
//! # When to use it
//!
//! Use it as a dev-dependency of a crate that implements [`TokenStorage`](oauth_dance_core::TokenStorage), on a storage of any
//! kind: the storages of `oauth-dance` pass the same suite.
//!
//! # Example
//!
//! `tests/conformance.rs` is one line:
//!
//! ```no_run
//! # use oauth_dance_core::MemoryStorage as MyStorage;
//! oauth_dance_conformance::conformance_tests!(|| async { Ok(MyStorage::new()) });
//! # fn main() {}
//! ```
//!
//! `cargo test` then runs one test for each of the [`PROPERTIES`], with names such as `conformance::map::missing_is_none`. The
//! closure is called for each of them and must return an **empty** storage that **no other test uses**: a new file, table or
//! prefix. Nothing is ever wiped.
//!
//! # More than the storage alone
//!
//! Some properties need more than the trait: the same data through a new pool, a clock that can be advanced, the bytes on
//! disk, a server that fails. Return a [`Harness`] instead of the storage to offer any of that:
//!
//! ```
//! use std::sync::Arc;
//! use oauth_dance_conformance::{HarnessResult, Harness, async_trait};
//! use oauth_dance_core::{MemoryStorage, TokenStorage};
//!
//! struct InMemory(MemoryStorage);
//!
//! #[async_trait]
//! impl Harness for InMemory {
//!     fn storage(&self) -> Arc<dyn TokenStorage> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
//!         Ok(Arc::new(self.0.clone()))
//!     }
//! }
//! ```
//!
//! A property that the harness cannot try, or that is about something the storage does not declare in its
//! [`Capabilities`](oauth_dance_core::Capabilities), is **not applicable**: it is counted and named at the end of the run, and
//! never passes in silence. If a server is missing ([`server_from_env`]), the tests print `SKIP`, and fail if
//! `REQUIRE_BACKENDS=1`.
//!
//! # What a failure shows
//!
//! The first line of a failure names the call, the key and the record; below it are the last calls with their answers. Payloads
//! are shown as text, with `\x` before each byte that is not ASCII, up to 64 bytes. Each property states which more basic ones it
//! takes for granted: if several fail, the summary lists those first that no other one explains, and names for each other one
//! the failure to read before it ([`Report::explained_by`]). Random choices come from a seed that every failure names; set
//! `CONFORMANCE_SEED` to repeat them.
//!
//! # How the tests run
//!
//! Each property has a harness of its own, so they run side by side, eight at a time unless `--test-threads` or
//! `RUST_TEST_THREADS` says otherwise. A property that only waits for time to pass gives its turn to another one. A storage in memory
//! takes a few seconds, one whose calls take 10 ms less than a minute. Properties with many rounds try fewer of them on a slow
//! storage. A run with filters runs the properties that they select.
//!
//! # What the tests leave
//!
//! The last test prints the counts. Each outcome is also written below `target/conformance`, and all of them as
//! `target/conformance/<storage>.md`, with versions and date, in a form to publish: see
//! [third-party storages](https://github.com/oauth-dance/oauth-dance/blob/main/docs/third-party-storages.md). `cargo run -p
//! oauth-dance-conformance --example report` makes one table of all storages, and [`Report::read_all`] reads them.
//!
//! # Versions
//!
//! A minor release may add properties. If a storage that passed before fails then, it did not fulfil the contract before either.
//!
//! # Where to go next
//!
//! * [A complete storage with its tests](https://github.com/oauth-dance/oauth-dance/tree/main/examples/custom-storage).
//! * [`Harness`]: what it can offer, one method each.
//! * All properties, below. There are no cargo features.
//!
//! # All properties
#![doc = include_str!("../PROPERTIES.md")]

mod apart;
mod calls;
pub mod cancellation;
pub mod claims;
pub mod conditions;
pub mod corruption;
pub mod duels;
pub mod faults;
pub mod filters;
mod harness;
pub mod histories;
pub mod keys;
mod linearizability;
pub mod listing;
mod lookalikes;
pub mod map;
pub mod model;
mod outcome;
pub mod paging;
pub mod payloads;
pub mod process;
mod properties;
pub mod purging;
pub mod races;
mod recorder;
pub mod renewal;
pub mod repeats;
mod report;
pub mod retention;
mod run;
pub mod secrecy;
mod show;
pub mod survival;
mod tested_storage;
mod tests_macro;
mod traces;

pub use async_trait::async_trait;

pub use harness::{Fault, Harness, HarnessError, HarnessResult, server_from_env};
pub use outcome::{PropertyResult, Stop};
pub use properties::PROPERTIES;
pub use report::Report;
pub use run::{Property, run_all};
pub use tested_storage::TestedStorage;

#[doc(hidden)]
pub mod __private {
    pub use crate::tests_macro::Tally;
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
