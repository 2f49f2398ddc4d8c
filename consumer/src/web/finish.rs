//! A login from its spent attempt to its stored token, in its own task, which no browser can abort.
//!
//! The browser may disconnect at any time, or send the same callback twice and wait only for the second response. So the
//! task that spends the attempt and the code also stores the token, and the outcome for callbacks that repeat it.
//!
//! The order matters. First the attempt is spent, with a write that exactly one callback succeeds with and that proves that
//! the storage accepts writes. Only then the code is redeemed, because a code works once. The token is then stored with
//! retries, as the user would otherwise have to log in again, and the outcome comes last.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderValue, header};
use oauth_dance_core::{
    OAuth2Token, Precondition, ScopeChange, Secret, StorageError, Subject, Token, TokenKey, TokensError,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::parameters::Parameters;
use crate::app::hooks::{Authorized, Decision};
use crate::app::{OAuth, UserSource};
use crate::browser::anonymous::AnonymousUser;
use crate::browser::attempt::Attempt;
use crate::browser::outcome::{Ended, LoginOutcome};
use crate::browser::user::User;
use crate::client::ApiClient;
use crate::error::LoginError;
use crate::protocol::oauth1;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::oauth2::token_request;
use crate::protocol::openid::identity::Identity;
use crate::protocol::registered::Registered;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// For how long writes to a failing storage are retried, as a fraction of the timeout of a request to the provider.
const RETRY_FRACTION: u32 = 4;

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
        let logins = self.oauth.inner.logins.clone();
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
        let Some(key) = key else { return Earlier::Unknown };
        match self.oauth.connector.tokens.get(&key).await {
            Ok(None) => Earlier::None(key),
            Ok(Some(_)) => Earlier::Some,
            Err(_) => Earlier::Unknown,
        }
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
        let before =
            Before { oauth: &self.oauth, registered: &self.registered, attempt: &self.attempt, earlier: &earlier };
        let (mut token, identity) = before.redeem(&code).await?;
        let details = Details { identity, posted: self.posted.take() };
        let decision = before.decide(self.user.as_ref(), &token, details, &mut self.parts).await;
        let decision = before.or_revoke(token.as_oauth2(), decision).await?;

        let response = decision.response.unwrap_or_else(|| Redirect::to(&self.attempt.next).into_response());
        let response = without_fragment(&self.registered, response);
        let (mut user, mut browser) = (decision.user.or(self.user), None);
        if decision.store {
            let owner = before.or_revoke(token.as_oauth2(), owner(&self.oauth, user)).await?;
            browser = owner.1;
            let owner = decision.account.into_iter().fold(owner.0, User::with_account);
            if let Token::OAuth2(token) = &mut token {
                token.id_token = token.id_token.take().filter(|_| self.registered.declared.store_id_token);
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

/// The state before the code is redeemed.
#[derive(Clone, Copy)]
struct Before<'a> {
    oauth: &'a OAuth,
    registered: &'a Registered,
    attempt: &'a Attempt,
    earlier: &'a Earlier,
}

impl Before<'_> {
    /// The token, and the verified identity of its owner.
    async fn redeem(&self, code: &Secret) -> Result<(Token, Option<Identity>), LoginError> {
        let Self { oauth, registered, attempt, .. } = self;
        let (http, now) = (oauth.http(), oauth.http().clock.now());
        match &registered.oauth1 {
            None => {
                let key = registered.dpop_key(attempt.dpop_key());
                let (redirect_uri, verifier) = (registered.redirect_uri(), &attempt.verifier);
                let mut token =
                    token_request::exchange_code(http, registered, redirect_uri, code.expose(), verifier, key, now)
                        .await?;
                let identity = self.or_revoke(Some(&token), self.identify(&token).await).await?;
                token.subject = identity.as_ref().map(Identity::subject);
                Ok((token.into(), identity))
            }
            Some(client) => {
                let endpoint = registered.token_endpoint();
                let temporary = oauth1::Credentials { token: &attempt.state, secret: &attempt.verifier };
                let token = oauth1::token_credentials(http, client, endpoint, temporary, code.expose(), now).await?;
                Ok((token.into(), None))
            }
        }
    }

    /// The verified identity in the ID token, if OpenID Connect was requested. A login with an ID token that fails
    /// verification fails.
    async fn identify(&self, token: &OAuth2Token) -> Result<Option<Identity>, LoginError> {
        let Self { oauth, registered, attempt, .. } = self;
        let Some(openid) = registered.openid.as_ref().filter(|_| attempt.openid) else { return Ok(None) };
        let (http, now) = (oauth.http(), oauth.http().clock.now());
        Ok(Some(openid.verify(token, attempt.id_token_expectations(), &registered.client_id, http, now).await?))
    }

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
            client: ApiClient::new(self.oauth.http().clone(), self.registered.clone(), token.clone()),
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

    /// Revokes a token that will not be stored, because this login has failed. Otherwise a provider that issues a refresh
    /// token only once, such as Google, would issue none at the next login.
    async fn or_revoke<T>(&self, token: Option<&OAuth2Token>, step: Result<T, LoginError>) -> Result<T, LoginError> {
        if step.is_err() && matches!(self.earlier, Earlier::None(_)) {
            self.revoke(token).await;
        }
        step
    }

    /// Revokes a token of OAuth 2.0. A token of OAuth 1.0a cannot be revoked.
    async fn revoke(&self, token: Option<&OAuth2Token>) {
        let Some(token) = token else { return };
        let http = self.oauth.http();
        let _ = timeout(http.limits.timeout, revoke_grant(http, self.registered, token)).await;
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

/// What is known about an earlier token. If both tokens are of the same grant, revoking one may revoke the other.
enum Earlier {
    /// There was no token under this key.
    None(TokenKey),
    Some,
    Unknown,
}

impl Storing<'_> {
    /// Stores the token over any earlier one: a new login always takes precedence.
    async fn store(&self) -> Result<(), LoginError> {
        let Before { oauth, attempt, .. } = self.login;
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
        match self.put().await {
            Ok(()) => Ok(()),
            // The browser has disconnected, and its storage with it.
            Err(TokensError::Storage(StorageError::Unsupported(_))) if is_handed_on => Ok(()),
            Err(error) => {
                self.revoke().await;
                Err(LoginError::Storage(error))
            }
        }
    }

    async fn put(&self) -> Result<(), TokensError> {
        let Before { oauth, registered, .. } = self.login;
        let give_up = Instant::now() + oauth.http().limits.timeout / RETRY_FRACTION;
        let mut pause = FIRST_RETRY;
        loop {
            let written = if registered.declared.quirks.new_login_ends_grant {
                oauth.connector.tokens.put(&self.key, &self.token, Precondition::Always).await
            } else {
                oauth.connector.tokens.put_login(&self.key, &self.token).await
            };
            let error = match written {
                Ok(_) => return Ok(()),
                Err(error) if !may_be_temporary(&error) || Instant::now() + pause > give_up => return Err(error),
                Err(error) => error,
            };
            tracing::warn!(
                provider = registered.declared.name,
                error = &error as &dyn std::error::Error,
                "the token of a login was not stored; the write is retried"
            );
            sleep(pause).await;
            pause = LONGEST_RETRY.min(pause * 2);
        }
    }

    /// Revokes the token, which is stored nowhere, if there is certainly no earlier token of the same grant that would be
    /// revoked with it. If the storage is unavailable, that is not certain.
    async fn revoke(&self) {
        let Before { oauth, earlier, .. } = self.login;
        if matches!(earlier, Earlier::Some) {
            return;
        }
        let limit = oauth.http().limits.timeout;
        let is_first = match timeout(limit, oauth.connector.tokens.get(&self.key)).await {
            Ok(Ok(found)) => found.is_none(),
            Ok(Err(_)) | Err(_) => matches!(earlier, Earlier::None(key) if *key == self.key),
        };
        if is_first {
            self.login.revoke(self.token.as_oauth2()).await;
        }
    }
}

/// Whether a retry may succeed.
fn may_be_temporary(error: &TokensError) -> bool {
    let TokensError::Storage(error) = error else { return false };
    matches!(error, StorageError::Unavailable { .. } | StorageError::Ambiguous { .. } | StorageError::Conflict)
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
