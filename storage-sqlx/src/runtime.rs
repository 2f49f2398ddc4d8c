//! The runtime that opened a connection.
//!
//! The socket of a connection stops working when that runtime ends. tokio does not report whether a runtime has ended.
//! Therefore a task that never completes is spawned on it: if the task is finished, the runtime has cancelled it and has
//! ended.

use tokio::runtime::{self, Handle};
use tokio::task::AbortHandle;

/// The runtime of a connection, if it was opened in one.
pub(crate) struct ConnectionRuntime(Option<(runtime::Id, AbortHandle)>);

impl ConnectionRuntime {
    /// The runtime of the caller.
    pub(crate) fn current() -> Self {
        let runtime = Handle::try_current().ok();
        Self(runtime.map(|runtime| (runtime.id(), runtime.spawn(std::future::pending::<()>()).abort_handle())))
    }

    /// Whether the caller runs in this runtime.
    pub(crate) fn is_current(&self) -> bool {
        let current = Handle::try_current().ok().map(|runtime| runtime.id());
        self.0.as_ref().map(|(id, _)| *id) == current
    }

    /// Whether the runtime has ended. `false` if the connection was opened outside of a runtime.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, task)| task.is_finished())
    }
}

impl Drop for ConnectionRuntime {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn end_of_a_runtime_is_detected() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let (one, two) = (builder.build().unwrap(), builder.build().unwrap());
            let opened_in = one.block_on(async { ConnectionRuntime::current() });
            assert!(one.block_on(async { opened_in.is_current() }) && !two.block_on(async { opened_in.is_current() }));
            assert!(!opened_in.has_ended() && !opened_in.is_current());
            drop(one);
            assert!(opened_in.has_ended() && !two.block_on(async { opened_in.is_current() }));
        }
    }

    #[test]
    fn connection_needs_no_runtime() {
        let opened_in = ConnectionRuntime::current();
        assert!(opened_in.is_current() && !opened_in.has_ended());
    }
}
