use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};
use redis::Value;

use crate::address::Address;
use crate::check::{Scope, check};
use crate::error::{Failure, UNEXPECTED, integer};
use crate::layout::{Layout, Place};
use crate::link::Options;
use crate::list;
use crate::purge;
use crate::record::{HeaderHalves, RecordError, opening, read};
use crate::script::{Call, DELETE, PUT};
use crate::servers::{Request, Servers};
use crate::{DEFAULT_PREFIX, DEFAULT_TIMEOUT, MAX_PAYLOAD};

/// The longest retention that is told from none: longer ones, of thousands of years, end then.
const LONGEST_RETENTION: u64 = 253_402_300_799;

/// Keeps tokens on Redis or Valkey: on one server, on whichever is the primary according to Sentinels, or in a Cluster.
///
/// Clones share their connections. See the [crate's page](crate) for URLs, the data's layout and the guarantees.
#[derive(Clone)]
pub struct RedisStorage {
    address: Address,
    servers: Arc<Servers>,
    layout: Layout,
}

impl RedisStorage {
    /// Connects to the server or servers that a [URL](crate#urls) names, asks how they are set up, and tries each command
    /// that tokens need. Which keys are permitted is for [`check`](Self::check) to find out, once the prefix is set.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), oauth_dance_core::StorageError> {
    /// use oauth_dance_redis::RedisStorage;
    ///
    /// let storage = RedisStorage::connect("redis://127.0.0.1/").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, or the server refuses us or a command, which the error names,
    /// [`StorageError::Unavailable`] if it cannot be reached. An application that wants to start before its Redis does uses [`lazy`](Self::lazy).
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let storage = Self::lazy(url)?;
        storage.check_for(Scope::Commands).await?;
        Ok(storage)
    }

    /// Connects when the storage is first used. Until then [`capabilities`](TokenStorage::capabilities) says that it is
    /// not durable.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong.
    pub fn lazy(url: &str) -> Result<Self, StorageError> {
        let address = Address::parse(url).map_err(|error| StorageError::Misconfigured {
            advice: "correct the server's URL; see the crate's documentation for its forms".to_owned(),
            source: Box::new(error),
        })?;
        let layout = Layout::new(DEFAULT_PREFIX).map_err(bad_prefix)?;
        let options = Options { timeout: DEFAULT_TIMEOUT, refuse_eviction: false };
        Ok(Self { servers: Arc::new(Servers::new(address.clone(), options)), address, layout })
    }

    /// Keeps the records apart from those under other prefixes, of the same servers; `oauth-dance` unless set.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless it is of 1 to 64 letters, digits and `-`, `.`, `_` or `:`.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, StorageError> {
        Ok(Self { layout: Layout::new(prefix).map_err(bad_prefix)?, ..self })
    }

    /// Sets the longest an operation takes; [`DEFAULT_TIMEOUT`] unless set. Connects anew, when it is next used.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let options = Options { timeout, ..self.servers.options() };
        self.with_options(options)
    }

    /// Refuses a server whose `maxmemory-policy` lets it drop records to make room, instead of logging a warning: every
    /// operation is [`StorageError::Misconfigured`] then. Connects anew, when it is next used.
    #[must_use]
    pub fn without_eviction(self) -> Self {
        let options = Options { refuse_eviction: true, ..self.servers.options() };
        self.with_options(options)
    }

    /// Connects to every server that holds data, unless that is done, and learns how they are set up: whether writes
    /// are durable, whether records may be dropped to make room, and whether this user may do all that tokens need. Each
    /// command is tried on the keys of the prefix, in a way that changes nothing.
    ///
    /// # Errors
    /// As the other operations; [`StorageError::Misconfigured`] names the commands and keys that the user lacks.
    pub async fn check(&self) -> Result<(), StorageError> {
        self.check_for(Scope::CommandsAndKeys).await
    }

    async fn check_for(&self, scope: Scope) -> Result<(), StorageError> {
        self.servers.open().await.map_err(Failure::of_read)?;
        check(&self.servers, &self.layout, scope).await
    }

    fn with_options(self, options: Options) -> Self {
        Self { servers: Arc::new(Servers::new(self.address.clone(), options)), ..self }
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
        integer(&self.servers.ask(self.layout.slot(place.bucket), Request::Write(&call)).await?)
    }
}

