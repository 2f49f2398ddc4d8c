//! The layer that adds a storage to each request, and cookies to its response.
//!
//! The response has to be ready before its cookies can be written. Afterwards the storage is closed, so that a late
//! write is an error and not silently lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use oauth_dance_core::RequestStorage;
use tower_layer::Layer;
use tower_service::Service;

use super::CookieTokens;
use super::storage::CookieStorage;

impl<S> Layer<S> for CookieTokens {
    type Service = CookieTokensService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CookieTokensService { inner, config: Arc::new(self.clone()) }
    }
}

/// The [`Service`] of the layer [`CookieTokens`].
///
/// It is public so that the type of a stack of services can be named. Create it with [`Layer::layer`].
#[derive(Clone, Debug)]
pub struct CookieTokensService<S> {
    inner: S,
    config: Arc<CookieTokens>,
}

impl<S, In, Out> Service<Request<In>> for CookieTokensService<S>
where
    S: Service<Request<In>, Response = Response<Out>> + Clone + Send + 'static,
    S::Future: Send,
    In: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let storage = CookieStorage::new(Arc::clone(&self.config), request.headers());
        request.extensions_mut().insert(RequestStorage::new(storage.clone()));
        // `poll_ready` has made this service ready, and not its clone. The clone is for the next call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let guard = CloseOnDrop(storage);
            let mut response = inner.call(request).await?;
            let headers = response.headers_mut();
            for cookie in guard.0.close() {
                headers.append(SET_COOKIE, cookie);
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            Ok(response)
        })
    }
}

/// Closes the storage, even if the request ends without a response.
struct CloseOnDrop(CookieStorage);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
