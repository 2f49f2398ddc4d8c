use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use http::{HeaderMap, Method, header};
use url::form_urlencoded;

use super::endpoints::Endpoint;

const MAX_BODY: usize = 64 * 1024 * 1024;

/// A request that a [`TestProvider`](super::TestProvider) got. It shows secrets: for tests only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedRequest {
    /// Which endpoint it was for.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, decoded, in the order it came.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The fields of the body if it was a form, decoded, in the order they came.
    pub form: Vec<(String, String)>,
    /// The body as it came.
    pub body: Bytes,
}

impl LoggedRequest {
    pub(super) async fn read(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        Self {
            endpoint: Endpoint::of(parts.uri.path()),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: pairs(parts.uri.query().unwrap_or_default().as_bytes()),
            headers: parts.headers,
            form: if is_form { pairs(&body) } else { Vec::new() },
            body,
        }
    }

    /// The value of a form field that came exactly once.
    pub fn field(&self, name: &str) -> Option<&str> {
        only(&self.form, name)
    }

    /// The value of a query parameter that came exactly once.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        only(&self.query, name)
    }

    /// The text of a header that came exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).into_iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

pub(super) fn only<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = pairs.iter().filter(|(found, _)| found == name);
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}
