//! OAuth token storage on Redis and Valkey: the [`TokenStorage`](oauth_dance_core::TokenStorage) of `oauth-dance` on one
//! server, on whichever is the primary according to Sentinels, or in a Cluster.
//!
//! ```no_run
//! use oauth_dance_core::{KeyRing, OAuth2Token, Precondition, Token, TokenKey, Tokens};
//! use oauth_dance_redis::RedisStorage;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = RedisStorage::connect("redis://127.0.0.1/").await?;
//!
//! let tokens = Tokens::sealed(storage, KeyRing::generate());
//! let key = TokenKey::new("github", "alice")?;
//! tokens.put(&key, &Token::from(OAuth2Token::bearer("gho_16C7e42F")), Precondition::Always).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Redis 6 or newer, or Valkey.
//!
//! # URLs
//!
//! | URL | what it names |
//! | --- | --- |
//! | `redis://[[user]:password@]host[:port][/database]` | one server, which must be a primary |
//! | `unix:///path/to/socket[?db=database]` | the same on this machine |
//! | `redis+sentinel://[[user]:password@]sentinel[:port][,sentinel[:port]]…/name[/database]` | whichever server the Sentinels say is the primary of this name; user and password are the server's |
//! | `redis+cluster://[[user]:password@]host[:port][,host[:port]]…` | a Cluster of which these are members |
//!
//! `rediss` instead of `redis` asks for TLS (feature `tls`, on unless switched off), checked against the system's root
//! certificates or those in the file that `SSL_CERT_FILE` names. `valkey` and `valkeys` mean the same as `redis` and `rediss`.
//!
//! # Round trips
//!
//! `get`, `put` and `delete` take one each, conditions included; a server that has not seen a script yet is sent it in a
//! second, and a connection that was idle for half a second is tested by one before a write. A page of a list takes three, or two where the filter names tenant and user; a `purge` takes three.
//! All requests share one connection to each server.
//!
//! # What is stored
//!
//! A record is one string, a header line and the payload, under the prefix (`oauth-dance` unless
//! [set](RedisStorage::with_prefix)), a bucket, and tenant, user, provider and account in percent-encoding:
//!
//! ```text
//! > GET "{oauth-dance:63}::alice:github:"
//! "v1 0f1e2d3c4b5a69788796a5b4c3d2e1f0 1767225600 - =2f9a\n…"
//!      version                         |          | key that sealed it
//!                                      |          end of the retention, in milliseconds
//!                                      the access token expires, in seconds
//! ```
//!
//! Tenant and user choose one of 256 buckets. What is in a bucket shares a hash slot, so a Cluster spreads over its servers
//! what one script may still change together: the record, `{oauth-dance:63}/index`, a sorted set of all names in the
//! bucket, and `{oauth-dance:63}/deadlines`, one of those that have a retention, by when it ends.
//!
//! The index is what lists walk, by name, so that a page is exact whatever is written meanwhile. `SCAN` would need no index, but
//! it may show a key twice, can miss some while a slot moves, and walks over everything else that is stored there.
//! Retention is the server's own expiry on its own clock. What an expired record leaves in the two sets is hidden from
//! lists, and taken away by later writes to its bucket and by `purge`.
//!
//! # What can go wrong
//!
//! * **An answer that does not come**: an operation ends within [`DEFAULT_TIMEOUT`] or the one set. A write that was sent and
//!   not answered is `Ambiguous`, and is not sent again; everything else is `Unavailable`. The next call connects
//!   anew, once for all that wait, and never in a loop: with the server down a call fails as fast as the system
//!   refuses the connection.
//! * **Dropped futures** leave the old or the new record. What was handed to the connection already is done by the server
//!   nevertheless.
//! * **Lost writes**: [`capabilities`](oauth_dance_core::TokenStorage::capabilities) declares `durable` only of servers that
//!   say `appendonly yes` and `appendfsync always` when they are connected to, and only where no replica takes over by
//!   itself: Sentinel, or a Cluster with replicas, forgets what the replica had not got yet. A provider that rotates
//!   refresh tokens makes the user log in again then.
//! * **Eviction**: a server with a `maxmemory` and another `maxmemory-policy` than `noeviction` may drop tokens. That is a
//!   warning in the log, or an error with [`without_eviction`](RedisStorage::without_eviction).
//! * **Replicas** are never read: one that the URL names is refused, as what it knows may be old.
//! * **While a Cluster moves a slot** key by key, writes to that bucket can be `Unavailable` until its keys are on
//!   one server again. Reads and lists go on.
//! * **Unreadable records** are `Corrupt` and stay. They are listed with a version that matches nothing and without hints.
//!
//! # Permissions
//!
//! A user of its own needs no more than this. Without `info` and `config|get` nothing is known of durability and eviction.
//!
//! ```text
//! ACL SETUSER tokens on >password ~{oauth-dance:* +get +time +getrange +exists +set +del +pexpireat +zadd +zrem +zcount +zlexcount +zrangebylex +zrangebyscore +evalsha +eval +info +config|get
//! ```
//!
//! A Cluster also needs `+cluster|slots` and `+asking`, on every server; a database other than 0 needs `+select`.
//! [`check`](RedisStorage::check) tries all of it and names what is missing.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod check;
mod cluster;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod layout;
mod link;
mod list;
mod purge;
mod record;
mod script;
mod servers;
mod setup;
mod storage;
#[cfg(feature = "tls")]
mod tls;

use std::time::Duration;

pub use storage::RedisStorage;

/// The prefix of all keys, unless set otherwise.
pub const DEFAULT_PREFIX: &str = "oauth-dance";

/// The longest an operation takes, unless set otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most bytes a payload may have: far less than a server takes, and more than would do it good.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
