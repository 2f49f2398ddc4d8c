//! Verifies that this user may run every command that the storage needs.
//!
//! A missing permission would otherwise appear only when the command is first needed, for example at the first logout.
//! Each command is tried in a form that changes nothing, because its key or member does not exist.

use std::collections::BTreeSet;
use std::fmt;

use oauth_dance_core::StorageError;
use redis::{Cmd, Value};

use crate::error::Failure;
use crate::layout::{Bucket, Layout};
use crate::servers::Servers;

/// The name of a record that does not exist, so that no command changes anything.
const NO_RECORD: &str = "check";

/// What a check covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// That the commands exist and are permitted. The prefix may change later.
    Commands,
    /// That the commands are also permitted on the keys of the prefix.
    CommandsAndKeys,
}

/// What this user is not permitted to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Denied {
    /// Commands that the access rules deny.
    commands: BTreeSet<String>,
    /// Commands that the access rules do not permit on the keys of the prefix.
    on_keys: BTreeSet<String>,
    /// Commands that do not exist, because they are renamed, disabled or blocked by a proxy.
    missing: BTreeSet<String>,
}

/// Tries each command that the storage needs on every server.
///
/// # Errors
/// [`StorageError::Misconfigured`], which names the commands and keys that are not permitted.
pub(crate) async fn check(servers: &Servers, layout: &Layout, scope: Scope) -> Result<(), StorageError> {
    let mut denied = Denied::default();
    let buckets = Bucket::all().map(|bucket| (bucket, layout.slot(bucket)));
    for (link, bucket, deadline) in servers.each(buckets).await.map_err(Failure::of_read)? {
        let commands = commands(layout, bucket, servers.is_cluster());
        let requests: Vec<_> = commands.iter().map(|(_, command)| command.clone()).collect();
        let replies = link.send(&requests, deadline).await.map_err(Failure::of_read)?;
        for ((name, _), reply) in commands.iter().zip(&replies) {
            denied.add(name, reply);
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

/// All commands with their names. On these keys and this member, none of them changes anything.
fn commands(layout: &Layout, bucket: Bucket, cluster: bool) -> Vec<(&'static str, Cmd)> {
    let (record, index, deadlines) = (layout.record(bucket, NO_RECORD), layout.index(bucket), layout.deadlines(bucket));
    let mut commands: Vec<(&'static str, Cmd)> = [
        ("GET", vec![record.as_str()]),
        ("GETRANGE", vec![&record, "0", "0"]),
        ("EXISTS", vec![&record]),
        ("SET", vec![&record, "", "XX"]),
        ("PEXPIREAT", vec![&record, "1"]),
        ("DEL", vec![&record]),
        ("TIME", vec![]),
        ("ZADD", vec![&index, "XX", "0", NO_RECORD]),
        ("ZREM", vec![&index, NO_RECORD]),
        ("ZLEXCOUNT", vec![&index, "-", "-"]),
        ("ZRANGEBYLEX", vec![&index, "-", "-"]),
        ("ZADD", vec![&deadlines, "XX", "0", NO_RECORD]),
        ("ZREM", vec![&deadlines, NO_RECORD]),
        ("ZCOUNT", vec![&deadlines, "-inf", "-inf"]),
        ("ZRANGEBYSCORE", vec![&deadlines, "-inf", "-inf"]),
        ("EVAL", vec!["return 0", "3", &record, &index, &deadlines]),
        ("EVALSHA", vec!["0000000000000000000000000000000000000000", "3", &record, &index, &deadlines]),
    ]
    .map(|(name, arguments)| (name, redis::cmd(name).arg(arguments).clone()))
    .into();
    if cluster {
        // ASKING applies to the next command only.
        commands.push(("ASKING", redis::cmd("ASKING")));
        commands.push(("EXISTS", redis::cmd("EXISTS").arg(&record).clone()));
    }
    commands
}

impl Denied {
    /// Adds a command if its reply is a permanent rejection. A server that is full or has become a replica is reported
    /// by the next write.
    fn add(&mut self, name: &str, reply: &Value) {
        let Value::ServerError(error) = reply else { return };
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

    /// What to change in the configuration of the server.
    fn advice(&self, layout: &Layout) -> String {
        let prefix = layout.prefix();
        let mut advice = Vec::new();
        if !self.commands.is_empty() {
            let rules: Vec<_> = self.commands.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
            advice.push(format!("permit these commands for this user: ACL SETUSER … {}", rules.join(" ")));
        }
        if !self.on_keys.is_empty() {
            advice.push(format!("permit the keys of the prefix for this user: ACL SETUSER … ~{{{prefix}:*"));
        }
        if !self.missing.is_empty() {
            advice.push(
                "enable the commands that the server, or a proxy in front of it, does not have (`rename-command`)"
                    .to_owned(),
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
