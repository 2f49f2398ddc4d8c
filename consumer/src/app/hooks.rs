use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use oauth_dance_core::{BoxError, RefreshEvent, ScopeChange, Secret, Token, TokenKey};

use crate::browser::user::User;
use crate::client::ApiClient;
use crate::error::LoginError;
use crate::protocol::openid::identity::Identity;

/// Where an application takes part in the dance. Every method has a default that does nothing.
///
/// ```
/// use oauth_dance::{Authorized, BoxError, Decision, Hooks, User};
///
/// struct CreateOrLogin;
///
/// #[async_trait::async_trait]
/// impl Hooks for CreateOrLogin {
///     async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
///         let identity: serde_json::Value = login.client.userinfo().send().await?.json()?;
///         let Some(subject) = identity["sub"].as_str() else {
///             return Ok(Decision::discard());
///         };
///         // ... find or create the local user of (provider, subject), and sign them in ...
///         Ok(Decision::store().for_user(User::new(subject)).redirect("/welcome"))
///     }
/// }
/// ```
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// Before the browser is sent to the provider: may change what is asked for.
    ///
    /// # Errors
    /// Any error stops the login.
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        let _ = login;
        Ok(())
    }

    /// After the provider gave a token and before it is stored: may check the identity behind it, say whose it is,
    /// refuse to store it, and choose where the browser goes.
    ///
    /// It runs in a task of its own, to its end also if the browser has gone. So it sees the request's extensions, but no
    /// task-local value. The token exists in this process only until it returns: do nothing here that can wait.
    ///
    /// # Errors
    /// Any error stops the login, and the token is not stored.
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let _ = login;
        Ok(Decision::store())
    }

    /// When the callback of a login that ended well comes again, from a browser that the first response has not reached: it
    /// was closed, or sent the callback twice and cancelled the first request, as some providers' pages make it. The token
    /// is stored and the code spent; [`authorized`](Self::authorized) is not called again.
    ///
    /// Whatever `authorized` did to the first *request* belongs here too, such as signing the user in to its session:
    ///
    /// ```
    /// # async fn sign_in(parts: &mut http::request::Parts, user: &oauth_dance::User) -> Result<(), oauth_dance::BoxError> { Ok(()) }
    /// use axum::response::Response;
    /// use oauth_dance::{BoxError, Hooks, Repeated};
    ///
    /// struct CreateOrLogin;
    ///
    /// #[async_trait::async_trait]
    /// impl Hooks for CreateOrLogin {
    ///     // ... and `authorized`, which says `Decision::store().for_user(user)`
    ///     async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
    ///         if let Some(user) = login.user {
    ///             sign_in(login.parts, user).await?;
    ///         }
    ///         Ok(None)
    ///     }
    /// }
    /// ```
    ///
    /// Cookies that the [`Decision`]'s response set are set again without it, and `None` sends the browser where it was to
    /// go. A browser where another user is signed in than when the login was started is only sent there.
    ///
    /// # Errors
    /// Any error is shown in place of the page; the token stays stored.
    async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
        let _ = login;
        Ok(None)
    }

    /// When something happened to a stored token between logins: it was refreshed, or could not be, or the user must
    /// authorize again. It should return at once, and hand work to a task of its own.
    fn refresh(&self, key: &TokenKey, event: &RefreshEvent) {
        let _ = (key, event);
    }

    /// When a login failed: may answer with a page of the application's own. `None` gives the plain default page.
    async fn failed(&self, failure: Failure<'_>) -> Option<Response> {
        let _ = failure;
        None
    }
}

/// No hooks.
pub(crate) struct NoHooks;

impl Hooks for NoHooks {}

/// A login about to start.
///
/// To have the provider ask again, where it would otherwise send the browser back at once:
///
/// ```
/// use oauth_dance::{BeforeLogin, BoxError, Hooks};
///
/// struct AskAgain;
///
/// #[async_trait::async_trait]
/// impl Hooks for AskAgain {
///     async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
///         // A user with a connected account is about to connect another one: let them choose.
///         if login.provider == "google" && login.user.is_some() {
///             login.params.insert("prompt".to_owned(), "select_account".to_owned());
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// What the application's own pages may ask for in a link, [`Provider::login_params`](crate::Provider::login_params) says.
#[derive(Debug)]
#[non_exhaustive]
pub struct BeforeLogin<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The signed-in user, if there is one.
    pub user: Option<&'a User>,
    /// The request.
    pub parts: &'a Parts,
    /// The scopes that will be asked for.
    pub scopes: Vec<String>,
    /// More parameters of the authorization request, such as `login_hint` or `prompt`: those of the provider, and what the
    /// request sets of its [`login_params`](crate::Provider::login_params).
    pub params: BTreeMap<String, String>,
}

