use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::HeaderMap;
use oauth_dance::testing::{TestClock, TestProvider};
use oauth_dance::{
    ApiError, Connected, ConnectedRejection, Connections, KeyRing, MemoryStorage, OAuth, OAuth2Token, OAuthBuilder,
    ProviderName, TokenStorage, User,
};
use tokio::net::TcpListener;
use url::Url;

/// The provider of every site in these tests.
pub struct Acme;

impl ProviderName for Acme {
    const NAME: &'static str = "acme";
}

/// A running application. Its users sign in with an unprotected cookie `who`, which is sufficient for a test.
pub struct Site {
    pub oauth: OAuth,
    pub clock: TestClock,
    pub storage: Arc<dyn TokenStorage>,
    pub keys: KeyRing,
    /// Where it listens.
    pub listener: String,
    /// Where browsers see it.
    pub base: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The setup of an application.
pub struct Setup {
    pub base: Option<String>,
    pub host: &'static str,
    pub storage: Arc<dyn TokenStorage>,
    pub keys: KeyRing,
    pub clock: TestClock,
}

impl Default for Setup {
    fn default() -> Self {
        let clock = TestClock::new();
        Self {
            base: None,
            host: "127.0.0.1",
            storage: Arc::new(MemoryStorage::new().with_clock(clock.clock())),
            keys: KeyRing::generate(),
            clock,
        }
    }
}

impl Setup {
    pub async fn start(self, configure: impl FnOnce(OAuthBuilder) -> OAuthBuilder) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = self.base.unwrap_or_else(|| format!("http://{}:{}", self.host, address.port()));
        let builder = OAuth::builder(&base, Arc::clone(&self.storage), self.keys.clone())
            .clock(self.clock.clock())
            .timeout(Duration::from_secs(5))
            .user(|headers: HeaderMap| async move { who(&headers).map(User::new) });
        let oauth = configure(builder).build().unwrap();
        let app = routes(&oauth);
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        let listener = format!("http://{address}");
        Site { oauth, clock: self.clock, storage: self.storage, keys: self.keys, listener, base, server }
    }
}

impl Site {
    /// An application that knows the provider as `acme`.
    pub async fn of(provider: &TestProvider) -> Self {
        let registration = provider.registration("acme");
        Setup::default().start(|builder| builder.provider(registration)).await
    }

    /// The same with the rest of the configuration changed.
    pub async fn with(provider: &TestProvider, configure: impl FnOnce(OAuthBuilder) -> OAuthBuilder) -> Self {
        let registration = provider.registration("acme");
        Setup::default().start(|builder| configure(builder.provider(registration))).await
    }

    /// Sends these bytes unchanged, and returns the status of the response.
    pub async fn raw(&self, request: &[u8]) -> u16 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let address = self.listener.strip_prefix("http://").unwrap();
        let (mut read, mut write) = tokio::net::TcpStream::connect(address).await.unwrap().into_split();
        let request = request.to_owned();
        let writing = tokio::spawn(async move { write.write_all(&request).await });
        let mut head = [0; 12];
        read.read_exact(&mut head).await.unwrap();
        writing.abort();
        std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
    }

    /// The token stored for a user at `acme`.
    pub async fn token(&self, user: &str) -> Option<OAuth2Token> {
        let found = self.oauth.tokens().get(&User::new(user).key("acme").unwrap()).await.unwrap();
        found.map(|found| found.value.as_oauth2().unwrap().clone())
    }

    /// The access token stored for a user at `acme`.
    pub async fn access_token(&self, user: &str) -> Option<String> {
        self.token(user).await.map(|token| token.access_token.expose().to_owned())
    }

    /// The refresh token stored for a user at `acme`.
    pub async fn refresh_token(&self, user: &str) -> Option<String> {
        self.token(user).await?.refresh_token.map(|token| token.expose().to_owned())
    }
}

fn who(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get("cookie")?.to_str().ok()?;
    cookies.split("; ").find_map(|pair| pair.strip_prefix("who=")).map(str::to_owned)
}

fn routes(oauth: &OAuth) -> Router {
    let inner = Router::new().route("/required", get(required));
    Router::new()
        .route("/", get(|| async { "home" }))
        .route("/required", get(required).post(required))
        .route("/optional", get(optional))
        .route("/me/{provider}", get(me))
        .route("/all", get(all))
        .route("/disconnect/{provider}", post(disconnect))
        .route("/end_session/{provider}", post(end_session))
        .nest("/nested/{tenant}", inner)
        .merge(oauth.routes())
        .layer(oauth.layer())
        .with_state(oauth.clone())
}

async fn required(acme: Connected<Acme>) -> Result<String, ApiError> {
    acme.userinfo().send().await?.success()?.text()
}

async fn optional(acme: Option<Connected<Acme>>) -> &'static str {
    if acme.is_some() { "connected" } else { "not connected" }
}

async fn me(connections: Connections, Path(provider): Path<String>) -> Result<Response, ConnectedRejection> {
    let client = connections.client(&provider).await.map_err(|error| connections.reject(&provider, error))?;
    Ok(match client.userinfo().send().await {
        Ok(answer) => (answer.status(), answer.bytes().clone()).into_response(),
        Err(error) => error.into_response(),
    })
}

/// The providers that the user has connected.
async fn all(connections: Connections) -> Result<String, ConnectedRejection> {
    let mut names = Vec::new();
    for (name, client) in connections.all().await {
        names.push(client.map_err(|error| connections.reject(name, error))?.provider().to_owned());
    }
    Ok(names.join(" "))
}

async fn disconnect(
    State(oauth): State<OAuth>,
    connections: Connections,
    Path(provider): Path<String>,
) -> Result<String, ConnectedRejection> {
    let Some(user) = connections.user() else { return Ok("no user".to_owned()) };
    let done = oauth.disconnect(&provider, user).await.map_err(|error| connections.reject(&provider, error))?;
    Ok(format!("{done:?}"))
}

/// Redirects the browser to the provider to log out there, and back to `next`.
async fn end_session(
    connections: Connections,
    Path(provider): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ConnectedRejection> {
    let next = query.get("next").map_or("/", String::as_str);
    let end = connections.end_session(&provider, next).await;
    let end = end.map_err(|error| connections.reject(&provider, error))?;
    Ok(end.map_or_else(|| "there is no such page".into_response(), IntoResponse::into_response))
}

/// The `state` in a URL.
pub fn state_of(url: &Url) -> String {
    parameter(url, "state")
}

/// The `code` in a URL.
pub fn code_of(url: &Url) -> String {
    parameter(url, "code")
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(found, _)| found == name).unwrap().1.into_owned()
}

/// The URL with one parameter changed, or removed if the value is `None`.
pub fn with_parameter(url: &Url, name: &str, value: Option<&str>) -> Url {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(found, _)| found != name).collect();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(pairs).extend_pairs(value.map(|value| (name, value)));
    changed
}
