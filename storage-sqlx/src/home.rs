//! The runtime that opened a connection.
//!
//! The socket of a connection stops working when that runtime ends, and tokio cannot be asked whether it has. A task that
//! never completes waits there instead: the runtime cancels it when it ends.

use tokio::runtime::{self, Handle};
use tokio::task::AbortHandle;

/// The runtime of a connection, if it was opened in one.
pub(crate) struct Home(Option<(runtime::Id, AbortHandle)>);

impl Home {
    /// The runtime of the caller.
    pub(crate) fn current() -> Self {
        let runtime = Handle::try_current().ok();
        Self(runtime.map(|runtime| (runtime.id(), runtime.spawn(std::future::pending::<()>()).abort_handle())))
    }

    pub(crate) fn is_current(&self) -> bool {
        let current = Handle::try_current().ok().map(|runtime| runtime.id());
        self.0.as_ref().map(|(id, _)| *id) == current
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, task)| task.is_finished())
    }
}

impl Drop for Home {
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
    fn end_of_a_runtime_is_noticed() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let (one, two) = (builder.build().unwrap(), builder.build().unwrap());
            let home = one.block_on(async { Home::current() });
            assert!(one.block_on(async { home.is_current() }) && !two.block_on(async { home.is_current() }));
            assert!(!home.has_ended() && !home.is_current());
            drop(one);
            assert!(home.has_ended() && !two.block_on(async { home.is_current() }));
        }
    }

    #[test]
    fn connection_needs_no_runtime() {
        let home = Home::current();
        assert!(home.is_current() && !home.has_ended());
    }
}
