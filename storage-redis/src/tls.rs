//! TLS connections.
//!
//! Each connection has a configuration of its own. The redis crate would use the cryptography provider of the whole
//! process, which only the application should set.

use std::io;
use std::sync::Arc;

use redis::RedisError;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Cause, Failure};

const NOT_TRUSTED: &str = "the server does not support TLS, or its certificate is not trusted for this host; \
    correct the host, or name the file with its root certificate in `SSL_CERT_FILE`";
const NO_ROOTS: &str =
    "this machine has no root certificates; install them, or name a file with root certificates in `SSL_CERT_FILE`";

/// Connects to a server with TLS.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        Failure::Misconfigured("correct the server URL", Cause::Other("a certificate cannot be issued for this host"))
    })?;
    let config = tokio::task::spawn_blocking(config).await.unwrap_or_else(|_| Err(no_roots()))?;
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(rejected)
}

/// Reads the system's root certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. They are read for each
/// connection, so that a change takes effect.
fn config() -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(no_roots());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(io::Error::other(error)))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The failure of a machine without root certificates.
fn no_roots() -> Failure {
    Failure::Misconfigured(NO_ROOTS, Cause::Other("there is no root certificate to verify the server with"))
}

/// The failure of a server that could not be reached.
fn unreachable(error: io::Error) -> Failure {
    Failure::Unchanged(Cause::connection(RedisError::from(error)))
}

/// The failure of a TLS handshake.
fn rejected(error: io::Error) -> Failure {
    // rustls reports in this way that a server does not support TLS or is not trusted.
    if error.kind() == io::ErrorKind::InvalidData {
        return Failure::Misconfigured(NOT_TRUSTED, Cause::connection(RedisError::from(error)));
    }
    unreachable(error)
}
