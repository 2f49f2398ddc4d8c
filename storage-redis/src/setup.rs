//! The settings of a server that decide whether tokens may be lost.
//!
//! They are read whenever a connection opens, because a failover may have changed the server.

use std::collections::HashMap;

use redis::{Cmd, Value};

/// The settings of a server, as far as this user is permitted to read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Whether the server is a primary. `None` if it is unknown.
    pub(crate) primary: Option<bool>,
    /// The number of replicas.
    pub(crate) replicas: u64,
    /// Whether a write is on disk before it is acknowledged.
    pub(crate) writes_through: bool,
    /// The policy by which the server may evict records.
    pub(crate) evicts_by: Option<String>,
}

/// The commands whose replies [`Setup::read`] expects.
pub(crate) fn setup_commands() -> [Cmd; 2] {
    let mut fsync = redis::cmd("CONFIG");
    // The pattern matches both settings. Servers before Redis 7 accept only one argument.
    fsync.arg("GET").arg("*appendfsync*");
    [redis::cmd("INFO"), fsync]
}

impl Setup {
    /// Reads the settings. If the server has rejected a command, durability counts as missing and eviction as off.
    pub(crate) fn read(replies: &[Value]) -> Self {
        let [info, fsync] = replies else { return Self::default() };
        let info = text(info).unwrap_or_default();
        let facts: HashMap<_, _> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let is = |name: &str, value: &str| facts.get(name).is_some_and(|found| *found == value);

        let policy = facts.get("maxmemory_policy").filter(|policy| **policy != "noeviction");
        Self {
            primary: facts.get("role").map(|role| *role == "master"),
            replicas: facts.get("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or_default(),
            writes_through: is("aof_enabled", "1") && syncs_always(fsync),
            evicts_by: policy.filter(|_| !is("maxmemory", "0")).map(|policy| (*policy).to_owned()),
        }
    }
}

/// Whether each write is on disk before it is acknowledged, even while the server rewrites its files.
fn syncs_always(reply: &Value) -> bool {
    let Value::Map(settings) = reply else { return false };
    let is = |name: &str, value: &str| {
        let matches = |reply, expected| text(reply).is_some_and(|found| found == expected);
        settings.iter().any(|(found, set)| matches(found, name) && matches(set, value))
    };
    is("appendfsync", "always") && !is("no-appendfsync-on-rewrite", "yes")
}

/// The text of a reply. `None` if the reply is not text.
pub(crate) fn text(reply: &Value) -> Option<String> {
    match reply {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: &str, fsync: &str) -> Setup {
        read_with(info, &[("appendfsync", fsync)])
    }

    fn read_with(info: &str, settings: &[(&str, &str)]) -> Setup {
        let bulk = |text: &str| Value::BulkString(text.into());
        let settings = settings.iter().map(|(name, value)| (bulk(name), bulk(value))).collect();
        Setup::read(&[bulk(info), Value::Map(settings)])
    }

    #[test]
    fn durability_requires_both_settings() {
        assert!(read("aof_enabled:1\r\n", "always").writes_through);
        assert!(!read("aof_enabled:0\r\n", "always").writes_through);
        assert!(!read("aof_enabled:1\r\n", "everysec").writes_through);
        assert!(!Setup::read(&[Value::BulkString(b"aof_enabled:1\r\n".to_vec()), Value::Nil]).writes_through);
    }

    #[test]
    fn writes_are_not_durable_if_a_rewrite_defers_them() {
        for (value, durable) in [("no", true), ("yes", false)] {
            let settings = [("no-appendfsync-on-rewrite", value), ("appendfsync", "always")];
            assert_eq!(read_with("aof_enabled:1\r\n", &settings).writes_through, durable, "{value}");
        }
    }

    #[test]
    fn eviction_policy_counts_only_with_a_limit() {
        let evicts_by = |info| read(info, "always").evicts_by;
        assert_eq!(evicts_by("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n").as_deref(), Some("allkeys-lru"));
        assert_eq!(evicts_by("maxmemory_policy:volatile-ttl\r\n").as_deref(), Some("volatile-ttl"));
        assert_eq!(evicts_by("maxmemory:1000\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(evicts_by("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"), None);
    }
}
