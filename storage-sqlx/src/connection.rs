use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::pool::{PoolConnection, PoolConnectionMetadata, PoolOptions};
use tokio::time::{Instant, timeout};

use crate::DEFAULT_TIMEOUT;
use crate::dialect::Dialect;

/// A connection idle for longer is tested before it is used: servers, proxies and firewalls close such ones without a
/// word, some after two seconds, and a write that is sent on one is ambiguous.
const QUIET: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that a statement runs on. Dropped in the middle, on a time-out or because the caller gave up, it is
/// closed rather than handed to the next one with half an answer in it.
pub(crate) struct InUse<DB: Dialect> {
    connection: PoolConnection<DB>,
    fine: bool,
}

impl<DB: Dialect> InUse<DB> {
    pub(crate) fn new(connection: PoolConnection<DB>) -> Self {
        // Without a server there is nothing between a statement and its answer that could break.
        Self { connection, fine: !DB::REMOTE }
    }

    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    pub(crate) fn is_fine(&mut self) {
        self.fine = true;
    }
}

impl<DB: Dialect> Drop for InUse<DB> {
    fn drop(&mut self) {
        if !self.fine {
            self.connection.close_on_drop();
        }
    }
}

/// When a connection last broke: what was opened before may be broken too, and is looked at before it is used again.
///
/// A ping before every use costs a round trip each; this one costs none while all is well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubts(Arc<Mutex<Option<Instant>>>);

impl Doubts {
    pub(crate) fn arise(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn concern(&self, connection: &PoolConnectionMetadata) -> bool {
        let arisen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.idle_for >= arisen.map_or(QUIET, |arisen| QUIET.min(arisen.elapsed()))
    }

    /// The options of a pool that tests its connections when there is doubt, and waits no longer than this for one.
    pub(crate) fn watch<DB: Dialect>(&self, limit: Option<Duration>) -> PoolOptions<DB> {
        let doubts = self.clone();
        PoolOptions::new()
            .acquire_timeout(limit.unwrap_or(DEFAULT_TIMEOUT / 2))
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut DB::Connection, metadata| {
                let doubtful = doubts.concern(&metadata);
                Box::pin(async move {
                    if !doubtful {
                        return Ok(true);
                    }
                    // An error, and not `false`, which would say good-bye to a server that may not be there.
                    timeout(PING_TIMEOUT, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
                    Ok(true)
                })
            })
    }
}
