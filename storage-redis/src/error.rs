//! Errors, from the reply of a server to a [`StorageError`].
//!
//! Two questions decide: what is known about the effect of the request ([`Failure`]), and whether this crate can do
//! something about it ([`Reaction`]). Messages of a server may quote a request, which contains keys and payloads, so
//! quotes are removed.

use oauth_dance_core::StorageError;
use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind, Value};

/// The cause of an error of this crate. It contains nothing that was sent or stored.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("the server did not respond in time")]
    TimedOut,
    #[error("the server returned the error {code}: {message}")]
    ErrorReply { code: String, message: String },
    #[error("the connection failed: {kind:?}")]
    Connection {
        kind: ErrorKind,
        #[source]
        source: RedisError,
    },
    #[error("{0}")]
    Other(&'static str),
}

/// How a request failed, classified by what is known about its effect.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Nothing has changed, and a later request may succeed.
    Unchanged(Cause),
    /// The request was sent, but whether it took effect is unknown.
    NoReply(Cause),
    /// Nothing has changed, because the key has another type of value.
    WrongType(Cause),
    /// Nothing has changed. The request fails until the configuration is corrected, as the advice describes.
    Misconfigured(&'static str, Cause),
}

impl Failure {
    /// The error of a read.
    pub(crate) fn of_read(self) -> StorageError {
        match self {
            Self::Unchanged(cause) | Self::NoReply(cause) => StorageError::unavailable(cause),
            Self::WrongType(cause) => misconfigured(NOT_OURS, cause),
            Self::Misconfigured(advice, cause) => misconfigured(advice, cause),
        }
    }

    /// The error of a write.
    pub(crate) fn of_write(self) -> StorageError {
        match self {
            Self::NoReply(cause) => StorageError::ambiguous(cause),
            other => other.of_read(),
        }
    }
}

/// The error for an operator.
fn misconfigured(advice: &str, cause: Cause) -> StorageError {
    StorageError::Misconfigured { advice: advice.to_owned(), source: Box::new(cause) }
}

/// How to react to an error that the server returned. A request that returned an error had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// The slot has moved. Send this and later requests to its new server.
    Moved,
    /// The slot is being moved. Send this request to its new server.
    Ask,
    /// Retry soon.
    RetrySoon,
    /// The server is not the primary. Find the primary.
    NotPrimary,
    /// The server does not know the script. Send its text.
    NoScript,
    /// The key has another type of value.
    WrongType,
    /// The server is temporarily unable to execute the request. The caller may try again later.
    Unavailable,
    /// The configuration has to be corrected.
    Misconfigured(&'static str),
}

// The advice for an operator, which is part of an error.
const NOT_OURS: &str = "other data is stored under this prefix; choose another prefix";
const LOG_IN: &str = "the server rejects the user name or password; correct them in the URL";
const PERMIT: &str = "the access rules of the server deny this user a required command or key; grant the permissions in the crate's documentation";
const MEMORY_FULL: &str = "the server has reached its `maxmemory`; raise the limit, or delete data";
const CANNOT_SAVE: &str = "the server cannot save to disk and rejects writes; check its log and its disk";
const USE_CLUSTER: &str = "the server is part of a Cluster; write `redis+cluster://` in the URL";
const TOO_OLD: &str =
    "the server, or a proxy in front of it, does not support RESP3 (`HELLO 3`); use Redis 6 or newer, or Valkey";
const WRONG_DATABASE: &str = "the server rejects the database; correct its number in the URL";
const PROTECTED: &str =
    "the server runs in protected mode and only accepts local connections; set a password, or configure `bind`";
const NO_COMMANDS: &str = "the server rejects a required command; see the cause";

/// How to react to an error of the server.
pub(crate) fn reaction_to(code: &str, message: &str) -> Reaction {
    match code {
        "MOVED" => Reaction::Moved,
        "ASK" => Reaction::Ask,
        "TRYAGAIN" => Reaction::RetrySoon,
        "READONLY" | "CLUSTERDOWN" | "MASTERDOWN" => Reaction::NotPrimary,
        "NOSCRIPT" => Reaction::NoScript,
        "WRONGTYPE" => Reaction::WrongType,
        "LOADING" | "BUSY" | "NOREPLICAS" | "UNBLOCKED" => Reaction::Unavailable,
        "OOM" => Reaction::Misconfigured(MEMORY_FULL),
        "MISCONF" => Reaction::Misconfigured(CANNOT_SAVE),
        "NOAUTH" | "WRONGPASS" => Reaction::Misconfigured(LOG_IN),
        "NOPERM" => Reaction::Misconfigured(PERMIT),
        "DENIED" => Reaction::Misconfigured(PROTECTED),
        "NOPROTO" => Reaction::Misconfigured(TOO_OLD),
        "ERR" if message.contains("can't run this command") || message.contains("can't access") => {
            Reaction::Misconfigured(PERMIT)
        }
        "ERR" if message.contains("max number of clients") => Reaction::Unavailable,
        "ERR" if message.to_ascii_lowercase().contains("unknown command 'hello'") => Reaction::Misconfigured(TOO_OLD),
        // Redis 6 puts the error of a command in a script into the message.
        "ERR" if message.starts_with("Error running script") => match nested(message) {
            Some(code) => reaction_to(code, ""),
            None => Reaction::Misconfigured(NO_COMMANDS),
        },
        _ => Reaction::Misconfigured(NO_COMMANDS),
    }
}

