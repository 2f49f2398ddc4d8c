//! The points of a login at which an application can take part.
//!
//! A hook is a method of one trait, so that hooks share their state, and an application implements only those that it needs.
//! Their arguments are structs that cannot be constructed outside, so that a field can be added without breaking anyone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use oauth_dance_core::{BoxError, RefreshEvent, ScopeChange, Secret, Token, TokenKey};

use crate::browser::user::User;
use crate::client::ApiClient;
use crate::error::LoginError;
use crate::protocol::openid::identity::Identity;

/// Callbacks with which an application takes part in logins and refreshes. Every method has a default that does
/// nothing.
///
/// | hook | is called | to |
/// | --- | --- | --- |
/// | [`before_login`](Self::before_login) | before the browser is redirected to the provider | change scopes and parameters, or reject the login |
/// | [`authorized`](Self::authorized) | with the new token, before it is stored | create and sign in users, check the identity |
/// | [`repeated`](Self::repeated) | if a browser sends a successful callback again | repeat what `authorized` did to the request |
/// | [`failed`](Self::failed) | after a failed login | show a page of the application |
/// | [`refresh`](Self::refresh) | after each refresh | notify users who have to connect again |
///
/// Set them with [`OAuthBuilder::hooks`](crate::OAuthBuilder::hooks). A sign-in with a provider's account, in an application
/// without [OpenID Connect](Identity):
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
    /// Called before the browser is redirected to the provider. It may change the scopes and parameters of the request;
    /// see [`BeforeLogin`]. The browser waits for it, so it should be fast.
    ///
    /// # Errors
    /// Any error stops the login, and becomes [`LoginError::Hook`].
    ///
    /// # Cancel safety
    /// If the browser disconnects, the future is dropped at its next `await`. Nothing has been stored then.
    async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
        let _ = login;
        Ok(())
    }

    /// Called after the provider has issued a token and before it is stored. It may check the identity, name the owner of
    /// the token, discard it, and choose where the browser goes next.
    ///
    /// It runs in its own task, which continues even if the browser disconnects. It therefore sees the request's
    /// extensions, but no task-local value. Until it returns, the token exists only in this process, so do nothing here
    /// that can be done later.
    ///
    /// # Errors
    /// Any error stops the login, and the token is not stored.
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let _ = login;
        Ok(Decision::store())
    }

    /// Called when a browser that did not receive the first response repeats the callback of a successful login: it was
    /// closed, or it sent the callback twice and cancelled the first request, as the pages of some providers make it
    /// do. The token is stored and the code spent; [`authorized`](Self::authorized) is not called again.
    ///
    /// If `authorized` did something to the first *request*, such as signing the user in to its session, do it here too:
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
    ///     // ... and `authorized`, which returns `Decision::store().for_user(user)`
    ///     async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
    ///         if let Some(user) = login.user {
    ///             sign_in(login.parts, user).await?;
    ///         }
    ///         Ok(None)
    ///     }
    /// }
    /// ```
    ///
    /// Cookies of the [`Decision`]'s response are set again automatically, and `None` redirects the browser to the same
    /// target. If the signed-in user is not the one who started the login, the hook is not called, and the browser is only
    /// redirected.
    ///
    /// # Errors
    /// Any error is shown instead of the page; the token remains stored.
    async fn repeated(&self, login: Repeated<'_>) -> Result<Option<Response>, BoxError> {
        let _ = login;
        Ok(None)
    }

    /// Called when a stored token was refreshed, or could not be refreshed, or needs the user's authorization. It
    /// should return immediately, and spawn a task for any work.
    ///
    /// Each process reports only its own refreshes: a user who has to connect again is reported by the process that
    /// found out.
    ///
    /// ```
    /// use oauth_dance::{Hooks, RefreshEvent, TokenKey};
    ///
    /// struct Notify(tokio::sync::mpsc::UnboundedSender<String>);
    ///
    /// impl Hooks for Notify {
    ///     fn refresh(&self, key: &TokenKey, event: &RefreshEvent) {
    ///         if matches!(event, RefreshEvent::NeedsAuthorization { .. }) {
    ///             // Another task sends the mail.
    ///             let _ = self.0.send(format!("{}: connect {} again", key.user(), key.provider()));
    ///         }
    ///     }
    /// }
    /// ```
    fn refresh(&self, key: &TokenKey, event: &RefreshEvent) {
        let _ = (key, event);
    }

    /// Called when a login has failed. It may return a page of the application; `None` shows the plain default page. The
    /// failure has been logged already, and [`LoginError`] has an example.
    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        let _ = failure;
        None
    }
}

/// No hooks.
pub(crate) struct NoHooks;

impl Hooks for NoHooks {}

