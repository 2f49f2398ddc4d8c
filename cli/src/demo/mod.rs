//! The demo: a site on which a browser connects and disconnects accounts, and calls the APIs of the providers.
//!
//! It needs no configuration: its own provider, keys and SQLite file are created at the first start. Each of them can
//! be replaced.

mod config;
mod keys;
mod pages;
mod site;
mod storage;

use std::future::IntoFuture as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use clap::Args;
use oauth_dance::{BoxError, Clock, ConfigError, Registration};
use oauth_dance_core::TokenStorage;
use tokio::net::TcpListener;
use tokio::signal;
use tokio::sync::watch;

use crate::UnusableStorage;
use crate::keys::{AgeArgs, KeysError};
use crate::provider::LocalProvider;
use config::Config;
use storage::Storage;

/// How long requests in flight may take after Ctrl-C.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The options of `oauth-dance demo`. An option that is missing is taken from the config file, or has a default.
#[derive(Args, Debug, Default)]
pub struct Options {
    /// A TOML file that configures the providers
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where tokens are stored: sqlite:FILE, postgres://…, mysql://…, redis://…, redis+cluster://…, redis+sentinel://…,
    /// rediss://…, memory:, session: or cookie: [default: sqlite:oauth-dance.sqlite]
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// The address to listen on; port 0 selects a free port [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The URL at which browsers reach the site, and with which redirect URIs begin [default: http://ADDR]
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The file of the sealing keys; created with a new key if it does not exist [default: oauth-dance.key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// What unwraps the keys, and wraps a new one.
    #[command(flatten)]
    pub age: AgeArgs,
    /// The timeout of a request to a provider, in seconds [default: 20]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<NonZero<u32>>,
    /// A host to which plain HTTP is allowed, for development, such as keycloak or 192.168.1.5; can be repeated. Secrets and
    /// tokens are sent to it unencrypted
    #[arg(long, value_name = "HOST")]
    pub dangerously_allow_http: Vec<String>,
}

/// Why the demo does not start, or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The config file cannot be used.
    #[error("{}: {problem}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, on one line.
        problem: String,
    },
    /// The providers cannot be used as configured.
    #[error(transparent)]
    Providers(#[from] ConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The storage URL has an unknown scheme.
    #[error(
        "unknown storage {scheme:?}; use sqlite:FILE, postgres:, mysql:, redis:, redis+cluster:, redis+sentinel: \
        (rediss: and so on for TLS), memory:, session: or cookie:"
    )]
    UnknownStorage {
        /// The scheme of the URL. The rest may contain a password.
        scheme: String,
    },
    /// The storage cannot be opened.
    #[error(transparent)]
    Storage(#[from] UnusableStorage),
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
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
/// [`DemoError`], whose message and sources name the cause and what to do.
pub async fn run(options: Options) -> Result<(), DemoError> {
    let config = Config::load(options)?;
    let storage = storage::open(&config.storage).await?;
    start(config, storage).await
}

/// Runs the demo on this storage until Ctrl-C. The storage in `options` is ignored.
///
/// # Errors
/// The errors of [`run`].
pub async fn run_on(tokens: impl TokenStorage, options: Options) -> Result<(), DemoError> {
    start(Config::load(options)?, Storage::of(tokens, "in a custom storage")).await
}

/// The providers of a config file, for other commands than the demo.
pub(crate) struct Providers {
    pub(crate) registrations: Vec<Registration>,
    pub(crate) dangerously_allow_http: Vec<String>,
    pub(crate) timeout: Option<Duration>,
}

/// Reads the providers of a config file.
pub(crate) fn providers(path: &Path) -> Result<Providers, DemoError> {
    let config = Config::load(Options { config: Some(path.to_owned()), ..Options::default() })?;
    let Config { providers: registrations, dangerously_allow_http, timeout, .. } = config;
    Ok(Providers { registrations, dangerously_allow_http, timeout })
}

async fn start(config: Config, storage: Storage) -> Result<(), DemoError> {
    let listener = bind(config.listen).await?;
    let address = listener.local_addr().map_err(|error| DemoError::Serve(error.into()))?;
    let base_url = config.base_url.unwrap_or_else(|| format!("http://{address}"));
    let keys = keys::load_or_create(&config.key_file, &config.age).await?;

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
    servers.push((listener, storage.layer(site, &base_url, keys)));

    announce(&format!("Open {base_url} in a browser. Press Ctrl-C to stop."));
    let served = serve(servers).await;
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, oauth.finish()).await.is_err() {
        tracing::warn!("stopped before every login and refresh in flight had stored its token");
    }
    served
}

async fn bind(address: SocketAddr) -> Result<TcpListener, DemoError> {
    TcpListener::bind(address).await.map_err(|source| DemoError::Listen { address, source })
}

/// The demo's own provider, on the port after the site's port, or on a free port if that one is in use.
async fn local_provider(site: SocketAddr, base_url: &str) -> Result<(Registration, TcpListener, Router), DemoError> {
    let ip = provider_ip(site.ip());
    if ip != site.ip() {
        tracing::warn!("the demo's own provider is reachable from this machine only; name others with --config");
    }
    let listener = match bind(SocketAddr::new(ip, site.port().saturating_add(1))).await {
        Ok(listener) => listener,
        Err(_) => bind(SocketAddr::new(ip, 0)).await?,
    };
    let address = listener.local_addr().map_err(|error| DemoError::Serve(error.into()))?;
    let redirect_uri = format!("{}/login/local/authorized", base_url.trim_end_matches('/'));
    let provider = LocalProvider::new(&format!("http://{address}"), &redirect_uri, Clock::system());
    Ok((provider.registration("local"), listener, provider.router()))
}

/// The address of the provider. It is always on loopback, because its users and their password are public.
fn provider_ip(site: IpAddr) -> IpAddr {
    if site.is_loopback() { site } else { Ipv4Addr::LOCALHOST.into() }
}

/// Serves until Ctrl-C, then lets requests in flight finish.
async fn serve(servers: Vec<(TcpListener, Router)>) -> Result<(), DemoError> {
    let (stop, stopped) = watch::channel(false);
    let mut running = tokio::task::JoinSet::new();
    for (listener, router) in servers {
        let mut stopped = stopped.clone();
        let shutdown = async move {
            // An error means that the sender was dropped, which is also a reason to stop.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        running.spawn(axum::serve(listener, router).with_graceful_shutdown(shutdown).into_future());
    }

    tokio::select! {
        () = stop_requested() => tracing::info!("stopping"),
        Some(ended) = running.join_next() => return flatten(ended),
    }
    stop.send_replace(true);
    let finished = async {
        while let Some(ended) = running.join_next().await {
            flatten(ended)?;
        }
        Ok(())
    };
    match tokio::time::timeout(SHUTDOWN_TIMEOUT, finished).await {
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::warn!("stopped before some requests were finished");
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

/// Waits for Ctrl-C, or for the signal that service managers send.
async fn stop_requested() {
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

/// Prints a line. A closed standard output is no reason to stop.
fn announce(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_is_on_loopback_wherever_the_site_is() {
        for (site, provider) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.2", "127.0.0.2"),
            ("::1", "::1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "127.0.0.1"),
            ("192.168.1.5", "127.0.0.1"),
        ] {
            assert_eq!(provider_ip(site.parse().unwrap()), provider.parse::<IpAddr>().unwrap(), "{site}");
        }
    }
}
