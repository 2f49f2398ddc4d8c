//! The search for an order of concurrent calls that explains their results.

use std::collections::HashSet;
use std::fmt;

use oauth_dance_core::{Precondition, Version};

use crate::show::text;

/// One call of a client on one key, with its result. `begun` and `ended` are times on a shared counter.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) action: Action,
    pub(crate) reply: Reply,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
}

/// The operation of a call.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Get,
    Put(Vec<u8>, Precondition),
    Delete(Option<Version>),
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Found(Vec<u8>, Version),
    Written(Version),
    Conflict,
    Deleted(bool),
    /// The reply to a write was lost: it happened at some instant, or never.
    Unknown,
}

impl Reply {
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Found(_, version) | Self::Written(version) => Some(*version),
            _ => None,
        }
    }
}

/// Whether some order of the calls explains all results. This is the search of Wing and Gong, with Lowe's set of
/// configurations that were tried before.
///
/// Calls that did not overlap must be in their original order. The storage is empty at first.
pub(crate) fn explain(calls: &[Call]) -> bool {
    // The set of calls that are in the order so far is a number with one bit for each call.
    debug_assert!(calls.len() <= 128);
    search(calls, 0, None, &mut HashSet::new())
}

/// The index of the call that wrote the stored record.
type Stored = Option<usize>;

fn search(calls: &[Call], done: u128, state: Stored, tried: &mut HashSet<(u128, Stored)>) -> bool {
    let open = |index: &usize| done & (1 << index) == 0;
    if (0..calls.len()).filter(open).all(|index| calls[index].reply == Reply::Unknown) {
        return true;
    }
    if !tried.insert((done, state)) {
        return false;
    }
    // A call can come next only if no other open one had ended when it began.
    let first_end = (0..calls.len()).filter(open).map(|index| calls[index].ended).min().unwrap_or(u64::MAX);
    (0..calls.len())
        .filter(open)
        .filter(|index| calls[*index].begun < first_end)
        .any(|index| apply(calls, index, state).is_some_and(|next| search(calls, done | (1 << index), next, tried)))
}

/// The state after a call, or `None` if its result is wrong in this state.
fn apply(calls: &[Call], index: usize, state: Stored) -> Option<Stored> {
    let stored = state.and_then(|writer| match (&calls[writer].action, &calls[writer].reply) {
        (Action::Put(payload, _), Reply::Written(version)) => Some((payload, *version)),
        (Action::Put(payload, _), Reply::Unknown) => Some((payload, seen(calls, payload).unwrap_or(UNSEEN))),
        _ => None,
    });
    let current = stored.map(|(_, version)| version);
    match (&calls[index].action, &calls[index].reply) {
        (Action::Get, Reply::Nothing) => stored.is_none().then_some(state),
        (Action::Get, Reply::Found(payload, version)) => (stored == Some((payload, *version))).then_some(state),
        (Action::Put(_, when), Reply::Written(_)) => when.holds_for(current).then_some(Some(index)),
        (Action::Put(_, when), Reply::Conflict) => (!when.holds_for(current)).then_some(state),
        // If it never happens, it stays out of the order.
        (Action::Put(_, when), Reply::Unknown) => when.holds_for(current).then_some(Some(index)),
        (Action::Delete(only), Reply::Unknown) => {
            current.is_some_and(|current| only.is_none_or(|only| only == current)).then_some(None)
        }
        (Action::Delete(only), Reply::Deleted(removed)) => {
            let holds = current.is_some_and(|current| only.is_none_or(|only| only == current));
            (holds == *removed).then_some(if holds { None } else { state })
        }
        _ => None,
    }
}

/// A call whose reply is wrong in every order of the calls, and why. A failure names it instead of all of them.
pub(crate) fn impossible(calls: &[Call]) -> Option<(&Call, &'static str)> {
    calls.iter().find_map(|call| Some((call, why_impossible(calls, call)?)))
}

