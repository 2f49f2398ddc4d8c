//! Stands for the application's own sessions: here tower-sessions, with the signed-in user's id in them.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use oauth_dance::User;
use tower_sessions::cookie::SameSite;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, session};

use crate::people::Id;

const USER: &str = "user";

/// Sessions in memory; take a store that lasts.
///
/// The cookie is `SameSite=Lax`: with `Strict`, which is the default of tower-sessions, browsers do not send it on the way
/// back from a provider.
pub fn layer(base_url: &str) -> SessionManagerLayer<MemoryStore> {
    layer_on(MemoryStore::default(), base_url)
}

/// The same in this store.
pub fn layer_on(store: MemoryStore, base_url: &str) -> SessionManagerLayer<MemoryStore> {
    SessionManagerLayer::new(store).with_secure(base_url.starts_with("https:")).with_same_site(SameSite::Lax)
}

/// An extractor: who is signed in, if anybody. A session that cannot be read is an error, and never a visitor.
///
/// Where users can be deleted, look here whether there still is such a one.
#[derive(Clone, Copy, Debug)]
pub struct SignedIn(pub Option<Id>);

impl SignedIn {
    /// The same for the library: what its tokens are stored under.
    pub fn user(self) -> Option<User> {
        self.0.map(user)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = Session::from_request_parts(parts, state).await?;
        let unavailable = |_: session::Error| (StatusCode::SERVICE_UNAVAILABLE, "the session cannot be read");
        session.get(USER).await.map(Self).map_err(unavailable)
    }
}

/// Signs a user in. The session gets a new id, so that one that somebody planted before is worth nothing.
///
/// # Errors
/// If the session store fails.
pub async fn sign_in(session: &Session, id: Id) -> Result<(), session::Error> {
    session.cycle_id().await?;
    session.insert(USER, id).await
}

/// Signs whoever it is out. Their tokens stay: background jobs go on working for them.
///
/// # Errors
/// If the session store fails.
pub async fn sign_out(session: &Session) -> Result<(), session::Error> {
    session.flush().await
}

/// What tokens are stored under: the primary key, which never changes and is never given to anybody else.
pub fn user(id: Id) -> User {
    User::new(id.to_string())
}
