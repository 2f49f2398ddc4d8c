//! The configuration of a connector, checked as a whole.
//!
//! Setters store and never fail, so that a configuration reads as one expression. Everything is checked at once, at startup,
//! when an operator sees the error. The settings of the web part's builder that are not about browsers are these.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Clock, KeyRing, RefreshEvent, Refresher, TokenKey, Tokens};

use super::tasks::Tasks;
use super::{Connector, Shared};
use crate::client::stored;
use crate::config::endpoint::PlainHttp;
use crate::config::registration::Registration;
use crate::error::ConfigError;
use crate::protocol::http::{HttpClients, Limits};
use crate::protocol::registered::Registered;

type Observer = Arc<dyn Fn(&TokenKey, &RefreshEvent) + Send + Sync>;

/// The configuration of a [`Connector`]. It starts with [`Connector::builder`], and ends with [`build`](Self::build).
///
/// | setting | default |
/// | --- | --- |
/// | [`provider`](Self::provider) | none; each call adds one |
/// | [`observer`](Self::observer) | refresh events are only logged |
/// | [`timeout`](Self::timeout) | 20 seconds for one request to a provider |
/// | [`max_response`](Self::max_response) | 10 MiB for one API response |
/// | [`retention`](Self::retention) | tokens are stored until they are deleted |
/// | `cache` (with that cargo feature) | none |
/// | [`clock`](Self::clock) | the system's |
///
/// ```
/// use std::time::Duration;
/// use oauth_dance::presets::{GitHub, Google};
/// use oauth_dance::{Connector, KeyRing, MemoryStorage};
///
/// let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
///     .provider(GitHub::provider().client("id", "secret"))
///     .provider(Google::provider().client("id", "secret"))
///     .timeout(Duration::from_secs(10))
///     .observer(|key, event| println!("{key}: {}", event.name()))
///     .build()?;
/// # let _ = connector;
/// # Ok::<(), oauth_dance::ConfigError>(())
/// ```
#[must_use]
pub struct ConnectorBuilder {
    pub(crate) tokens: Tokens,
    pub(crate) keys: KeyRing,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    plain_http: Vec<String>,
    retention: Option<Duration>,
    observer: Observer,
    #[cfg(feature = "cache")]
    cache: Option<oauth_dance_core::Cache>,
}

/// What the web part adds to a connector.
#[derive(Default)]
pub(crate) struct ForRequests {
    /// Whether each request has its own storage.
    pub(crate) per_request: bool,
    /// Where the outcome of each refresh is recorded, for storages that do not share state.
    pub(crate) ledger: Option<Tokens>,
}

impl ConnectorBuilder {
    pub(super) fn new(tokens: Tokens, keys: KeyRing) -> Self {
        Self {
            tokens,
            keys,
            registrations: Vec::new(),
            limits: Limits::default(),
            clock: Clock::system(),
            plain_http: Vec::new(),
            retention: None,
            observer: Arc::new(|_, _| {}),
            #[cfg(feature = "cache")]
            cache: None,
        }
    }

    /// Adds a provider, with the client that is registered there. The same provider can be added several times under
    /// different [names](crate::Provider::named), for example with different scopes: each has its own tokens.
    pub fn provider(mut self, registration: Registration) -> Self {
        self.registrations.push(registration);
        self
    }

    /// Calls a function when a stored token was refreshed, or could not be refreshed, or needs the user's
    /// authorization. It should return immediately, and spawn a task for any work. A later call replaces it.
    ///
    /// Each process reports only its own refreshes: a user who has to connect again is reported by the process that
    /// found out.
    ///
    /// ```
    /// use oauth_dance::{Connector, KeyRing, MemoryStorage, RefreshEvent};
    ///
    /// let builder = Connector::builder(MemoryStorage::new(), KeyRing::generate()).observer(|key, event| {
    ///     if let RefreshEvent::NeedsAuthorization { reason } = event {
    ///         eprintln!("{}: connect {} again, because {}", key.user(), key.provider(), reason.describe());
    ///     }
    /// });
    /// # let _ = builder;
    /// ```
    pub fn observer(self, observer: impl Fn(&TokenKey, &RefreshEvent) + Send + Sync + 'static) -> Self {
        Self { observer: Arc::new(observer), ..self }
    }

