//! The user in front of the provider, who approves or denies.

use std::fmt;

use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::log::LoggedRequest;

/// Decides on authorization requests as the resource owner (RFC 6749 section 1.1), and knows the users.
///
/// Without one, a [`TestProvider`](super::TestProvider) approves every request immediately. A resource owner can also
/// show pages: `oauth-dance demo` does so for a login and for consent.
///
/// ```
/// use std::sync::Arc;
/// use oauth_dance::testing::{AuthorizationRequest, Decision, ResourceOwner, TestProvider};
///
/// /// Grants access to one application only.
/// #[derive(Debug)]
/// struct Cautious;
///
/// impl ResourceOwner for Cautious {
///     fn decide(&self, request: &AuthorizationRequest<'_>) -> Decision {
///         match request.client_id {
///             "test-client" => Decision::Approve("alice".to_owned()),
///             _ => Decision::Deny("access_denied".to_owned()),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let provider = TestProvider::start().await?;
/// provider.configure(|settings| settings.resource_owner = Some(Arc::new(Cautious)));
/// # Ok(())
/// # }
/// ```
pub trait ResourceOwner: fmt::Debug + Send + Sync {
    /// Decides on a request whose client, redirect URI and parameters are valid. The form of a page goes to the page's own
    /// URL by POST, and is the next request to decide on.
    fn decide(&self, request: &AuthorizationRequest<'_>) -> Decision;

    /// The userinfo and ID token claims about a user in addition to `sub`, for this scope. The default is none.
    fn claims(&self, user: &str, scope: &[&str]) -> Map<String, Value> {
        let _ = (user, scope);
        Map::new()
    }

    /// The error page for a browser. The default is plain text.
    fn error_page(&self, status: StatusCode, message: &str) -> Response<String> {
        let mut page = Response::new(message.to_owned());
        *page.status_mut() = status;
        page
    }
}

/// A valid authorization request that waits for a decision. Its client, redirect URI and parameters have been checked.
#[derive(Debug)]
#[non_exhaustive]
pub struct AuthorizationRequest<'a> {
    /// The client.
    pub client_id: &'a str,
    /// The redirect URI to which the browser returns after the decision. It is empty for a device (RFC 8628).
    pub redirect_uri: &'a str,
    /// The requested scope. It is empty with OAuth 1.0a, which has no scopes.
    pub scope: &'a str,
    /// The browser's request.
    pub http: &'a LoggedRequest,
}

/// The decision of a [`ResourceOwner`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision {
    /// Grants the request, as the user with this subject identifier.
    Approve(String),
    /// Denies the request with this error code, such as `access_denied`.
    Deny(String),
    /// Postpones the decision: the browser gets this response.
    Ask(Response<String>),
}
