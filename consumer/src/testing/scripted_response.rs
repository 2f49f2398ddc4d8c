//! Responses that deviate from those of a correct provider, one for each request.
//!
//! They are real responses on a real connection, because the failures that matter are those of the network: a connection
//! that closes after the request was processed, a body that stops half-way or never ends.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::reply::Reply;
use super::wire::Connection;

const CHUNK: usize = 64 * 1024;

/// A scripted response of a [`TestProvider`](super::TestProvider) to one request.
///
/// A constructor defines the response, and methods define how it is sent: `ScriptedResponse::normal().lost()` processes the
/// request, and then the connection breaks before the response is sent.
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
/// use std::time::Duration;
/// use oauth_dance::ApiError;
/// use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let provider = TestProvider::start().await?;
/// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).anonymous_users().build()?;
/// # let alice = User::new("alice");
/// # provider.connect(&oauth, "acme", &alice).await?;
/// let acme = oauth.client("acme", &alice).await?;
///
/// provider.next_response(Endpoint::Api, ScriptedResponse::endless());
/// let endless = acme.get("/notes").max_response(1_000).send().await;
/// assert!(matches!(endless, Err(ApiError::TooLarge { limit: 1_000 })));
///
/// provider.next_response(Endpoint::Api, ScriptedResponse::normal().hanging());
/// let hanging = acme.get("/notes").timeout(Duration::from_millis(50)).send().await;
/// assert!(matches!(hanging, Err(ApiError::Timeout)));
///
/// // The script is over, so this is a normal response again.
/// assert!(acme.get("/notes").send().await?.success().is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ScriptedResponse {
    content: Content,
    status: Option<StatusCode>,
    members: Vec<(String, Option<Value>)>,
    body: Option<BodyChange>,
    headers: Vec<(String, String)>,
    delivery: Delivery,
}

#[derive(Clone, Debug)]
enum Content {
    Normal,
    Nothing,
    Endless(u64),
}

#[derive(Clone, Copy, Debug)]
enum Delivery {
    AtOnce,
    After(Duration),
    Drip(Duration),
    Truncated,
    Never,
    Lost,
}

#[derive(Clone)]
struct BodyChange(Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>);

impl fmt::Debug for BodyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyChange")
    }
}

impl ScriptedResponse {
    /// Processes the request and responds as a correct provider does.
    pub fn normal() -> Self {
        Self::new(Content::Normal)
    }

    /// Ignores the request and responds with this status and an empty body.
    ///
    /// # Panics
    /// If it is not between 100 and 999.
    pub fn status(status: u16) -> Self {
        Self::new(Content::Nothing).with_status(status)
    }

    /// Ignores the request and responds with this JSON and status 200.
    #[expect(clippy::needless_pass_by_value, reason = "it accepts the result of `json!`")]
    pub fn json(value: Value) -> Self {
        Self::status(200).header("content-type", "application/json").body(value.to_string())
    }

