//! Tokens in a session store, referenced by the visitor's session.
//!
//! The tokens are not part of the session, because tower-sessions writes a whole session back at the end of a request.
//! They are a separate record of the same store, and the session contains its id ([`storage`]). A trait hides the
//! release of tower-sessions ([`vault`], [`release`]).

mod layer;
mod release;
mod storage;
mod vault;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Capabilities, Clock};

pub use layer::SessionTokensService;
pub use release::AnySessionStore;
use vault::Sessions;

/// How long the store retains unused tokens by default. It is longer than most sessions last.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// A layer that stores each visitor's tokens in the application's session store, with tower-sessions 0.14 or 0.15.
///
/// Use it with `OAuth::per_request`. Add the layer after the OAuth routes and every handler that needs tokens, and
/// before the `SessionManagerLayer`, so that it is between them. Both layers use the same store:
#[cfg_attr(feature = "tower-sessions-0_15", doc = "```")]
#[cfg_attr(not(feature = "tower-sessions-0_15"), doc = "```ignore")]
/// use axum::{Router, routing::get};
/// use oauth_dance_session::SessionTokens;
/// use tower_sessions::cookie::{Key, SameSite};
/// use tower_sessions::{MemoryStore, SessionManagerLayer};
///
/// let store = MemoryStore::default();
/// let sessions = SessionManagerLayer::new(store.clone())
///     .with_signed(Key::generate())
///     .with_same_site(SameSite::Lax);
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(SessionTokens::new(store))
///     .layer(sessions);
/// # let _ = app;
/// ```
///
/// The session cookie must be `SameSite=Lax`. With `Strict`, the default of tower-sessions, browsers do not send the
/// cookie when the provider redirects back, and the login ends in a new session.
///
/// # Concurrent requests
///
/// At the end of a request, tower-sessions writes the whole session back. This overwrites what another request has
/// written in the meantime. The tokens are therefore stored in a separate record, and the session only contains its id.
/// Every `put` and `delete` writes the record immediately, and nothing else writes it. A slow request cannot restore an
/// old token. A refreshed token is not lost if the response is an error or the browser has disconnected.
///
/// A login is a `put` with [`Precondition::Always`](oauth_dance_core::Precondition::Always). When its response is
/// ready, the session gets a new id, as a defence against session fixation. If the response is a server error, the id
/// stays the same, because tower-sessions sets no cookie in this case and the visitor would lose the session.
///
/// # Limits
///
/// * **Not atomic**: a session store has no conditional writes. Within one process, the writes of a visitor's tokens
///   are serialized. A concurrent write of another process may be lost. With a
///   [ledger](oauth_dance_core::Refresher::with_ledger), each refresh token is still redeemed once.
/// * **A login ends the session id** of concurrent requests. Such a request finds no tokens. If it writes to its
///   session, it may reset the browser to a session without tokens, and the visitor has to connect again. The same
///   applies to two concurrent first logins of a visitor.
/// * **Durable and shared** are properties of the store, which does not report them. Declare them with
///   [`with_durable_store`](Self::with_durable_store) and [`with_shared_store`](Self::with_shared_store).
/// * **Not listable**: a request sees only the tokens of its own session.
/// * **Flushed sessions**: when a session is flushed or expires, its tokens become unreachable. Their sealed record
///   remains in the store until its [lifetime](Self::with_lifetime) ends. Disconnect before that to delete and revoke
///   the tokens.
#[derive(Clone)]
pub struct SessionTokens {
    sessions: Arc<dyn Sessions>,
    locks: vault::WriteLocks,
    capabilities: Capabilities,
    lifetime: Duration,
    clock: Clock,
}

impl SessionTokens {
    /// Stores tokens in this session store, which must be the store of the `SessionManagerLayer`.
    ///
    /// The store may be of tower-sessions 0.14 or 0.15. The compiler infers `Release`.
    pub fn new<Release>(store: impl AnySessionStore<Release>) -> Self {
        Self {
            sessions: store.into_sessions().0,
            locks: vault::WriteLocks::default(),
            capabilities: Capabilities::new("session"),
            lifetime: DEFAULT_LIFETIME,
            clock: Clock::system(),
        }
    }

    /// Declares that several processes share the session store, for example because it is a database.
    #[must_use]
    pub fn with_shared_store(self) -> Self {
        Self { capabilities: self.capabilities.with_shared(true), ..self }
    }

    /// Declares that acknowledged writes of the session store survive a crash.
    #[must_use]
    pub fn with_durable_store(self) -> Self {
        Self { capabilities: self.capabilities.with_durable(true), ..self }
    }

    /// Sets how long the session store retains unused tokens. The default is 90 days.
    ///
    /// Choose more than the lifetime of sessions. A read prolongs the lifetime when half of it has passed.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Measures retention on another clock, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }
}

impl fmt::Debug for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTokens")
            .field("capabilities", &self.capabilities)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
