//! The storage on Redis and Valkey.
//!
//! A read is a plain command, and a write is a script that contains its condition. Everything about servers and
//! connections is in [`Servers`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage,
    Version, Versioned,
};
use redis::Value;

use crate::address::Address;
use crate::check::{Scope, check};
use crate::error::{Failure, UNEXPECTED, integer};
use crate::layout::{Layout, Place};
use crate::link::Options;
use crate::list;
use crate::purge;
use crate::record::{HeaderHalves, RecordError, Stored, version_prefix};
use crate::script::{Call, DELETE, PUT};
use crate::servers::{Request, Servers};
use crate::{DEFAULT_PREFIX, DEFAULT_TIMEOUT, MAX_PAYLOAD};

/// The longest retention in seconds. A longer one, of thousands of years, is shortened to it.
const MAX_RETENTION: u64 = 253_402_300_799;

/// Stores tokens on Redis or Valkey: on one server, on the primary that Sentinels name, or in a Cluster.
///
/// A clone is cheap and shares the connections. The [crate page](crate) describes the URLs, the stored data and the
/// guarantees. All operations are cancel safe: dropping a future leaves the old or the new record.
///
/// ```no_run
/// use std::time::Duration;
///
/// use oauth_dance_core::TokenStorage as _;
/// use oauth_dance_redis::RedisStorage;
///
/// # async fn example() -> Result<(), oauth_dance_core::StorageError> {
/// let storage = RedisStorage::connect("rediss+sentinel://app:password@one,two,three/main")
///     .await?
///     .with_prefix("my-app")?
///     .with_timeout(Duration::from_secs(2))
///     .without_eviction();
/// storage.check().await?;
/// if !storage.capabilities().durable {
///     eprintln!("tokens may be lost with the server");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStorage {
    address: Address,
    servers: Arc<Servers>,
    layout: Layout,
    /// Whether a record is read together with the time, because the previously read record had a retention.
    reads_time: Arc<AtomicBool>,
}

