//! The token storage of [`oauth-dance`](https://docs.rs/oauth-dance) on Redis and Valkey: on one server, on the primary
//! that Sentinels name, or in a Cluster.
//!
//! # When to use it
//!
//! Use it if you run Redis 6 or newer, or Valkey, and want the fewest round trips. Tokens are as durable as the servers
//! are configured to be; a refresh token that is lost with a server makes its user log in again. If that is not
//! acceptable, use [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx).
//!
//! # Example
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
//! An application gives the storage to `OAuth::builder` of `oauth-dance` instead of
//! [`Tokens`](oauth_dance_core::Tokens).
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `tls` | yes | `rediss:` and its variants, with rustls |
//!
//! # URLs
//!
//! | URL | servers |
//! | --- | --- |
//! | `redis://[[user]:password@]host[:port][/database]` | one server, which must be a primary |
//! | `unix:///path/to/socket[?db=database]` | a server on this machine |
//! | `redis+sentinel://[[user]:password@]sentinel[:port][,sentinel[:port]]…/name[/database]` | the server that the Sentinels name as the primary of this name; user and password are the server's |
//! | `redis+cluster://[[user]:password@]host[:port][,host[:port]]…` | a Cluster with these members |
//!
//! `rediss` instead of `redis` asks for TLS, verified with the system's root certificates or those in the file that
//! `SSL_CERT_FILE` names. `valkey` and `valkeys` mean the same as `redis` and `rediss`.
//!
//! # Round trips
//!
//! `get`, `put` and `delete` take one each, conditions included. `get` is a plain `GET`. Only a record with a retention
//! also needs the server's time: it is read together with the record if the record that was read last had a retention,
//! and otherwise in a second round trip. A server that does not have a script yet is sent it in a second one, and a
//! connection that was idle for half a second is tested by one before a write. A page of a list takes three, or two if
//! the filter names tenant and user; a `purge` takes three. All requests share one connection to each server, and do not
//! wait for each other's replies.
//!
//! # What is stored
//!
//! A record is one string: a header line and the payload. Its key consists of the prefix (by default `oauth-dance`; see
//! [`with_prefix`](RedisStorage::with_prefix)), a bucket, and tenant, user, provider and account in percent-encoding:
//!
//! ```text
//! > GET "{oauth-dance:63}::alice:github:"
//! "v1 0f1e2d3c4b5a69788796a5b4c3d2e1f0 1767225600 - =2f9a\n…"
//!      version                         |          | key that sealed it
//!                                      |          end of the retention, in milliseconds
//!                                      the access token expires, in seconds
//! ```
//!
//! Tenant and user choose one of 256 buckets. The keys of a bucket share a hash slot, so that a Cluster can spread the
//! buckets over its servers while one script can still change together: the record, `{oauth-dance:63}/index`, a sorted
//! set of all names in the bucket, and `{oauth-dance:63}/deadlines`, a sorted set of those with a retention, by its
//! end.
//!
//! Lists walk the index, by name, so that a page is exact whatever is written meanwhile. `SCAN` would need no index,
//! but it may return a key twice, can miss some while a slot moves, and walks over everything else on the server.
//! Retention is the server's own expiry on its own clock. What an expired record leaves in the two sets is hidden from
//! lists, and removed by later writes to its bucket and by `purge`.
//!
//! # What can go wrong
//!
//! * **An answer that does not arrive**: an operation ends within [`DEFAULT_TIMEOUT`] or the one set. A write that was
//!   sent but not answered is `Ambiguous`, and is not sent again; any other operation is `Unavailable`. The next call
//!   connects again, once for all that wait, and never in a loop: while the server is down, a call fails as fast as the
//!   system refuses the connection.
//! * **Dropped futures** leave the old or the new record. The server still executes what the connection has sent.
//! * **Lost writes**: [`capabilities`](oauth_dance_core::TokenStorage::capabilities) declares `durable` only if the
//!   servers report `appendonly yes` and `appendfsync always` when they are connected to, and only if no replica takes
//!   over by itself. Under Sentinel, and in a Cluster with replicas, writes that the replica has not received are lost.
//!   With a provider that rotates refresh tokens, the user then has to log in again.
//! * **Eviction**: a server with a `maxmemory` and any other `maxmemory-policy` than `noeviction` may drop tokens. That
//!   is a warning in the log, or an error with [`without_eviction`](RedisStorage::without_eviction).
//! * **Replicas** are never read, because their data may be old. A URL that names one is refused.
//! * **While a Cluster moves a slot** key by key, writes to that bucket can be `Unavailable` until its keys are on
//!   one server again. Reads and lists continue.
//! * **Unreadable records** are `Corrupt` and stay. They are listed with a version that matches nothing and without
//!   hints.
//!
//! # Permissions
//!
//! A user of its own needs no more than this. Without `info` and `config|get` the storage does not know about
//! durability and eviction.
//!
//! ```text
//! ACL SETUSER tokens on >password ~{oauth-dance:* +get +time +getrange +exists +set +del +pexpireat +zadd +zrem +zcount +zlexcount +zrangebylex +zrangebyscore +evalsha +eval +info +config|get
//! ```
//!
//! A Cluster also needs `+cluster|slots` and `+asking` on every server. A database other than 0 needs `+select`.
//! [`check`](RedisStorage::check) tries all permissions, and names those that are missing.
//!
//! # Where to go next
//!
//! * [`RedisStorage`]: its options, and pools of the application's own.
//! * [Storages](https://github.com/oauth-dance/oauth-dance/blob/main/docs/storages.md) in operation, side by side.
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

/// The default prefix of all keys.
pub const DEFAULT_PREFIX: &str = "oauth-dance";

/// The default timeout of an operation.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum size of a payload in bytes. It is far below the limit of a server.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
