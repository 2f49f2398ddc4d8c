//! Changes the file of a key ring, which has one key on each line. The first key seals.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use oauth_dance_core::{KeyRing, SealingKey};
use zeroize::Zeroizing;

use crate::keys::{self, KeysError};

const HEADER: &str = "# Sealing keys of oauth-dance: the first seals, all open. Keep them secret.";

/// The lines of a key file.
pub(super) struct KeyFile<'a> {
    path: &'a Path,
    lines: Vec<Zeroizing<String>>,
}

impl<'a> KeyFile<'a> {
    /// Creates a file with one new key, and returns the id of the key. Only its owner may read the file. An existing
    /// file is never overwritten.
    pub(super) fn create(path: &Path) -> Result<String, KeysError> {
        let key = SealingKey::generate();
        let text = Zeroizing::new(format!("{HEADER}\n{}\n", *key.encode()));
        let file = beside(path);
        let created = write(&file, &text, 0o600).and_then(|()| fs::hard_link(&file, path));
        // The file now exists completely under its own name, or not at all.
        let _ = fs::remove_file(&file);
        created.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeysError::Exists { path: path.to_owned() },
            _ => KeysError::Unwritable { path: path.to_owned(), source },
        })?;
        Ok(KeyRing::new(key).primary_id())
    }

    /// Reads a file. It must be a key ring that other users cannot read.
    pub(super) fn read(path: &'a Path) -> Result<Self, KeysError> {
        keys::read(path)?;
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|source| KeysError::Unreadable { path: path.to_owned(), source })?;
        Ok(Self { path, lines: text.lines().map(|line| Zeroizing::new(line.to_owned())).collect() })
    }

    /// The ids of the keys, in their order.
    pub(super) fn ids(&self) -> Vec<String> {
        self.lines.iter().filter_map(|line| id(line)).collect()
    }

    /// Adds a new key that opens and does not seal, and returns its id.
    pub(super) fn add(&mut self) -> String {
        let key = SealingKey::generate();
        self.lines.push(key.encode());
        KeyRing::new(key).primary_id()
    }

    /// Makes a key the first one. Returns `false` if it is not in the file.
    pub(super) fn promote(&mut self, wanted: &str) -> bool {
        let is_wanted = |line: &Zeroizing<String>| id(line).as_deref() == Some(wanted);
        let Some(from) = self.lines.iter().position(is_wanted) else { return false };
        let line = self.lines.remove(from);
        let to = self.lines.iter().position(|line| id(line).is_some()).unwrap_or(self.lines.len());
        self.lines.insert(to.min(self.lines.len()), line);
        true
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, unwanted: &str) {
        self.lines.retain(|line| id(line).as_deref() != Some(unwanted));
    }

    /// Replaces the content of the file in one step. Its owner and permissions stay the same.
    pub(super) fn save(&self) -> Result<(), KeysError> {
        let unwritable = |source| KeysError::Unwritable { path: self.path.to_owned(), source };
        let mut text = Zeroizing::new(String::new());
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        let target = fs::canonicalize(self.path).map_err(unwritable)?;
        let file = beside(&target);
        let mode = keys::permissions(&target).map_err(unwritable)?.unwrap_or(0o600) & 0o777;
        let saved = write(&file, &text, mode)
            .and_then(|()| same_owner(&target, &file))
            .and_then(|()| fs::rename(&file, &target));
        if saved.is_err() {
            let _ = fs::remove_file(&file);
        }
        saved.map_err(unwritable)
    }
}

/// The id of the key in a line. `None` if the line is not a key.
fn id(line: &str) -> Option<String> {
    let line = line.trim();
    SealingKey::parse(line).map(|key| KeyRing::new(key).primary_id())
}

fn beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives a file the owner of another one, because an administrator may change the file of the application's user.
#[cfg(unix)]
fn same_owner(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let (from, found) = (fs::metadata(from)?, fs::metadata(to)?);
    if (from.uid(), from.gid()) == (found.uid(), found.gid()) {
        return Ok(());
    }
    chown(to, Some(from.uid()), Some(from.gid()))
}

#[cfg(not(unix))]
fn same_owner(_: &Path, _: &Path) -> io::Result<()> {
    Ok(())
}
