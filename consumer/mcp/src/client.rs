//! Sends a user's token with the requests of the Rust SDK's transport.
//!
//! The SDK's own `AuthClient` does the same with an `AuthorizationManager`, but does not know which token a server has
//! rejected, refreshes once for each rejected request, and sends the token to any URL.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use oauth_dance_core::Rejection;
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::auth::{AuthError, WWWAuthenticateParams};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::Sse;
use url::Url;

use crate::connection::McpConnection;
use crate::error::to_sdk;

/// An HTTP client of the Rust SDK's transport that sends one user's token to one MCP server.
///
/// * Each request gets the current token, refreshed if necessary.
/// * A request for any other URL than the server's is an error, so that no other server receives the token.
/// * If the server rejects the token (status 401), it is replaced at most once across all processes, and the request is sent
///   once more. If it cannot be replaced, the server's challenge is returned
///   ([`auth_challenge`](StreamableHttpError::auth_challenge)).
/// * Without a usable token, the request is sent without one. The challenge in the server's response then starts the login;
///   see [`McpConnection::start_login`].
/// * If the server requires more scopes (status 403), its challenge is returned.
///
/// [`McpConnection::client`] creates it.
#[derive(Clone, Debug)]
pub struct McpClient<C> {
    http: C,
    connection: McpConnection,
}

impl<C> McpClient<C> {
    pub(crate) fn new(http: C, connection: McpConnection) -> Self {
        Self { http, connection }
    }
}

impl<C: StreamableHttpClient + Sync> McpClient<C> {
    /// Sends a request with the user's token, and once more if the token is replaced. A token that the transport itself is
    /// configured with is sent as it is.
    async fn authorized<T, F, Fut>(
        &self,
        uri: &str,
        configured: Option<String>,
        send: F,
    ) -> Result<T, StreamableHttpError<C::Error>>
    where
        F: Fn(Option<String>) -> Fut,
        Fut: Future<Output = Result<T, StreamableHttpError<C::Error>>>,
    {
        if configured.is_some() {
            return send(configured).await;
        }
        if Url::parse(uri).ok().as_ref() != Some(&self.connection.server.url) {
            let problem = "the transport's URL is not the URL of the MCP server that the token is for";
            return Err(AuthError::AuthorizationFailed(problem.to_owned()).into());
        }
        let token = match self.connection.token().await {
            Ok(token) => token,
            Err(error) => match to_sdk(&error) {
                Some(error) => return Err(error.into()),
                None => return send(None).await,
            },
        };
        let challenge = match send(Some(token.access_token.expose().to_owned())).await {
            Err(StreamableHttpError::AuthRequired(challenge)) => challenge,
            result => return result,
        };
        let params = WWWAuthenticateParams::parse(&challenge.www_authenticate_header, &self.connection.server.url);
        let why = if params.is_invalid_token() { Rejection::InvalidToken } else { Rejection::Unexplained };
        match self.connection.replace(&token.access_token, why).await {
            Ok(Some(other)) => send(Some(other.access_token.expose().to_owned())).await,
            Ok(None) => Err(StreamableHttpError::AuthRequired(challenge)),
            Err(error) => match to_sdk(&error) {
                Some(error) => Err(error.into()),
                None => Err(StreamableHttpError::AuthRequired(challenge)),
            },
        }
    }
}

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

#[deny(clippy::missing_trait_methods)]
impl<C: StreamableHttpClient + Sync> StreamableHttpClient for McpClient<C> {
    type Error = C::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<C::Error>> {
        let send =
            |token| self.http.post_message(uri.clone(), message.clone(), session.clone(), token, headers.clone());
        self.authorized(&uri, auth_header, send).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
        max: usize,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<C::Error>> {
        let send = |token| {
            let (uri, message) = (uri.clone(), message.clone());
            self.http.post_message_with_max_sse_event_size(uri, message, session.clone(), token, headers.clone(), max)
        };
        self.authorized(&uri, auth_header, send).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<C::Error>> {
        let send = |token| {
            let (uri, message) = (uri.clone(), message.clone());
            self.http.post_message_with_response_limits(uri, message, session.clone(), token, headers.clone(), limits)
        };
        self.authorized(&uri, auth_header, send).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<(), StreamableHttpError<C::Error>> {
        let send = |token| self.http.delete_session(uri.clone(), session.clone(), token, headers.clone());
        self.authorized(&uri, auth_header, send).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<Events, StreamableHttpError<C::Error>> {
        let send =
            |token| self.http.get_stream(uri.clone(), session.clone(), last_event.clone(), token, headers.clone());
        self.authorized(&uri, auth_header, send).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
        max: usize,
    ) -> Result<Events, StreamableHttpError<C::Error>> {
        let send = |token| {
            let (uri, session, last_event) = (uri.clone(), session.clone(), last_event.clone());
            self.http.get_stream_with_max_sse_event_size(uri, session, last_event, token, headers.clone(), max)
        };
        self.authorized(&uri, auth_header, send).await
    }
}
