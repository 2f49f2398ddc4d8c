//! What the exit code of an operator's command means. Scripts rely on it.

use std::process::ExitCode;

/// How a command ended. A command that returns an error ends with 2: the arguments are wrong, or the storage or the keys
/// cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done, and nothing was found.
    Done = 0,
    /// The command ran to its end, and found something or could not do a part; its output says what.
    Found = 1,
}

impl Exit {
    /// [`Found`](Self::Found) if this is so, else [`Done`](Self::Done).
    pub(crate) fn found(found: bool) -> Self {
        if found { Self::Found } else { Self::Done }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
