//! Token requests that are sent only while the claim on the refresh token is valid.
//!
//! A process can be suspended between the moment at which it claims a refresh token and the moment at which it sends it.
//! Another process has then taken the refresh over. The claim is therefore checked when the connection is open, immediately
//! before the body is written.

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
    pub(crate) fn new(bytes: impl Into<Bytes>, lease: Lease) -> Self {
        Self { bytes: Some(bytes.into()), lease }
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
