//! The extractors of handlers.
//!
//! They find the `OAuth` in the router's state and not in the request's extensions, so that a router without it does not
//! compile. A provider that is known when the program is compiled is a type; any other is a name.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use oauth_dance_core::Connection;

use super::logout::EndSession;
use super::rejection::Browser;
use crate::app::OAuth;
use crate::app::accounts::Account;
use crate::browser::user::User;
use crate::client::ApiClient;
use crate::config::provider::ProviderName;
use crate::connector::Disconnected;
use crate::error::{ConnectError, ConnectedRejection, Visitor};

/// An extractor: the client of the signed-in user at the provider `P`, with a token that has not expired.
///
/// If no account is connected, a browser is redirected to the login and returns afterwards, and any other client gets 401
/// with a JSON body. `Option<Connected<P>>` is then `None`. If the storage is unavailable, both are an error.
///
/// It finds the account without a name. If a hook names accounts ([`Decision::as_account`](crate::Decision::as_account)),
/// use [`Connections::at_account`].
///
/// | argument | no account is connected | the storage is unavailable |
/// | --- | --- | --- |
/// | `Connected<P>` | the login, or 401 | 503 |
/// | `Option<Connected<P>>` | `None` | 503 |
/// | `Result<Connected<P>, ConnectedRejection>` | `Err`, for a response of your own | `Err` |
///
/// It dereferences to [`ApiClient`], so its methods are available. An extractor that reads the body, such as `Json`, has to
/// be the last argument.
///
/// ```
/// use oauth_dance::presets::GitHub;
/// use oauth_dance::{ApiError, Connected};
///
/// async fn required(github: Connected<GitHub>) -> Result<String, ApiError> {
///     github.get("/user").send().await?.text()
/// }
///
/// async fn optional(github: Option<Connected<GitHub>>) -> &'static str {
///     if github.is_some() { "connected" } else { "not connected" }
/// }
/// # let _ = (required, optional);
/// ```
#[derive(Debug)]
pub struct Connected<P> {
    client: ApiClient,
    provider: PhantomData<fn() -> P>,
}

impl<P> Connected<P> {
    /// The client, by value, to move it into a task or a struct that does not know the type of the provider.
    pub fn into_client(self) -> ApiClient {
        self.client
    }
}

impl<P> Deref for Connected<P> {
    type Target = ApiClient;

    fn deref(&self) -> &ApiClient {
        &self.client
    }
}

impl<P, S> FromRequestParts<S> for Connected<P>
where
    P: ProviderName,
    S: Send + Sync,
    OAuth: FromRef<S>,
{
    type Rejection = ConnectedRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let connections = Connections::new(parts, OAuth::from_ref(state)).await?;
        match connections.client(P::NAME).await {
            Ok(client) => Ok(Self { client, provider: PhantomData }),
            Err(error) => Err(connections.reject(P::NAME, error)),
        }
    }
}

impl<P, S> OptionalFromRequestParts<S> for Connected<P>
where
    P: ProviderName,
    S: Send + Sync,
    OAuth: FromRef<S>,
{
    type Rejection = ConnectedRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Self::Rejection> {
        match <Self as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(connected) => Ok(Some(connected)),
            Err(rejection) if rejection.error().needs_login() => Ok(None),
            Err(rejection) => Err(rejection),
        }
    }
}

/// An extractor: the connections of the signed-in user, for providers whose names are known only at run time, and for pages
/// that show or change connections.
///
/// Extracting it reads no token and sends no request. It fails only if the user cannot be determined. A visitor who is
/// not signed in has no connections. Its methods are those of [`OAuth`] for the signed-in user, and they also work if
/// each request has its own storage.
///
/// ```
/// use axum::extract::Path;
/// use oauth_dance::{ConnectError, ConnectedRejection, Connections};
///
/// async fn status(connections: Connections, Path(name): Path<String>) -> Result<String, ConnectedRejection> {
///     let client = connections.client(&name).await.map_err(|error| connections.reject(&name, error))?;
///     Ok(format!("{:?}", client.token().scope()))
/// }
/// # let _ = status;
/// ```
#[derive(Clone, Debug)]
pub struct Connections {
    oauth: OAuth,
    user: Option<User>,
    browser: Option<Arc<dyn Visitor>>,
}

impl Connections {
    async fn new(parts: &mut Parts, oauth: OAuth) -> Result<Self, ConnectedRejection> {
        let browser = Browser::of(parts, &oauth);
        let failed = |error| ConnectedRejection::new(error, None, browser.clone());
        let oauth = oauth.in_request(&parts.extensions).ok_or_else(|| failed(ConnectError::NoRequestStorage))?;
        let user = oauth.current_user(parts).await.map_err(|error| failed(ConnectError::Users(error)))?;
        Ok(Self { oauth, user, browser })
    }

