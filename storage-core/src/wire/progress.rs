//! The stored form of the state of a refresh.
//!
//! These types are separate from those of [`progress`](crate::progress), so that a change of the code does not change
//! stored records by accident. Times are seconds since 1970, and a lease is in milliseconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::progress::{BackOff, Claim, DeadReason, Progress, Refusals, Tries};
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Refresh {
    Claim {
        id: u64,
        since: u64,
        lease_ms: u64,
        failed: u32,
        maybe_spent: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Refused>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unusable: Option<Refused>,
    },
    BackOff {
        until: u64,
        cause: String,
        failed: u32,
        maybe_spent: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Refused>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unusable: Option<Refused>,
    },
    Dead {
        reason: Reason,
        since: u64,
    },
    Replaced {},
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refused {
    count: u32,
    since: u64,
    last: u64,
}

impl From<Refusals> for Refused {
    fn from(refusals: Refusals) -> Self {
        let Refusals { count, since, last } = refusals;
        Self { count, since: since.as_unix_seconds(), last: last.as_unix_seconds() }
    }
}

fn tries(failed: u32, maybe_spent: bool, refused: Option<Refused>, unusable: Option<Refused>) -> Tries {
    Tries { failed, maybe_spent, refused: refused.map(Refusals::from), unusable: unusable.map(Refusals::from) }
}

impl From<Refused> for Refusals {
    fn from(refused: Refused) -> Self {
        let Refused { count, since, last } = refused;
        Self { count, since: Timestamp::from_unix_seconds(since), last: Timestamp::from_unix_seconds(last) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    Refused,
    #[serde(rename = "answer_lost")]
    ResponseLost,
    RefusedRepeatedly,
    NoRefreshToken,
    Rejected,
}

impl Refresh {
    pub(super) fn from_progress(progress: &Progress) -> Option<Self> {
        Some(match progress {
            Progress::Idle => return None,
            Progress::Replaced => Self::Replaced {},
            Progress::Claimed(Claim { id, since, lease, tries }) => Self::Claim {
                id: *id,
                since: since.as_unix_seconds(),
                lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
                failed: tries.failed,
                maybe_spent: tries.maybe_spent,
                refused: tries.refused.map(Refused::from),
                unusable: tries.unusable.map(Refused::from),
            },
            Progress::BackingOff(BackOff { until, cause, tries }) => Self::BackOff {
                until: until.as_unix_seconds(),
                cause: cause.clone(),
                failed: tries.failed,
                maybe_spent: tries.maybe_spent,
                refused: tries.refused.map(Refused::from),
                unusable: tries.unusable.map(Refused::from),
            },
            Progress::Dead { reason, since } => Self::Dead {
                reason: match reason {
                    DeadReason::Refused => Reason::Refused,
                    DeadReason::ResponseLost => Reason::ResponseLost,
                    DeadReason::RefusedRepeatedly => Reason::RefusedRepeatedly,
                    DeadReason::NoRefreshToken => Reason::NoRefreshToken,
                    DeadReason::Rejected => Reason::Rejected,
                },
                since: since.as_unix_seconds(),
            },
        })
    }
}

impl From<Refresh> for Progress {
    fn from(refresh: Refresh) -> Self {
        match refresh {
            Refresh::Claim { id, since, lease_ms, failed, maybe_spent, refused, unusable } => Self::Claimed(Claim {
                id,
                since: Timestamp::from_unix_seconds(since),
                lease: Duration::from_millis(lease_ms),
                tries: tries(failed, maybe_spent, refused, unusable),
            }),
            Refresh::BackOff { until, cause, failed, maybe_spent, refused, unusable } => Self::BackingOff(BackOff {
                until: Timestamp::from_unix_seconds(until),
                cause,
                tries: tries(failed, maybe_spent, refused, unusable),
            }),
            Refresh::Replaced {} => Self::Replaced,
            Refresh::Dead { reason, since } => Self::Dead {
                reason: match reason {
                    Reason::Refused => DeadReason::Refused,
                    Reason::ResponseLost => DeadReason::ResponseLost,
                    Reason::RefusedRepeatedly => DeadReason::RefusedRepeatedly,
                    Reason::NoRefreshToken => DeadReason::NoRefreshToken,
                    Reason::Rejected => DeadReason::Rejected,
                },
                since: Timestamp::from_unix_seconds(since),
            },
        }
    }
}
