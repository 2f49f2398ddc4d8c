//! The folder of one person, and its files.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::PersonalError;

/// The folder in that of the application, which may have other files of its own.
const NAME: &str = "oauth";
const MAX_NAME: usize = 64;
/// The pause between tries to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A folder that only its owner can read.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens the folder of an application, or the named one. Creates it if it is missing.
    pub(super) fn open(application: &str, named: Option<PathBuf>) -> Result<Self, PersonalError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = application.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !is_name || application.len() > MAX_NAME || !application.chars().all(is_plain) {
            return Err(PersonalError::ApplicationName { application: application.to_owned() });
        }
        let folder = match named {
            Some(folder) => folder,
            None => data_folder().ok_or(PersonalError::NoDataFolder)?.join(application).join(NAME),
        };
        let unusable = |source| PersonalError::Unusable { path: folder.clone(), source };
        // The working directory may change.
        let folder = std::path::absolute(&folder).map_err(unusable)?;
        let unusable = |source| PersonalError::Unusable { path: folder.clone(), source };
        private_folder().create(&folder).map_err(unusable)?;
        if is_exposed(&fs::metadata(&folder).map_err(unusable)?) {
            return Err(PersonalError::Exposed { path: folder });
        }
        Ok(Self(folder))
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join("tokens.sqlite")
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.0
    }

    /// Waits until no other process holds the lock. The lock ends with the file, and so with the process.
    pub(super) async fn lock(&self, limit: Duration) -> Result<File, PersonalError> {
        let path = self.0.join("lock");
        let unusable = |source| PersonalError::Unusable { path: path.clone(), source };
        let mut options = private_file();
        let file = options.create(true).truncate(false).open(&path).map_err(unusable)?;
        let until = Instant::now() + limit;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOCK_PAUSE).await,
                Err(TryLockError::WouldBlock) => return Err(PersonalError::Busy { path }),
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
    }

    /// Writes a new file that survives a power failure. Replaces an existing one.
    pub(super) fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private_file().create_new(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// Gives a written file its final name, in one step.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        // Makes the new name survive a power failure, if the file system can.
        #[cfg(unix)]
        let _ = File::open(&self.0).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// The folder in which the applications of this user store their data.
fn data_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    if cfg!(windows) {
        variable("LOCALAPPDATA").or_else(|| Some(home()?.join("AppData").join("Local")))
    } else if cfg!(target_vendor = "apple") {
        Some(home()?.join("Library").join("Application Support"))
    } else {
        variable("XDG_DATA_HOME").or_else(|| Some(home()?.join(".local").join("share")))
    }
}

/// Creates folders that only their owner can read.
fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Creates files that only their owner can read.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether others than the owner can read or change a folder.
#[cfg(unix)]
fn is_exposed(found: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_exposed(_: &fs::Metadata) -> bool {
    false
}
