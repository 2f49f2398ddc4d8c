//! Tasks that a process that shuts down waits for.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Starts tasks that no caller can abort, and counts those in flight.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    in_flight: watch::Sender<usize>,
}

impl Tasks {
    /// Starts one.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.in_flight.send_modify(|count| *count += 1);
        let counted = Counted(self.in_flight.clone());
        tokio::spawn(async move {
            // Also when the task panics, or its runtime drops it.
            let _counted = counted;
            task.await
        })
    }

    /// Waits until none is in flight.
    pub(crate) async fn all_ended(&self) {
        // An error says that the sender is gone, which `self` holds.
        let _ = self.in_flight.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Counts down when a task ends in whatever way.
struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
