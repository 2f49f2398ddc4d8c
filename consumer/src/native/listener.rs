//! A server for one response: on the loopback interface, until it is dropped.
//!
//! Any program and any page on this machine can send requests to it. So each request is checked for what only the provider's
//! redirect has, and everything else is answered and forgotten: it neither ends the login nor delays it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oauth_dance_core::Secret;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::page;
use crate::config::provider::LoopbackHost;
use crate::error::LoginError;
use crate::login::is_prefetch;
use crate::login::parameters::Parameters;
use crate::protocol::registered::Registered;

/// How many free ports are tried until one is free for both addresses of `localhost`.
const TRIES: usize = 16;
/// How many connections may be open at once. A browser opens a few more than it needs.
const MAX_CONNECTIONS: usize = 32;
/// How long a connection may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The size limit of a request, whose code alone may have 8 KiB.
const MAX_REQUEST: usize = 48 * 1024;
/// The pause after an error of the listener, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sockets on which no one is served yet.
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// The host and port of the redirect URI.
    pub(super) authority: String,
}

/// The response of the provider, which the browser has brought.
pub(super) struct Received {
    pub(super) parameters: Parameters,
    /// The page that the browser waits for.
    pub(super) page: oneshot::Sender<Response<String>>,
    /// Resolves when the browser has the page, or is gone.
    pub(super) delivered: oneshot::Receiver<()>,
}

/// The response that is waited for.
pub(super) struct Expected {
    pub(super) registered: Registered,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) state: String,
}

/// A running server. It ends, and closes its connections, when this is dropped.
#[derive(Debug)]
pub(super) struct Server(JoinHandle<()>);

impl Listeners {
    /// Listens on this machine only. Port 0 is any free one.
    pub(super) async fn bind(host: LoopbackHost, port: u16) -> io::Result<Self> {
        match host {
            LoopbackHost::IpAddress => Self::bind_address(port).await,
            LoopbackHost::Localhost => Self::bind_name(port).await,
        }
    }

    /// On the address of IPv4, or on that of IPv6 where there is no IPv4 (RFC 8252 section 7.3).
    async fn bind_address(port: u16) -> io::Result<Self> {
        let socket = match bind(Ipv4Addr::LOCALHOST, port).await {
            Err(error) if is_missing(&error) => bind(Ipv6Addr::LOCALHOST, port).await?,
            bound => bound?,
        };
        Ok(Self { authority: socket.local_addr()?.to_string(), sockets: vec![socket] })
    }

    /// On both addresses of `localhost`, because a browser may try either. If another program had one of them, it would get
    /// the code (RFC 8252 section 8.3).
    async fn bind_name(port: u16) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let first = Self::bind_address(port).await?;
            let address = first.sockets[0].local_addr()?;
            let mut sockets = first.sockets;
            if address.is_ipv4() {
                match bind(Ipv6Addr::LOCALHOST, address.port()).await {
                    Ok(second) => sockets.push(second),
                    Err(error) if is_missing(&error) => {}
                    Err(error) if port != 0 || tries >= TRIES => return Err(error),
                    Err(_) => {
                        tries += 1;
                        continue;
                    }
                }
            }
            return Ok(Self { authority: format!("localhost:{}", address.port()), sockets });
        }
    }

    /// Serves until the server is dropped. The first response of the provider goes to the receiver.
    pub(super) fn serve(self, expected: Expected) -> (Server, oneshot::Receiver<Received>) {
        let (sender, receiver) = oneshot::channel();
        let waiting = Arc::new(Waiting { expected, first: Mutex::new(Some(sender)) });
        let server = tokio::spawn(async move {
            let mut accepting = JoinSet::new();
            for socket in self.sockets {
                accepting.spawn(accept(socket, Arc::clone(&waiting)));
            }
            accepting.join_all().await;
        });
        (Server(server), receiver)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn bind(address: impl Into<IpAddr>, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(address.into(), port)).await
}

/// Whether a machine does not have an address.
fn is_missing(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Serves the connections of one socket. They end with this future.
async fn accept(socket: TcpListener, waiting: Arc<Waiting>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(serve(stream, Arc::clone(&waiting)));
            }
            Ok(_) => {}
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, waiting: Arc<Waiting>) {
    let (is_over, over) = oneshot::channel();
    let over = Mutex::new(Some(over));
    let answer = service_fn(|request| {
        let (waiting, over) = (&waiting, &over);
        async move { Ok::<_, std::convert::Infallible>(waiting.answer(&request, over).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).max_buf_size(MAX_REQUEST).keep_alive(false);
    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    let _ = is_over.send(());
}

struct Waiting {
    expected: Expected,
    /// Who gets the first response of the provider. `None` when it has arrived.
    first: Mutex<Option<oneshot::Sender<Received>>>,
}

impl Waiting {
    async fn answer(
        &self,
        request: &Request<Incoming>,
        over: &Mutex<Option<oneshot::Receiver<()>>>,
    ) -> Response<String> {
        let parameters = match self.check(request) {
            Ok(parameters) => parameters,
            Err(refused) => return *refused,
        };
        let late = || page::refused(StatusCode::CONFLICT, "the response of the provider has already arrived");
        let (Some(first), Some(delivered)) = (take(&self.first), take(over)) else { return late() };
        let (sender, page) = oneshot::channel();
        if first.send(Received { parameters, page: sender, delivered }).is_err() {
            return late();
        }
        page.await.unwrap_or_else(|_| page::refused_for(&LoginError::Interrupted))
    }

    /// The parameters of a request that only the provider can have caused.
    fn check(&self, request: &Request<Incoming>) -> Result<Parameters, Box<Response<String>>> {
        let refuse = |status, message| Err(Box::new(page::refused(status, message)));
        let Expected { registered, authority, path, state } = &self.expected;
        // Another name that resolves to this machine would be that of another site.
        if !is_host(request.headers(), authority) {
            return refuse(StatusCode::MISDIRECTED_REQUEST, "the request is for another host");
        }
        if request.uri().path() != path {
            return refuse(StatusCode::NOT_FOUND, "there is no such page");
        }
        if request.method() != Method::GET {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "the response of the provider is a GET request");
        }
        if is_prefetch(request.headers()) {
            return Err(Box::new(page::refused_for(&LoginError::Prefetch)));
        }
        let parameters = Parameters::read(registered, request.uri().query().unwrap_or_default());
        let parameters = parameters.map_err(|error| Box::new(page::refused_for(&error)))?;
        // Compared in constant time.
        if Secret::new(parameters.state.as_str()) != Secret::new(state.as_str()) {
            return Err(Box::new(page::refused_for(&LoginError::UnknownAttempt)));
        }
        Ok(parameters)
    }
}

/// Whether the only `Host` of a request is that of the redirect URI.
fn is_host(headers: &HeaderMap, authority: &str) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    hosts.next().is_none() && host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
