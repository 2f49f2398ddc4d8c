//! The layer that adds a storage to each request, and changes the id of the session after a login.
//!
//! The new id prevents session fixation: an attacker who made the browser use a known session id before the login must
//! not share the session afterwards.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use oauth_dance_core::RequestStorage;
use tower_layer::Layer;
use tower_service::Service;

use super::SessionTokens;
use super::storage::SessionStorage;

impl<S> Layer<S> for SessionTokens {
    type Service = SessionTokensService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionTokensService { inner, config: Arc::new(self.clone()) }
    }
}

/// The [`Service`] of the layer [`SessionTokens`].
///
/// It is public so that the type of a stack of services can be named. Create it with [`Layer::layer`].
#[derive(Clone, Debug)]
pub struct SessionTokensService<S> {
    inner: S,
    config: Arc<SessionTokens>,
}

impl<S, In, Out> Service<Request<In>> for SessionTokensService<S>
where
    S: Service<Request<In>, Response = Response<Out>> + Clone + Send + 'static,
    S::Future: Send,
    In: Send + 'static,
    Out: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let session = self.config.sessions.of(request.extensions());
        let storage = SessionStorage::new(Arc::clone(&self.config), session);
        request.extensions_mut().insert(RequestStorage::new(storage.clone()));
        // `poll_ready` has made this service ready, and not its clone. The clone is for the next call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let response = inner.call(request).await?;
            // tower-sessions sets no cookie on a server error, so the browser would not learn a new id.
            if !response.status().is_server_error() {
                storage.cycle_id_after_login().await;
            }
            Ok(response)
        })
    }
}
