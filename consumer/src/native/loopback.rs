//! The login by loopback redirect (RFC 8252 section 7.3).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{Response, StatusCode};
use oauth_dance_core::TokenKey;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;
use url::Url;

use super::listener::{Expected, Listeners, Received, Server};
use super::{LoggedIn, Login, TIME_LIMIT, page};
use crate::config::provider::LoopbackHost;
use crate::connector::Connector;
use crate::error::LoginError;
use crate::login::attempt::Attempt;
use crate::login::earlier::Earlier;
use crate::login::redeem::Redeemer;
use crate::login::request;

/// The path of the redirect URI, unless another one is set.
const PATH: &str = "/callback";
/// How long the end of a login waits until the browser has its page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the start of a browser may take until it counts as started.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(5);

impl Connector {
    /// Starts a login in the user's browser on this machine. The provider redirects it to a port of this program (RFC 8252
    /// section 7.3), and the token is stored under the key.
    ///
    /// ```no_run
    /// use oauth_dance::{Connector, TokenKey};
    ///
    /// async fn login(connector: &Connector) -> Result<(), Box<dyn std::error::Error>> {
    ///     let me = TokenKey::new("github", "me")?;
    ///     let login = connector.loopback_login(&me).start().await?;
    ///     println!("Your browser opens {}", login.url());
    ///     login.open_browser().await;
    ///     login.finish().await?;
    ///     let client = connector.client(&me).await?;
    ///     # let _ = client;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// A program on the user's machine cannot hide a client secret: register it as a public client
    /// ([`Provider::public_client`](crate::Provider::public_client)) if the provider permits it. PKCE protects the code.
    pub fn loopback_login(&self, key: &TokenKey) -> LoopbackLogin {
        LoopbackLogin {
            connector: self.clone(),
            key: key.clone(),
            scopes: None,
            params: BTreeMap::new(),
            host: None,
            port: 0,
            path: PATH.to_owned(),
            time_limit: TIME_LIMIT,
        }
    }
}

/// The settings of a login in the browser on this machine; see [`Connector::loopback_login`].
#[derive(Clone, Debug)]
#[must_use]
pub struct LoopbackLogin {
    connector: Connector,
    key: TokenKey,
    scopes: Option<Vec<String>>,
    params: BTreeMap<String, String>,
    host: Option<LoopbackHost>,
    port: u16,
    path: String,
    time_limit: Duration,
}

impl LoopbackLogin {
    /// Requests these scopes instead of those of the provider's configuration.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = Some(scopes.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a parameter of the authorization request, such as `prompt` or `login_hint`.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Listens on this port, for a provider that does not accept any port. By default the system chooses a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Uses this host in the redirect URI instead of that of the [provider](crate::Provider::loopback_host).
    pub fn host(mut self, host: LoopbackHost) -> Self {
        self.host = Some(host);
        self
    }

    /// Uses this path in the redirect URI, which has to be the registered one. The default is `/callback`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// How long the user may take, instead of ten minutes.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Listens for the response of the provider, and returns the URL to open.
    ///
    /// # Errors
    /// [`LoginError::Listener`] if no port is available; [`LoginError::UnknownProvider`], [`LoginError::Discovery`],
    /// [`LoginError::PushedRequest`], [`LoginError::ReservedParameter`], [`LoginError::Unsupported`].
    ///
    /// # Cancel safety
    /// Nothing is stored. The listener is closed.
    pub async fn start(self) -> Result<LoopbackAttempt, LoginError> {
        let login = Login::start(&self.connector, &self.key, self.scopes).await?;
        let registered = &login.registered;
        if registered.declared.quirks.form_post {
            return Err(LoginError::Unsupported(
                "this provider responds with a form, which a loopback redirect cannot carry",
            ));
        }
        if let Some(parameter) = self.params.keys().find(|parameter| registered.reserves(parameter)) {
            return Err(LoginError::ReservedParameter { parameter: parameter.clone() });
        }
        let mut params = registered.declared.authorization_params.clone();
        params.extend(self.params);
        let host = self.host.unwrap_or(registered.declared.loopback_host);
        let listeners = Listeners::bind(host, self.port).await.map_err(LoginError::Listener)?;
        let redirect_uri = redirect_uri(&listeners.authority, &self.path)?;
        let http = self.connector.http();
        let blank = Attempt::blank(&registered.declared.name, http.clock.now());
        let request = request::Request { http, registered, redirect_uri: redirect_uri.as_str(), scopes: &login.scopes };
        let (attempt, url) = request.begin(blank, params).await?;
        let expected = Expected {
            registered: registered.clone(),
            authority: listeners.authority.clone(),
            path: redirect_uri.path().to_owned(),
            state: attempt.state.clone(),
        };
        let (server, received) = listeners.serve(expected);
        let deadline = Instant::now() + self.time_limit;
        tracing::info!(provider = registered.declared.name, "login started");
        Ok(LoopbackAttempt { login, attempt, url, redirect_uri, server, received, deadline })
    }
}

