//! A login from its spent attempt to its stored token, in its own task, which no browser can abort.
//!
//! The browser may disconnect at any time, or send the same callback twice and wait only for the second response. So the
//! task that spends the attempt and the code also stores the token, and the outcome for callbacks that repeat it.
//!
//! The order matters. First the attempt is spent, with a write that exactly one callback succeeds with and that proves that
//! the storage accepts writes. Only then the code is redeemed, because a code works once. The token is then stored with
//! retries, as the user would otherwise have to log in again, and the outcome comes last.

use std::sync::Arc;

use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderValue, header};
use oauth_dance_core::{ScopeChange, Secret, StorageError, Subject, Token, TokenKey, TokensError};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::app::hooks::{Authorized, Decision};
use crate::app::{OAuth, UserSource};
use crate::browser::anonymous::AnonymousUser;
use crate::browser::outcome::{Ended, LoginOutcome};
use crate::browser::user::User;
use crate::client::ApiClient;
use crate::error::LoginError;
use crate::login::attempt::Attempt;
use crate::login::earlier::Earlier;
use crate::login::parameters::Parameters;
use crate::login::redeem::{Redeemed, Redeemer};
use crate::protocol::openid::identity::Identity;
use crate::protocol::registered::Registered;

/// A callback that is about to spend its attempt.
pub(super) struct Login {
    pub(super) oauth: OAuth,
    pub(super) registered: Registered,
    pub(super) attempt: Arc<Attempt>,
    pub(super) parameters: Parameters,
    /// The signed-in user.
    pub(super) user: Option<User>,
    /// The provider's form data about the user.
    pub(super) posted: Option<Secret>,
    pub(super) parts: Parts,
}

/// The result of a callback.
#[expect(clippy::large_enum_variant, reason = "only one exists at a time, briefly")]
pub(super) enum First {
    /// Another callback has spent the attempt.
    Repeated,
    /// This callback has spent the attempt, and has ended.
    Ended(Result<(Response, Ended), LoginError>),
}

impl Login {
    /// Starts the login, and waits for it. Dropping the future aborts nothing.
    pub(super) async fn start(self) -> Result<First, LoginError> {
        let (sender, receiver) = oneshot::channel();
        let logins = self.oauth.connector.logins().clone();
        logins.spawn(self.run(sender).in_current_span());
        // It ends without a response only if the runtime shuts down.
        receiver.await.unwrap_or(Err(LoginError::Interrupted))
    }

    async fn run(self, response: oneshot::Sender<Result<First, LoginError>>) {
        let inner = Arc::clone(&self.oauth.inner);
        let is_in_time = inner.attempts.is_in_time(&self.attempt);
        let earlier = self.earlier().await;
        let spent = match inner.spent.spend(&self.attempt, is_in_time).await {
            Ok(Some(spent)) => spent,
            other => {
                let _ = response.send(other.map(|_| First::Repeated));
                return;
            }
        };
        // In its own task, so that a hook that panics leaves an outcome too.
        let ended = tokio::spawn(self.finish(earlier).in_current_span()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a login was interrupted");
            Err(LoginError::Interrupted)
        });
        let outcome = match &ended {
            Ok((_, ended)) => LoginOutcome::Ended(ended.clone()),
            Err(error) => LoginOutcome::failed(error),
        };
        let _ = response.send(Ok(First::Ended(ended)));
        inner.spent.end(spent, outcome).await;
    }

    /// What is known about an earlier token of the signed-in user.
    async fn earlier(&self) -> Earlier {
        let key = self.user.as_ref().and_then(|user| user.key(&self.registered.declared.name).ok());
        Earlier::of(&self.oauth.connector, key.as_ref()).await
    }

    /// Redeems the code, calls the hook, and stores the token.
    async fn finish(mut self, earlier: Earlier) -> Result<(Response, Ended), LoginError> {
        // A browser with an anonymous user became one in another tab; no other user has signed in.
        let became_a_user = self.attempt.is_of(None) && matches!(self.oauth.inner.users, UserSource::Anonymous(_));
        if !self.attempt.is_of(self.user.as_ref()) && !became_a_user {
            return Err(LoginError::UserChanged);
        }
        let provider = self.registered.declared.name.clone();
        let code = self.parameters.granted(&self.registered)?;
        let redeemer = Redeemer { connector: &self.oauth.connector, registered: &self.registered, earlier: &earlier };
        let before = Before { oauth: &self.oauth, registered: &self.registered, attempt: &self.attempt, redeemer };
        let redirect_uri = self.registered.redirect_uri();
        let Redeemed { mut token, identity } = redeemer.redeem(&self.attempt, redirect_uri, &code).await?;
        let details = Details { identity, posted: self.posted.take() };
        let decision = before.decide(self.user.as_ref(), &token, details, &mut self.parts).await;
        let decision = redeemer.or_revoke(token.as_oauth2(), decision).await?;

        let response = decision.response.unwrap_or_else(|| Redirect::to(&self.attempt.next).into_response());
        let response = without_fragment(&self.registered, response);
        let (mut user, mut browser) = (decision.user.or(self.user), None);
        if decision.store {
            let owner = redeemer.or_revoke(token.as_oauth2(), owner(&self.oauth, user)).await?;
            browser = owner.1;
            let owner = decision.account.into_iter().fold(owner.0, User::with_account);
            redeemer.retain_id_token_if_declared(&mut token);
            if let Token::OAuth2(token) = &mut token {
                token.subject = token.subject.take().or(decision.subject.map(named_by_application));
            }
            let storing = Storing { login: before, key: owner.key(&provider)?, token };
            storing.store().await?;
            user = Some(owner);
        }
        tracing::info!(provider, stored = decision.store, "login finished");
        super::count(&provider, if decision.store { "stored" } else { "not_stored" });
        let ended = Ended::new(&response, &self.attempt.next, user.as_ref());
        Ok((response, Ended { browser, is_stored: decision.store, ..ended }))
    }
}

