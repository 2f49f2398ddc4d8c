//! Where the connection of a statement comes from, and what happens to it afterwards.
//!
//! A storage has a pool of its own, or uses a pool of the application. In both cases a connection to a server is used
//! again only if its statement is known to have ended ([`InUse::mark_clean`]). After a timeout or a dropped future, the
//! rest of a response may still arrive. The next statement would mistake it for its own result, so the connection is
//! closed.

use deadpool::managed::Object;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Pool};

use crate::dialect::Dialect;
use crate::pool::{Opener, OwnPool, Pooled};

/// The source of a storage's connections.
pub(crate) enum Connections<DB: Dialect> {
    /// Connections that the storage opens.
    Own(OwnPool<DB>),
    /// The pool of the application.
    Application(Pool<DB>),
}

impl<DB: Dialect> Connections<DB> {
    /// Waits for a free connection, or opens one.
    ///
    /// # Errors
    /// The error of a new connection, or [`sqlx::Error::PoolTimedOut`] or [`sqlx::Error::PoolClosed`].
    pub(crate) async fn acquire(&self) -> Result<InUse<DB>, sqlx::Error> {
        let connection = match self {
            Self::Own(pool) => AnyConnection::Own(Some(pool.acquire().await?)),
            Self::Application(pool) => AnyConnection::Application(Some(pool.acquire().await?)),
        };
        Ok(InUse { connection, end: End::Unknown })
    }

    /// Reports that a connection broke, so that the other ones are tested before their next use. The pool of an
    /// application tests its connections itself.
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

    /// Closes the pool, even if it is the application's.
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
    connection: AnyConnection<DB>,
    end: End,
}

/// What happens to a connection after its use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its statement has ended, and the next one can use it.
    Clean,
    /// Its statement may still be running.
    Unknown,
    /// It is not used again.
    Close,
}

enum AnyConnection<DB: Dialect> {
    /// `None` only during `drop`.
    Own(Option<Object<Opener<DB>>>),
    /// `None` only after it was closed.
    Application(Option<PoolConnection<DB>>),
}

impl<DB: Dialect> InUse<DB> {
    #[expect(clippy::expect_used, reason = "only `drop` takes the connection")]
    /// The connection, as sqlx uses it.
    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        match &mut self.connection {
            AnyConnection::Own(pooled) => pooled.as_mut().expect("a connection in use").connection(),
            AnyConnection::Application(connection) => connection.as_mut().expect("a connection in use"),
        }
    }

    /// Whether the session of this connection belongs to it alone, so that prepared statements are safe.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(&self.connection, AnyConnection::Own(Some(pooled)) if pooled.is_direct())
    }

    /// Reports that the statement has ended, and that the next one can use the connection.
    pub(crate) fn mark_clean(&mut self) {
        self.end = End::Clean;
    }

    /// Reports that the server does not accept writes, so that no connection to it is used again. In the pool of an
    /// application, only this connection is closed.
    pub(crate) fn retire(&self) {
        if let AnyConnection::Own(Some(pooled)) = &self.connection {
            pooled.generation().end();
        }
    }

    /// Closes the connection instead of returning it.
    pub(crate) fn close_on_drop(&mut self) {
        self.end = End::Close;
    }
}

impl<DB: Dialect> Drop for InUse<DB> {
    fn drop(&mut self) {
        match &mut self.connection {
            AnyConnection::Own(pooled) => match (pooled.take(), self.end) {
                (Some(pooled), End::Clean) => Pooled::give_back(pooled),
                (Some(pooled), End::Unknown) => Pooled::discard(pooled),
                (Some(pooled), End::Close) => drop(Object::take(pooled)),
                (None, _) => {}
            },
            AnyConnection::Application(connection) => {
                let Some(mut connection) = connection.take() else { return };
                match self.end {
                    // To close it would send the rest of an incomplete statement.
                    End::Unknown if DB::REMOTE && connection.should_flush() => drop(connection.detach()),
                    End::Unknown if DB::REMOTE => connection.close_on_drop(),
                    End::Close => connection.close_on_drop(),
                    // The pool of sqlx tests a connection whenever it is returned.
                    End::Clean | End::Unknown => {}
                }
            }
        }
    }
}