fn why_impossible(calls: &[Call], call: &Call) -> Option<&'static str> {
    // Only these can have an effect on the reply.
    let others = || calls.iter().filter(|other| !std::ptr::eq(*other, call) && other.begun < call.ended);
    let writes = || {
        others()
            .filter_map(|other| if let Action::Put(payload, _) = &other.action { Some((other, payload)) } else { None })
    };
    let may_be_stored = || writes().any(|(write, _)| matches!(write.reply, Reply::Written(_) | Reply::Unknown));
    let may_have = |wanted: Version| {
        writes().any(|(write, _)| write.reply == Reply::Unknown || write.reply == Reply::Written(wanted))
    };
    let is_stored = || {
        let written = writes().any(|(write, _)| matches!(write.reply, Reply::Written(_)) && write.ended < call.begun);
        let deleted = |other: &Call| {
            matches!(other.action, Action::Delete(_)) && matches!(other.reply, Reply::Deleted(true) | Reply::Unknown)
        };
        written && !others().any(deleted)
    };
    match (&call.action, &call.reply) {
        (Action::Put(..), Reply::Written(version)) if others().any(|other| other.reply == Reply::Written(*version)) => {
            Some("another write returned the same version")
        }
        (Action::Get, Reply::Found(payload, version)) => {
            let mut of_payload = writes().filter(|(_, written)| *written == payload).map(|(write, _)| &write.reply);
            if of_payload.clone().any(|reply| *reply == Reply::Unknown || *reply == Reply::Written(*version)) {
                None
            } else if of_payload.any(|reply| matches!(reply, Reply::Written(_))) {
                Some("the write of this payload returned another version")
            } else if may_have(*version) && !writes().any(|(write, _)| write.reply == Reply::Unknown) {
                Some("the write that returned this version had another payload")
            } else {
                Some("no earlier call wrote this payload")
            }
        }
        (Action::Put(_, Precondition::Always), Reply::Conflict) => Some("a write without a condition cannot conflict"),
        (Action::Get, Reply::Nothing)
        | (Action::Put(_, Precondition::Absent), Reply::Written(_))
        | (Action::Delete(None), Reply::Deleted(false)) => {
            is_stored().then_some("a record had been written before, and no call had deleted one")
        }
        (Action::Put(_, Precondition::Absent), Reply::Conflict) | (Action::Delete(None), Reply::Deleted(true)) => {
            (!may_be_stored()).then_some("no earlier call wrote a record")
        }
        (Action::Put(_, Precondition::Version(version)), Reply::Written(_))
        | (Action::Delete(Some(version)), Reply::Deleted(true)) => {
            (!may_have(*version)).then_some("no earlier write returned the version that the call names")
        }
        _ => None,
    }
}

/// Stands for the version of a write whose reply was lost, if no read has returned it.
const UNSEEN: Version = Version::from_bytes([0x55; 16]);