#[async_trait]
impl TokenStorage for RedisStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let place = Place::of(key)?;
        let mut get = redis::cmd("GET");
        get.arg(self.layout.record(place.bucket, &place.member));
        // A record carries the end of its retention, so that both are of one write; the time is only compared with it.
        let request = [get, redis::cmd("TIME")];
        let answers = self.servers.ask(self.layout.slot(place.bucket), Request::Read(&request)).await;
        let answers = answers.map_err(|failure| unreadable(failure, key, Failure::of_read))?;
        match <[Value; 2]>::try_from(answers) {
            Ok([Value::Nil, _]) => Ok(None),
            Ok([Value::BulkString(stored), time]) => {
                let now = milliseconds(&time).ok_or_else(|| StorageError::unavailable(UNEXPECTED))?;
                read(stored, now).map_err(|error| StorageError::corrupt(key, error))
            }
            _ => Err(StorageError::unavailable(UNEXPECTED)),
        }
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let place = Place::of(key)?;
        if record.payload.len() > MAX_PAYLOAD {
            return Err(StorageError::TooLarge { size: record.payload.len(), limit: MAX_PAYLOAD });
        }
        let version = Version::random();
        let halves = HeaderHalves::new(record, &version);
        let condition = match when {
            Precondition::Always => "always".to_owned(),
            Precondition::Absent => "absent".to_owned(),
            Precondition::Version(current) => opening(&current),
        };
        let retention = record.retain_seconds().map(|seconds| (seconds.min(LONGEST_RETENTION) * 1000).to_string());
        let arguments: [&[u8]; 6] = [
            condition.as_bytes(),
            halves.before_deadline.as_bytes(),
            halves.after_deadline.as_bytes(),
            &record.payload,
            retention.as_deref().unwrap_or_default().as_bytes(),
            place.member.as_bytes(),
        ];
        match self.call(&PUT, &place, &arguments).await {
            Ok(1) => Ok(version),
            Ok(_) => Err(StorageError::Conflict),
            Err(failure) => Err(unreadable(failure, key, Failure::of_write)),
        }
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let place = Place::of(key)?;
        let only = only.as_ref().map(opening).unwrap_or_default();
        let removed = self.call(&DELETE, &place, &[only.as_bytes(), place.member.as_bytes()]).await;
        removed.map(|removed| removed == 1).map_err(|failure| unreadable(failure, key, Failure::of_write))
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        list::list(&self.servers, &self.layout, filter, page).await
    }

    /// The server frees expired records by itself. This removes what the list still knows of them.
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

/// Shows neither user nor password.
impl fmt::Debug for RedisStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStorage")
            .field("servers", &format_args!("{}", self.address))
            .field("prefix", &self.layout.prefix())
            .field("timeout", &self.servers.options().timeout)
            .finish_non_exhaustive()
    }
}

fn bad_prefix(advice: &'static str) -> StorageError {
    StorageError::Misconfigured { advice: advice.to_owned(), source: "the prefix would not keep records apart".into() }
}

/// The error of an operation on one record.
fn unreadable(failure: Failure, key: &TokenKey, otherwise: fn(Failure) -> StorageError) -> StorageError {
    match failure {
        Failure::WrongType(_) => StorageError::corrupt(key, RecordError::WrongType),
        other => otherwise(other),
    }
}

/// The server's clock, from its answer to TIME: seconds and microseconds.
pub(crate) fn milliseconds(time: &Value) -> Option<u64> {
    let Value::Array(parts) = time else { return None };
    let parts: Vec<u64> = parts.iter().filter_map(|part| crate::setup::text(part)?.parse().ok()).collect();
    let [seconds, microseconds] = parts.as_slice() else { return None };
    seconds.checked_mul(1000)?.checked_add(microseconds / 1000)
}
