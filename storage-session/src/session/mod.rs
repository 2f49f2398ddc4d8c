//! Tokens in a session store, found from the visitor's session.

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

/// Longer than most sessions last; whoever uses their tokens prolongs it.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// A layer that keeps each visitor's tokens in the application's session store, of tower-sessions 0.14 or 0.15.
///
/// Use it with `OAuth::per_request`, outside of its routes and of every handler that asks for tokens, and inside of the
/// `SessionManagerLayer`. It takes the same store:
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
/// The session's cookie must be `SameSite=Lax`: with `Strict`, which is the default there, browsers do not send it on the
/// way back from a provider, and the login ends in a new session.
///
/// # What it survives
///
/// A request of tower-sessions writes its whole session back when it ends, over whatever another request wrote meanwhile. So
/// the tokens are in a record of their own, to which the session only points. It is written at once by every `put` and
/// `delete`, and by nothing else: a slow request cannot bring an old token back, and a refreshed token is not lost where the
/// response is an error or the browser has gone.
///
/// A login, which is a `put` with [`Precondition::Always`](oauth_dance_core::Precondition::Always), gives the session a new
/// id once its response is ready, as a defence against session fixation. It does not where the response is a server error:
/// tower-sessions does not set the cookie then, and the visitor would be left without a session.
///
/// # Limits
///
/// * **Not atomic**, for a session store knows no conditional write. Within one process, writers of a visitor's tokens wait
///   for each other all the same; what another process writes in the same moment may be lost. With a
///   [ledger](oauth_dance_core::Refresher::with_ledger) refresh tokens are redeemed once all the same.
/// * **A login ends the session id** under requests that are under way. Such a request finds no tokens any more; if it
///   writes to its session, it may put the browser back to one without them, and the visitor connects again. The same goes
///   for two first logins of a visitor at the same moment.
/// * **Durable and shared** as the store is, which cannot tell: neither is declared unless you say so.
/// * **Not listable**: each request sees the tokens of its own session only.
/// * A session that is flushed or expires takes the way to its tokens with it. The record itself, sealed, stays in the store
///   until its [lifetime](Self::with_lifetime) ends; disconnect first to have the tokens deleted and revoked.
#[derive(Clone)]
pub struct SessionTokens {
    sessions: Arc<dyn Sessions>,
    turns: vault::Turns,
    capabilities: Capabilities,
    lifetime: Duration,
    clock: Clock,
}

impl SessionTokens {
    /// Tokens in this session store, which must be the `SessionManagerLayer`'s.
    pub fn new<Release>(store: impl AnySessionStore<Release>) -> Self {
        Self {
            sessions: store.into_sessions().0,
            turns: vault::Turns::default(),
            capabilities: Capabilities::new("session"),
            lifetime: LIFETIME,
            clock: Clock::system(),
        }
    }

    /// Declares that processes share the session store, as one in a database.
    #[must_use]
    pub fn with_shared_store(self) -> Self {
        Self { capabilities: self.capabilities.with_shared(true), ..self }
    }

    /// Declares that what the session store acknowledged survives a crash.
    #[must_use]
    pub fn with_durable_store(self) -> Self {
        Self { capabilities: self.capabilities.with_durable(true), ..self }
    }

    /// Sets how long the session store keeps the tokens of a visitor who does not use them. It must be longer than sessions
    /// live. The default is 90 days.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Takes the time that retention is counted on from another clock, for tests.
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
