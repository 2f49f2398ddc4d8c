//! Represents the application's own sessions: tower-sessions that contain the signed-in user's id.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use oauth_dance::User;
use tower_sessions::cookie::SameSite;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, session};

use crate::people::Id;

const USER: &str = "user";

/// Sessions in memory. Use a durable store in production.
///
/// The cookie is `SameSite=Lax`. With `Strict`, the default of tower-sessions, browsers do not send it on the redirect
/// from a provider.
pub fn layer(base_url: &str) -> SessionManagerLayer<MemoryStore> {
    layer_on(MemoryStore::default(), base_url)
}

/// The same, with the given store.
pub fn layer_on(store: MemoryStore, base_url: &str) -> SessionManagerLayer<MemoryStore> {
    SessionManagerLayer::new(store).with_secure(base_url.starts_with("https:")).with_same_site(SameSite::Lax)
}

/// An extractor for the signed-in user, if there is one. A session that cannot be read is an error, and never a
/// visitor.
///
/// If users can be deleted, check here that the user still exists.
#[derive(Clone, Copy, Debug)]
pub struct SignedIn(pub Option<Id>);

impl SignedIn {
    /// The same user for the library, which stores tokens under it.
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

/// Signs a user in. The session gets a new id, so that a session planted by an attacker is worthless.
///
/// # Errors
/// If the session store fails.
pub async fn sign_in(session: &Session, id: Id) -> Result<(), session::Error> {
    session.cycle_id().await?;
    session.insert(USER, id).await
}

/// Signs the user out. Their tokens remain stored, and background jobs continue to use them.
///
/// # Errors
/// If the session store fails.
pub async fn sign_out(session: &Session) -> Result<(), session::Error> {
    session.flush().await
}

/// Tokens are stored under the primary key, which never changes and is never given to another user.
pub fn user(id: Id) -> User {
    User::new(id.to_string())
}
