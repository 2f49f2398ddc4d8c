//! Shows the progress of a long command on the standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two lines if the standard error is not a terminal. A shorter command prints none.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Counts records. On a terminal it is a bar, and otherwise a line from time to time.
pub(crate) struct Progress {
    verb: &'static str,
    done: u64,
    started: Instant,
    last_line: Instant,
    /// `None` if the standard error is not a terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `verb` is what the command does with a record, such as "checked".
    pub(crate) fn new(verb: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos} records, {per_sec}, {elapsed}")
            {
                bar.set_style(style);
            }
            bar.with_message(verb)
        });
        let now = Instant::now();
        Self { verb, done: 0, started: now, last_line: now, bar }
    }

    pub(crate) fn add(&mut self, records: u64) {
        self.done += records;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            // The command continues if the standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{} {} records in {seconds} seconds", self.verb, self.done);
        }
    }

    /// Hides the bar while `print` writes to the terminal.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// The number of records so far.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
