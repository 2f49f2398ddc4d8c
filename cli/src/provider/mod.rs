//! The authorization server of the demo.
//!
//! With it, a newcomer can see a complete login without an account at any provider: a login form, a consent page,
//! tokens that rotate, userinfo and revocation. It is a [`TestProvider`], whose page lists the endpoints, with pages on
//! which its users log in and consent. It is as strict as a provider should be, so that a client that works here also
//! works elsewhere.
//!
//! The scopes are `profile` (the name) and `email`. A request without a scope gets `profile`. An access token expires
//! after two minutes, so that a visitor of the demo can see it, and a grant after thirty days.
//!
//! It is only for demos and tests, because the login page shows the users and their password, and the state is in
//! memory.

mod owner;
mod pages;
mod users;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance::testing::{Client, TestProvider};
use oauth_dance::{Clock, Registration};
use oauth_dance_core::{Secret, random_bytes};

use owner::Visitors;

/// The client id of the only client of a [`LocalProvider`].
pub const CLIENT_ID: &str = "oauth-dance demo";

const SCOPES: [&str; 2] = ["profile", "email"];
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(120);
const GRANT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const MAX_BODY_BYTES: usize = 16 * 1024;

/// An authorization server for the demo, with one client and a few users.
///
/// ```
/// use oauth_dance::Clock;
/// use oauth_dance_cli::provider::LocalProvider;
///
/// let redirect_uri = "http://127.0.0.1:4000/login/local/authorized";
/// let provider = LocalProvider::new("http://127.0.0.1:4001", redirect_uri, Clock::system());
/// assert_eq!(provider.registration("local").name(), "local");
///
/// let router: axum::Router = provider.router(); // serve it at the issuer
/// ```
#[derive(Debug)]
pub struct LocalProvider {
    provider: TestProvider,
    secret: Secret,
}

impl LocalProvider {
    /// A provider that is reachable at `issuer`, an origin such as `http://127.0.0.1:4001`, with a client that has this
    /// redirect URI and a new random secret.
    pub fn new(issuer: &str, redirect_uri: &str, clock: Clock) -> Self {
        let (provider, secret) = (TestProvider::at(issuer), Secret::new(random_secret()));
        let client = Client::confidential(secret.clone()).with_redirect_uri(redirect_uri);
        let visitors = Visitors::new(issuer, redirect_uri, clock.clone());
        provider.configure(|settings| {
            settings.resource_owner = Some(Arc::new(visitors));
            settings.clients = HashMap::from([(CLIENT_ID.to_owned(), client)]);
            settings.scopes = SCOPES.map(str::to_owned).to_vec();
            settings.access_token_lifetime = ACCESS_TOKEN_LIFETIME;
            settings.grant_lifetime = Some(GRANT_LIFETIME);
            settings.issuer_parameter = true;
            settings.max_body = MAX_BODY_BYTES;
            settings.records_requests = false;
            settings.clock = clock;
        });
        Self { provider, secret }
    }

    /// This provider under a name, with its client, for [`OAuth::builder`](oauth_dance::OAuth::builder).
    pub fn registration(&self, name: &str) -> Registration {
        let mut provider = self.provider.provider(name);
        provider.title = "Local provider".to_owned();
        provider.requires_issuer = true;
        provider.with_scopes(SCOPES).client(CLIENT_ID, self.secret.clone())
    }

    /// The secret of its client.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The routes to serve at the root of the issuer.
    pub fn router(&self) -> Router {
        self.provider.router().route("/style.css", get(pages::style))
    }
}

/// 256 random bits in base64url, 43 characters: a session id or a client secret.
fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}
