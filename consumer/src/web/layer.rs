//! The layer that renews the cookies of anonymous users.
//!
//! It adds a cookie only to the response to a browser whose cookie an older key sealed, so that other responses can be
//! cached.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;

use crate::app::OAuth;

impl OAuth {
    /// A layer for all pages of an application with [`anonymous_users`](crate::OAuthBuilder::anonymous_users).
    ///
    /// A browser is identified by a sealed cookie that lasts 180 days. After the primary key of the ring has changed, this
    /// layer reseals the cookie at the browser's next visit, so that the old key can be dropped sooner. Without the layer,
    /// only [logins](OAuth::routes) do so, and the old key must stay in the ring for 180 days. The response to such a visit
    /// has `Cache-Control: no-store`.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    ///
    /// # fn example(oauth: oauth_dance::OAuth) {
    /// let app: Router = Router::new()
    ///     .route("/", get(|| async { "hello" }))
    ///     .merge(oauth.routes())
    ///     .layer(oauth.layer());
    /// # let _ = app;
    /// # }
    /// ```
    pub fn layer(&self) -> OAuthLayer {
        OAuthLayer { oauth: self.clone() }
    }
}

/// The layer of [`OAuth::layer`], for [`Router::layer`](axum::Router::layer) or any `tower` service. Without
/// [`anonymous_users`](crate::OAuthBuilder::anonymous_users) it does nothing.
#[derive(Clone, Debug)]
pub struct OAuthLayer {
    oauth: OAuth,
}

impl<S> Layer<S> for OAuthLayer {
    type Service = OAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OAuthService { inner, oauth: self.oauth.clone() }
    }
}

/// The service that [`OAuthLayer`] creates. It changes only the headers of responses.
#[derive(Clone, Debug)]
pub struct OAuthService<S> {
    inner: S,
    oauth: OAuth,
}

impl<S, In, Out> Service<Request<In>> for OAuthService<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let renewed = self.oauth.renewed_cookies(request.headers());
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            let headers = response.headers_mut();
            for cookie in renewed {
                // A cookie that the response itself sets is newer.
                if headers.get_all(header::SET_COOKIE).iter().all(|set| name(set) != name(&cookie)) {
                    headers.append(header::SET_COOKIE, cookie);
                    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                }
            }
            Ok(response)
        })
    }
}

/// The name of the cookie that a header sets.
fn name(cookie: &HeaderValue) -> Option<&[u8]> {
    cookie.as_bytes().split(|byte| *byte == b'=').next()
}
