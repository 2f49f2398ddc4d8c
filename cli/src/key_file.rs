//! Changes the file of a key ring, which has one key on each line. The first key seals.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use oauth_dance_core::{KeyRingError, SealingKey, WrappedKey};
use zeroize::Zeroizing;

use crate::keys::{self, KeysError, WrapArgs};

const HEADER: &str = "# Sealing keys of oauth-dance: the first seals, all open. Keep them secret.";

/// The lines of a key file.
pub(crate) struct KeyFile {
    path: PathBuf,
    lines: Vec<Zeroizing<String>>,
}

impl KeyFile {
    /// Creates a file with one new key, and returns the id of the key. Only its owner may read the file. An existing
    /// file is never overwritten.
    pub(crate) async fn create(path: &Path, wrap: &WrapArgs) -> Result<String, KeysError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(KeysError::Exists { path: path.to_owned() });
        }
        let change = Change::begin(path)?;
        let key = wrap.new_key().await?;
        change.create(&format!("{HEADER}\n{}\n", *key.line))?;
        Ok(key.id)
    }

    /// Reads a file. It must be a key ring that other users cannot read. Wrapped keys are not unwrapped.
    pub(crate) fn read(path: &Path) -> Result<Self, KeysError> {
        let text = keys::read(path)?;
        let lines: Vec<_> = text.lines().map(|line| Zeroizing::new(line.to_owned())).collect();
        let invalid = |source| KeysError::Invalid { place: format!("the key file {}", path.display()), source };
        let is_other = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#') && id(line).is_none();
        if let Some(index) = lines.iter().position(|line| is_other(line)) {
            return Err(invalid(KeyRingError::BadKey { line: index + 1 }));
        }
        let file = Self { path: path.to_owned(), lines };
        if file.ids().is_empty() { Err(invalid(KeyRingError::Empty)) } else { Ok(file) }
    }

    /// The ids of the keys, in their order.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.lines.iter().filter_map(|line| id(line)).collect()
    }

    /// Adds a new key that opens and does not seal, and returns its id.
    pub(crate) async fn add(&mut self, wrap: &WrapArgs) -> Result<String, KeysError> {
        let is_wrapped = self.lines.iter().any(|line| WrappedKey::parse(line).is_some());
        if is_wrapped && !wrap.is_wrapping() {
            return Err(KeysError::WouldBePlain { path: self.path.clone() });
        }
        let key = wrap.new_key().await?;
        self.lines.push(key.line);
        Ok(key.id)
    }

    /// Makes a key the first one. Returns `false` if it is not in the file.
    pub(crate) fn promote(&mut self, wanted: &str) -> bool {
        let is_wanted = |line: &Zeroizing<String>| id(line).as_deref() == Some(wanted);
        let Some(from) = self.lines.iter().position(is_wanted) else { return false };
        let line = self.lines.remove(from);
        let to = self.lines.iter().position(|line| id(line).is_some()).unwrap_or(self.lines.len());
        self.lines.insert(to, line);
        true
    }

    /// Removes a key.
    pub(crate) fn remove(&mut self, unwanted: &str) {
        self.lines.retain(|line| id(line).as_deref() != Some(unwanted));
    }

    fn text(&self) -> Zeroizing<String> {
        let length = self.lines.iter().map(|line| line.len() + 1).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The id of the key in a line. `None` if the line is not a key.
fn id(line: &str) -> Option<String> {
    let wrapped = WrappedKey::parse(line).map(|key| key.key_id().to_owned());
    wrapped.or_else(|| SealingKey::parse(line.trim()).map(|key| key.id()))
}

/// The right to change a key file: a file beside it, which this process has locked. It becomes the key file in one step,
/// or disappears. If the process is killed, the next one removes it.
pub(crate) struct Change {
    path: PathBuf,
    pending: PathBuf,
    file: File,
    /// Whether the file beside it has become the key file.
    is_renamed: bool,
}

impl Change {
    pub(crate) fn begin(path: &Path) -> Result<Self, KeysError> {
        let unwritable = |source| KeysError::Unwritable { path: path.to_owned(), source };
        let in_use = || KeysError::InUse { path: path.to_owned() };
        // A link stays a link to the file that is changed.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let pending = beside(&target);
        // The second try is after the file of a process that was killed.
        for _ in 0..2 {
            let error = match private(&pending) {
                Ok(file) if lock(&file).is_ok() && is_at(&file, &pending) => {
                    return Ok(Self { path: target, pending, file, is_renamed: false });
                }
                Ok(_) => return Err(in_use()),
                Err(error) => error,
            };
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(unwritable(error));
            }
            match File::open(&pending) {
                Ok(left) if left.try_lock().is_ok() => fs::remove_file(&pending).map_err(unwritable)?,
                Ok(_) => return Err(in_use()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unwritable(error)),
            }
        }
        Err(in_use())
    }

    /// Replaces the key file, with the same owner and permissions.
    pub(crate) fn replace(mut self, by: &KeyFile) -> Result<(), KeysError> {
        let replaced = fs::metadata(&self.path).and_then(|found| {
            self.write(&by.text())?;
            same_owner(&found, &self.file)?;
            self.file.set_permissions(found.permissions())?;
            self.file.sync_all()?;
            fs::rename(&self.pending, &self.path)
        });
        self.is_renamed = replaced.is_ok();
        sync_folder(&self.path);
        replaced.map_err(|source| KeysError::Unwritable { path: by.path.clone(), source })
    }

    /// Creates the key file. Never overwrites.
    fn create(mut self, text: &str) -> Result<(), KeysError> {
        let created = self.write(text).and_then(|()| self.file.sync_all());
        let created = created.and_then(|()| fs::hard_link(&self.pending, &self.path));
        sync_folder(&self.path);
        created.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeysError::Exists { path: self.path.clone() },
            _ => KeysError::Unwritable { path: self.path.clone(), source },
        })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        // After a rename, a file of this name is that of another process. Until then it is ours, because it is locked.
        if !self.is_renamed {
            let _ = fs::remove_file(&self.pending);
        }
    }
}

/// The name of the file that becomes the key file. No one uses it for anything else.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".oauth-dance-new");
    path.with_file_name(name)
}

/// Creates a file that only its owner can read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Locks a new file, if its file system has locks.
fn lock(file: &File) -> Result<(), TryLockError> {
    match file.try_lock() {
        Err(TryLockError::Error(_)) => Ok(()),
        locked => locked,
    }
}

/// Whether a path still leads to an open file: another process may have removed it before it was locked.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(found)) => identity(&ours) == identity(&found),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Gives a file the owner of another one, because an administrator may change the file of the application's user.
#[cfg(unix)]
fn same_owner(from: &fs::Metadata, to: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let found = to.metadata()?;
    if (from.uid(), from.gid()) == (found.uid(), found.gid()) {
        return Ok(());
    }
    fchown(to, Some(from.uid()), Some(from.gid()))
}

#[cfg(not(unix))]
fn same_owner(_: &fs::Metadata, _: &File) -> io::Result<()> {
    Ok(())
}

/// Makes a new name survive a power failure, if the file system can.
#[cfg(unix)]
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) {}
