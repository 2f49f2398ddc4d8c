//! The HTTP clients: one for the token endpoint, which follows no redirect, and one for APIs, which follows redirects only
//! within their origin.
//!
//! Every request has a timeout for the call as a whole, and every body has a size limit, which applies while it is read.
//! URLs from outside, such as those in an issuer's metadata, have clients of their own, whose names resolve only to
//! addresses that are no nearer to this machine than the source of the URL.

pub(crate) mod challenge;
#[cfg(feature = "decompression")]
pub(crate) mod decompress;
#[cfg(not(feature = "decompression"))]
#[path = "as_received.rs"]
pub(crate) mod decompress;
pub(crate) mod document;
pub(crate) mod endpoint;
mod lease;
mod nonces;
pub(crate) mod refusal;
mod resolver;
mod send;
pub(crate) mod text;
mod words;

use std::cell::Cell;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oauth_dance_core::{BoxError, Clock, Lease};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Body, Request, Response};

use self::decompress::decompressed;
use self::lease::LeasedBody;
use self::nonces::Nonces;
use self::resolver::ZoneResolver;
use crate::config::hosts::Zone;
use crate::error::ConfigError;

const USER_AGENT: &str = concat!("oauth-dance/", env!("CARGO_PKG_VERSION"));
/// The size limit of a decompressed response.
const MAX_PLAIN: usize = 1024 * 1024;
const MAX_REDIRECTS: usize = 5;

tokio::task_local! {
    /// Whether a redirect was followed for the request in progress.
    static REDIRECTED: Cell<bool>;
}

/// The timeout of calls, and the size limit of responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For one call as a whole: connecting, sending, and reading the response.
    pub(crate) timeout: Duration,
    /// The size limit of an API response in bytes.
    pub(crate) max_response: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(20), max_response: 10 * 1024 * 1024 }
    }
}

/// Neither client stores cookies or decompresses, so the size limits apply to the bytes as received. Unrequested compression
/// by a token endpoint is decoded afterwards; see [`decompressed`](decompress::decompressed).
///
/// Each request of the application clones this a few times.
#[derive(Clone, Debug)]
pub(crate) struct HttpClients {
    shared: Arc<Shared>,
    /// The lease under which requests are sent, if any.
    lease: Option<Lease>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) token_endpoint: ByZone,
    pub(crate) api: ByZone,
    pub(crate) limits: Limits,
    nonces: Nonces,
    pub(crate) clock: Clock,
}

impl Deref for HttpClients {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl HttpClients {
    pub(crate) fn new(limits: Limits, clock: Clock) -> Result<Self, ConfigError> {
        let clients = |redirects| ByZone::new(limits, redirects).map_err(|error| ConfigError::Http(error.into()));
        let (token_endpoint, api) = (clients(Policy::none)?, clients(|| Policy::custom(stay_on_origin))?);
        let shared = Shared { token_endpoint, api, limits, nonces: Nonces::default(), clock };
        Ok(Self { shared: Arc::new(shared), lease: None })
    }

    /// The same clients, which send requests with a body only while this lease is valid.
    pub(crate) fn within(&self, lease: &Lease) -> Self {
        Self { lease: Some(lease.clone()), ..self.clone() }
    }

    /// Sends a request once, unchanged.
    pub(crate) async fn execute(
        &self,
        client: &reqwest::Client,
        mut request: Request,
        limit: usize,
    ) -> Result<HttpResponse, SendError> {
        say_that_it_is_empty(&mut request);
        if let (Some(lease), Some(bytes)) = (&self.lease, request.body().and_then(Body::as_bytes)) {
            let leased = LeasedBody::new(bytes, lease.clone());
            *request.body_mut() = Some(Body::wrap(leased));
        }
        let (response, is_redirected) = noticing_redirects(client.execute(request)).await;
        let response = response.map_err(SendError::Http)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let (body, cut) = read_what_comes(response, limit).await;
        let received = HttpResponse { status, headers, body: body.into(), is_redirected };
        match cut {
            None => Ok(received),
            Some(why) => Err(SendError::Cut { response: Box::new(received), why }),
        }
    }
}

/// A client for each zone that names may resolve to. They share no connections. Most applications need only the first one,
/// so the others are created when they are needed.
#[derive(Clone, Debug)]
pub(crate) struct ByZone {
    machine: reqwest::Client,
    farther: Arc<[OnceLock<reqwest::Client>; 2]>,
    limits: Limits,
    redirects: fn() -> Policy,
}

impl ByZone {
    fn new(limits: Limits, redirects: fn() -> Policy) -> reqwest::Result<Self> {
        let machine = client(limits, redirects(), Zone::Machine)?;
        Ok(Self { machine, farther: Arc::default(), limits, redirects })
    }

