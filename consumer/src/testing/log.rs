//! What a [`TestProvider`](super::TestProvider) has received.
//!
//! Requests are logged as they arrived, before any check, so that a test sees what a real provider would have rejected.

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use http::{HeaderMap, Method, header};
use url::form_urlencoded;

use super::endpoints::Endpoint;

/// A request that a [`TestProvider`](super::TestProvider) received, including its secrets. It comes from
/// [`TestProvider::requests_to`](super::TestProvider::requests_to).
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestClock};
/// use std::time::Duration;
/// use oauth_dance::testing::{Endpoint, TestProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
/// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).clock(clock.clock()).anonymous_users().build()?;
/// # let alice = User::new("alice");
/// # provider.connect(&oauth, "acme", &alice).await?;
/// clock.advance(Duration::from_secs(3601));
/// oauth.client("acme", &alice).await?;
/// let request = &provider.requests_to(Endpoint::Token)[0];
/// assert_eq!(request.field("grant_type"), Some("refresh_token"));
/// assert!(request.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedRequest {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, decoded, in the original order.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The fields of the body if it was a form, decoded, in the original order.
    pub form: Vec<(String, String)>,
    /// The body as received.
    pub body: Bytes,
}

impl LoggedRequest {
    /// The whole request, unless its body is larger than this or incomplete.
    pub(super) async fn read(request: Request, max_body: usize) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, max_body).await.ok()?;
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        Some(Self {
            endpoint: Endpoint::of(parts.uri.path()),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: pairs(parts.uri.query().unwrap_or_default().as_bytes()),
            headers: parts.headers,
            form: if is_form { pairs(&body) } else { Vec::new() },
            body,
        })
    }

    /// The value of a form field that occurs exactly once. An empty value counts as omitted (RFC 6749 section 3.1).
    pub fn field(&self, name: &str) -> Option<&str> {
        only(&self.form, name)
    }

    /// The value of a query parameter that occurs exactly once. An empty value counts as omitted.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        only(&self.query, name)
    }

    /// The text of a header that occurs exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).into_iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// The value of a parameter that occurs once. An empty one counts as omitted (RFC 6749 section 3.1).
pub(super) fn only<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = pairs.iter().filter(|(found, value)| found == name && !value.is_empty());
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

/// Whether a parameter is repeated (RFC 6749 section 3.1). `resource` may be (RFC 8707 section 2), and `audience` (RFC 8693
/// section 2.1).
pub(super) fn repeats(pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(name, _)| {
        !matches!(name.as_str(), "resource" | "audience") && pairs.iter().filter(|(other, _)| other == name).count() > 1
    })
}
