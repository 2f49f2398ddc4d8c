//! The routes, the extractors and the pages of the login, its callback, and the logout.
//!
//! Everything that depends on HTTP as browsers use it is here: who caused a request, what may be in a URL, and what must not
//! be cached. The rest of the crate does not see requests. Two rules apply to every route. The query of a callback, which
//! contains the code and the state, is removed from the request before a hook or a log sees it. And every response is
//! private: not cached, and without a `Referer` for the next page.

mod callback;
pub(crate) mod extract;
mod finish;
mod layer;
mod login;
pub(crate) mod logout;
mod pages;
mod rejection;
pub(crate) mod same_origin;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, OriginalUri, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri, header};
use oauth_dance_core::BoxError;
use tracing::Instrument as _;

#[cfg(doc)]
use crate::app::OAuthBuilder;
use crate::app::hooks::FailedLogin;
use crate::app::{OAuth, UserSource};
use crate::browser::user::User;
use crate::error::LoginError;
use crate::protocol::registered::Registered;

pub use layer::{OAuthLayer, OAuthService};

/// Longer than any provider's form; a code alone may have 4 KiB.
const MAX_FORM: usize = 16 * 1024;

impl OAuth {
    /// The login and callback routes of every provider, for any router's state. Merge them into the router at its root,
    /// because redirect URIs are built from the [base URL](Self::builder). The paths are the defaults;
    /// [`login_path`](OAuthBuilder::login_path) and [`callback_path`](OAuthBuilder::callback_path) change them.
    ///
    /// * `GET /login/{provider}?next=/path` redirects the browser to the provider, and afterwards to that path of this
    ///   application. If another site caused the request and a user is signed in, the response is a page that asks for
    ///   confirmation. `POST` from the application's own pages needs no confirmation.
    /// * `GET /login/{provider}/authorized` is the callback. With `POST` it accepts the form of a provider that responds
    ///   with one, and redirects the browser to the same route with `GET`.
    /// * `GET /login/{provider}/ended` is the target of a browser whose session at the provider was
    ///   [ended](OAuth::end_session).
    ///
    /// Layers that identify users, such as a session layer, must wrap these routes: call `layer` after `merge`. If they
    /// are inside, logins end with "no user is signed in".
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, testing::TestProvider};
    /// use axum::Router;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let base = format!("http://{}", listener.local_addr()?);
    /// # let oauth = OAuth::builder(&base, MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// let app: Router = Router::new().merge(oauth.routes());
    /// # tokio::spawn(async move { axum::serve(listener, app).await });
    ///
    /// // What a browser gets from the login route:
    /// # let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    /// let response = browser.get(format!("{base}/login/acme?next=/notes")).send().await?;
    /// assert_eq!(response.status(), 303);
    /// assert!(response.headers()["location"].to_str()?.starts_with(&format!("{}/authorize?", provider.url())));
    /// assert_eq!(response.headers()["cache-control"], "no-store");
    /// # Ok(())
    /// # }
    /// ```
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let (login, callback, posted, ended) = (self.clone(), self.clone(), self.clone(), self.clone());
        let login = move |request| login::handle(login, request).instrument(tracing::info_span!("login"));
        let callback = move |request| callback::handle(callback, request).instrument(tracing::info_span!("callback"));
        // HEAD must not spend an attempt, so GET is registered without it.
        let head = || async { StatusCode::METHOD_NOT_ALLOWED };
        Router::new()
            .route(
                &self.inner.paths.login_route,
                on(MethodFilter::GET.or(MethodFilter::POST), login).on(MethodFilter::HEAD, head),
            )
            .route(
                &self.inner.paths.callback_route,
                on(MethodFilter::GET, callback)
                    .on(MethodFilter::POST, move |request| callback::form_post_redirect(posted, request))
                    .on(MethodFilter::HEAD, head),
            )
            .route(&self.inner.paths.ended_route, get(move |request| logout::handle(ended, request)))
    }

    /// The signed-in user, if any.
    pub(crate) async fn current_user(&self, parts: &mut Parts) -> Result<Option<User>, BoxError> {
        match &self.inner.users {
            UserSource::Application(users) => users.current(parts).await,
            UserSource::Anonymous(users) => Ok(users.current(&parts.headers, self.inner.paths.is_https())),
        }
    }

    fn registered_in(&self, provider: &str) -> Result<&Registered, LoginError> {
        self.registered(provider).map_err(|_| LoginError::UnknownProvider)
    }

    /// The application's page for a failure, or the default one.
    async fn failed(&self, provider: &str, error: &LoginError, parts: &Parts) -> Response {
        let registered = self.connector.shared.registered.get(provider);
        let provider = registered.map(|registered| registered.declared.name.as_str());
        match error {
            LoginError::Prefetch => tracing::debug!(provider, "a login was only prefetched"),
            error => {
                tracing::warn!(provider, code = error.code(), error = error as &dyn std::error::Error, "login failed");
            }
        }
        count(provider.unwrap_or_default(), error.code());
        self.failure(registered, error, parts).await
    }

    /// Only the page, for a failure that was logged and counted before.
    async fn failure(&self, registered: Option<&Registered>, error: &LoginError, parts: &Parts) -> Response {
        let provider = registered.map(|registered| registered.declared.name.as_str());
        let response = match self.inner.hooks.failed(FailedLogin { provider, error, parts }).await {
            Some(response) => response,
            None => pages::failure(self, registered, error, &parts.headers),
        };
        private(response)
    }
}

/// Counts the outcomes of logins, for the operator of the application. The labels are from its configuration and this code.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "nothing is counted"))]
fn count(provider: &str, outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("oauth_dance_logins_total", "provider" => provider.to_owned(), "outcome" => outcome).increment(1);
}

/// The provider in the route's path; empty if there is none, because no provider has an empty name.
async fn provider_of(parts: &mut Parts) -> String {
    let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else { return String::new() };
    params.iter().find(|(name, _)| *name == "provider").map(|(_, value)| value.to_owned()).unwrap_or_default()
}

/// The form in a request body.
async fn form(body: Body) -> Result<String, LoginError> {
    let form =
        to_bytes(body, MAX_FORM).await.map_err(|_| LoginError::Malformed("the form is too long or incomplete"))?;
    String::from_utf8(form.to_vec()).map_err(|_| LoginError::Malformed("the form is not UTF-8"))
}

/// Splits a request, and removes the query, so that neither hooks nor logs can contain a code or a state.
fn split(request: Request) -> (Parts, Option<String>, Body) {
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().map(str::to_owned);
    parts.uri = without_query(&parts.uri);
    parts.extensions.remove::<OriginalUri>();
    (parts, query, body)
}

fn without_query(uri: &Uri) -> Uri {
    uri.path().parse().unwrap_or_default()
}

/// A response that depends on the user. It must not be cached, and must not reveal its URL in `Referer` (RFC 9700 section
/// 4.2.4).
fn private(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
