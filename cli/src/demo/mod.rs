//! The demo: a site where each browser connects and disconnects accounts, and calls the providers' APIs.

mod config;
mod keys;
mod pages;
mod site;
mod storage;

use std::future::IntoFuture as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use clap::Args;
use oauth_dance::{BoxError, Clock, ConfigError, Registration};
use oauth_dance_core::TokenStorage;
use tokio::net::TcpListener;
use tokio::signal;
use tokio::sync::watch;

use crate::CannotUse;
use crate::provider::LocalProvider;
use config::Config;
use storage::Storage;

/// How long requests under way may still take after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// What `oauth-dance demo` is started with. What is not given here comes from the config, or has a default.
#[derive(Args, Debug, Default)]
pub struct Options {
    /// A TOML file that names the providers
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where tokens are kept: sqlite:FILE, postgres://…, mysql://…, redis://…, redis+cluster://…, redis+sentinel://…,
    /// rediss://…, memory:, session: or cookie: [default: sqlite:oauth-dance.sqlite]
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// The address to listen on; port 0 takes any free one [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where browsers reach the site, on which redirect URIs are built [default: http://ADDR]
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The file with the sealing keys; made with a new key if it does not exist [default: oauth-dance.key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How many seconds one call of a provider may take as a whole [default: 20]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<NonZero<u32>>,
    /// A host that may be reached without TLS, for development, such as keycloak or 192.168.1.5; may be repeated. Secrets and
    /// tokens travel unencrypted there
    #[arg(long, value_name = "HOST")]
    pub dangerously_allow_http: Vec<String>,
}

/// Why the demo does not start or goes down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The config file cannot be used.
    #[error("{}: {problem}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, in one line.
        problem: String,
    },
    /// The providers cannot be used as configured.
    #[error(transparent)]
    Providers(#[from] ConfigError),
    /// The key file cannot be used.
    #[error("the key file {} {problem}", .path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The storage URL says nothing known.
    #[error(
        "there is no storage {scheme:?}; use sqlite:FILE, postgres:, mysql:, redis:, redis+cluster:, redis+sentinel: \
        (rediss: and its kin for TLS), memory:, session: or cookie:"
    )]
    UnknownStorage {
        /// What the URL begins with. What follows may be a password.
        scheme: String,
    },
    /// The storage cannot be opened.
    #[error(transparent)]
    Storage(#[from] CannotUse),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error underneath.
        #[source]
        source: io::Error,
    },
    /// The server failed while it ran.
    #[error("the server failed")]
    Serve(#[source] BoxError),
}

/// Runs the demo until Ctrl-C.
///
/// # Errors
/// [`DemoError`], whose message and sources name cause and fix.
pub async fn run(options: Options) -> Result<(), DemoError> {
    let config = Config::load(options)?;
    let storage = storage::open(&config.storage).await?;
    start(config, storage).await
}

/// Runs the demo on a storage of one's own until Ctrl-C, whatever `options` says of the storage.
///
/// # Errors
/// As [`run`].
pub async fn run_on(tokens: impl TokenStorage, options: Options) -> Result<(), DemoError> {
    start(Config::load(options)?, Storage::of(tokens, "in a storage of your own")).await
}

async fn start(config: Config, storage: Storage) -> Result<(), DemoError> {
    let listener = bind(config.listen).await?;
    let address = listener.local_addr().map_err(|error| DemoError::Serve(error.into()))?;
    let base_url = config.base_url.unwrap_or_else(|| format!("http://{address}"));
    let keys = keys::load_or_create(&config.key_file)?;

    let mut builder = storage
        .configure(&base_url, keys.clone())
        .dangerously_allow_http(config.dangerously_allow_http)
        .anonymous_users();
    if let Some(timeout) = config.timeout {
        builder = builder.timeout(timeout);
    }
    let mut servers = Vec::new();
    if config.providers.is_empty() {
        let (registration, listener, router) = local_provider(address, &base_url).await?;
        builder = builder.provider(registration);
        servers.push((listener, router));
    }
    for registration in config.providers {
        builder = builder.provider(registration);
    }
    let oauth = builder.build()?;
    let site = site::router(oauth.clone(), storage.description);
    servers.push((listener, storage.around(site, &base_url, keys)));

    say(&format!("Open {base_url} in a browser. Ctrl-C stops."));
    let served = serve(servers).await;
    if tokio::time::timeout(GRACE, oauth.finish()).await.is_err() {
        tracing::warn!("a token could not be stored before the end");
    }
    served
}

async fn bind(address: SocketAddr) -> Result<TcpListener, DemoError> {
    TcpListener::bind(address).await.map_err(|source| DemoError::Listen { address, source })
}

/// The demo's own provider, on the port after the site's, or on any if that is in use. It is on loopback only, because its
/// users and their password are public.
async fn local_provider(site: SocketAddr, base_url: &str) -> Result<(Registration, TcpListener, Router), DemoError> {
    let ip = match site.ip() {
        ip if ip.is_loopback() => ip,
        _ => {
            tracing::warn!("the demo's own provider is reachable from this machine only; name others with --config");
            Ipv4Addr::LOCALHOST.into()
        }
    };
    let listener = match bind(SocketAddr::new(ip, site.port().saturating_add(1))).await {
        Ok(listener) => listener,
        Err(_) => bind(SocketAddr::new(ip, 0)).await?,
    };
    let address = listener.local_addr().map_err(|error| DemoError::Serve(error.into()))?;
    let redirect_uri = format!("{}/login/local/authorized", base_url.trim_end_matches('/'));
    let provider = LocalProvider::new(&format!("http://{address}"), &redirect_uri, Clock::system());
    Ok((provider.registration("local"), listener, provider.router()))
}

/// Serves everything until Ctrl-C, then lets requests under way finish.
async fn serve(servers: Vec<(TcpListener, Router)>) -> Result<(), DemoError> {
    let (stop, stopped) = watch::channel(false);
    let mut running = tokio::task::JoinSet::new();
    for (listener, router) in servers {
        let mut stopped = stopped.clone();
        let shutdown = async move {
            // An error says that the sender is gone, which is a reason to stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        running.spawn(axum::serve(listener, router).with_graceful_shutdown(shutdown).into_future());
    }

    tokio::select! {
        () = asked_to_stop() => tracing::info!("stopping"),
        Some(ended) = running.join_next() => return flatten(ended),
    }
    stop.send_replace(true);
    let finished = async {
        while let Some(ended) = running.join_next().await {
            flatten(ended)?;
        }
        Ok(())
    };
    match tokio::time::timeout(GRACE, finished).await {
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::warn!("some requests were cut off");
            Ok(())
        }
    }
}

fn flatten(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), DemoError> {
    match ended {
        Ok(served) => served.map_err(|error| DemoError::Serve(error.into())),
        Err(error) => Err(DemoError::Serve(error.into())),
    }
}

/// Ctrl-C, or the signal that service managers send.
async fn asked_to_stop() {
    let interrupted = async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}

/// Tells whoever started the program; a closed standard output is no reason to stop.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