/// A login that waits for the user; see [`Connector::loopback_login`]. Dropping it closes the listener and ends the login.
#[must_use = "the login ends when this is dropped"]
pub struct LoopbackAttempt {
    login: Login,
    attempt: Attempt,
    url: Url,
    redirect_uri: Url,
    server: Server,
    received: oneshot::Receiver<Received>,
    deadline: Instant,
}

impl LoopbackAttempt {
    /// The URL to open in the browser of the user. It contains no secret, but anyone who opens it can log in with
    /// another account: show it only to the user.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The redirect URI, with the port.
    pub fn redirect_uri(&self) -> &str {
        self.redirect_uri.as_str()
    }

    /// Opens the [URL](Self::url) in the default browser. Returns whether one was started. Print the URL in any case,
    /// because a machine may have no browser, or a different one from the user's.
    ///
    /// # Cancel safety
    /// The browser may be opened.
    pub async fn open_browser(&self) -> bool {
        let url = self.url.clone();
        let (sender, receiver) = oneshot::channel();
        // A browser in the terminal blocks until it ends, so this is not a thread of the runtime, which would wait for it.
        let started = std::thread::Builder::new().name("oauth-dance browser".to_owned()).spawn(move || {
            let mut options = webbrowser::BrowserOptions::new();
            options.with_suppress_output(true);
            let opened = webbrowser::open_browser_with_options(webbrowser::Browser::Default, url.as_str(), &options);
            let _ = sender.send(opened.is_ok());
        });
        match started {
            Ok(_) => timeout(BROWSER_TIMEOUT, receiver).await.map_or(true, |opened| opened.unwrap_or(false)),
            Err(_) => false,
        }
    }

    /// Waits for the response of the provider, redeems the code, and stores the token. The browser then shows that it can be
    /// closed, or what has failed.
    ///
    /// The token is stored like that of a login in a web application: an earlier refresh token of the same verified subject
    /// is retained if the provider issues none.
    ///
    /// # Errors
    /// [`LoginError::Denied`], [`LoginError::Expired`] after the time limit; [`LoginError::IssuerMismatch`],
    /// [`LoginError::Token`], [`LoginError::IdToken`], [`LoginError::Storage`], [`LoginError::Provider`].
    ///
    /// # Cancel safety
    /// Until the response has arrived, dropping the future ends the login. Afterwards the token is stored regardless,
    /// because a code works once: [`Connector::finish`] waits for it.
    pub async fn finish(self) -> Result<LoggedIn, LoginError> {
        let Self { login, attempt, redirect_uri, server, received, deadline, .. } = self;
        let title = login.registered.declared.title.clone();
        let received = timeout_at(deadline, received).await.map_err(|_| LoginError::Expired)?;
        let Received { parameters, page, delivered } = received.map_err(|_| LoginError::Interrupted)?;
        let logins = login.connector.logins().clone();
        let ending = async move {
            let code = parameters.granted(&login.registered)?;
            let earlier = Earlier::of(&login.connector, Some(&login.key)).await;
            let redeemer = Redeemer { connector: &login.connector, registered: &login.registered, earlier: &earlier };
            let redeemed = redeemer.redeem(&attempt, redirect_uri.as_str(), &code).await?;
            login.end(&redeemer, redeemed).await
        };
        let ended = logins.spawn(ending.in_current_span()).await.unwrap_or(Err(LoginError::Interrupted));
        if page.send(outcome(&title, &ended)).is_ok() {
            // A program that exits now would leave an error in the browser.
            let _ = timeout(PAGE_TIMEOUT, delivered).await;
        }
        drop(server);
        ended
    }
}

/// Shows no part of the URL, whose state is a secret of this login.
impl fmt::Debug for LoopbackAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopbackAttempt")
            .field("provider", &self.login.registered.declared.name)
            .field("redirect_uri", &self.redirect_uri.as_str())
            .finish_non_exhaustive()
    }
}

fn redirect_uri(authority: &str, path: &str) -> Result<Url, LoginError> {
    let invalid = LoginError::Unsupported("the path of the redirect URI must start with a slash, and have no query");
    match Url::parse(&format!("http://{authority}{path}")) {
        Ok(url) if path.starts_with('/') && url.path() == path && url.query().is_none() => Ok(url),
        _ => Err(invalid),
    }
}

fn outcome(title: &str, ended: &Result<LoggedIn, LoginError>) -> Response<String> {
    match ended {
        Ok(_) => page::done(title),
        Err(error) if error.status() == StatusCode::INTERNAL_SERVER_ERROR => {
            page::failed(title, error.status(), "the program could not store the login, and reports why")
        }
        Err(error) => page::failed(title, error.status(), &error.to_string()),
    }
}