/// A login that the provider granted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Authorized<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The signed-in user, if there is one.
    pub user: Option<&'a User>,
    /// The token as the provider gave it. Its [scope](Token::scope) is what was granted, which may be less than was asked
    /// for.
    pub token: &'a Token,
    /// The scopes that were asked for.
    pub asked: &'a [String],
    /// Who the provider says it is, if the login asked for the scope `openid` of a provider with an issuer: its ID token was
    /// verified. `None` otherwise, and without the cargo feature `oidc`.
    pub identity: Option<Identity>,
    /// What a provider that answers by a form says of the user there, as it came. It is not verified: it is for
    /// filling in a profile, and identifies no user. Apple sends a JSON object with the name, the first time only.
    pub posted_user: Option<Secret>,
    /// A client with this token, to ask who the user is. Nothing is stored yet.
    pub client: ApiClient,
    /// The callback request, without its query.
    pub parts: &'a mut Parts,
    /// The local path that the browser goes to next.
    pub next: &'a str,
}

impl Authorized<'_> {
    /// How the scopes that were granted differ from those that were asked for. That is no error: the token is stored with
    /// what was granted, unless the hook decides otherwise.
    ///
    /// ```
    /// use oauth_dance::{Authorized, BoxError, Decision, Hooks};
    ///
    /// struct NeedsEverything;
    ///
    /// #[async_trait::async_trait]
    /// impl Hooks for NeedsEverything {
    ///     async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
    ///         let missing = login.scope_change().missing;
    ///         Ok(if missing.is_empty() { Decision::store() } else { Decision::discard().redirect("/why-we-ask") })
    ///     }
    /// }
    /// ```
    pub fn scope_change(&self) -> ScopeChange {
        ScopeChange::between(self.asked, self.token.scope())
    }
}

/// A login that ended well before, whose callback comes again.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repeated<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// Whose login it was: who was signed in, or who the hook said.
    pub user: Option<&'a User>,
    /// Where the browser goes next.
    pub next: &'a str,
    /// The request of this callback, without its query.
    pub parts: &'a mut Parts,
}

/// A login that failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// The provider's name, unless there is none of that name.
    pub provider: Option<&'a str>,
    /// What went wrong.
    pub error: &'a LoginError,
    /// The request, without its query.
    pub parts: &'a Parts,
}

/// What to do with a token that a provider granted.
#[derive(Debug)]
#[must_use]
pub struct Decision {
    pub(crate) store: bool,
    pub(crate) user: Option<User>,
    pub(crate) account: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) response: Option<Response>,
}

impl Decision {
    /// Store the token of the user who is signed in.
    pub fn store() -> Self {
        Self { store: true, user: None, account: None, subject: None, response: None }
    }

    /// Drop the token: the login served only to learn who the user is, or is refused. It is not revoked.
    ///
    /// Say where the browser goes, where `next` may be a page that asks for [`Connected`](crate::Connected): that would send
    /// it to the login again, and a provider that does not ask the user a second time makes a loop of it.
    pub fn discard() -> Self {
        Self { store: false, user: None, account: None, subject: None, response: None }
    }

    /// Store it as this user's, whoever is signed in.
    pub fn for_user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Store it as one of several accounts of the user at this provider, beside the others and in the place of one of the
    /// same name; see [`User::with_account`]. [`Connected`](crate::Connected) does not find it:
    /// [`Connections::at_account`](crate::Connections::at_account) does.
    pub fn as_account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Say which account at the provider it is, by an identifier of the provider's that never changes, such as the `id` of its
    /// userinfo. It is stored with the token, and has no use where the provider's ID token was verified, which says it.
    ///
    /// A later login of the same user and the same account retains the stored refresh token if it brings none: some
    /// providers give it once. See the guide on [logins](https://docs.rs/oauth-dance).
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Send the browser there. The address is the application's own choice and not checked.
    pub fn redirect(self, to: &str) -> Self {
        self.respond(Redirect::to(to))
    }

    /// Answer the callback with this response.
    pub fn respond(mut self, response: impl IntoResponse) -> Self {
        self.response = Some(response.into_response());
        self
    }
}
