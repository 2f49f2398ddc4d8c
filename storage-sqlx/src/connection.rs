use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::pool::{PoolConnection, PoolConnectionMetadata, PoolOptions};
use tokio::time::{Instant, timeout};

use crate::DEFAULT_TIMEOUT;
use crate::dialect::Dialect;

/// A connection that was idle for longer is tested before use. Servers, proxies and firewalls close idle connections
/// silently, some of them after two seconds, and a write on a closed connection is ambiguous.
const MAX_IDLE: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that runs a statement. If it is dropped before the statement has ended, because of a timeout or a
/// dropped caller, the connection is closed, because it may contain the rest of a response.
pub(crate) struct InUse<DB: Dialect> {
    connection: PoolConnection<DB>,
    is_clean: bool,
}

impl<DB: Dialect> InUse<DB> {
    pub(crate) fn new(connection: PoolConnection<DB>) -> Self {
        // A database without a server has no connection that could break.
        Self { connection, is_clean: !DB::REMOTE }
    }

    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    pub(crate) fn mark_clean(&mut self) {
        self.is_clean = true;
    }
}

impl<DB: Dialect> Drop for InUse<DB> {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

/// When a connection of a pool last broke. All connections that were opened before are suspect, and are tested before
/// their next use.
///
/// A ping before every use would cost a round trip each time. This costs none as long as no connection breaks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspicion(Arc<Mutex<Option<Instant>>>);

impl Suspicion {
    pub(crate) fn mark_suspect(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_suspect(&self, connection: &PoolConnectionMetadata) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.idle_for >= since.map_or(MAX_IDLE, |since| MAX_IDLE.min(since.elapsed()))
    }

    /// The options of a pool that tests suspect connections, and waits for a connection no longer than `limit`.
    pub(crate) fn pool_options<DB: Dialect>(&self, limit: Option<Duration>) -> PoolOptions<DB> {
        let suspicion = self.clone();
        PoolOptions::new()
            .acquire_timeout(limit.unwrap_or(DEFAULT_TIMEOUT / 2))
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut DB::Connection, metadata| {
                let is_suspect = suspicion.is_suspect(&metadata);
                Box::pin(async move {
                    if !is_suspect {
                        return Ok(true);
                    }
                    // An error and not `false`, because `false` would send a closing message to a server that may be
                    // gone.
                    timeout(PING_TIMEOUT, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
                    Ok(true)
                })
            })
    }
}
