//! The exit codes of the commands for operators. Scripts rely on them.

use std::process::ExitCode;

/// How a command ended. If a command returns an error, the program exits with 2: the arguments are wrong, or the
/// storage or the keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command has done everything, and found nothing.
    Done = 0,
    /// The command ran to its end, and found something or could not do a part of its work. Its output shows the
    /// details.
    Found = 1,
}

impl Exit {
    /// [`Found`](Self::Found) if something was found, otherwise [`Done`](Self::Done).
    pub(crate) fn found(found: bool) -> Self {
        if found { Self::Found } else { Self::Done }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
