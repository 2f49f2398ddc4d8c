//! Lua scripts, which make a condition and a write one atomic request.
//!
//! A server executes a script by its hash, once it has received the text. Therefore a call sends the hash first, and
//! the text only if the server does not know the hash.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// Writes a record.
pub(crate) static PUT: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/put.lua")));
/// Removes a record.
pub(crate) static DELETE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/delete.lua")));
/// Removes the names of expired records from a bucket.
pub(crate) static PURGE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/purge.lua")));

/// A script and its hash.
pub(crate) struct Source {
    text: &'static str,
    hash: String,
}

/// A script with its keys and arguments.
pub(crate) struct Call<'a> {
    pub(crate) source: &'static Source,
    /// The keys, which must all be in the same slot.
    pub(crate) keys: &'a [&'a [u8]],
    pub(crate) arguments: &'a [&'a [u8]],
}

impl Source {
    /// A script with its hash.
    fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }
}

impl Call<'_> {
    /// The call by the hash, for a server that knows the script.
    pub(crate) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.source.hash)
    }

    /// The call by the text. The server knows the hash afterwards.
    pub(crate) fn by_text(&self) -> Cmd {
        self.command("EVAL", self.source.text)
    }

    /// The command with the keys and the arguments.
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(self.keys).arg(self.arguments);
        command
    }
}
