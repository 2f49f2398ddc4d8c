use std::sync::LazyLock;

use redis::{Cmd, Script};

/// Writes a record.
pub(crate) static PUT: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/put.lua")));
/// Removes a record.
pub(crate) static DELETE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/delete.lua")));
/// Tidies a bucket.
pub(crate) static PURGE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/purge.lua")));

/// A script, which the server knows by its hash once it has seen its text.
pub(crate) struct Source {
    text: &'static str,
    hash: String,
}

/// A script with its keys and arguments.
pub(crate) struct Call<'a> {
    pub(crate) source: &'static Source,
    pub(crate) keys: &'a [&'a [u8]],
    pub(crate) arguments: &'a [&'a [u8]],
}

impl Source {
    fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }
}

impl Call<'_> {
    /// The call of a script that the server knows.
    pub(crate) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.source.hash)
    }

    /// The same with the text, from which the server knows it.
    pub(crate) fn by_text(&self) -> Cmd {
        self.command("EVAL", self.source.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(self.keys).arg(self.arguments);
        command
    }
}
