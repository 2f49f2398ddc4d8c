//! The results of the checks.

use serde_json::Value;

/// The result of a check.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was checked.
    pub(super) check: &'static str,
    /// What was found.
    pub(super) found: String,
    /// What to do about it. Empty if nothing has to be done.
    pub(super) advice: &'static str,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Nothing has to be done.
    Ok,
    /// It could not be checked.
    Unknown,
    /// Tokens may be lost or shown under conditions that are rare.
    Warning,
    /// Tokens are or will be lost or shown.
    Danger,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, found: found.into(), advice: "" }
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { level: Level::Warning, check, found: found.into(), advice }
    }

    pub(super) fn danger(check: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { level: Level::Danger, check, found: found.into(), advice }
    }

    pub(super) fn unknown(check: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { level: Level::Unknown, check, found: found.into(), advice }
    }

    /// The finding for a setting: a danger, unless the setting is safe.
    pub(super) fn setting(check: &'static str, found: &str, is_safe: bool, advice: &'static str) -> Self {
        if is_safe { Self::ok(check, found) } else { Self::danger(check, found, advice) }
    }

    /// Whether an operator has to do something.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.level, Level::Warning | Level::Danger)
    }

    pub(super) fn row(&self) -> Vec<Value> {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Unknown => "unknown",
            Level::Warning => "warning",
            Level::Danger => "danger",
        };
        let advice = Some(self.advice).filter(|advice| !advice.is_empty());
        vec![level.into(), self.check.into(), self.found.clone().into(), advice.into()]
    }
}