    /// Ignores the request and responds with an error of RFC 6749 section 5.2.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestClock};
    /// use std::time::Duration;
    /// use oauth_dance::ConnectError;
    /// use oauth_dance::testing::{ScriptedResponse, TestProvider};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).clock(clock.clock()).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// # provider.connect(&oauth, "acme", &alice).await?;
    /// clock.advance(Duration::from_secs(3601));
    /// provider.next_token_response(ScriptedResponse::error(400, "invalid_grant"));
    /// let dead = oauth.client("acme", &alice).await;
    /// assert!(matches!(dead, Err(ConnectError::NeedsAuthorization { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn error(status: u16, code: &str) -> Self {
        Self::status(status).header("content-type", "application/json").body(json!({ "error": code }).to_string())
    }

    /// Ignores the request and redirects.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).header("location", location)
    }

    /// Ignores the request and responds with a body of this many zeros, which are generated while it is read.
    pub fn huge(bytes: u64) -> Self {
        Self::new(Content::Endless(bytes))
    }

    /// Ignores the request and responds with a body that does not end.
    pub fn endless() -> Self {
        Self::huge(u64::MAX)
    }

    /// Ignores the request and closes the connection without a response.
    pub fn closed() -> Self {
        Self::status(200).lost()
    }

    /// Sets a member of the JSON object in a [normal](Self::normal) response.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Removes a member of the JSON object in a [normal](Self::normal) response.
    pub fn without(mut self, name: &str) -> Self {
        self.members.push((name.to_owned(), None));
        self
    }

    /// Sets the status, also of a [normal](Self::normal) response.
    ///
    /// # Panics
    /// If it is not between 100 and 999.
    #[expect(clippy::expect_used, reason = "a test with an invalid status is wrong")]
    pub fn with_status(self, status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status is between 100 and 999");
        Self { status: Some(status), ..self }
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        self.map_body(move |_| body.to_vec())
    }

    /// Changes the body in any way.
    pub fn map_body(mut self, change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.body = Some(BodyChange(Arc::new(change)));
        self
    }

    /// Sets a header, replacing any with that name; an empty value removes it.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Responds after a delay.
    pub fn after(self, delay: Duration) -> Self {
        Self { delivery: Delivery::After(delay), ..self }
    }

    /// Sends the head at once, and then the body byte by byte with a pause before each byte.
    pub fn dripping(self, pause: Duration) -> Self {
        Self { delivery: Delivery::Drip(pause), ..self }
    }

    /// Sends the head and half of the body, and then closes the connection. With chunked encoding and without
    /// `Content-Length`, as here, only a client that checks the end of the body notices.
    pub fn truncated(self) -> Self {
        Self { delivery: Delivery::Truncated, ..self }
    }

    /// Processes the request and never responds, so that only a timeout ends the call.
    pub fn hanging(self) -> Self {
        Self { delivery: Delivery::Never, ..self }
    }

    /// Processes the request and closes the connection instead of responding. For a refresh, this is the worst case: the
    /// refresh token is spent, and the new one did not arrive.
    pub fn lost(self) -> Self {
        Self { delivery: Delivery::Lost, ..self }
    }

    fn new(content: Content) -> Self {
        Self { content, status: None, members: Vec::new(), body: None, headers: Vec::new(), delivery: Delivery::AtOnce }
    }

    pub(super) async fn give(
        self,
        normal: impl FnOnce() -> Reply,
        connection: &Connection,
        streamed: &Arc<AtomicU64>,
    ) -> Response {
        let mut reply = match &self.content {
            Content::Normal => normal(),
            Content::Nothing | Content::Endless(_) => Reply::empty(StatusCode::OK),
        };
        self.change(&mut reply);
        match self.delivery {
            Delivery::AtOnce | Delivery::Drip(_) | Delivery::Truncated => {}
            Delivery::After(delay) => tokio::time::sleep(delay).await,
            Delivery::Never => pending().await,
            Delivery::Lost => connection.sever(),
        }
        let body = match (self.content, self.delivery) {
            (Content::Endless(bytes), _) => zeros(bytes, Arc::clone(streamed)),
            (_, Delivery::Drip(pause)) => drip(reply.body, pause, Arc::clone(streamed)),
            (_, Delivery::Truncated) => half(reply.body),
            _ => Body::from(reply.body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        response
    }

    #[expect(clippy::expect_used, reason = "a test with an invalid header is wrong")]
    fn change(&self, reply: &mut Reply) {
        if !self.members.is_empty()
            && let Ok(Value::Object(mut members)) = serde_json::from_slice(&reply.body)
        {
            for (name, value) in &self.members {
                match value {
                    Some(value) => members.insert(name.clone(), value.clone()),
                    None => members.remove(name),
                };
            }
            reply.body = Value::from(members).to_string().into_bytes();
        }
        if let Some(BodyChange(change)) = &self.body {
            reply.body = change(std::mem::take(&mut reply.body));
        }
        reply.status = self.status.unwrap_or(reply.status);
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).expect("a header's name");
            match value.as_str() {
                "" => reply.headers.remove(name),
                value => reply.headers.insert(name, HeaderValue::try_from(value).expect("a header's value")),
            };
        }
    }
}

fn zeros(bytes: u64, streamed: Arc<AtomicU64>) -> Body {
    let chunk = Bytes::from(vec![b'0'; CHUNK]);
    Body::from_stream(stream::unfold(bytes, move |left| {
        let next = chunk.slice(..usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        streamed.fetch_add(next.len() as u64, Ordering::Relaxed);
        async move { (left > 0).then(|| (Ok::<_, Infallible>(next.clone()), left - next.len() as u64)) }
    }))
}

fn half(mut body: Vec<u8>) -> Body {
    body.truncate(body.len() / 2);
    Body::from_stream(stream::iter([Ok(Bytes::from(body)), Err(io::Error::from(io::ErrorKind::ConnectionAborted))]))
}

fn drip(body: Vec<u8>, pause: Duration, streamed: Arc<AtomicU64>) -> Body {
    Body::from_stream(stream::unfold(Bytes::from(body), move |mut left| {
        let streamed = Arc::clone(&streamed);
        async move {
            if left.is_empty() {
                return None;
            }
            tokio::time::sleep(pause).await;
            streamed.fetch_add(1, Ordering::Relaxed);
            let byte = left.split_to(1);
            Some((Ok::<_, Infallible>(byte), left))
        }
    }))
}