/// A login about to start.
///
/// To make the provider prompt the user even if it would otherwise redirect the browser back immediately:
///
/// ```
/// use oauth_dance::{BeforeLogin, BoxError, Hooks};
///
/// struct AskAgain;
///
/// #[async_trait::async_trait]
/// impl Hooks for AskAgain {
///     async fn before_login(&self, login: &mut BeforeLogin<'_>) -> Result<(), BoxError> {
///         // The user has a connected account and is about to connect another one: let them choose.
///         if login.provider == "google" && login.user.is_some() {
///             login.params.insert("prompt".to_owned(), "select_account".to_owned());
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// For what links on the application's own pages may set, see [`Provider::login_params`](crate::Provider::login_params).
#[derive(Debug)]
#[non_exhaustive]
pub struct BeforeLogin<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The signed-in user, if any.
    pub user: Option<&'a User>,
    /// The request.
    pub parts: &'a Parts,
    /// The scopes to request.
    pub scopes: Vec<String>,
    /// Additional parameters of the authorization request, such as `login_hint` or `prompt`: those of the provider, and
    /// those of its [`login_params`](crate::Provider::login_params) that the request set.
    pub params: BTreeMap<String, String>,
}

/// A login that the provider granted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Authorized<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The signed-in user, if any.
    pub user: Option<&'a User>,
    /// The token from the provider. Its [scope](Token::scope) is what was granted, which may be less than what was
    /// requested.
    pub token: &'a Token,
    /// The requested scopes.
    pub requested: &'a [String],
    /// The verified claims of the ID token, if the login requested the scope `openid` and the provider has an issuer. `None`
    /// otherwise, and without the cargo feature `oidc`.
    pub identity: Option<Identity>,
    /// What a provider that responds with a form reports about the user in it, unchanged. It is not verified: use it to fill
    /// in a profile, not to identify the user. Apple sends a JSON object with the name, only at the first login.
    pub posted_user: Option<Secret>,
    /// A client with this token, to find out who the user is. Nothing is stored yet.
    pub client: ApiClient,
    /// The callback request, without its query.
    pub parts: &'a mut Parts,
    /// The local path that the browser is redirected to next.
    pub next: &'a str,
}

impl Authorized<'_> {
    /// How the granted scopes differ from the requested ones. A difference is not an error: the token is stored with
    /// the granted scopes unless the hook decides otherwise.
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
        ScopeChange::between(self.requested, self.token.scope())
    }
}

/// A successful login whose callback is repeated.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repeated<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The owner of the token: the signed-in user, or the one that the hook named.
    pub user: Option<&'a User>,
    /// Where the browser is redirected next.
    pub next: &'a str,
    /// The request of this callback, without its query.
    pub parts: &'a mut Parts,
}

/// A login that failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedLogin<'a> {
    /// The provider's name, if such a provider is configured.
    pub provider: Option<&'a str>,
    /// What went wrong.
    pub error: &'a LoginError,
    /// The request, without its query.
    pub parts: &'a Parts,
}

/// What to do with a token that a provider has issued: the result of [`Hooks::authorized`].
///
/// | the login | decision |
/// | --- | --- |
/// | connects an account of the signed-in user | `Decision::store()` |
/// | signs a user in, and the application calls the API later | `Decision::store().for_user(user)` |
/// | only identifies the user | `Decision::discard().redirect("/home")` |
/// | connects one of several accounts at the provider | `Decision::store().as_account(id)` |
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
    /// Stores the token for the signed-in user. If no user is signed in and none is named with [`for_user`](Self::for_user),
    /// the login fails with [`LoginError::NoUser`].
    pub fn store() -> Self {
        Self { store: true, user: None, account: None, subject: None, response: None }
    }

    /// Drops the token: the login only served to identify the user, or is rejected. The token is not revoked.
    ///
    /// Set a redirect if `next` may be a page with a [`Connected`](crate::Connected) argument: that page would redirect the
    /// browser to the login again, and if the provider does not ask the user a second time, the redirects form a loop.
    pub fn discard() -> Self {
        Self { store: false, user: None, account: None, subject: None, response: None }
    }

    /// Stores the token for this user, regardless of who is signed in. It does not sign the user in: do that in the hook,
    /// for example with the session in [`Authorized::parts`], or with a cookie of the response.
    pub fn for_user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Stores the token as one of several accounts of the user at this provider, in addition to the others. It replaces an
    /// account with the same name; see [`User::with_account`]. It is found by
    /// [`Connections::at_account`](crate::Connections::at_account), not by [`Connected`](crate::Connected).
    pub fn as_account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Identifies the account at the provider, by an identifier of the provider that never changes, such as the `id` in its
    /// userinfo. It is stored with the token. It is ignored if the provider's ID token was verified, which contains the
    /// identifier.
    ///
    /// A later login of the same user with the same account retains the stored refresh token if it returns none: some
    /// providers issue it only once. See [the
    /// guide](https://github.com/oauth-dance/oauth-dance/blob/main/docs/guide/login.md#a-login-without-a-refresh-token).
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Redirects the browser to this address instead of [`Authorized::next`]. It is not checked, so do not take it from the
    /// request.
    pub fn redirect(self, to: &str) -> Self {
        self.respond(Redirect::to(to))
    }

    /// Responds to the callback with this response instead of a redirect. Its cookies are set. If it is not a redirect, the
    /// URL of the callback remains in the browser's address bar; the code in it is spent.
    pub fn respond(mut self, response: impl IntoResponse) -> Self {
        self.response = Some(response.into_response());
        self
    }
}
