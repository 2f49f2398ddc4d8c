use std::collections::BTreeSet;
use std::fmt;

use oauth_dance_core::StorageError;
use redis::{Cmd, Value};

use crate::error::Failure;
use crate::layout::{Bucket, Layout};
use crate::servers::Servers;

/// A name that no record has, for commands that are to change nothing.
const NOBODY: &str = "check";

/// What a check insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// That the commands are there and permitted. The prefix may not be chosen yet.
    Commands,
    /// The same on the keys of the prefix.
    CommandsAndKeys,
}

/// What a server does not let this user do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Denied {
    /// Commands that the access rules deny.
    commands: BTreeSet<String>,
    /// Commands that the access rules permit, but not on our keys.
    on_keys: BTreeSet<String>,
    /// Commands that the server does not have: renamed, disabled, or hidden by a proxy.
    missing: BTreeSet<String>,
}

/// Tries each command that tokens need, on every server, so that it changes nothing.
///
/// # Errors
/// [`StorageError::Misconfigured`] that names what is missing.
pub(crate) async fn check(servers: &Servers, layout: &Layout, scope: Scope) -> Result<(), StorageError> {
    let mut denied = Denied::default();
    let buckets = Bucket::all().map(|bucket| (bucket, layout.slot(bucket)));
    for (link, bucket, deadline) in servers.each(buckets).await.map_err(Failure::of_read)? {
        let commands = commands(layout, bucket, servers.is_cluster());
        let requests: Vec<_> = commands.iter().map(|(_, command)| command.clone()).collect();
        let answers = link.send(&requests, deadline).await.map_err(Failure::of_read)?;
        for ((name, _), answer) in commands.iter().zip(&answers) {
            denied.note(name, answer);
        }
    }
    if scope == Scope::Commands {
        denied.on_keys.clear();
    }
    if denied == Denied::default() {
        return Ok(());
    }
    Err(StorageError::Misconfigured { advice: denied.advice(layout), source: Box::new(denied) })
}

/// Each command with its name. On these keys and this member none of them changes anything.
fn commands(layout: &Layout, bucket: Bucket, cluster: bool) -> Vec<(&'static str, Cmd)> {
    let (record, index, deadlines) = (layout.record(bucket, NOBODY), layout.index(bucket), layout.deadlines(bucket));
    let mut commands: Vec<(&'static str, Cmd)> = [
        ("GET", vec![record.as_str()]),
        ("GETRANGE", vec![&record, "0", "0"]),
        ("EXISTS", vec![&record]),
        ("SET", vec![&record, "", "XX"]),
        ("PEXPIREAT", vec![&record, "1"]),
        ("DEL", vec![&record]),
        ("TIME", vec![]),
        ("ZADD", vec![&index, "XX", "0", NOBODY]),
        ("ZREM", vec![&index, NOBODY]),
        ("ZLEXCOUNT", vec![&index, "-", "-"]),
        ("ZRANGEBYLEX", vec![&index, "-", "-"]),
        ("ZADD", vec![&deadlines, "XX", "0", NOBODY]),
        ("ZREM", vec![&deadlines, NOBODY]),
        ("ZCOUNT", vec![&deadlines, "-inf", "-inf"]),
        ("ZRANGEBYSCORE", vec![&deadlines, "-inf", "-inf"]),
        ("EVAL", vec!["return 0", "3", &record, &index, &deadlines]),
        ("EVALSHA", vec!["0000000000000000000000000000000000000000", "3", &record, &index, &deadlines]),
    ]
    .map(|(name, arguments)| (name, redis::cmd(name).arg(arguments).clone()))
    .into();
    if cluster {
        // It counts for the next command only.
        commands.push(("ASKING", redis::cmd("ASKING")));
        commands.push(("EXISTS", redis::cmd("EXISTS").arg(&record).clone()));
    }
    commands
}

impl Denied {
    /// Only what is refused for good counts: a server that is full or has become a replica says so when it is written to.
    fn note(&mut self, name: &str, answer: &Value) {
        let Value::ServerError(error) = answer else { return };
        let message = error.details().unwrap_or_default().to_lowercase();
        let commands = match error.code() {
            "NOPERM" if message.contains("access") => &mut self.on_keys,
            "NOPERM" => &mut self.commands,
            "ERR" if message.contains("unknown command") || message.contains("unsupported command") => {
                &mut self.missing
            }
            _ => return,
        };
        commands.insert(name.to_owned());
    }

    fn advice(&self, layout: &Layout) -> String {
        let prefix = layout.prefix();
        let mut advice = Vec::new();
        if !self.commands.is_empty() {
            let rules: Vec<_> = self.commands.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
            advice.push(format!("permit the commands to this user: ACL SETUSER … {}", rules.join(" ")));
        }
        if !self.on_keys.is_empty() {
            advice.push(format!("permit the keys of the prefix to this user: ACL SETUSER … ~{{{prefix}:*"));
        }
        if !self.missing.is_empty() {
            advice.push(
                "enable the commands that the server or a proxy before it does not have (`rename-command`)".to_owned(),
            );
        }
        advice.join("; ")
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let reasons = [
            (&self.commands, "the access rules deny this user the commands "),
            (&self.on_keys, "the access rules deny this user the keys of the prefix for "),
            (&self.missing, "the server does not have the commands "),
        ];
        let reasons = reasons.iter().filter(|(names, _)| !names.is_empty());
        let reasons: Vec<_> = reasons.map(|(names, reason)| format!("{reason}{}", list(names))).collect();
        f.write_str(&reasons.join("; "))
    }
}

impl std::error::Error for Denied {}
