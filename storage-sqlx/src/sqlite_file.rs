//! Detects that the files of an open SQLite database were lost.
//!
//! On Unix, a file can be deleted, moved or replaced while it is open. The process continues to write to the open file,
//! which no later process will find. SQLite stores the latest writes in a log beside the database, so the log must not
//! be lost either, and a database with two names would have two logs.

use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::path::{Path, PathBuf};

use oauth_dance_core::StorageError;

/// The files of an open database, to detect that they were deleted or replaced.
#[derive(Clone, Debug)]
pub(crate) struct OpenFiles {
    /// The database, and its log and log index if SQLite uses them.
    files: Vec<(PathBuf, Identity)>,
}

/// Identifies a file independently of its name: device and inode. No other file receives the inode while the file is
/// open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

/// What happened to a file.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{} was deleted or moved while the application had it open", .0.display())]
    Missing(PathBuf),
    #[error("{} was replaced by another file while the application had it open", .0.display())]
    Replaced(PathBuf),
    #[error("{} cannot be inspected", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{} has {} names (hard links)", .0.display(), .1)]
    Linked(PathBuf, u64),
}

/// The advice if a file is lost.
const RESTART: &str = "put the database file back together with its -wal and -shm files, or restart the application to \
    use the file that is there now; until then nothing is read or written, because writes to the lost file would be \
    lost";
/// The advice if a file has several names.
const ONE_NAME: &str = "delete all hard links of the database file except one, or use a copy or a symbolic link: SQLite stores \
    the latest writes in a log beside the name of the file, and two names would have two logs, which corrupts the \
    database";

impl OpenFiles {
    /// Records the files of an open database. `path` is the path that SQLite reports, and `requested` is the path that
    /// the application gave, which may be a symbolic link.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the database file has several hard links or is missing.
    pub(crate) fn of(path: &Path, requested: &Path) -> Result<Self, StorageError> {
        reject_hard_links(path)?;
        let metadata = fs::metadata(path).map_err(|error| misconfigured(RESTART, lost(path, error)))?;
        let database = identity(&metadata);
        let mut files = vec![(path.to_owned(), database)];
        // The application may change its working directory, and the link may be changed.
        let requested = std::path::absolute(requested).unwrap_or_else(|_| path.to_owned());
        if requested != path && fs::metadata(&requested).is_ok_and(|found| identity(&found) == database) {
            files.push((requested, database));
        }
        Ok(Self { files })
    }

    /// Adds the files of the write-ahead log, if they exist. The caller must have a connection open all the time,
    /// because the last closed connection deletes them.
    #[must_use]
    pub(crate) fn with_log(mut self) -> Self {
        if let Some((database, _)) = self.files.first().cloned() {
            for suffix in ["-wal", "-shm"] {
                let mut name = OsString::from(database.clone());
                name.push(suffix);
                let path = PathBuf::from(name);
                self.files.extend(fs::metadata(&path).ok().map(|found| (path, identity(&found))));
            }
        }
        self
    }

    /// Verifies that all files are still in place.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if a file is lost.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.first_lost().map_or(Ok(()), |lost| Err(misconfigured(RESTART, lost)))
    }

    /// Verifies the same after a write.
    ///
    /// # Errors
    /// [`StorageError::Ambiguous`] if a file is lost, because the write may have gone to a lost file.
    pub(crate) fn confirm(&self) -> Result<(), StorageError> {
        self.first_lost().map_or(Ok(()), |lost| Err(StorageError::ambiguous(lost)))
    }

    /// The path of the database.
    pub(crate) fn database(&self) -> Option<&Path> {
        self.files.first().map(|(path, _)| path.as_path())
    }

    /// The first file that is not in place.
    fn first_lost(&self) -> Option<Lost> {
        self.files.iter().find_map(|(path, expected)| match fs::metadata(path) {
            Ok(found) if identity(&found) == *expected => None,
            Ok(_) => Some(Lost::Replaced(path.clone())),
            Err(error) => Some(lost(path, error)),
        })
    }
}

/// Creates a missing file that only its owner may read. SQLite gives its other files the same permissions. Errors are
/// ignored here, because SQLite reports them more precisely when it opens the file.
pub(crate) fn create_private(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(path);
}

/// Rejects a file with several hard links before SQLite opens it.
///
/// # Errors
/// [`StorageError::Misconfigured`] if the file has several names.
pub(crate) fn reject_hard_links(path: &Path) -> Result<(), StorageError> {
    match fs::metadata(path).map(|metadata| links(&metadata)) {
        Ok(links @ 2..) => Err(misconfigured(ONE_NAME, Lost::Linked(path.to_owned(), links))),
        _ => Ok(()),
    }
}

/// Logs a warning for a file on a network share, which works from one machine only, if at all.
pub(crate) fn warn_of_shares(path: &Path) {
    if let Some(kind) = network_share(path) {
        tracing::warn!(
            path = %path.display(),
            file_system = kind,
            "the SQLite file is on a network share: machines that share it do not see each other's locks and corrupt it; use \
            it from one machine only, or use a database server"
        );
    }
}

/// The kind of file system of a path, if it is a network file system.
pub(crate) fn network_share(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    share(&mounts, path).map(str::to_owned)
}

/// The same, according to the mount table of Linux.
fn share<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    const SHARES: [&str; 11] =
        ["9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"];

    let mounts = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        Some((Path::new(mount.split(' ').nth(4)?), source.split(' ').next()?))
    });
    // The last mount at a path hides earlier ones.
    let (_, kind) =
        mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.components().count())?;
    SHARES.contains(&kind).then_some(kind)
}

/// Why the file at a path is lost, from the error of inspecting it.
fn lost(path: &Path, error: std::io::Error) -> Lost {
    use std::io::ErrorKind::{NotADirectory, NotFound};

    match error.kind() {
        NotFound | NotADirectory => Lost::Missing(path.to_owned()),
        _ => Lost::Unreadable(path.to_owned(), error),
    }
}

/// The error for an operator.
fn misconfigured(advice: &str, lost: Lost) -> StorageError {
    StorageError::Misconfigured { advice: advice.to_owned(), source: Box::new(lost) }
}

/// Reads the device and the inode of a file.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;

    Identity(metadata.dev(), metadata.ino())
}

/// The number of names of a file.
#[cfg(unix)]
fn links(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

/// On other systems, only a missing file is detected. Windows does not allow an open file to be deleted or replaced.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    Identity(0, 0)
}

#[cfg(not(unix))]
fn links(_: &Metadata) -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_shares_are_recognized() {
        let mounts = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            40 21 0:50 / /mnt/share rw - nfs4 files:/export rw\n\
            41 40 8:2 / /mnt/share/disk rw master:3 - xfs /dev/sdb1 rw\n\
            42 21 0:51 / /srv rw - ext4 /dev/sdc1 rw\n\
            43 42 0:52 / /srv rw - cifs //files/x rw\n";
        for (path, kind) in [
            ("/var/lib/tokens.db", None),
            ("/mnt/share/tokens.db", Some("nfs4")),
            ("/mnt/share/disk/tokens.db", None),
            ("/mnt/shared/tokens.db", None),
            ("/srv/tokens.db", Some("cifs")),
        ] {
            assert_eq!(share(mounts, Path::new(path)), kind, "{path}");
        }
        assert_eq!(share("nonsense", Path::new("/x")), None);
    }
}
