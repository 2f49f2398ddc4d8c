//! The token storage of [`oauth-dance`](https://docs.rs/oauth-dance) on Redis and Valkey: on one server, on the primary
//! that Sentinels name, or in a Cluster.
//!
//! # When to use it
//!
//! Use it if you run Redis 6 or newer, or Valkey. Tokens are as durable as the configuration of the servers. If a
//! server loses a refresh token, the user has to log in again. If that is not acceptable, use
//! [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx).
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
//! A web application passes the storage to `OAuth::builder` of `oauth-dance`, which creates the
//! [`Tokens`](oauth_dance_core::Tokens) itself.
//!
//! At startup, an application should verify that the servers do not lose tokens and that it has all permissions:
//!
//! ```no_run
//! use oauth_dance_core::TokenStorage as _;
//! use oauth_dance_redis::RedisStorage;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = RedisStorage::connect("rediss+cluster://tokens:password@one,two,three").await?.without_eviction();
//! storage.check().await?;
//! if !storage.capabilities().durable {
//!     return Err("a crash of a server would lose tokens".into());
//! }
//! # Ok(())
//! # }
//! ```
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
//! | `redis+sentinel://[[user]:password@]sentinel[:port][,sentinel[:port]]…/name[/database]` | the primary of this name according to the Sentinels; user and password are those of the primary |
//! | `redis+cluster://[[user]:password@]host[:port][,host[:port]]…` | a Cluster with these members |
//!
//! `rediss` instead of `redis` enables TLS. The certificate of the server is verified with the system's root
//! certificates, or with those in the file `SSL_CERT_FILE`. `valkey` and `valkeys` mean the same as `redis` and
//! `rediss`.
//!
//! # Round trips
//!
//! | operation | round trips |
//! | --- | --- |
//! | `get` | one, a plain `GET`; one more if the record has a retention and the previously read record had none |
//! | `put`, `delete` | one, including the condition |
//! | a page of `list` | three, or two if the filter names tenant and user |
//! | `purge` | three |
//!
//! A write needs a second round trip if the server does not know the script yet, and another one to test a connection
//! that was idle for half a second. All requests share one connection to each server, and do not wait for each other's
//! replies.
//!
//! # What is stored
//!
//! A record is one string with a header line and the payload. Its key consists of the
//! [prefix](RedisStorage::with_prefix), a bucket, and tenant, user, provider and account in percent-encoding:
//!
//! ```text
//! > GET "{oauth-dance:63}::alice:github:"
//! "v1 0f1e2d3c4b5a69788796a5b4c3d2e1f0 1767225600 - =2f9a\n…"
//!      version                         |          | id of the sealing key
//!                                      |          end of the retention in milliseconds
//!                                      expiry of the access token in seconds
//! ```
//!
//! Tenant and user determine one of 256 buckets. The keys of a bucket share a hash slot, so that a Cluster distributes
//! the buckets over its servers and a script can still change several keys of a bucket. Beside its records, a bucket
//! has two sorted sets:
//!
//! * `{oauth-dance:63}/index` contains the names of all records.
//! * `{oauth-dance:63}/deadlines` contains the names of the records with a retention, ordered by its end.
//!
//! A list walks the index in the order of the names, so that a page is exact whatever is written in the meantime.
//! `SCAN` would need no index. However, it may return a key twice or miss one while a slot moves, and it visits all
//! other keys of the server. Retention is the expiry of the key on the server's clock. The name of an expired record is
//! hidden from lists. It is removed by later writes to its bucket, and by `purge`.
//!
//! # What can go wrong
//!
//! * **Missing responses**: an operation ends within [`DEFAULT_TIMEOUT`], or within the timeout that
//!   [`with_timeout`](RedisStorage::with_timeout) sets. If a write was sent and no response arrived, it is `Ambiguous`
//!   and not sent again. Any other operation is `Unavailable`. The next call connects again, and all waiting calls
//!   share this connection. There is no loop: while the server is unavailable, a call fails as soon as the system
//!   rejects the connection.
//! * **Dropped futures** leave the old or the new record. The server executes a request that was sent before.
//! * **Lost writes**: [`capabilities`](oauth_dance_core::TokenStorage::capabilities) declares `durable` only if the
//!   servers report `appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite no` when the connection opens,
//!   and only if no replica can take over automatically. With Sentinels, and in a Cluster with replicas, a failover loses the writes that the
//!   replica has not received. If the provider rotates refresh tokens, the user then has to log in again.
//! * **Eviction**: a server with a `maxmemory` and another `maxmemory-policy` than `noeviction` may drop tokens. The
//!   storage logs a warning, or returns an error with [`without_eviction`](RedisStorage::without_eviction).
//! * **Replicas** are never read, because their data may be outdated. A URL that names a replica is rejected.
//! * **Moving slots**: while a Cluster moves a slot key by key, writes to its buckets may be `Unavailable` until all
//!   keys are on one server again. Reads and lists continue.
//! * **Unreadable records** are `Corrupt` and remain. They are listed without hints, and with a version that matches
//!   nothing.
//!
//! # Permissions
//!
//! A separate user needs only the following permissions. Without `info` and `config|get`, the storage cannot detect
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
//! * [`RedisStorage`]: the options, and a check of the permissions.
//! * [Storages](https://github.com/oauth-dance/oauth-dance/blob/main/docs/storages.md): all storages in operation.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod check;
mod cluster;
mod connection;
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

/// The prefix of all keys, unless [`RedisStorage::with_prefix`] sets another one.
pub const DEFAULT_PREFIX: &str = "oauth-dance";

/// The timeout of an operation, unless [`RedisStorage::with_timeout`] sets another one.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum size of a payload: 8 MiB. It is far below the limit of a server, which is 512 MiB.
///
/// A larger payload is [`StorageError::TooLarge`](oauth_dance_core::StorageError::TooLarge).
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
