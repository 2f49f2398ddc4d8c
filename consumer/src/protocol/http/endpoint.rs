//! Calls of the authorization server's endpoints: the answer, or why there is none.

use reqwest::RequestBuilder;

use super::lease::is_lease_over;
use super::{Answer, HttpClients, ReadError, SendError, without_url};
use crate::error::TokenEndpointError;
use crate::protocol::dpop::Binding;

/// More than any token response has; what is longer is no token response.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Sends a request and reads the whole answer.
pub(crate) async fn send(
    http: &HttpClients,
    request: RequestBuilder,
    binding: Option<Binding<'_>>,
) -> Result<Answer, TokenEndpointError> {
    match receive(http, request, binding).await? {
        (answer, None) => Ok(answer),
        (_, Some(cut)) => Err(cut),
    }
}

/// Sends a request and reads as much of the answer as comes, with why it is not whole if it is not. It ends a little
/// before the caller gives up, so that nothing that has been read is lost.
pub(crate) async fn receive(
    http: &HttpClients,
    request: RequestBuilder,
    binding: Option<Binding<'_>>,
) -> Result<(Answer, Option<TokenEndpointError>), TokenEndpointError> {
    let request = request.timeout(http.limits.timeout.mul_f32(0.95));
    match http.send(request, binding, MAX_RESPONSE).await {
        Ok(answer) => Ok((answer, None)),
        Err(SendError::Cut { answer, why: ReadError::TooLarge }) => {
            Ok((*answer, Some(TokenEndpointError::Answer("it is too large"))))
        }
        Err(SendError::Cut { answer, why: ReadError::Broken(error) }) => Ok((*answer, Some(transport(error)))),
        Err(SendError::Proof) => Err(TokenEndpointError::Proof),
        Err(SendError::Http(error)) => Err(transport(error)),
    }
}

pub(crate) fn transport(error: reqwest::Error) -> TokenEndpointError {
    if is_lease_over(&error) {
        TokenEndpointError::LeaseOver
    } else if error.is_connect() || error.is_builder() {
        TokenEndpointError::Unreachable(without_url(error))
    } else if error.is_timeout() {
        TokenEndpointError::Timeout
    } else {
        TokenEndpointError::Transport(without_url(error))
    }
}
