//! Ends the user's session at an OpenID provider (OpenID Connect RP-Initiated Logout), and handles the browser's return.
//!
//! The target of the return is in a sealed cookie and not in the URL, so that a link to the route cannot redirect a browser
//! anywhere (an open redirector).

use std::fmt;

use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use oauth_dance_core::{Token, random_bytes};
use url::Url;

use super::{private, split};
use crate::app::OAuth;
use crate::browser::user::User;
use crate::error::ConnectError;
use crate::login::query;

impl OAuth {
    /// Redirects the browser to the provider to end the user's session there too, and then to `next`, a path of this
    /// application. `None` if the provider has no endpoint for this.
    ///
    /// This changes nothing in the application. If [`Provider::store_id_token`](crate::Provider::store_id_token) is set, the
    /// provider receives the ID token, as the standard recommends, **in a URL**; otherwise it may ask the user for
    /// confirmation. Call this before [`disconnect`](Self::disconnect), which deletes the ID token. Register
    /// [`post_logout_redirect_uri`](Self::post_logout_redirect_uri) at the provider.
    ///
    /// ```
    /// use axum::response::{IntoResponse, Redirect, Response};
    /// use oauth_dance::{ConnectedRejection, Connections, SameOrigin};
    ///
    /// async fn logout(_: SameOrigin, connections: Connections) -> Result<Response, ConnectedRejection> {
    ///     // The logout here does not depend on the provider.
    ///     let there = connections.end_session("acme", "/goodbye").await.ok().flatten();
    ///     connections.disconnect("acme").await.map_err(|error| connections.reject("acme", error))?;
    ///     Ok(there.map_or_else(|| Redirect::to("/goodbye").into_response(), IntoResponse::into_response))
    /// }
    /// # let _ = logout;
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Discovery`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn end_session(
        &self,
        provider: &str,
        user: &User,
        next: &str,
    ) -> Result<Option<EndSession>, ConnectError> {
        let registered = self.registered(provider)?;
        let endpoint = match (&registered.endpoints.end_session, &registered.openid) {
            (Some(endpoint), _) => Some(endpoint.clone()),
            (None, Some(openid)) => openid.end_session_endpoint(self.http(), self.http().clock.now()).await?,
            (None, None) => None,
        };
        let Some(mut url) = endpoint else { return Ok(None) };
        let found = self.connector.tokens.get(&user.key(provider)?).await?.map(|found| found.value);
        let id_token = found.as_ref().and_then(Token::as_oauth2).and_then(|token| token.id_token.as_ref());
        let state = URL_SAFE_NO_PAD.encode(random_bytes::<32>());
        url.query_pairs_mut()
            .extend_pairs(id_token.map(|id_token| ("id_token_hint", id_token.expose())))
            .append_pair("client_id", &registered.client_id)
            .append_pair("post_logout_redirect_uri", &self.inner.paths.ended_url(provider))
            .append_pair("state", &state);
        let cookie = self.inner.logouts.remember(&state, &self.inner.paths.local(Some(next)));
        Ok(Some(EndSession { url, cookie }))
    }

    /// The URI to which the provider returns the browser after it has ended the session. Register it at the provider.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`].
    pub fn post_logout_redirect_uri(&self, provider: &str) -> Result<String, ConnectError> {
        self.registered(provider)?;
        Ok(self.inner.paths.ended_url(provider))
    }
}

/// The response that redirects the browser to the provider to log out there; see [`OAuth::end_session`]. Return it from
/// a handler. If it is dropped instead, nothing happens.
#[derive(Clone)]
#[must_use]
pub struct EndSession {
    url: Url,
    cookie: HeaderValue,
}

impl IntoResponse for EndSession {
    fn into_response(self) -> Response {
        let mut response = private(Redirect::to(self.url.as_str()));
        response.headers_mut().append(header::SET_COOKIE, self.cookie);
        response
    }
}

/// Omits the query, which contains the ID token.
impl fmt::Debug for EndSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSession").field("path", &self.url.path()).finish_non_exhaustive()
    }
}

/// Handles a browser that the provider returns after a logout. A browser without the state of a logout is redirected to the
/// home page.
pub(super) async fn handle(oauth: OAuth, request: Request) -> Response {
    let (parts, query, _) = split(request);
    let state = query::one(query.as_deref().unwrap_or_default(), "state").ok().flatten();
    let logout = state.and_then(|state| oauth.inner.logouts.finish(&state, &parts.headers));
    let Some((next, cookie)) = logout else { return private(Redirect::to(&oauth.inner.paths.home())) };
    let mut response = private(Redirect::to(&next));
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}
