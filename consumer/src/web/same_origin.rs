//! Protection against cross-site request forgery, for the routes of this crate and for handlers.
//!
//! It needs no token in forms and no state: browsers report the origin of a request themselves, in headers that no script
//! can set. `same-site` is not enough, because another application under the same domain is not this application.

use axum::Json;
use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use url::Url;

use crate::app::OAuth;

/// An extractor that rejects a request that another site caused, with 403.
///
/// The origin of the application is that of its [base URL](OAuth::builder), not one in the request. A request without the
/// headers `Sec-Fetch-Site`, `Origin` and `Referer` is accepted: it comes from a program, which has no cookies of a user
/// that another site could abuse.
///
/// Make it the first argument of every handler that changes something, such as one that calls
/// [`Connections::disconnect`](crate::Connections::disconnect), unless the application has its own protection against
/// cross-site request forgery.
///
/// ```
/// use oauth_dance::{ConnectError, ConnectedRejection, Connections, SameOrigin};
///
/// async fn disconnect(_: SameOrigin, connections: Connections) -> Result<&'static str, ConnectedRejection> {
///     connections.disconnect("github").await.map_err(|error| connections.reject("github", error))?;
///     Ok("disconnected")
/// }
/// # let _ = disconnect;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SameOrigin;

impl<S> FromRequestParts<S> for SameOrigin
where
    S: Send + Sync,
    OAuth: FromRef<S>,
{
    type Rejection = CrossSiteRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let origin = OAuth::from_ref(state).inner.paths.origin();
        if is_cross_site(&parts.headers, &origin) { Err(CrossSiteRejection) } else { Ok(Self) }
    }
}

/// The rejection of [`SameOrigin`]: another site caused the request. As a response it is 403 with a JSON body.
///
/// ```
/// use axum::response::IntoResponse;
/// use oauth_dance::{CrossSiteRejection, SameOrigin};
///
/// // To show a page instead, take a `Result`.
/// async fn disconnect(origin: Result<SameOrigin, CrossSiteRejection>) -> impl IntoResponse {
///     match origin {
///         Ok(_) => "disconnected".into_response(),
///         Err(rejection) => rejection.into_response(),
///     }
/// }
/// # let _ = disconnect;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CrossSiteRejection;

impl IntoResponse for CrossSiteRejection {
    fn into_response(self) -> Response {
        let body = json!({ "error": "cross_site", "message": "the request came from another site" });
        (StatusCode::FORBIDDEN, Json(body)).into_response()
    }
}

/// Whether another site caused this request. Browsers send Fetch Metadata; older ones send `Origin` or `Referer`. A client
/// that sends none of these is not a browser of recent years.
pub(crate) fn is_cross_site(headers: &HeaderMap, origin: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("referer")) {
        (Some(from), _) => from != origin,
        (None, Some(from)) => Url::parse(from).map_or(true, |from| from.origin().ascii_serialization() != origin),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_from_other_sites_are_detected() {
        let origin = "https://app.example";
        for (headers, expected) in [
            (vec![], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none"), ("origin", "https://evil.example")], false),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("origin", "https://app.example")], false),
            (vec![("origin", "null")], true),
            (vec![("origin", "https://app.example.evil.example")], true),
            (vec![("referer", "https://app.example/page")], false),
            (vec![("referer", "https://evil.example/https://app.example/")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.insert(*name, value.parse().unwrap());
            }
            assert_eq!(is_cross_site(&map, origin), expected, "{headers:?}");
        }
    }
}
