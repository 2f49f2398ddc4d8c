//! With `axum-login`: it manages the signed-in user, and a login at a provider signs the user in.

use std::convert::Infallible;

use async_trait::async_trait;
use axum::Router;
use axum::extract::FromRequestParts as _;
use axum::http::StatusCode;
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use axum_login::tower_sessions::cookie::SameSite;
use axum_login::tower_sessions::{MemoryStore, SessionManagerLayer};
use axum_login::{AuthManagerLayerBuilder, AuthUser, AuthnBackend, login_required};
use oauth_dance::presets::GitHub;
use oauth_dance::{
    ApiError, Authorized, BoxError, ConfigError, Connected, Decision, Hooks, KeyRing, OAuth, Registration, Repeated,
    SameOrigin, TokenStorage,
};

use crate::create_or_login::who;
use crate::people::{Id, Identity, People};
use crate::sessions;

type AuthSession = axum_login::AuthSession<Backend>;

/// The application.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    github: Registration,
    people: People,
    own_pages: Router,
) -> Result<Router, ConfigError> {
    let oauth = OAuth::builder(base_url, storage, keys)
        .provider(github)
        .user(|auth: AuthSession| async move { auth.user.map(|person| sessions::user(person.id)) })
        .hooks(SignIn)
        .build()?;
    let sessions = SessionManagerLayer::new(MemoryStore::default())
        .with_secure(base_url.starts_with("https:"))
        .with_same_site(SameSite::Lax);
    Ok(Router::new()
        .route("/me", get(me))
        .route_layer(login_required!(Backend, login_url = "/login/github"))
        .route("/sign-out", post(sign_out))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(AuthManagerLayerBuilder::new(Backend { people }, sessions).build()))
}

async fn me(github: Connected<GitHub>) -> Result<String, ApiError> {
    github.userinfo().send().await?.success()?.text()
}

async fn sign_out(_: SameOrigin, mut auth: AuthSession) -> Result<Redirect, StatusCode> {
    auth.logout().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Redirect::to("/"))
}

/// Signs the user in after their login at the provider.
struct SignIn;

#[async_trait]
impl Hooks for SignIn {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let identity = who(&login).await?;
        let mut auth = AuthSession::from_request_parts(login.parts, &()).await.map_err(|(_, why)| why)?;
        if let Some(person) = &auth.user {
            if !auth.backend.people.link(person.id, identity) {
                return Ok(Decision::discard().respond((StatusCode::CONFLICT, "This account is another user's.")));
            }
            return Ok(Decision::store());
        }
        let Some(person) = auth.authenticate(identity).await? else { return Ok(Decision::discard()) };
        // Gives the session a new id. `login` does not do so if a user was signed in to it before, even a deleted one.
        auth.session.cycle_id().await?;
        auth.login(&person).await?;
        Ok(Decision::store().for_user(sessions::user(person.id)))
    }

    /// The response with the signed-in session never arrived, so this session is signed in.
    async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
        let Some(user) = login.user else { return Ok(None) };
        let mut auth = AuthSession::from_request_parts(login.parts, &()).await.map_err(|(_, why)| why)?;
        if let Some(person) = auth.backend.get_user(&user.id().parse()?).await?.filter(|_| auth.user.is_none()) {
            auth.session.cycle_id().await?;
            auth.login(&person).await?;
        }
        Ok(None)
    }
}

/// A user for `axum-login`.
#[derive(Clone, Debug)]
pub struct Person {
    id: Id,
}

impl AuthUser for Person {
    type Id = Id;

    fn id(&self) -> Id {
        self.id
    }

    /// A session is valid only while this stays the same. Do not use a token, because tokens change with every refresh.
    fn session_auth_hash(&self) -> &[u8] {
        b"1"
    }
}

/// The application's users for `axum-login`.
#[derive(Clone, Debug)]
pub struct Backend {
    people: People,
}

impl AuthnBackend for Backend {
    type User = Person;
    type Credentials = Identity;
    type Error = Infallible;

    async fn authenticate(&self, identity: Identity) -> Result<Option<Person>, Infallible> {
        Ok(Some(Person { id: self.people.find_or_create(identity) }))
    }

    async fn get_user(&self, id: &Id) -> Result<Option<Person>, Infallible> {
        Ok(self.people.exists(*id).then_some(Person { id: *id }))
    }
}