    /// The signed-in user, if any, as the application's source of users identifies them. With
    /// [`anonymous_users`](crate::OAuthBuilder::anonymous_users), a browser is a user from its first login on.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The same for one of several accounts of the signed-in user at a provider; see [`User::with_account`].
    ///
    /// ```
    /// use axum::extract::Path;
    /// use oauth_dance::{ApiError, ConnectedRejection, Connections};
    ///
    /// async fn mail(connections: Connections, Path(account): Path<String>) -> Result<String, ConnectedRejection> {
    ///     let connections = connections.at_account(account);
    ///     let google = connections.client("google").await.map_err(|error| connections.reject("google", error))?;
    ///     Ok(format!("{:?}", google.token().scope()))
    /// }
    /// # let _ = mail;
    /// ```
    ///
    /// The account is a part of the path here, so the user chooses it. That is safe: it selects among the accounts of the
    /// signed-in user only.
    #[must_use]
    pub fn at_account(&self, account: impl Into<String>) -> Self {
        let user = self.user.clone().map(|user| user.with_account(account));
        Self { user, ..self.clone() }
    }

    /// All accounts of the signed-in user; see [`OAuth::accounts`].
    ///
    /// # Errors
    /// [`ConnectError`]. If no user is signed in, the list is empty.
    pub async fn accounts(&self) -> Result<Vec<Account>, ConnectError> {
        match &self.user {
            Some(user) => self.oauth.accounts(user).await,
            None => Ok(Vec::new()),
        }
    }

    /// A client of the signed-in user at this provider; see [`OAuth::client`]. If a call of that client returns
    /// [`ApiError::NeedsAuthorization`](crate::ApiError::NeedsAuthorization), the error's response is the redirect to
    /// the login, as that of [`reject`](Self::reject).
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::NotConnected`] also if no user is signed in.
    pub async fn client(&self, provider: &str) -> Result<ApiClient, ConnectError> {
        let Some(user) = &self.user else {
            self.oauth.registered(provider)?;
            return Err(ConnectError::NotConnected);
        };
        let client = self.oauth.client(provider, user).await?;
        Ok(ApiClient { browser: self.browser.clone(), ..client })
    }

    /// A client for each provider that the signed-in user has connected, with the provider's name, sorted by name. All
    /// tokens are read concurrently; see [`OAuth::clients`]. A token that cannot be used is an error of its provider
    /// only.
    ///
    /// Named accounts are not included: pass the result of [`accounts`](Self::accounts) to [`OAuth::clients`].
    ///
    /// ```
    /// use oauth_dance::Connections;
    ///
    /// async fn page(connections: Connections) -> String {
    ///     let all = connections.all().await;
    ///     let lines = all.iter().map(|(provider, client)| match client {
    ///         Ok(client) => format!("{provider}: {:?}", client.token().scope()),
    ///         Err(error) => format!("{provider}: {error}"),
    ///     });
    ///     lines.collect::<Vec<_>>().join("\n")
    /// }
    /// # let _ = page;
    /// ```
    pub async fn all(&self) -> Vec<(&str, Result<ApiClient, ConnectError>)> {
        let Some(user) = &self.user else { return Vec::new() };
        let wanted: Vec<_> = self.oauth.providers().map(|(name, _)| (name, user)).collect();
        let clients = self.oauth.clients(&wanted).await;
        let mut connected = Vec::new();
        for ((name, _), client) in wanted.into_iter().zip(clients) {
            match client {
                Err(ConnectError::NotConnected) => {}
                Err(error) => connected.push((name, Err(error))),
                Ok(client) => connected.push((name, Ok(ApiClient { browser: self.browser.clone(), ..client }))),
            }
        }
        connected
    }

    /// The stored connection of the signed-in user at this provider; see [`OAuth::connection`].
    ///
    /// # Errors
    /// [`ConnectError`]. If no user is signed in, the result is `None`.
    pub async fn connection(&self, provider: &str) -> Result<Option<Connection>, ConnectError> {
        self.oauth.registered(provider)?;
        match &self.user {
            Some(user) => self.oauth.connection(provider, user).await,
            None => Ok(None),
        }
    }

    /// Deletes the signed-in user's token of this provider and revokes it there; see [`OAuth::disconnect`]. Put a
    /// [`SameOrigin`](crate::SameOrigin) argument before it, so that no other site can cause the request.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::NotConnected`] if no user is signed in.
    pub async fn disconnect(&self, provider: &str) -> Result<Disconnected, ConnectError> {
        let Some(user) = &self.user else {
            self.oauth.registered(provider)?;
            return Err(ConnectError::NotConnected);
        };
        self.oauth.disconnect(provider, user).await
    }

    /// Redirects the browser to the provider to end the signed-in user's session there too; see [`OAuth::end_session`].
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::NotConnected`] if no user is signed in.
    pub async fn end_session(&self, provider: &str, next: &str) -> Result<Option<EndSession>, ConnectError> {
        self.oauth.registered(provider)?;
        let user = self.user.as_ref().ok_or(ConnectError::NotConnected)?;
        self.oauth.end_session(provider, user, next).await
    }

    /// The response to a [`ConnectError`]: a redirect to the login for a browser if a login helps, and otherwise a status
    /// with a page or JSON. After the login, the browser returns to the page of this request, if it was a `GET`.
    pub fn reject(&self, provider: &str, error: ConnectError) -> ConnectedRejection {
        ConnectedRejection::as_of(error, provider, self.browser.clone(), self.oauth.http().clock.now())
    }
}

impl<S> FromRequestParts<S> for Connections
where
    S: Send + Sync,
    OAuth: FromRef<S>,
{
    type Rejection = ConnectedRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Self::new(parts, OAuth::from_ref(state)).await
    }
}
