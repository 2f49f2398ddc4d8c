//! A connection to a server: opens it, verifies the role of the server, and sends commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, PushInfo, PushKind, RedisResult,
    Value,
};
use tokio::time::timeout;

use crate::address::Sentinels;
use crate::error::{Cause, Failure, cannot_open};
use crate::link::{Options, Target};
use crate::setup::{Setup, setup_commands};

/// The number of requests that may queue for the socket before further requests wait.
const QUEUE: usize = 1024;

const REPLICA: &str =
    "the server is a read-only replica; name the primary in the URL, or use Sentinel (redis+sentinel:)";

/// An open connection, whether it was closed, and the settings of the server.
pub(crate) type Connected = (MultiplexedConnection, Arc<AtomicBool>, Setup);

/// Connects to the target, and verifies that it is a primary.
pub(crate) async fn connect(target: &Target, options: Options) -> Result<Connected, Failure> {
    match target {
        Target::Node(server) => dial(server).await,
        Target::Primary(server) => {
            let connected = dial(server).await?;
            if connected.2.primary == Some(false) {
                return Err(read_only(Cause::Other("the server reports that it is a replica")));
            }
            Ok(connected)
        }
        Target::Sentinels(sentinels) => find_primary(sentinels, options).await,
    }
}

/// Queries one Sentinel after the other, until one of them names a server that confirms to be the primary.
///
/// A Sentinel may not know of a failover yet and name the former primary. It is therefore not trusted until the named
/// server has confirmed its role. Each Sentinel has a sixth of the timeout, so that one of three is reached even if the
/// other two do not respond.
async fn find_primary(sentinels: &Sentinels, options: Options) -> Result<Connected, Failure> {
    let mut failure = Failure::Unchanged(Cause::Other("the URL names no Sentinel"));
    for sentinel in &sentinels.addresses {
        let step = options.timeout / 6;
        let found =
            timeout(step, async { dial(&sentinels.server(query_sentinel(sentinel, &sentinels.name).await?)).await });
        match found.await {
            Ok(Ok(connected)) if connected.2.primary != Some(false) => return Ok(connected),
            Ok(Ok(_)) => failure = Failure::Unchanged(Cause::Other("a failover is in progress")),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = Failure::Unchanged(Cause::TimedOut),
        }
    }
    Err(failure)
}

/// Queries a Sentinel for the address of the primary.
async fn query_sentinel(sentinel: &ConnectionInfo, name: &str) -> Result<(String, u16), Failure> {
    const UNKNOWN: Cause = Cause::Other("the Sentinel knows no primary of this name");

    let (mut connection, _) = open_connection(sentinel).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let reply = connection.send_packed_command(&command).await;
    let reply = reply.map_err(|error| Failure::Unchanged(Cause::connection(error)))?;
    if let Value::ServerError(error) = &reply {
        return Err(crate::error::rejected(error));
    }
    let Value::Array(parts) = reply else {
        return Err(Failure::Misconfigured("correct the name of the primary in the URL", UNKNOWN));
    };
    let parts: Vec<_> = parts.iter().filter_map(crate::setup::text).collect();
    let [host, port] = parts.as_slice() else { return Err(Failure::Unchanged(crate::error::UNEXPECTED)) };
    let port = port.parse().map_err(|_| Failure::Unchanged(crate::error::UNEXPECTED))?;
    Ok((host.clone(), port))
}

/// Opens a connection, and reads the settings of the server.
async fn dial(server: &ConnectionInfo) -> Result<Connected, Failure> {
    let (mut connection, closed) = open_connection(server).await?;
    let replies = replies(&mut connection, &setup_commands()).await;
    let replies = replies.map_err(|error| Failure::Unchanged(Cause::connection(error)))?;
    Ok((connection, closed, Setup::read(&replies)))
}

/// Sends commands, and waits for all replies.
pub(crate) async fn replies(connection: &mut MultiplexedConnection, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
    // A single command, which may contain a large payload, is not copied into a batch.
    if let [command] = commands {
        return connection.send_packed_command(command).await.map(|reply| vec![reply]);
    }
    let mut batch = Pipeline::with_capacity(commands.len());
    for command in commands {
        batch.add_command(command.clone());
    }
    connection.send_packed_commands(&batch, 0, commands.len()).await
}

/// The failure of a server that returns READONLY for writes.
pub(crate) fn read_only(cause: Cause) -> Failure {
    Failure::Misconfigured(REPLICA, cause)
}

/// Opens a connection. The flag is set when it is closed.
async fn open_connection(server: &ConnectionInfo) -> Result<(MultiplexedConnection, Arc<AtomicBool>), Failure> {
    let closed = Arc::new(AtomicBool::new(false));
    let flag = ClosedFlag(Arc::clone(&closed));
    // Timeouts are measured here, because those of the redis crate do not report whether a request was sent.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE)
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                flag.0.store(true, Ordering::Release);
            }
            Ok::<(), ()>(())
        });
    let connection = match server.addr() {
        #[cfg(feature = "tls")]
        ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
            let stream = crate::tls::connect(host, *port).await?;
            let connected = MultiplexedConnection::new_with_config(server.redis_settings(), stream, config);
            let (connection, driver) = connected.await.map_err(cannot_open)?;
            // The driver ends with the last clone of the connection.
            tokio::spawn(driver);
            connection
        }
        ConnectionAddr::TcpTls { .. } => return Err(Failure::Misconfigured(CHECKED_TLS, UNCHECKED)),
        _ => {
            let client = Client::open(server.clone()).map_err(cannot_open)?;
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(cannot_open)?
        }
    };
    Ok((connection, closed))
}

const CHECKED_TLS: &str = "remove `#insecure` from the URL, and enable the feature `tls`";
const UNCHECKED: Cause = Cause::Other("TLS without verification of the certificate is not supported");

/// Sets the flag when the connection ends. The task that drives the connection owns it, so it is dropped together with
/// the connection or the runtime.
struct ClosedFlag(Arc<AtomicBool>);

impl Drop for ClosedFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
