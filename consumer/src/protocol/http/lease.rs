//! Token requests that are sent only while the claim on the refresh token is valid.
//!
//! A process can be suspended for minutes, between the moment at which it claims a refresh token and the moment at which it
//! sends it. Another process has then taken the refresh over, and the same refresh token would be sent twice. The claim is
//! therefore checked when the connection is open, immediately before the body is written.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use oauth_dance_core::Lease;

/// A body that is provided only while the lease is valid. The HTTP client requests the body when the connection is open, so
/// only the write to the socket comes after the check.
pub(crate) struct LeasedBody {
    bytes: Option<Bytes>,
    lease: Lease,
}

/// Nothing was sent, because the lease had expired.
#[derive(Debug, thiserror::Error)]
#[error("the claim on the refresh token has expired")]
struct LeaseExpired;

impl LeasedBody {
    pub(crate) fn new(bytes: &[u8], lease: Lease) -> Self {
        Self { bytes: Some(Bytes::copy_from_slice(bytes)), lease }
    }
}

impl Body for LeasedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        if self.lease.is_expired() {
            return Poll::Ready(Some(Err(LeaseExpired.into())));
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Whether a request failed because its lease had expired.
pub(crate) fn is_lease_expired(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<LeaseExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use oauth_dance_core::{Clock, Timestamp};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Sends a form under a lease of half a minute. Its clock advances while the connection is opened.
    async fn send(elapsed: u64) -> (Result<reqwest::Response, reqwest::Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let seconds = Arc::new(AtomicU64::new(1000));
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        let lease = Lease::start(Duration::from_secs(30), &clock);
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut received, mut buffer) = (Vec::new(), [0; 1024]);
            while !received.ends_with(b"token=CANARY") {
                match stream.read(&mut buffer).await {
                    Ok(read @ 1..) => received.extend_from_slice(&buffer[..read]),
                    _ => return received,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            received
        });
        seconds.fetch_add(elapsed, Ordering::SeqCst);
        let body = reqwest::Body::wrap(LeasedBody::new(b"token=CANARY", lease));
        let client = reqwest::Client::new();
        let outcome = client.post(url).body(body).send().await;
        drop(client);
        (outcome, String::from_utf8(server.await.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn a_form_under_a_lease_has_a_length() {
        let (outcome, received) = send(20).await;
        assert_eq!(outcome.unwrap().status(), 204);
        assert!(received.to_lowercase().contains("content-length: 12\r\n"), "{received}");
        assert!(!received.to_lowercase().contains("transfer-encoding"), "{received}");
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_lease_has_expired() {
        let (outcome, received) = send(30).await;
        let error = outcome.unwrap_err();
        assert!(is_lease_expired(&error), "{error:?}");
        assert!(!received.contains("CANARY"), "{received}");
    }
}
