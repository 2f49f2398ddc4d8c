//! Drops calls at chosen points, and waits until a dropped call can have no more effect.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use oauth_dance_core::{Precondition, Record};
use tokio::time::timeout;

use crate::outcome::PropertyResult;
use crate::tested_storage::{TestedStorage, key};

/// Drops a call while it is in flight. Depending on the turn, that is at one of its first awaits, at a later one, or after
/// a time.
pub(super) async fn cut<T>(turn: usize, call: impl Future<Output = T>) {
    match turn % 4 {
        0 => drop_in_flight(1, call).await,
        1 => drop_in_flight(2, call).await,
        2 => drop_in_flight(turn / 4 % 14, call).await,
        _ => drop(timeout(Duration::from_micros(100 * (turn as u64 % 40)), call).await),
    }
}

/// Drops a call after that many polls, at once and not when it is woken again.
pub(crate) async fn drop_in_flight<T>(polls: usize, call: impl Future<Output = T>) {
    poll_in_flight(polls, pin!(call)).await;
}

/// Polls a call that many times, or until it ends.
pub(super) async fn poll_in_flight<T>(polls: usize, mut call: Pin<&mut impl Future<Output = T>>) {
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Pending if left > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// How long a dropped call may take to have an effect: three times as long as a call takes that is not dropped. If calls
/// never wait for anything, nothing can be in flight after a drop.
pub(super) async fn time_to_settle(on: &TestedStorage) -> PropertyResult<Duration> {
    let (key, record) = (key("settled")?, Record::new("x"));
    let (mut slowest, mut waits) = (Duration::ZERO, false);
    for turn in 0..12 {
        let begun = Instant::now();
        if turn % 2 == 0 {
            let call = on.storage().put(&key, &record, Precondition::Always);
            with_waits_noted(pin!(call), &mut waits).await?;
        } else {
            let call = on.storage().delete(&key, None);
            with_waits_noted(pin!(call), &mut waits).await?;
        }
        slowest = slowest.max(begun.elapsed());
    }
    let time = Duration::from_millis(15) + (slowest * 3).min(Duration::from_millis(200));
    Ok(if waits { time } else { Duration::ZERO })
}

/// Runs a call, and sets `waits` if the call was pending at any time.
async fn with_waits_noted<T>(mut call: Pin<&mut impl Future<Output = T>>, waits: &mut bool) -> T {
    poll_fn(|context| {
        let polled = call.as_mut().poll(context);
        *waits |= polled.is_pending();
        polled
    })
    .await
}

pub(super) async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
