use std::fmt;

use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::log::LoggedRequest;

/// Decides on authorization requests as the resource owner does (RFC 6749 section 1.1), and knows the users.
///
/// A [`TestProvider`](super::TestProvider) without one approves every request at once. With one it can show pages: the
/// `oauth-dance demo` asks for a login and for consent this way.
///
/// ```
/// use std::sync::Arc;
/// use oauth_dance::testing::{AuthorizationRequest, Decision, ResourceOwner, TestProvider};
///
/// /// Grants no application but one.
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

    /// What the userinfo endpoint and ID tokens contain about a user besides `sub`, in this scope. The default is nothing.
    fn claims(&self, user: &str, scope: &[&str]) -> Map<String, Value> {
        let _ = (user, scope);
        Map::new()
    }

    /// The page for a browser whose request is wrong or leads to nothing. The default is text.
    fn error_page(&self, status: StatusCode, message: &str) -> Response<String> {
        let mut page = Response::new(message.to_owned());
        *page.status_mut() = status;
        page
    }
}

/// A valid authorization request that waits for a decision.
#[derive(Debug)]
#[non_exhaustive]
pub struct AuthorizationRequest<'a> {
    /// The client.
    pub client_id: &'a str,
    /// Where the browser goes once the decision is made.
    pub redirect_uri: &'a str,
    /// The scope that was asked for. Empty with OAuth 1.0a, which has none.
    pub scope: &'a str,
    /// The browser's request.
    pub http: &'a LoggedRequest,
}

/// What a [`ResourceOwner`] answers.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision {
    /// Grants what was asked for, as the user with this subject identifier.
    Approve(String),
    /// Refuses with this error code, such as `access_denied`.
    Deny(String),
    /// Decides nothing yet: the browser gets this response.
    Ask(Response<String>),
}
