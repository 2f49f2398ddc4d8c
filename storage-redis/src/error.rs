use oauth_dance_core::StorageError;
use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind, Value};

/// What is underneath an error of this crate. It carries nothing of what was sent or stored.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("there was no answer in time")]
    TimedOut,
    #[error("the server answered {code}: {message}")]
    Answer { code: String, message: String },
    #[error("the connection failed: {kind:?}")]
    Connection {
        kind: ErrorKind,
        #[source]
        source: RedisError,
    },
    #[error("{0}")]
    Other(&'static str),
}

/// How a request failed, told by what is known of its effect.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It changed nothing; it may succeed later.
    Unchanged(Cause),
    /// It was sent, and whether it was done is not known.
    Unanswered(Cause),
    /// It changed nothing: the key holds another type of value.
    WrongType(Cause),
    /// It changed nothing, and will not until somebody does what the advice says.
    Misconfigured(&'static str, Cause),
}

impl Failure {
    /// What the caller of a read is told.
    pub(crate) fn of_read(self) -> StorageError {
        match self {
            Self::Unchanged(cause) | Self::Unanswered(cause) => StorageError::unavailable(cause),
            Self::WrongType(cause) => misconfigured(NOT_OURS, cause),
            Self::Misconfigured(advice, cause) => misconfigured(advice, cause),
        }
    }

    /// What the caller of a write is told.
    pub(crate) fn of_write(self) -> StorageError {
        match self {
            Self::Unanswered(cause) => StorageError::ambiguous(cause),
            other => other.of_read(),
        }
    }
}

fn misconfigured(advice: &str, cause: Cause) -> StorageError {
    StorageError::Misconfigured { advice: advice.to_owned(), source: Box::new(cause) }
}

/// What an error that the server answered asks for. Whatever it answers, it has not done what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The slot has moved: ask there, now and later.
    Moved,
    /// The slot is being moved: ask there, this time.
    Ask,
    /// Ask again in a moment.
    Again,
    /// It is no primary any more, or not yet: look for who is.
    NotPrimary,
    /// It does not know the script.
    NoScript,
    /// The key holds another type of value.
    WrongType,
    /// Try again later.
    Later,
    /// Nothing helps but another set-up.
    Advice(&'static str),
}

const NOT_OURS: &str = "something else is stored under this prefix; choose another";
const LOG_IN: &str = "the server refuses the user name or password; correct those in the URL";
const PERMIT: &str =
    "the server's access rules deny this user a command or key that tokens need; see the crate's documentation";
const MEMORY_FULL: &str = "the server has used up its `maxmemory`; raise it, or delete something";
const CANNOT_SAVE: &str = "the server cannot save to disk and refuses writes; look at its log and its disk";
const USE_CLUSTER: &str = "the server is part of a Cluster; write `redis+cluster://` in the URL";
const TOO_OLD: &str =
    "the server, or a proxy before it, does not speak RESP3 (`HELLO 3`); use Redis 6 or newer, or Valkey";
const WRONG_DATABASE: &str = "the server refuses the database; correct its number in the URL";
const PROTECTED: &str =
    "the server runs in protected mode and takes connections of its own machine only; give it a password, or bind it";
const NO_COMMANDS: &str = "the server refuses a command that tokens need; see the error underneath";

/// What an error answer asks for.
pub(crate) fn verdict(code: &str, message: &str) -> Verdict {
    match code {
        "MOVED" => Verdict::Moved,
        "ASK" => Verdict::Ask,
        "TRYAGAIN" => Verdict::Again,
        "READONLY" | "CLUSTERDOWN" | "MASTERDOWN" => Verdict::NotPrimary,
        "NOSCRIPT" => Verdict::NoScript,
        "WRONGTYPE" => Verdict::WrongType,
        "LOADING" | "BUSY" | "NOREPLICAS" | "UNBLOCKED" => Verdict::Later,
        "OOM" => Verdict::Advice(MEMORY_FULL),
        "MISCONF" => Verdict::Advice(CANNOT_SAVE),
        "NOAUTH" | "WRONGPASS" => Verdict::Advice(LOG_IN),
        "NOPERM" => Verdict::Advice(PERMIT),
        "DENIED" => Verdict::Advice(PROTECTED),
        "NOPROTO" => Verdict::Advice(TOO_OLD),
        "ERR" if message.contains("can't run this command") || message.contains("can't access") => {
            Verdict::Advice(PERMIT)
        }
        "ERR" if message.contains("max number of clients") => Verdict::Later,
        "ERR" if message.to_ascii_lowercase().contains("unknown command 'hello'") => Verdict::Advice(TOO_OLD),
        // Redis 6 puts what a command in a script was answered into the message.
        "ERR" if message.starts_with("Error running script") => match nested(message) {
            Some(code) => verdict(code, ""),
            None => Verdict::Advice(NO_COMMANDS),
        },
        _ => Verdict::Advice(NO_COMMANDS),
    }
}

/// The code of the error inside another one's message, with or without the protocol's `-` before it.
fn nested(message: &str) -> Option<&str> {
    let words = message.split(' ').map(|word| word.trim_start_matches('-'));
    words.skip(1).find(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase()))
}

