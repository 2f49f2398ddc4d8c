//! Ending the user's session at an OpenID provider (OpenID Connect RP-Initiated Logout), and where the browser comes back.

use std::fmt;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use oauth_dance_core::{KeyRing, Secret, Token, random_bytes};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{private, query, split};
use crate::cookies::{self, SealedCookies};
use crate::error::ConnectError;
use crate::oauth::OAuth;
use crate::user::User;

/// How long the provider may ask and the user think.
const LIFETIME: Duration = Duration::from_secs(600);
const PREFIX: &str = "oauth-dance-logout-";

impl OAuth {
    /// Sends the browser to the provider to end the user's session there too, and afterwards to `next`, a path of this
    /// application. `None` if the provider has no such page.
    ///
    /// It changes nothing here. Where [`Provider::keep_id_token`](crate::Provider::keep_id_token) is set, the provider is
    /// shown the ID token that it gave, as the standard recommends, **in a URL**; otherwise it may ask the user whether they
    /// mean it. So call it before [`disconnect`](Self::disconnect), which forgets that too. The provider has to know
    /// [`post_logout_redirect_uri`](Self::post_logout_redirect_uri).
    ///
    /// ```
    /// use axum::response::{IntoResponse, Redirect, Response};
    /// use oauth_dance::{ConnectedRejection, Connections, SameOrigin};
    ///
    /// async fn logout(_: SameOrigin, connections: Connections) -> Result<Response, ConnectedRejection> {
    ///     // A provider that is down keeps nobody from logging out here.
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
        let endpoint = match (&registered.end_session_endpoint, &registered.openid) {
            (Some(endpoint), _) => Some(endpoint.clone()),
            (None, Some(openid)) => openid.end_session_endpoint(&self.inner.http, self.inner.clock.now()).await?,
            (None, None) => None,
        };
        let Some(mut url) = endpoint else { return Ok(None) };
        let found = self.tokens.get(&user.key(provider)?).await?.map(|found| found.value);
        let id_token = found.as_ref().and_then(Token::as_oauth2).and_then(|token| token.id_token.as_ref());
        let state = URL_SAFE_NO_PAD.encode(random_bytes::<32>());
        url.query_pairs_mut()
            .extend_pairs(id_token.map(|id_token| ("id_token_hint", id_token.expose())))
            .append_pair("client_id", &registered.client_id)
            .append_pair("post_logout_redirect_uri", &self.inner.paths.ended_url(provider))
            .append_pair("state", &state);
        let cookie = self.inner.endings.remember(&state, &self.inner.paths.local(Some(next)));
        Ok(Some(EndSession { url, cookie }))
    }

    /// Where the provider sends the browser back when it has ended the session: to be registered there.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`].
    pub fn post_logout_redirect_uri(&self, provider: &str) -> Result<String, ConnectError> {
        self.registered(provider)?;
        Ok(self.inner.paths.ended_url(provider))
    }
}

/// The response that sends the browser to the provider to log out there; see [`OAuth::end_session`].
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

/// Shows no query, for the ID token is in it.
impl fmt::Debug for EndSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSession").field("path", &self.url.path()).finish_non_exhaustive()
    }
}

/// Where the browser goes after each logout under way, in a sealed cookie of its own.
pub(crate) struct Endings {
    cookies: SealedCookies,
}

impl Endings {
    pub(crate) fn new(keys: KeyRing, https: bool) -> Self {
        Self { cookies: SealedCookies { keys, purpose: "oauth-dance logout", https } }
    }

    fn remember(&self, state: &str, next: &str) -> HeaderValue {
        self.cookies.set(&self.name(state), &(state, next), LIFETIME)
    }

    /// Where this browser goes that was sent away with that state, and the header that makes it forget.
    fn finish(&self, state: &str, headers: &HeaderMap) -> Option<(String, HeaderValue)> {
        let name = self.name(state);
        let mut found = cookies::all(headers).filter(|(found, _)| *found == name);
        let (remembered, next): (String, String) = found.find_map(|(_, value)| self.cookies.read(&name, value))?;
        (Secret::new(remembered) == Secret::new(state)).then(|| (next, self.cookies.remove(&name)))
    }

    fn name(&self, state: &str) -> String {
        let fingerprint = URL_SAFE_NO_PAD.encode(Sha256::digest(state));
        self.cookies.name(&format!("{PREFIX}{}", &fingerprint[..16]))
    }
}

/// The provider sends the browser back. Nothing happens here any more, so one that was not sent away goes home.
pub(super) async fn handle(oauth: OAuth, request: Request) -> Response {
    let (parts, query, _) = split(request);
    let state = query::one(query.as_deref().unwrap_or_default(), "state").ok().flatten();
    let ending = state.and_then(|state| oauth.inner.endings.finish(&state, &parts.headers));
    let Some((next, cookie)) = ending else { return private(Redirect::to(&oauth.inner.paths.home())) };
    let mut response = private(Redirect::to(&next));
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}
