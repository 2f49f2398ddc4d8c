//! A token for the requests of a client that the program has already.
//!
//! A generated SDK brings its own HTTP client, usually one of the `reqwest-middleware` crate. The middleware applies the
//! rules of [`ApiClient`](crate::ApiClient) to it, with the same code. What it cannot apply is what the client itself does:
//! its timeouts, its limits, and the redirects that it follows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use oauth_dance_core::{Connection, TokenKey};
use reqwest::redirect::Policy;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use url::Url;

use super::Connector;
use crate::client::{ApiClient, MAX_TOKENS};
use crate::protocol::http::{noticing_redirects, stay_on_origin};
use crate::protocol::registered::Registered;

impl Connector {
    /// A middleware that attaches the token under this key to the requests of a client of the
    /// [`reqwest-middleware`](https://docs.rs/reqwest-middleware) crate, with the cargo feature of that name. See
    /// [`TokenMiddleware`].
    pub fn middleware(&self, key: &TokenKey) -> TokenMiddleware {
        TokenMiddleware { connector: self.clone(), key: key.clone() }
    }
}

/// A [`Middleware`] that attaches a stored token, for generated SDKs and other code that brings its own client. It comes from
/// [`Connector::middleware`].
///
/// The token is attached only to requests to the provider's own origins: those of its
/// [API base](crate::Provider::api_base) and its userinfo endpoint, and the API base that the token response contained, if
/// the provider has [one for each user](crate::Quirks::api_base_member). All other requests pass unchanged. The storage is
/// read for each request to the provider, so the middleware can live as long as the client, and notices that a user has disconnected the account.
/// An expired token is refreshed first. If the API rejects the token, it is replaced, and the request is sent again, as
/// [`ApiRequest::send`](crate::ApiRequest::send) describes, provided that its body is in memory.
///
/// Build the client with [`redirect_policy`](Self::redirect_policy), which follows no redirect to another origin, and
/// notices the others: a request that was redirected may have been processed, and is not sent again. With another
/// policy, a redirect to the same URL is not noticed, and `reqwest` removes only the `Authorization` header before it
/// follows a redirect to another host. Add middleware that retries requests before this one, so that each attempt has a
/// valid token.
///
/// ```
/// use oauth_dance::{Connector, KeyRing, MemoryStorage, TokenKey, TokenMiddleware, testing::TestProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let provider = TestProvider::start().await?;
/// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).build()?;
/// # let alice = TokenKey::new("acme", "alice")?;
/// # provider.connect_key(&connector, &alice).await?;
/// let http = reqwest::Client::builder().redirect(TokenMiddleware::redirect_policy()).build()?;
/// let http = reqwest_middleware::ClientBuilder::new(http).with(connector.middleware(&alice)).build();
///
/// let notes = http.get(format!("{}/api/notes", provider.url())).send().await?;
/// assert_eq!(notes.json::<serde_json::Value>().await?["user"], "alice");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A request fails with [`Error::Middleware`], which contains the [`ConnectError`](crate::ConnectError), if there is no
/// usable token. A response to a token that was rejected and cannot be replaced is returned, with a
/// [`ConnectedRejection`](crate::ConnectedRejection) in its extensions; the connection needs the user's authorization then.
///
/// # Cancel safety
/// As [`ApiRequest::send`](crate::ApiRequest::send).
#[derive(Clone)]
pub struct TokenMiddleware {
    connector: Connector,
    key: TokenKey,
}

impl TokenMiddleware {
    /// A policy for the client: it follows redirects within their origin, and returns the response of any other, so that
    /// neither the token nor the body is sent there.
    pub fn redirect_policy() -> Policy {
        Policy::custom(stay_on_origin)
    }

    /// The client whose token the request gets, or `None` if the request is not for the provider.
    async fn client(&self, request: &Request) -> Result<Option<ApiClient>> {
        let registered = self.connector.registered(self.key.provider()).map_err(Error::middleware)?;
        let registered = registered.best_effort(&self.connector.shared.http).await;
        if !registered.owns(&request.url().origin()) && !self.is_named(&registered, request.url()).await {
            return Ok(None);
        }
        let client = self.connector.client(&self.key).await.map_err(Error::middleware)?;
        Ok(Some(client).filter(|client| client.owns(request.url())))
    }

    /// Whether the stored token, which may have expired, names this URL's origin as the API of its user. If there is no
    /// readable token, the request is not for the provider as far as is known.
    async fn is_named(&self, registered: &Registered, url: &Url) -> bool {
        let may_be_named = registered.declared.quirks.api_base_member.is_some()
            && registered.named_by_provider(url.as_str()).is_some();
        if !may_be_named {
            return false;
        }
        match self.connector.connection(&self.key).await {
            Ok(Some(Connection { token, .. })) => {
                ApiClient::new(self.connector.shared.http.clone(), registered.clone(), Arc::new(token)).owns(url)
            }
            Ok(None) => false,
            Err(error) => {
                let (provider, error) = (self.key.provider(), &error as &dyn std::error::Error);
                tracing::warn!(provider, error, "a request to an unknown origin is sent without a token");
                false
            }
        }
    }
}

#[async_trait]
impl Middleware for TokenMiddleware {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let Some(mut client) = self.client(&request).await? else { return next.run(request, extensions).await };
        let (mut request, mut left) = (request, MAX_TOKENS);
        loop {
            let again = request.try_clone();
            let (response, is_redirected) = send(&client, request, extensions, &next).await?;
            left -= 1;
            // The client may have followed a redirect to a stranger, who cannot reject a token.
            if !client.owns(response.url()) {
                return Ok(response);
            }
            let (inspected, mut response) = client.inspected(response, is_redirected).await?;
            let Some(inspected) = inspected else { return Ok(response) };
            match (client.replacement(&inspected).await, again) {
                (Ok(Some(token)), Some(again)) if !inspected.is_redirected && left > 0 => {
                    request = again;
                    client.token = token;
                }
                (Ok(_), _) => return Ok(response),
                (Err(rejection), _) => {
                    response.extensions_mut().insert(rejection);
                    return Ok(response);
                }
            }
        }
    }
}

/// Sends a request with the token, and once more if the API requires a nonce in the proof. Returns whether a redirect was
/// followed: then the request may have been processed before it.
async fn send(
    client: &ApiClient,
    request: Request,
    extensions: &mut Extensions,
    next: &Next<'_>,
) -> Result<(Response, bool)> {
    let (url, again) = (request.url().clone(), request.try_clone());
    let (response, is_redirected) = send_once(client, request, extensions, next).await?;
    let is_new_nonce = client.is_new_nonce(&url, &response);
    match again {
        Some(again) if is_new_nonce && !is_redirected => {
            let (response, is_redirected) = send_once(client, again, extensions, next).await?;
            client.is_new_nonce(&url, &response);
            Ok((response, is_redirected))
        }
        _ => Ok((response, is_redirected)),
    }
}

async fn send_once(
    client: &ApiClient,
    request: Request,
    extensions: &mut Extensions,
    next: &Next<'_>,
) -> Result<(Response, bool)> {
    let url = request.url().clone();
    let request = client.authorized(request).map_err(Error::middleware)?;
    let (response, is_noticed) = noticing_redirects(next.clone().run(request, extensions)).await;
    let response = response?;
    // Another policy does not report its redirects, but most of them lead to another URL.
    let is_redirected = is_noticed || *response.url() != url;
    Ok((response, is_redirected))
}

impl fmt::Debug for TokenMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMiddleware").field("key", &self.key).finish_non_exhaustive()
    }
}
