//! Error responses of providers that differ from the standards, as rows of a table.

use crate::config::error_pattern::ErrorPattern;

/// The row of one provider.
#[derive(Clone, Copy)]
pub(super) struct Known<Source> {
    /// The preset's name.
    pub(super) preset: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by tests, and by the page that is generated from the table")
    )]
    pub(super) source: Source,
    pub(super) patterns: &'static [Pattern],
}

/// A response: its status, and the values of its members.
#[derive(Clone, Copy)]
pub(super) struct Pattern {
    pub(super) status: Option<u16>,
    pub(super) members: &'static [(&'static str, &'static str)],
}

/// The patterns of a preset in a table.
pub(super) fn patterns_of<Source>(rows: &[Known<Source>], preset: &str) -> Vec<ErrorPattern> {
    let known = rows.iter().filter(|known| known.preset == preset);
    known.flat_map(|known| known.patterns).map(Pattern::error_pattern).collect()
}

impl Pattern {
    fn error_pattern(&self) -> ErrorPattern {
        let pattern = ErrorPattern::new(self.members.iter().copied());
        match self.status {
            Some(status) => pattern.with_status(status),
            None => pattern,
        }
    }
}
