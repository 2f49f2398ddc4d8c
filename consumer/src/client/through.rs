//! The parts of a call that another HTTP client sends.
//!
//! The request is changed before it is sent, and the beginning of the response is read afterwards, so that the same code
//! decides whether the API rejects the token. Whatever was read is in front of the rest of the body again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::{Body as _, Frame, SizeHint};
use oauth_dance_core::Token;
use reqwest::{Body, Request, Response, ResponseBuilderExt as _};
use url::Url;

use super::rejected::{MAX_ERROR, may_reject};
use super::{ApiClient, ApiResponse, binding};
use crate::error::ApiError;
use crate::protocol::http::HttpResponse;

impl ApiClient {
    /// The request with the token, and with a signature or a proof if the token needs one. Headers of the request take
    /// precedence over the provider's usual ones.
    pub(crate) fn authorized(&self, mut request: Request) -> Result<Request, ApiError> {
        for (name, value) in self.usual_headers().into_iter().flatten() {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        request.headers_mut().extend(self.presented(&self.token)?);
        if let (Some(signer), Token::OAuth1(token)) = (&self.registered.oauth1, &*self.token) {
            return signer.sign(request, token, self.http.clock.now());
        }
        match binding(&self.token) {
            Some(binding) => self
                .http
                .with_proof(request, binding)
                .map_err(|_| ApiError::Request("no DPoP proof could be created".into())),
            None => Ok(request),
        }
    }

    /// Whether the API rejects a proof because its nonce is missing, which it does before any other processing. The nonce is
    /// known now, so the request can be sent again.
    pub(crate) fn is_new_nonce(&self, url: &Url, response: &Response) -> bool {
        binding(&self.token).is_some() && self.http.is_new_nonce(url, response)
    }

    /// The part of a response that may show that the API rejects the token, and the response unchanged. `None` if its status
    /// excludes that, or if it is a success whose body may be a stream, which has to be returned at once.
    pub(crate) async fn inspected(
        &self,
        response: Response,
        is_redirected: bool,
    ) -> Result<(Option<ApiResponse>, Response), reqwest::Error> {
        let is_error = response.status().is_client_error();
        if !may_reject(response.status(), &self.registered.declared.rejected_tokens)
            || !is_error && !may_be_json_error(&response)
        {
            return Ok((None, response));
        }
        let (status, headers, url) = (response.status(), response.headers().clone(), response.url().clone());
        let (parts, mut body) = http::Response::<Body>::from(response).into_parts();
        let mut read = ReadAgain { read: VecDeque::new(), rest: Body::default() };
        let mut beginning = Vec::new();
        while beginning.len() <= MAX_ERROR {
            let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else { break };
            let frame = frame?;
            beginning.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            read.read.push_back(frame);
        }
        read.rest = body;

        let received = HttpResponse { status, headers, body: beginning.into(), is_redirected };
        let problem = match (&self.registered.oauth1, &*self.token) {
            (Some(signer), Token::OAuth1(token)) if status.is_client_error() => {
                signer.problem(&received.headers, &received.body, token)
            }
            _ => None,
        };
        let mut again = http::Response::new(Body::wrap(read));
        // The URL can only be set by a builder.
        if let Ok(with_url) = http::Response::builder().url(url).body(()) {
            *again.extensions_mut() = with_url.into_parts().0.extensions;
        }
        *again.status_mut() = parts.status;
        *again.version_mut() = parts.version;
        *again.headers_mut() = parts.headers;
        again.extensions_mut().extend(parts.extensions);
        Ok((Some(ApiResponse::new(received, problem)), again.into()))
    }
}

/// Whether the body can be a short JSON document: by its length, or else by its type.
fn may_be_json_error(response: &Response) -> bool {
    match response.content_length() {
        Some(length) => length <= MAX_ERROR as u64,
        None => response.headers().get(header::CONTENT_TYPE).is_some_and(is_json),
    }
}

fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let subtype = essence.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

/// A body whose beginning was read.
struct ReadAgain {
    read: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for ReadAgain {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.read.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(read.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(read.saturating_add(upper));
        }
        hint
    }
}