/// Finds the code of an error inside the message of another error, such as `OOM` in `Error running script (call to
/// f_0a1b): @user_script:28: -OOM command not allowed`. The prefix `-` of the protocol may precede it.
fn nested(message: &str) -> Option<&str> {
    let words = message.split(' ').map(|word| word.trim_start_matches('-'));
    words.skip(1).find(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase()))
}

impl Cause {
    /// The error of the server, without the arguments of the request that it quotes.
    pub(crate) fn error_reply(error: &ServerError) -> Self {
        let message = error.details().unwrap_or_default();
        let message = message.split_once(", with args beginning with").map_or(message, |(message, _)| message);
        Self::ErrorReply { code: error.code().to_owned(), message: message.to_owned() }
    }

    /// The error of a connection. If a reply could not be parsed, the error is replaced, because it could quote the
    /// reply.
    pub(crate) fn connection(source: RedisError) -> Self {
        match source.kind() {
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => UNEXPECTED,
            kind => Self::Connection { kind, source },
        }
    }
}

/// The cause if a reply does not match its command.
pub(crate) const UNEXPECTED: Cause = Cause::Other("the reply of the server does not match the command");

/// Converts an error of opening a connection, before which no request was sent.
pub(crate) fn cannot_open(error: RedisError) -> Failure {
    let reply = match error.kind() {
        ErrorKind::RESP3NotSupported => return Failure::Misconfigured(TOO_OLD, Cause::connection(error)),
        ErrorKind::AuthenticationFailed => return Failure::Misconfigured(LOG_IN, Cause::connection(error)),
        ErrorKind::InvalidClientConfig | ErrorKind::Client => {
            return Failure::Misconfigured("correct the server's URL", Cause::connection(error));
        }
        ErrorKind::Server(_) | ErrorKind::Extension => ServerError::try_from(error),
        _ => Err(error),
    };
    // SELECT is the only command for which the redis crate replaces the error text.
    if let Err(error) = &reply
        && let ErrorKind::Server(kind) = error.kind()
    {
        let cause = Cause::Connection { kind: error.kind(), source: error.clone() };
        match kind {
            ServerErrorKind::ResponseError => return Failure::Misconfigured(WRONG_DATABASE, cause),
            ServerErrorKind::NoPerm => return Failure::Misconfigured(PERMIT, cause),
            _ => {}
        }
    }
    match reply {
        Ok(error) => rejected(&error),
        Err(error) => Failure::Unchanged(Cause::connection(error)),
    }
}

/// Converts an error of the server that requires the caller or an operator.
pub(crate) fn rejected(error: &ServerError) -> Failure {
    let cause = Cause::error_reply(error);
    match reaction_to(error.code(), error.details().unwrap_or_default()) {
        Reaction::Misconfigured(advice) => Failure::Misconfigured(advice, cause),
        Reaction::Moved | Reaction::Ask => Failure::Misconfigured(USE_CLUSTER, cause),
        Reaction::WrongType => Failure::WrongType(cause),
        Reaction::RetrySoon | Reaction::NotPrimary | Reaction::NoScript | Reaction::Unavailable => {
            Failure::Unchanged(cause)
        }
    }
}

/// Reads a reply that is one number.
pub(crate) fn integer(values: &[Value]) -> Result<i64, Failure> {
    if let [Value::Int(number)] = values { Ok(*number) } else { Err(Failure::NoReply(UNEXPECTED)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_requests_are_left_out_of_errors() {
        let reply = b"-ERR unknown command 'EVALSHA', with args beginning with: '1f', '3', 'secret'\r\n";
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(reply) else { panic!() };
        assert_eq!(
            Cause::error_reply(&error).to_string(),
            "the server returned the error ERR: unknown command 'EVALSHA'"
        );
        let Failure::Misconfigured(advice, cause) = rejected(&error) else { panic!() };
        assert!(advice.contains("rejects a required command") && !format!("{cause:?}").contains("secret"));
    }

    #[test]
    fn errors_are_classified() {
        let nested =
            |inner| format!("Error running script (call to f_0a1b): @user_script:28: @user_script: 28: -{inner}");
        let advice = |reaction| matches!(reaction, Reaction::Misconfigured(advice) if advice == MEMORY_FULL);
        assert!(advice(reaction_to("OOM", "command not allowed when used memory > 'maxmemory'.")));
        assert!(advice(reaction_to("ERR", &nested("-OOM command not allowed when used memory > 'maxmemory'."))));
        assert_eq!(
            reaction_to("ERR", &nested("-READONLY You can't write against a read only replica.")),
            Reaction::NotPrimary
        );
        assert_eq!(reaction_to("ERR", &nested("WRONGTYPE Operation against a key")), Reaction::WrongType);
        assert_eq!(reaction_to("LOADING", "Redis is loading the dataset in memory"), Reaction::Unavailable);
        assert_eq!(reaction_to("NOPERM", ""), Reaction::Misconfigured(PERMIT));
        assert_eq!(reaction_to("DENIED", "Redis is running in protected mode"), Reaction::Misconfigured(PROTECTED));
        let denied = "The user executing the script can't run this command or subcommand script: 5a";
        assert_eq!(reaction_to("ERR", denied), Reaction::Misconfigured(PERMIT));
        assert_eq!(reaction_to("ERR", "unknown command 'EVALSHA'"), Reaction::Misconfigured(NO_COMMANDS));
        assert_eq!(reaction_to("ERR", "unknown command 'HELLO'"), Reaction::Misconfigured(TOO_OLD));
    }
}
