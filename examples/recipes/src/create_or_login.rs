//! Users sign in *with* an account at another site. The first login creates the user.

use async_trait::async_trait;
use axum::extract::FromRequestParts as _;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use oauth_dance::{
    Authorized, BoxError, ConfigError, Decision, Hooks, KeyRing, OAuth, Registration, Repeated, TokenStorage,
};
use serde_json::Value;
use tower_sessions::Session;

use crate::people::{Identity, People};
use crate::sessions::{self, SignedIn};

/// The application.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    base_url: &str,
    storage: impl TokenStorage,
    keys: KeyRing,
    providers: impl IntoIterator<Item = Registration>,
    people: People,
    own_pages: Router,
) -> Result<Router, ConfigError> {
    let mut builder = OAuth::builder(base_url, storage, keys)
        .user(|signed_in: SignedIn| async move { signed_in.user() })
        .hooks(CreateOrLogin { people: people.clone() });
    for provider in providers {
        builder = builder.provider(provider);
    }
    let oauth = builder.build()?;
    Ok(Router::new()
        .route("/", get(home))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(Extension(people))
        .layer(sessions::layer(base_url)))
}

async fn home(SignedIn(id): SignedIn, Extension(people): Extension<People>) -> String {
    match id {
        Some(id) => format!("You are user {id}, with {} ways to sign in.", people.identities(id).len()),
        None => "Sign in at /login/github.".to_owned(),
    }
}

/// Finds or creates the user and signs them in. A user who is already signed in links one more account.
#[derive(Clone, Debug)]
pub struct CreateOrLogin {
    /// The application's users.
    pub people: People,
}

#[async_trait]
impl Hooks for CreateOrLogin {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let identity = who(&login).await?;
        let id = match login.user {
            Some(user) => {
                let id = user.id().parse()?;
                if !self.people.link(id, identity) {
                    let page = "This account is another user's, or you have linked another one.";
                    return Ok(Decision::discard().respond((StatusCode::CONFLICT, page)));
                }
                id
            }
            None => {
                let id = self.people.find_or_create(identity);
                let session = Session::from_request_parts(login.parts, &()).await.map_err(|(_, why)| why)?;
                sessions::sign_in(&session, id).await?;
                id
            }
        };
        Ok(Decision::store().for_user(sessions::user(id)))
    }

    /// The response with the signed-in session never arrived, so this session is signed in.
    async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
        if let Some(user) = login.user {
            let session = Session::from_request_parts(login.parts, &()).await.map_err(|(_, why)| why)?;
            sessions::sign_in(&session, user.id().parse()?).await?;
        }
        Ok(None)
    }
}

/// The user's identity at the provider: from the verified ID token if there is one, and otherwise from the API. For
/// each provider, always use the same one, because their identifiers may differ.
///
/// # Errors
/// If the provider does not return it.
pub async fn who(login: &Authorized<'_>) -> Result<Identity, BoxError> {
    let provider = login.provider.to_owned();
    if let Some(identity) = &login.identity {
        return Ok(Identity { provider, subject: identity.account() });
    }
    let answer: Value = login.client.userinfo().send().await?.success()?.json()?;
    let subject = subject(&answer).ok_or("the provider did not identify the user")?;
    Ok(Identity { provider, subject })
}

/// The provider's identifier of the user: OpenID providers call it `sub`, GitHub and others `id`.
pub fn subject(identity: &Value) -> Option<String> {
    let subject = match identity.get("sub").or_else(|| identity.get("id"))? {
        Value::String(subject) => subject.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    (!subject.is_empty()).then_some(subject)
}
