use deadpool::managed::Object;
use sqlx::Pool;
use sqlx::pool::PoolConnection;

use crate::dialect::Dialect;
use crate::pool::{Held, Opener, OwnPool};

/// The connections of a storage.
pub(crate) enum Connections<DB: Dialect> {
    /// Connections that the storage opens.
    Own(OwnPool<DB>),
    /// The pool of the application.
    Application(Pool<DB>),
}

impl<DB: Dialect> Connections<DB> {
    /// # Errors
    /// The error of a new connection, or [`sqlx::Error::PoolTimedOut`] or [`sqlx::Error::PoolClosed`].
    pub(crate) async fn acquire(&self) -> Result<InUse<DB>, sqlx::Error> {
        let connection = match self {
            Self::Own(pool) => Lent::Own(Some(pool.acquire().await?)),
            Self::Application(pool) => Lent::Application(pool.acquire().await?),
        };
        Ok(InUse { connection, is_clean: false })
    }

    /// Reports that a connection broke, so that the others are tested before their next use. The pool of an application
    /// has its own test.
    pub(crate) fn mark_suspect(&self) {
        if let Self::Own(pool) = self {
            pool.mark_suspect();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Own(pool) => pool.is_closed(),
            Self::Application(pool) => pool.is_closed(),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Own(pool) => pool.close().await,
            Self::Application(pool) => pool.close().await,
        }
    }
}

// Not derived, because `DB` is not `Clone`.
impl<DB: Dialect> Clone for Connections<DB> {
    fn clone(&self) -> Self {
        match self {
            Self::Own(pool) => Self::Own(pool.clone()),
            Self::Application(pool) => Self::Application(pool.clone()),
        }
    }
}

/// A connection that runs a statement.
///
/// If it is dropped before the statement has ended, because of a timeout or a dropped caller, a connection to a server
/// is closed, because it may contain the rest of a response.
pub(crate) struct InUse<DB: Dialect> {
    connection: Lent<DB>,
    is_clean: bool,
}

enum Lent<DB: Dialect> {
    /// `None` only while it is dropped.
    Own(Option<Object<Opener<DB>>>),
    Application(PoolConnection<DB>),
}

impl<DB: Dialect> InUse<DB> {
    #[expect(clippy::expect_used, reason = "only `drop` takes the connection")]
    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        match &mut self.connection {
            Lent::Own(held) => held.as_mut().expect("a connection in use").connection(),
            Lent::Application(connection) => connection,
        }
    }

    /// Reports that the statement has ended, and that the next one can use the connection.
    pub(crate) fn mark_clean(&mut self) {
        self.is_clean = true;
    }
}

impl<DB: Dialect> Drop for InUse<DB> {
    fn drop(&mut self) {
        match &mut self.connection {
            Lent::Own(held) => match held.take() {
                Some(held) if self.is_clean => Held::give_back(held),
                Some(held) => Held::discard(held),
                None => {}
            },
            // The pool of sqlx tests a connection whenever it is returned.
            Lent::Application(connection) if DB::REMOTE && !self.is_clean => connection.close_on_drop(),
            Lent::Application(_) => {}
        }
    }
}