    /// Sets the timeout of one request to a provider, including its response. The default is 20 seconds. It applies to
    /// token requests, to the metadata of issuers and to API calls; one API call can have
    /// [another](crate::ApiRequest::timeout).
    ///
    /// A longer timeout also delays recovery: if a process is killed during a refresh, others take it over only ten
    /// seconds after the timeout. For a refresh, the timeout is at most ten minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// Allows these hosts to be reached by plain `http`, for development: a provider in another container or on the
    /// local network. Client secrets and tokens are sent there unencrypted.
    ///
    /// Each is the name or the address of one host, without a port, such as `keycloak` or `192.168.1.5`. The setting applies
    /// to everything in the configuration (redirect URIs, issuers, endpoints, API bases) and to everything that an issuer's
    /// metadata or a token response names. On this machine (`localhost`, `127.0.0.1`, `[::1]`) plain `http` is always
    /// allowed. [`build`](Self::build) logs a warning.
    pub fn dangerously_allow_http<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.plain_http.extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Sets the size limit of an API response in bytes. The default is 10 MiB. A larger response is
    /// [`ApiError::TooLarge`](crate::ApiError::TooLarge), and is not read to its end. One call can have
    /// [another limit](crate::ApiRequest::max_response). Token responses have a fixed, smaller limit.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.limits.max_response = bytes;
        self
    }

    /// Sets how long the storage retains a token after its last write. By default, it retains the token until it is deleted.
    ///
    /// Every login and refresh is a write. Choose a time after which an unused connection may be forgotten: at least the
    /// lifetime of the refresh token, and longer than the pauses between refreshes. The token is not revoked at the provider
    /// when its retention ends.
    pub fn retention(self, retain_for: Duration) -> Self {
        Self { retention: Some(retain_for), ..self }
    }

    /// Puts a cache in front of the storage, in the memory of this process, so that a recently read token is not read
    /// again.
    ///
    /// The cost: after a logout or [`disconnect`](Connector::disconnect) in *another* process, this process can use the
    /// token for at most the cache's age. It sees its own writes immediately. Refreshes, [`Connector::connection`] and
    /// [`Connector::tokens`] read the storage. [`Tokens::with_cache`](oauth_dance_core::Tokens::with_cache) has the
    /// details.
    #[cfg(feature = "cache")]
    pub fn cache(self, cache: oauth_dance_core::Cache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Stores tokens **in plain text**. A provider with [`dpop`](crate::Provider::dpop) is then rejected: a key that is
    /// stored unsealed with its token protects nothing.
    pub fn dangerous_plaintext_tokens(self) -> Self {
        Self { tokens: Tokens::dangerous_plaintext(Arc::clone(self.tokens.storage())), ..self }
    }

    /// Sets the clock, for tests: `testing::TestClock` (with the cargo feature `testing`) is a clock that stands still until
    /// it is advanced. It decides when tokens expire. Timeouts use the real time.
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Checks the configuration and builds the [`Connector`]. It sends no request: the metadata of an OpenID provider is
    /// fetched when it is first needed, so that a program starts even if a provider is unavailable.
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and the field.
    pub fn build(self) -> Result<Connector, ConfigError> {
        let plain_http = self.plain_http()?;
        self.build_for(&plain_http, ForRequests::default())
    }

    /// The hosts that may be reached by plain http.
    pub(crate) fn plain_http(&self) -> Result<PlainHttp, ConfigError> {
        PlainHttp::new(self.plain_http.clone())
    }

    /// The same as [`build`](Self::build), with what the web part adds.
    pub(crate) fn build_for(self, plain_http: &PlainHttp, requests: ForRequests) -> Result<Connector, ConfigError> {
        if !self.plain_http.is_empty() {
            tracing::warn!(hosts = ?self.plain_http, "secrets and tokens may travel to these hosts unencrypted");
        }
        let mut registered = BTreeMap::new();
        for mut registration in self.registrations {
            registration.plain_http = plain_http.clone();
            let checked = Registered::check(registration)?;
            if checked.declared.dpop && !self.tokens.is_sealed() {
                return Err(ConfigError::invalid(
                    &checked.declared.name,
                    "dpop",
                    "needs sealed tokens, because the key is stored with the token",
                ));
            }
            if let Some(other) = registered.insert(checked.declared.name.clone(), checked) {
                return Err(ConfigError::DuplicateProvider { provider: other.declared.name.clone() });
            }
        }
        let observer = self.observer;
        let mut refresher = Refresher::new()
            .with_clock(self.clock.clone())
            .with_request_timeout(self.limits.timeout)
            .with_observer(move |key, event| {
                stored::count(key, event);
                observer(key, event);
            });
        if let Some(ledger) = requests.ledger {
            refresher = refresher.with_ledger(ledger);
        }
        let mut tokens = self.tokens;
        if let Some(retain_for) = self.retention {
            tokens = tokens.with_retention(retain_for);
        }
        #[cfg(feature = "cache")]
        if let Some(cache) = self.cache.filter(|_| !requests.per_request) {
            tokens = tokens.with_cache(cache);
        }
        let shared = Shared {
            registered,
            refresher: Arc::new(refresher),
            http: HttpClients::new(self.limits, self.clock)?,
            per_request: requests.per_request,
            keys_change: self.keys.has_older(),
            plain_http: plain_http.clone(),
            logins: Tasks::default(),
        };
        Ok(Connector { shared: Arc::new(shared), tokens })
    }
}

impl fmt::Debug for ConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorBuilder")
            .field("registrations", &self.registrations)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
