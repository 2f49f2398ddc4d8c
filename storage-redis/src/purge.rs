//! Removes what expired records leave behind.
//!
//! The server removes an expired record by itself, but not its name in the two sorted sets of its bucket.

use futures_util::future::try_join_all;
use redis::Value;

use crate::error::{Failure, UNEXPECTED, integer};
use crate::layout::{Bucket, Layout};
use crate::script::{Call, PURGE};
use crate::servers::{Request, Servers};
use crate::storage::milliseconds;

/// Removes the names of at most `limit` expired records from the indexes, and returns their number.
pub(crate) async fn purge(servers: &Servers, layout: &Layout, limit: usize) -> Result<u64, Failure> {
    let now = now(servers, layout).await?;
    let due = try_join_all(Bucket::all().map(|bucket| count_due(servers, layout, bucket, now))).await?;
    let mut left = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut shares = Vec::new();
    for (bucket, due) in Bucket::all().zip(due) {
        let share = due.min(left);
        left -= share;
        if share > 0 {
            shares.push((bucket, share));
        }
    }
    let removed = shares.into_iter().map(|(bucket, share)| remove(servers, layout, bucket, share));
    Ok(try_join_all(removed).await?.into_iter().sum())
}

/// The time of one of the servers in milliseconds. It only estimates what has expired, because each script reads the
/// clock of its own server.
pub(crate) async fn now(servers: &Servers, layout: &Layout) -> Result<u64, Failure> {
    let slot = Bucket::all().next().map(|bucket| layout.slot(bucket)).unwrap_or_default();
    let replies = servers.request(slot, Request::Read(&[redis::cmd("TIME")])).await?;
    replies.first().and_then(milliseconds).ok_or(Failure::Unchanged(UNEXPECTED))
}

/// Counts the expired names of a bucket.
async fn count_due(servers: &Servers, layout: &Layout, bucket: Bucket, now: u64) -> Result<u64, Failure> {
    let mut count = redis::cmd("ZCOUNT");
    count.arg(layout.deadlines(bucket)).arg("-inf").arg(now);
    number(&servers.request(layout.slot(bucket), Request::Read(&[count])).await?)
}

/// Removes at most `limit` expired names of a bucket.
async fn remove(servers: &Servers, layout: &Layout, bucket: Bucket, limit: u64) -> Result<u64, Failure> {
    let (index, deadlines, limit) = (layout.index(bucket), layout.deadlines(bucket), limit.to_string());
    let keys = [index.as_bytes(), deadlines.as_bytes()];
    let call = Call { source: &PURGE, keys: &keys, arguments: &[limit.as_bytes()] };
    number(&servers.request(layout.slot(bucket), Request::Write(&call)).await?)
}

/// Reads a reply that is a count.
fn number(replies: &[Value]) -> Result<u64, Failure> {
    u64::try_from(integer(replies)?).map_err(|_| Failure::NoReply(UNEXPECTED))
}