impl Cause {
    /// What the server answered, without what it quotes of the request.
    pub(crate) fn answer(error: &ServerError) -> Self {
        let message = error.details().unwrap_or_default();
        let message = message.split_once(", with args beginning with").map_or(message, |(message, _)| message);
        Self::Answer { code: error.code().to_owned(), message: message.to_owned() }
    }

    /// What became of a connection. An answer that cannot be parsed could be quoted in the error, so that is left out.
    pub(crate) fn connection(source: RedisError) -> Self {
        match source.kind() {
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => UNEXPECTED,
            kind => Self::Connection { kind, source },
        }
    }
}

/// What is wrong with an answer of another shape than the command's.
pub(crate) const UNEXPECTED: Cause = Cause::Other("the server's answer is not what the command returns");

/// An error of opening a connection: nothing was asked for yet.
pub(crate) fn cannot_open(error: RedisError) -> Failure {
    let answered = match error.kind() {
        ErrorKind::RESP3NotSupported => return Failure::Misconfigured(TOO_OLD, Cause::connection(error)),
        ErrorKind::AuthenticationFailed => return Failure::Misconfigured(LOG_IN, Cause::connection(error)),
        ErrorKind::InvalidClientConfig | ErrorKind::Client => {
            return Failure::Misconfigured("correct the server's URL", Cause::connection(error));
        }
        ErrorKind::Server(_) | ErrorKind::Extension => ServerError::try_from(error),
        _ => Err(error),
    };
    // To choose the database is the one thing that the crate asks in words of its own.
    if let Err(error) = &answered
        && let ErrorKind::Server(kind) = error.kind()
    {
        let cause = Cause::Connection { kind: error.kind(), source: error.clone() };
        match kind {
            ServerErrorKind::ResponseError => return Failure::Misconfigured(WRONG_DATABASE, cause),
            ServerErrorKind::NoPerm => return Failure::Misconfigured(PERMIT, cause),
            _ => {}
        }
    }
    match answered {
        Ok(answer) => refused(&answer),
        Err(error) => Failure::Unchanged(Cause::connection(error)),
    }
}

/// An error answer that nothing more can be done about here.
pub(crate) fn refused(answer: &ServerError) -> Failure {
    let cause = Cause::answer(answer);
    match verdict(answer.code(), answer.details().unwrap_or_default()) {
        Verdict::Advice(advice) => Failure::Misconfigured(advice, cause),
        Verdict::Moved | Verdict::Ask => Failure::Misconfigured(USE_CLUSTER, cause),
        Verdict::WrongType => Failure::WrongType(cause),
        Verdict::Again | Verdict::NotPrimary | Verdict::NoScript | Verdict::Later => Failure::Unchanged(cause),
    }
}

/// The number that is the whole answer.
pub(crate) fn integer(values: &[Value]) -> Result<i64, Failure> {
    if let [Value::Int(number)] = values { Ok(*number) } else { Err(Failure::Unanswered(UNEXPECTED)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_quotes_of_a_request_is_left_out() {
        let answer = b"-ERR unknown command 'EVALSHA', with args beginning with: '1f', '3', 'secret'\r\n";
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(answer) else { panic!() };
        assert_eq!(Cause::answer(&error).to_string(), "the server answered ERR: unknown command 'EVALSHA'");
        let Failure::Misconfigured(advice, cause) = refused(&error) else { panic!() };
        assert!(advice.contains("refuses a command") && !format!("{cause:?}").contains("secret"));
    }

    #[test]
    fn answers_are_told_apart() {
        let nested =
            |inner| format!("Error running script (call to f_0a1b): @user_script:28: @user_script: 28: -{inner}");
        let advice = |verdict| matches!(verdict, Verdict::Advice(advice) if advice == MEMORY_FULL);
        assert!(advice(verdict("OOM", "command not allowed when used memory > 'maxmemory'.")));
        assert!(advice(verdict("ERR", &nested("-OOM command not allowed when used memory > 'maxmemory'."))));
        assert_eq!(
            verdict("ERR", &nested("-READONLY You can't write against a read only replica.")),
            Verdict::NotPrimary
        );
        assert_eq!(verdict("ERR", &nested("WRONGTYPE Operation against a key")), Verdict::WrongType);
        assert_eq!(verdict("LOADING", "Redis is loading the dataset in memory"), Verdict::Later);
        assert_eq!(verdict("NOPERM", ""), Verdict::Advice(PERMIT));
        assert_eq!(verdict("DENIED", "Redis is running in protected mode"), Verdict::Advice(PROTECTED));
        let denied = "The user executing the script can't run this command or subcommand script: 5a";
        assert_eq!(verdict("ERR", denied), Verdict::Advice(PERMIT));
        assert_eq!(verdict("ERR", "unknown command 'EVALSHA'"), Verdict::Advice(NO_COMMANDS));
        assert_eq!(verdict("ERR", "unknown command 'HELLO'"), Verdict::Advice(TOO_OLD));
    }
}