/// The version with which a payload was read. Payloads are unique among the writes.
fn seen(calls: &[Call], payload: &[u8]) -> Option<Version> {
    calls.iter().find_map(|call| match &call.reply {
        Reply::Found(found, version) if found == payload => Some(*version),
        _ => None,
    })
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3} to ", self.begun)?;
        if self.ended == u64::MAX {
            write!(f, "  ?: ")?;
        } else {
            write!(f, "{:>3}: ", self.ended)?;
        }
        match &self.action {
            Action::Get => write!(f, "get")?,
            Action::Put(payload, when) => write!(f, "put {} {when:?}", text(payload))?,
            Action::Delete(only) => write!(f, "delete {only:?}")?,
        }
        match &self.reply {
            Reply::Found(payload, version) => write!(f, " -> {} {version:?}", text(payload)),
            other => write!(f, " -> {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Version = Version::from_bytes([1; 16]);
    const TWO: Version = Version::from_bytes([2; 16]);

    fn call(begun: u64, ended: u64, action: Action, reply: Reply) -> Call {
        Call { action, reply, begun, ended }
    }

    fn put(begun: u64, ended: u64, when: Precondition, version: Version) -> Call {
        call(begun, ended, Action::Put(b"x".to_vec(), when), Reply::Written(version))
    }

    fn found(begun: u64, ended: u64, version: Version) -> Call {
        call(begun, ended, Action::Get, Reply::Found(b"x".to_vec(), version))
    }

    #[test]
    fn calls_one_after_the_other_have_one_order() {
        let good = [put(0, 1, Precondition::Absent, ONE), found(2, 3, ONE)];
        assert!(explain(&good));
        let early = [call(0, 1, Action::Get, Reply::Nothing), put(2, 3, Precondition::Absent, ONE)];
        assert!(explain(&early));
        let lost = [put(0, 1, Precondition::Absent, ONE), call(2, 3, Action::Get, Reply::Nothing)];
        assert!(!explain(&lost));
        let stale = [put(0, 1, Precondition::Absent, ONE), put(2, 3, Precondition::Always, TWO), found(4, 5, ONE)];
        assert!(!explain(&stale));
    }

    #[test]
    fn concurrent_calls_may_come_in_either_order() {
        for late in [ONE, TWO] {
            let both = [put(0, 3, Precondition::Always, ONE), put(1, 2, Precondition::Always, TWO), found(4, 5, late)];
            assert!(explain(&both));
        }
        let read = [put(0, 3, Precondition::Always, ONE), call(1, 2, Action::Get, Reply::Nothing)];
        assert!(explain(&read));
    }

    #[test]
    fn reads_do_not_disagree_about_the_order() {
        let back = [
            put(0, 9, Precondition::Always, ONE),
            put(1, 8, Precondition::Always, TWO),
            found(2, 3, ONE),
            found(4, 5, TWO),
            found(6, 7, ONE),
        ];
        assert!(!explain(&back));
    }

    #[test]
    fn one_of_two_conditional_writes_loses() {
        let base = put(0, 1, Precondition::Absent, ONE);
        let three = Version::from_bytes([3; 16]);
        let twice =
            [base.clone(), put(2, 5, Precondition::Version(ONE), TWO), put(3, 4, Precondition::Version(ONE), three)];
        assert!(!explain(&twice));
        let refused = Action::Put(b"x".to_vec(), Precondition::Version(ONE));
        let once = [base, put(2, 5, Precondition::Version(ONE), TWO), call(3, 4, refused, Reply::Conflict)];
        assert!(explain(&once));
    }

    #[test]
    fn a_lost_reply_explains_either_state_once() {
        let unknown = |begun| call(begun, u64::MAX, Action::Put(b"y".to_vec(), Precondition::Always), Reply::Unknown);
        let base = put(0, 1, Precondition::Absent, ONE);
        let new = |begun| call(begun, begun + 1, Action::Get, Reply::Found(b"y".to_vec(), TWO));
        assert!(explain(&[base.clone(), unknown(2), found(4, 5, ONE)]));
        assert!(explain(&[base.clone(), unknown(2), new(4), new(6)]));
        assert!(explain(&[base.clone(), unknown(2), found(4, 5, ONE), new(6)]));
        assert!(!explain(&[base.clone(), unknown(2), new(4), found(6, 7, ONE)]));
        assert!(!explain(&[base, new(2), unknown(4)]));
    }

    #[test]
    fn an_impossible_call_is_named() {
        let base = put(0, 1, Precondition::Absent, ONE);
        let impossible_in = |calls: &[Call]| impossible(calls).map(|(call, why)| (call.begun, why));
        let conflict = |when| call(2, 3, Action::Put(b"z".to_vec(), when), Reply::Conflict);
        let other = call(2, 3, Action::Get, Reply::Found(b"other".to_vec(), TWO));
        let cases = [
            (found(2, 3, TWO), "the write of this payload returned another version"),
            (
                call(2, 3, Action::Get, Reply::Found(b"y".to_vec(), ONE)),
                "the write that returned this version had another payload",
            ),
            (other.clone(), "no earlier call wrote this payload"),
            (conflict(Precondition::Always), "a write without a condition cannot conflict"),
            (call(2, 3, Action::Get, Reply::Nothing), "a record had been written before, and no call had deleted one"),
            (
                put(2, 3, Precondition::Version(TWO), Version::from_bytes([3; 16])),
                "no earlier write returned the version that the call names",
            ),
            (put(2, 3, Precondition::Always, ONE), "another write returned the same version"),
        ];
        for (wrong, why) in cases {
            assert!(why == "another write returned the same version" || !explain(&[base.clone(), wrong.clone()]));
            assert_eq!(impossible_in(&[base.clone(), wrong.clone()]), Some((2, why)));
        }
        assert_eq!(impossible_in(&[conflict(Precondition::Absent)]), Some((2, "no earlier call wrote a record")));
        // Each of these can be right, and only the order cannot.
        let stale = [base.clone(), put(2, 3, Precondition::Always, TWO), found(4, 5, ONE)];
        assert!(!explain(&stale));
        assert_eq!(impossible_in(&stale), None);
        let unknown = call(2, u64::MAX, Action::Put(b"other".to_vec(), Precondition::Always), Reply::Unknown);
        let lost = [base, unknown, Call { begun: 4, ended: 5, ..other }];
        assert!(explain(&lost));
        assert_eq!(impossible_in(&lost), None);
    }

    #[test]
    fn only_one_delete_reports_success() {
        let base = put(0, 1, Precondition::Absent, ONE);
        let delete = |removed| call(2, 3, Action::Delete(Some(ONE)), Reply::Deleted(removed));
        assert!(explain(&[base.clone(), delete(true), delete(false)]));
        assert!(!explain(&[base.clone(), delete(true), delete(true)]));
        assert!(!explain(&[base, delete(false), delete(false)]));
    }
}