    /// The client for URLs of the configuration, whose names may resolve to any address.
    #[cfg(feature = "oauth1")]
    pub(crate) fn configured(&self) -> &reqwest::Client {
        &self.machine
    }

    /// The client whose names resolve to no zone nearer than this.
    pub(crate) fn to(&self, nearest: Zone) -> reqwest::Result<&reqwest::Client> {
        let farther = match nearest {
            Zone::Machine => return Ok(&self.machine),
            Zone::Network => &self.farther[0],
            Zone::Internet => &self.farther[1],
        };
        match farther.get() {
            Some(client) => Ok(client),
            None => {
                let made = client(self.limits, (self.redirects)(), nearest)?;
                Ok(farther.get_or_init(|| made))
            }
        }
    }
}

fn client(limits: Limits, redirects: Policy, nearest: Zone) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .dns_resolver(ZoneResolver::system(nearest))
        .redirect(redirects)
        .referer(false)
        // Another crate of the application may have enabled these features.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(limits.timeout.min(Duration::from_secs(10)))
        .timeout(limits.timeout)
        .build()
}

/// Sends a request, and returns whether [`stay_on_origin`] followed a redirect for it. The policy is called in the task that
/// polls `sending`.
pub(crate) async fn noticing_redirects<T>(sending: impl Future<Output = T>) -> (T, bool) {
    REDIRECTED.scope(Cell::new(false), async { (sending.await, REDIRECTED.with(Cell::get)) }).await
}

/// A redirect to another origin is returned instead of followed: neither the token nor the body may be sent there.
pub(crate) fn stay_on_origin(attempt: Attempt<'_>) -> Action {
    let same_origin = attempt.previous().iter().all(|url| url.origin() == attempt.url().origin());
    if !same_origin || attempt.previous().len() > MAX_REDIRECTS {
        return attempt.stop();
    }
    // An error means that the request was not sent by `noticing_redirects`, the only function that reads the value.
    let _ = REDIRECTED.try_with(|redirected| redirected.set(true));
    attempt.follow()
}

/// A complete response.
#[derive(Clone)]
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The response is from the target of a redirect, so the request may have been processed before.
    pub(crate) is_redirected: bool,
}

/// Why there is no response.
pub(crate) enum SendError {
    /// No proof could be created, so nothing was sent.
    Proof,
    Http(reqwest::Error),
    /// A response arrived, but only a part of it was read.
    Cut {
        /// What was read.
        response: Box<HttpResponse>,
        /// Why the rest was not read.
        why: ReadError,
    },
}

impl HttpResponse {
    /// The body without a content coding that was not requested.
    pub(crate) fn plain(&self) -> Bytes {
        decompressed(&self.headers, self.body.clone(), MAX_PLAIN)
    }
}

/// Sets `Content-Length: 0` on a request without a body if its method usually has one (RFC 9110 section 8.6). The HTTP
/// client omits it over HTTP/1.1, and some servers then respond with 411.
fn say_that_it_is_empty(request: &mut Request) {
    let has_length =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| request.headers().contains_key(name));
    let is_empty = request.body().is_none_or(|body| body.as_bytes().is_some_and(<[u8]>::is_empty));
    if is_empty && !has_length && [Method::POST, Method::PUT, Method::PATCH].contains(request.method()) {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// Why a body could not be read.
pub(crate) enum ReadError {
    TooLarge,
    Broken(reqwest::Error),
}

/// Reads a body of at most `limit` bytes.
#[cfg(feature = "oidc")]
pub(crate) async fn read_body(response: Response, limit: usize) -> Result<Bytes, ReadError> {
    match read_what_comes(response, limit).await {
        (body, None) => Ok(body.into()),
        (_, Some(why)) => Err(why),
    }
}

/// Reads a body until it ends, fails or reaches `limit` bytes, and returns why it is incomplete, if it is.
async fn read_what_comes(mut response: Response, limit: usize) -> (Vec<u8>, Option<ReadError>) {
    let mut body = Vec::new();
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return (body, None),
            Err(error) => return (body, Some(ReadError::Broken(error))),
        };
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return (body, Some(ReadError::TooLarge));
        }
    }
}

/// The error without its URL, whose query may contain a secret.
pub(crate) fn without_url(error: reqwest::Error) -> BoxError {
    error.without_url().into()
}