impl RedisStorage {
    /// Connects to the servers of a [URL](crate#urls), reads their settings, and tries each command that the storage
    /// needs.
    ///
    /// The prefix is not known yet. Call [`check`](Self::check) after it is set, to verify the permissions on its keys.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, or if the server rejects the user or a command. The error
    /// names the command. [`StorageError::Unavailable`] if the server cannot be reached. Use [`lazy`](Self::lazy) if
    /// the application may start before its server.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let storage = Self::lazy(url)?;
        storage.check_for(Scope::Commands).await?;
        Ok(storage)
    }

    /// Creates a storage that connects when it is first used.
    ///
    /// Until then, [`capabilities`](TokenStorage::capabilities) does not declare the storage as durable, and a missing
    /// permission is not detected.
    ///
    /// ```
    /// use oauth_dance_core::StorageError;
    /// use oauth_dance_redis::RedisStorage;
    ///
    /// let storage = RedisStorage::lazy("redis://:s3cr3t@127.0.0.1:6379/1")?;
    /// assert!(!format!("{storage:?}").contains("s3cr3t"));
    ///
    /// let wrong = RedisStorage::lazy("http://127.0.0.1/");
    /// assert!(matches!(wrong, Err(StorageError::Misconfigured { .. })));
    /// # Ok::<(), StorageError>(())
    /// ```
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong.
    pub fn lazy(url: &str) -> Result<Self, StorageError> {
        let address = Address::parse(url).map_err(|error| StorageError::Misconfigured {
            advice: "correct the server URL; the crate's documentation lists the valid forms".to_owned(),
            source: Box::new(error),
        })?;
        let layout = Layout::new(DEFAULT_PREFIX).map_err(bad_prefix)?;
        let options = Options { timeout: DEFAULT_TIMEOUT, reject_eviction: false };
        Ok(Self {
            servers: Arc::new(Servers::new(address.clone(), options)),
            address,
            layout,
            reads_time: Arc::default(),
        })
    }

    /// Sets the prefix of all keys. The default is [`DEFAULT_PREFIX`].
    ///
    /// Storages with different prefixes are separate, even on the same servers. Records that were stored under another
    /// prefix are not found.
    ///
    /// ```
    /// use oauth_dance_redis::RedisStorage;
    ///
    /// let storage = RedisStorage::lazy("redis://127.0.0.1/")?.with_prefix("my-app:staging")?;
    /// assert!(storage.with_prefix("no spaces").is_err());
    /// # Ok::<(), oauth_dance_core::StorageError>(())
    /// ```
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless the prefix consists of 1 to 64 letters, digits and `-`, `.`, `_` or `:`.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, StorageError> {
        Ok(Self { layout: Layout::new(prefix).map_err(bad_prefix)?, ..self })
    }

    /// Sets the timeout of an operation. The default is [`DEFAULT_TIMEOUT`].
    ///
    /// The timeout includes connecting and all retries. The next operation opens new connections.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let options = Options { timeout, ..self.servers.options() };
        self.with_options(options)
    }

    /// Rejects a server whose `maxmemory-policy` permits eviction, instead of logging a warning.
    ///
    /// On such a server, every operation is [`StorageError::Misconfigured`]. The next operation opens new connections.
    #[must_use]
    pub fn without_eviction(self) -> Self {
        let options = Options { reject_eviction: true, ..self.servers.options() };
        self.with_options(options)
    }

    /// Connects to every server with data, and verifies that this user has all necessary permissions. Each command is
    /// tried on the keys of the prefix, without changing anything.
    ///
    /// Call it at the start of the application, after all options are set. It also reads the settings of the servers,
    /// so that [`capabilities`](TokenStorage::capabilities) reports whether writes are durable.
    ///
    /// # Errors
    /// The errors of the other operations. [`StorageError::Misconfigured`] names the commands and keys that are not
    /// permitted.
    pub async fn check(&self) -> Result<(), StorageError> {
        self.check_for(Scope::CommandsAndKeys).await
    }

    /// Returns at most `limit` names in the indexes that are not valid [`TokenKey`]s.
    ///
    /// Such names exist only if something other than this crate has written to the indexes. A list leaves them out, so
    /// they have to be removed with a client of the server.
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn invalid_keys(&self, limit: usize) -> Result<Vec<String>, StorageError> {
        list::invalid(&self.servers, &self.layout, limit).await.map_err(Failure::of_read)
    }

    /// Reads the clock of one of the servers, on which retention is measured. An operator can compare it with other
    /// clocks.
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn server_time(&self) -> Result<Timestamp, StorageError> {
        let milliseconds = purge::now(&self.servers, &self.layout).await.map_err(Failure::of_read)?;
        Ok(Timestamp::from_unix_seconds(milliseconds / 1000))
    }

    /// Connects to every server, and tries the commands.
    async fn check_for(&self, scope: Scope) -> Result<(), StorageError> {
        self.servers.open().await.map_err(Failure::of_read)?;
        check(&self.servers, &self.layout, scope).await
    }

    /// The same storage with new links, which have other options.
    fn with_options(self, options: Options) -> Self {
        Self { servers: Arc::new(Servers::new(self.address.clone(), options)), ..self }
    }

    /// Reads a record. Only a record with a retention needs the time, so GET is sent alone if the previously read
    /// record had none.
    async fn read(&self, place: &Place) -> Result<Result<Option<Versioned<Record>>, RecordError>, Failure> {
        let (slot, get) = (self.layout.slot(place.bucket), self.layout.get(place));
        if !self.reads_time.load(Ordering::Relaxed) {
            let replies = self.servers.request(slot, Request::Read(std::slice::from_ref(&get))).await?;
            match found(replies.into_iter().next())? {
                Ok(Some(stored)) if stored.deadline().is_some() => self.reads_time.store(true, Ordering::Relaxed),
                // A record without a retention does not depend on the time.
                other => return Ok(other.map(|stored| stored.and_then(|stored| stored.at(0)))),
            }
        }
        // The record and the time are read together, so that no other record can replace it in between.
        let replies = self.servers.request(slot, Request::Read(&[get, redis::cmd("TIME")])).await?;
        let [stored, time] = <[Value; 2]>::try_from(replies).map_err(|_| Failure::NoReply(UNEXPECTED))?;
        let now = milliseconds(&time).ok_or(Failure::NoReply(UNEXPECTED))?;
        let stored = found(Some(stored))?;
        if let Ok(Some(stored)) = &stored {
            self.reads_time.store(stored.deadline().is_some(), Ordering::Relaxed);
        }
        Ok(stored.map(|stored| stored.and_then(|stored| stored.at(now))))
    }

    /// Calls a script on a record.
    async fn call(
        &self,
        source: &'static crate::script::Source,
        place: &Place,
        arguments: &[&[u8]],
    ) -> Result<i64, Failure> {
        let record = self.layout.record(place.bucket, &place.member);
        let (index, deadlines) = (self.layout.index(place.bucket), self.layout.deadlines(place.bucket));
        let keys = [record.as_bytes(), index.as_bytes(), deadlines.as_bytes()];
        let call = Call { source, keys: &keys, arguments };
        integer(&self.servers.request(self.layout.slot(place.bucket), Request::Write(&call)).await?)
    }
}

