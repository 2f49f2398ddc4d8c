//! Requests to the authorization server's endpoints.

use reqwest::RequestBuilder;

use super::lease::is_lease_expired;
use super::{HttpClients, HttpResponse, ReadError, SendError, without_url};
use crate::error::TokenEndpointError;
use crate::protocol::dpop::Binding;

/// More than any token response has.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Sends a request and reads the whole response.
pub(crate) async fn send(
    http: &HttpClients,
    request: RequestBuilder,
    binding: Option<Binding<'_>>,
) -> Result<HttpResponse, TokenEndpointError> {
    match receive(http, request, binding).await? {
        (response, None) => Ok(response),
        (_, Some(cut)) => Err(cut),
    }
}

/// Sends a request and reads as much of the response as arrives, with the error if it is incomplete. The timeout is a little
/// shorter than the caller's, so that a partial response is not lost.
pub(crate) async fn receive(
    http: &HttpClients,
    request: RequestBuilder,
    binding: Option<Binding<'_>>,
) -> Result<(HttpResponse, Option<TokenEndpointError>), TokenEndpointError> {
    let request = request.timeout(http.limits.timeout.mul_f32(0.95));
    match http.send(request, binding, MAX_RESPONSE).await {
        Ok(response) => Ok((response, None)),
        Err(SendError::Cut { response, why: ReadError::TooLarge }) => {
            Ok((*response, Some(TokenEndpointError::InvalidResponse("it is too large"))))
        }
        Err(SendError::Cut { response, why: ReadError::Broken(error) }) => Ok((*response, Some(transport(error)))),
        Err(SendError::Proof) => Err(TokenEndpointError::Proof),
        Err(SendError::Http(error)) => Err(transport(error)),
    }
}

pub(crate) fn transport(error: reqwest::Error) -> TokenEndpointError {
    if is_lease_expired(&error) {
        TokenEndpointError::LeaseExpired
    } else if error.is_connect() || error.is_builder() {
        TokenEndpointError::Unreachable(without_url(error))
    } else if error.is_timeout() {
        TokenEndpointError::Timeout
    } else {
        TokenEndpointError::Transport(without_url(error))
    }
}
