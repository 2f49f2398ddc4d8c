//! Tasks that a process waits for when it shuts down.
//!
//! A web server drops the future of a request when the browser disconnects. A login that has redeemed its code must not stop
//! there, as its token would be lost: it runs in a task, which only the end of the runtime stops.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Starts tasks that no caller can abort, and counts the tasks in flight.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    in_flight: watch::Sender<usize>,
}

impl Tasks {
    /// Starts a task.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.in_flight.send_modify(|count| *count += 1);
        let counted = Counted(self.in_flight.clone());
        tokio::spawn(async move {
            // Also if the task panics, or its runtime drops it.
            let _counted = counted;
            task.await
        })
    }

    /// Waits until no task is in flight.
    pub(crate) async fn all_ended(&self) {
        // An error would mean that the sender was dropped, but `self` owns it.
        let _ = self.in_flight.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Decrements the count however the task ends.
struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