#[async_trait]
impl TokenStorage for RedisStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let place = Place::of(key)?;
        let read = self.read(&place).await.map_err(|failure| unreadable(failure, key, Failure::of_read))?;
        read.map_err(|error| StorageError::corrupt(key, error))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let place = Place::of(key)?;
        if record.payload.len() > MAX_PAYLOAD {
            return Err(StorageError::TooLarge { size: record.payload.len(), limit: MAX_PAYLOAD });
        }
        let version = Version::random();
        let condition = match when {
            Precondition::Always => "always".to_owned(),
            Precondition::Absent => "absent".to_owned(),
            Precondition::Version(current) => version_prefix(&current),
        };
        let halves = HeaderHalves::new(record, &version);
        let written = match record.retain_seconds() {
            None => {
                let whole = halves.without_retention(&record.payload);
                self.call(&PUT, &place, &[condition.as_bytes(), place.member.as_bytes(), &whole]).await
            }
            Some(seconds) => {
                let retention = (seconds.min(MAX_RETENTION) * 1000).to_string();
                let arguments: [&[u8]; 6] = [
                    condition.as_bytes(),
                    place.member.as_bytes(),
                    halves.before_deadline.as_bytes(),
                    halves.after_deadline.as_bytes(),
                    &record.payload,
                    retention.as_bytes(),
                ];
                self.call(&PUT, &place, &arguments).await
            }
        };
        match written {
            Ok(1) => Ok(version),
            Ok(_) => Err(StorageError::Conflict),
            Err(failure) => Err(unreadable(failure, key, Failure::of_write)),
        }
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let place = Place::of(key)?;
        let only = only.as_ref().map(version_prefix).unwrap_or_default();
        let removed = self.call(&DELETE, &place, &[only.as_bytes(), place.member.as_bytes()]).await;
        removed.map(|removed| removed == 1).map_err(|failure| unreadable(failure, key, Failure::of_write))
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        list::list(&self.servers, &self.layout, filter, page).await
    }

    /// The server removes expired records automatically. This removes their names from the index.
    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        purge::purge(&self.servers, &self.layout, limit).await.map_err(Failure::of_write)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("Redis")
            .with_durable(self.servers.are_durable())
            .with_shared(true)
            .with_atomic(true)
            .with_listable(true)
            .with_max_payload(MAX_PAYLOAD)
    }
}

/// Shows neither the user nor the password.
impl fmt::Debug for RedisStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStorage")
            .field("servers", &format_args!("{}", self.address))
            .field("prefix", &self.layout.prefix())
            .field("timeout", &self.servers.options().timeout)
            .finish_non_exhaustive()
    }
}

/// The error of an invalid prefix.
fn bad_prefix(advice: &'static str) -> StorageError {
    StorageError::Misconfigured {
        advice: advice.to_owned(),
        source: "the prefix contains characters that are not permitted, or is too long".into(),
    }
}

/// Converts the failure of an operation on one record. A value of another type is a corrupt record.
fn unreadable(failure: Failure, key: &TokenKey, otherwise: fn(Failure) -> StorageError) -> StorageError {
    match failure {
        Failure::WrongType(_) => StorageError::corrupt(key, RecordError::WrongType),
        other => otherwise(other),
    }
}

/// Reads the reply of GET.
fn found(reply: Option<Value>) -> Result<Result<Option<Stored>, RecordError>, Failure> {
    match reply {
        Some(Value::Nil) => Ok(Ok(None)),
        Some(Value::BulkString(bytes)) => Ok(Stored::read(bytes).map(Some)),
        _ => Err(Failure::NoReply(UNEXPECTED)),
    }
}

/// Reads the server's clock from a reply of TIME: seconds and microseconds.
pub(crate) fn milliseconds(time: &Value) -> Option<u64> {
    let Value::Array(parts) = time else { return None };
    let parts: Vec<u64> = parts.iter().filter_map(|part| crate::setup::text(part)?.parse().ok()).collect();
    let [seconds, microseconds] = parts.as_slice() else { return None };
    seconds.checked_mul(1000)?.checked_add(microseconds / 1000)
}
