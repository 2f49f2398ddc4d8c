//! What an error of etcd means for a call: the part of a storage on a server that is easiest to get wrong.
//!
//! The rule: a write whose request was sent is [`Failure::Lost`], unless the error *proves* that nothing has happened.
//! A list of errors after which something may have happened would eventually be incomplete, and would then misreport a
//! write.

use std::error::Error as _;

use etcd_client::Error;
use oauth_dance_core::{BoxError, StorageError};
use tonic::{Code, ConnectError, Status};

/// Why a request to one server did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection to this server, so nothing was sent.
    Unreached(BoxError),
    /// The server has done nothing, and another server, or the same one later, may do it.
    NotDone(BoxError),
    /// The request was sent, and it is unknown what happened.
    Lost(BoxError),
    /// Nothing has happened, and every server would respond in the same way.
    Rejected(StorageError),
}

/// What etcd reports before it forwards a request to the other servers.
const NOT_DONE: [&str; 6] = [
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: rpc not supported for learner",
    "etcdserver: too many requests",
    "etcdserver: requested lease not found", // it ended before the write: a later attempt has a new one
    "raft proposal dropped",
];

/// What an operator has to change, by a part of the message.
const ADVICE: [(&str, &str); 7] = [
    (
        "database space exceeded",
        "etcd has no space: compact and defragment it, or raise its quota, then disarm the NOSPACE alarm",
    ),
    ("permission denied", "grant the user's role readwrite on the prefix of this storage"),
    ("user name is empty", "etcd requires a login: pass a user and a password in the options"),
    ("authentication failed", "correct the user and the password"),
    ("authentication is not enabled", "remove the user from the options, or enable authentication in etcd"),
    ("request is too large", "raise etcd's --max-request-bytes to its default of 1.5 MiB or more"),
    ("corrupt cluster", "etcd has found its data corrupt: replace the member that differs"),
];

impl Failure {
    /// A request that got no reply in time.
    pub(crate) fn timed_out(url: &str) -> Self {
        Self::Lost(format!("{url} did not reply in time").into())
    }

    pub(crate) fn of(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => of_status(status),
            // The other variants are about arguments, so nothing was sent.
            other => Self::Rejected(misconfigured("correct the addresses and options of etcd", other)),
        }
    }
}

fn of_status(status: Status) -> Failure {
    if is_unreached(&status) {
        return Failure::Unreached(status.into());
    }
    if NOT_DONE.iter().any(|message| status.message() == *message) {
        return Failure::NotDone(status.into());
    }
    if let Some((_, advice)) = ADVICE.iter().find(|(message, _)| status.message().contains(message)) {
        return Failure::Rejected(misconfigured(advice, status));
    }
    match status.code() {
        Code::Unauthenticated => Failure::Rejected(misconfigured("correct the user and the password", status)),
        Code::Unimplemented => Failure::Rejected(misconfigured("give the addresses of etcd 3.4 or newer", status)),
        _ => Failure::Lost(status.into()),
    }
}

/// Whether the connection could not be opened. The sources of the error name that, and its text does not reliably.
fn is_unreached(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

pub(crate) fn misconfigured(advice: &str, source: impl Into<BoxError>) -> StorageError {
    StorageError::Misconfigured { advice: advice.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_error_may_have_had_an_effect() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unknown, "transport error"),
            (Code::Cancelled, "operation was canceled"),
        ] {
            let failure = Failure::of(Status::new(code, message).into());
            assert!(matches!(failure, Failure::Lost(_)), "{message}: {failure:?}");
        }
    }
}
