use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use oauth_dance_core::StorageError;

/// The files of an open database, by which they are found again: a file that was deleted or replaced can still be written
/// to by those who have it open, and nobody else ever sees what was written.
#[derive(Clone, Debug)]
pub(crate) struct OpenFiles {
    /// The database, and beside it the log and its index where SQLite uses them.
    files: Vec<(PathBuf, Identity)>,
}

/// Which file it is, whatever its name: device and inode. The number is not given to another file while this one is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

/// What became of a file.
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

const RESTART: &str = "put the database file back together with its -wal and -shm files, or restart the application to \
    use the file that is there now; until then nothing is read or written, because a write to the lost file would be \
    acknowledged and never seen again";
const ONE_NAME: &str = "give the database file one name and delete the other hard links, or make a copy or a symbolic link \
    of it: SQLite keeps the latest writes in a log beside the name that a file was opened by, and two names would \
    have a log each, which destroys the database";

impl OpenFiles {
    /// Notes which files an open database has: `path` as SQLite calls it, `asked_for` as the application does, which may be
    /// a symbolic link.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the database file has several hard links, or is gone already.
    pub(crate) fn of(path: &Path, asked_for: &Path) -> Result<Self, StorageError> {
        refuse_links(path)?;
        let metadata = fs::metadata(path).map_err(|error| refuse(RESTART, lost(path, error)))?;
        let database = identity(&metadata);
        let mut files = vec![(path.to_owned(), database)];
        // The application may change its folder, and the link may be made to lead elsewhere.
        let asked_for = std::path::absolute(asked_for).unwrap_or_else(|_| path.to_owned());
        if asked_for != path && fs::metadata(&asked_for).is_ok_and(|found| identity(&found) == database) {
            files.push((asked_for, database));
        }
        Ok(Self { files })
    }

    /// The same with the files of the write-ahead log, if there are any. Only for one who has a connection open all the
    /// time: the last one that is closed deletes them.
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

    /// Whether the files are where they were.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if one of them is not. Nothing has changed.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.first_lost().map_or(Ok(()), |lost| Err(refuse(RESTART, lost)))
    }

    /// The same after a write.
    ///
    /// # Errors
    /// [`StorageError::Ambiguous`] if one of them is not: the write may have gone to a file that nobody else sees.
    pub(crate) fn confirm(&self) -> Result<(), StorageError> {
        self.first_lost().map_or(Ok(()), |lost| Err(StorageError::ambiguous(lost)))
    }

    fn first_lost(&self) -> Option<Lost> {
        self.files.iter().find_map(|(path, expected)| match fs::metadata(path) {
            Ok(found) if identity(&found) == *expected => None,
            Ok(_) => Some(Lost::Replaced(path.clone())),
            Err(error) => Some(lost(path, error)),
        })
    }
}

/// Refuses a file with several hard links, before SQLite opens it by one of its names.
///
/// # Errors
/// [`StorageError::Misconfigured`].
pub(crate) fn refuse_links(path: &Path) -> Result<(), StorageError> {
    match fs::metadata(path).map(|metadata| links(&metadata)) {
        Ok(links @ 2..) => Err(refuse(ONE_NAME, Lost::Linked(path.to_owned(), links))),
        _ => Ok(()),
    }
}

/// Warns of a file on a network share, which works from one machine only, if at all.
pub(crate) fn warn_of_shares(path: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
    if let Some(kind) = share(&mounts, path) {
        tracing::warn!(
            path = %path.display(),
            file_system = kind,
            "the SQLite file is on a network share: machines that share it do not see each other's locks and destroy it; use \
            it from one machine, or a database server"
        );
    }
}

/// The file system of a path if it is a network's, from Linux's list of what is mounted where.
fn share<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    const SHARES: [&str; 11] =
        ["9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"];

    let mounts = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        Some((Path::new(mount.split(' ').nth(4)?), source.split(' ').next()?))
    });
    // What is mounted last at a place hides what was there before.
    let (_, kind) =
        mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.components().count())?;
    SHARES.contains(&kind).then_some(kind)
}

fn lost(path: &Path, error: std::io::Error) -> Lost {
    use std::io::ErrorKind::{NotADirectory, NotFound};

    match error.kind() {
        NotFound | NotADirectory => Lost::Missing(path.to_owned()),
        _ => Lost::Unreadable(path.to_owned(), error),
    }
}

fn refuse(advice: &str, lost: Lost) -> StorageError {
    StorageError::Misconfigured { advice: advice.to_owned(), source: Box::new(lost) }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;

    Identity(metadata.dev(), metadata.ino())
}

#[cfg(unix)]
fn links(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

/// Elsewhere only a file that is gone is noticed. Windows does not let an open one be deleted or replaced.
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
    fn shares_are_told_from_disks() {
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