/// The state before the token is stored.
#[derive(Clone, Copy)]
struct Before<'a> {
    oauth: &'a OAuth,
    registered: &'a Registered,
    attempt: &'a Attempt,
    redeemer: Redeemer<'a>,
}

impl Before<'_> {
    async fn decide(
        &self,
        user: Option<&User>,
        token: &Token,
        details: Details,
        parts: &mut Parts,
    ) -> Result<Decision, LoginError> {
        let login = Authorized {
            provider: &self.attempt.provider,
            user,
            token,
            requested: self.attempt.scopes.as_deref().unwrap_or(&self.registered.declared.scopes),
            identity: details.identity,
            posted_user: details.posted,
            client: ApiClient::new(self.oauth.http().clone(), self.registered.clone(), Arc::new(token.clone())),
            parts,
            next: &self.attempt.next,
        };
        let ScopeChange { missing, additional, .. } = login.scope_change();
        if !missing.is_empty() || !additional.is_empty() {
            let (provider, missing, additional) = (login.provider, missing.len(), additional.len());
            tracing::info!(provider, missing, additional, "the granted scopes differ from the requested ones");
        }
        self.oauth.inner.hooks.authorized(login).await.map_err(LoginError::Hook)
    }
}

/// What the provider reported about the user.
struct Details {
    identity: Option<Identity>,
    posted: Option<Secret>,
}

/// A token that was redeemed and is not stored yet.
struct Storing<'a> {
    login: Before<'a>,
    key: TokenKey,
    token: Token,
}

impl Storing<'_> {
    /// Stores the token over any earlier one: a new login always takes precedence.
    async fn store(&self) -> Result<(), LoginError> {
        let Before { oauth, attempt, redeemer, .. } = self.login;
        let mut is_handed_on = false;
        if oauth.connector.shared.per_request {
            // The response may not arrive, and then the storage of this request is lost. A repeated callback can then store
            // the token.
            let handed_on = oauth.inner.spent.hand_on(attempt, &self.token).await;
            is_handed_on = handed_on.is_ok();
            if let Err(error) = handed_on {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a token was not stored for a repeated callback"
                );
            }
        }
        match redeemer.put(&self.key, &self.token).await {
            Ok(()) => Ok(()),
            // The browser has disconnected, and its storage with it.
            Err(TokensError::Storage(StorageError::Unsupported(_))) if is_handed_on => Ok(()),
            Err(error) => {
                redeemer.revoke_unstored(&self.key, &self.token).await;
                Err(LoginError::Storage(error))
            }
        }
    }
}

/// The owner of the token, and their cookie if this login creates an anonymous user.
fn owner(oauth: &OAuth, user: Option<User>) -> Result<(User, Option<AnonymousUser>), LoginError> {
    match (user, &oauth.inner.users) {
        (Some(user), _) => Ok((user, None)),
        (None, UserSource::Anonymous(users)) => {
            let identity = users.create();
            Ok((identity.user(), Some(identity)))
        }
        (None, UserSource::Application(_)) => Err(LoginError::NoUser),
    }
}

/// An account that the application identifies. It has no issuer, so no ID token is ever compared with it.
fn named_by_application(account: String) -> Subject {
    Subject { issuer: String::new(), subject: account }
}

/// For a provider that appends a fragment to the redirect URI: adds an empty fragment to a redirect. Browsers carry a
/// fragment over to the target of a redirect unless the target has its own (RFC 9110 section 10.2.2).
pub(super) fn without_fragment(registered: &Registered, mut response: Response) -> Response {
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location = location.filter(|location| registered.declared.quirks.callback_fragment && !location.contains('#'));
    let location = location.and_then(|location| HeaderValue::try_from(format!("{location}#")).ok());
    if let Some(location) = location.filter(|_| response.status().is_redirection()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
