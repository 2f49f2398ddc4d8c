//! A storage that several processes share: a folder with a file for every record. The properties with several processes are
//! tested on it, and have to detect its flaws.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use oauth_dance_conformance::async_trait;
use oauth_dance_core::{
    Capabilities, Clock, Cursor, Entry, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp,
    TokenKey, TokenStorage, Version, Versioned,
};

/// File names have at most 255 characters. A key takes two characters for each byte, and 32 for the lengths of its parts.
const LONGEST_KEY: usize = 100;
const LARGEST: usize = 2_000_000;
/// The length of a key id is stored as one byte.
const LONGEST_KEY_ID: usize = 200;

/// The flaw of a [`Folder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    /// Processes do not lock each other out.
    NoLock,
    /// A process does not read files again that it wrote itself.
    Cache,
    /// Files are written only with every tenth write.
    WritesLater,
    /// The end of a retention is stored in memory only, and not in the file.
    RetentionLater,
    /// All namespaces share one folder.
    OneNamespace,
}

/// A storage in a folder. Clones share the folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    clock: Clock,
    flaw: Flaw,
    unwritten: std::sync::Arc<std::sync::Mutex<Vec<(TokenKey, Stored)>>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Stored {
    record: Record,
    version: Version,
    ends: Option<Timestamp>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.version)
    }
}

impl Folder {
    pub(crate) fn open(path: &Path, clock: Clock, flaw: Flaw) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned(), clock, flaw, unwritten: std::sync::Arc::default() })
    }

    pub(crate) fn file(&self, key: &TokenKey) -> PathBuf {
        let name: String = key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.path.join(name)
    }

    /// Runs an operation while no other operation of any process runs.
    #[expect(clippy::incompatible_msrv, reason = "the tests need a newer Rust than the library anyway")]
    async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let folder = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let lock = File::create(folder.path.join("lock")).map_err(StorageError::unavailable)?;
            if folder.flaw != Flaw::NoLock {
                lock.lock().map_err(StorageError::unavailable)?;
            }
            work(&folder)
        });
        done.await.map_err(StorageError::unavailable)?
    }

    fn read(&self, key: &TokenKey) -> Result<Option<Stored>, StorageError> {
        if matches!(self.flaw, Flaw::Cache | Flaw::WritesLater | Flaw::RetentionLater)
            && let Some((_, stored)) = self.unwritten.lock().unwrap().iter().rev().find(|(owner, _)| owner == key)
        {
            return Ok(Some(stored.clone()));
        }
        let bytes = match fs::read(self.file(key)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::unavailable(error)),
        };
        let stored = decode(&bytes).ok_or_else(|| StorageError::corrupt(key, "not a record"))?;
        Ok(Some(stored).filter(|stored| stored.ends.is_none_or(|ends| ends > self.clock.now())))
    }

    fn write(&self, key: &TokenKey, stored: Stored) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock().unwrap();
        unwritten.retain(|(owner, _)| owner != key || self.flaw == Flaw::WritesLater);
        unwritten.push((key.clone(), stored));
        if self.flaw == Flaw::WritesLater && unwritten.len() < 10 {
            return Ok(());
        }
        for (key, stored) in unwritten.iter() {
            // A unique name, so that a file is never read half-written, even without the lock.
            let new = self.path.join(format!("new-{:032x}", u128::from_be_bytes(*stored.version.as_bytes())));
            let mut file = File::create(&new)?;
            let ends = stored.ends.filter(|_| self.flaw != Flaw::RetentionLater);
            file.write_all(&encode(&Stored { ends, ..stored.clone() }))?;
            fs::rename(new, self.file(key))?;
        }
        if !matches!(self.flaw, Flaw::Cache | Flaw::RetentionLater) {
            unwritten.clear();
        }
        Ok(())
    }
}

#[async_trait]
impl TokenStorage for Folder {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let key = accepted(key)?;
        let found = self.alone(move |folder| folder.read(&key)).await?;
        let now = self.clock.now();
        Ok(found.map(|stored| {
            let left = stored.ends.map(|ends| ends.saturating_since(now));
            Versioned::new(stored.record.with_retain_for(left), stored.version)
        }))
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let (key, record) = (accepted(key)?, record.clone());
        if record.payload.len() > LARGEST {
            return Err(StorageError::TooLarge { size: record.payload.len(), limit: LARGEST });
        }
        if let Some(id) = record.key_id.as_ref().filter(|id| id.len() > LONGEST_KEY_ID) {
            return Err(StorageError::TooLarge { size: id.len(), limit: LONGEST_KEY_ID });
        }
        self.alone(move |folder| {
            let current = match folder.read(&key) {
                // An unreadable record can be replaced, but only unconditionally.
                Err(StorageError::Corrupt { .. }) if when == Precondition::Always => None,
                other => other?.map(|stored| stored.version),
            };
            if !when.holds_for(current) {
                return Err(StorageError::Conflict);
            }
            let seconds = record.retain_seconds().map(std::time::Duration::from_secs);
            let ends = seconds.map(|seconds| folder.clock.now().saturating_add(seconds));
            let version = Version::random();
            folder.write(&key, Stored { record, version, ends }).map_err(StorageError::unavailable)?;
            Ok(version)
        })
        .await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let key = accepted(key)?;
        self.alone(move |folder| {
            let found = match folder.read(&key) {
                // An unreadable record can be deleted, but only unconditionally.
                Err(StorageError::Corrupt { .. }) if only.is_none() => Some(Version::random()),
                other => other?.map(|stored| stored.version).filter(|version| only.is_none_or(|only| only == *version)),
            };
            folder.unwritten.lock().unwrap().retain(|(owner, _)| *owner != key || found.is_none());
            let removed = found.map(|_| fs::remove_file(folder.file(&key)));
            removed.transpose().map(|removed| removed.is_some()).map_err(StorageError::unavailable)
        })
        .await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        let filter = filter.clone();
        self.alone(move |folder| {
            let mut entries = Vec::new();
            for file in fs::read_dir(&folder.path).map_err(StorageError::unavailable)? {
                let name = file.map_err(StorageError::unavailable)?.file_name();
                let Some(key) = unhex(&name.to_string_lossy()).and_then(|bytes| TokenKey::from_bytes(&bytes).ok())
                else {
                    continue;
                };
                if after.as_ref().is_some_and(|after| key <= *after) {
                    continue;
                }
                match folder.read(&key) {
                    Ok(stored) => entries.extend(stored.map(|stored| Entry::new(key, stored.version, &stored.record))),
                    // An unreadable record is listed. Reading it reports the error.
                    Err(StorageError::Corrupt { .. }) => {
                        entries.push(Entry::new(key, Version::random(), &Record::new("")));
                    }
                    Err(error) => return Err(error),
                }
            }
            entries.retain(|entry| filter.matches(entry));
            entries.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(Page::collect(entries, page.limit))
        })
        .await
    }

    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn capabilities(&self) -> Capabilities {
        let all =
            Capabilities::new("folder").with_atomic(true).with_listable(true).with_shared(true).with_durable(true);
        all.with_max_payload(LARGEST)
    }
}

fn accepted(key: &TokenKey) -> Result<TokenKey, StorageError> {
    if key.len() > LONGEST_KEY {
        return Err(StorageError::KeyTooLong { part: "whole", length: key.len(), limit: LONGEST_KEY });
    }
    Ok(key.clone())
}

fn encode(stored: &Stored) -> Vec<u8> {
    let instant = |at: Option<Timestamp>| at.map_or(u64::MAX, Timestamp::as_unix_seconds).to_be_bytes();
    let key_id =
        stored.record.key_id.as_ref().map_or(vec![0], |id| [&[1 + id.len() as u8][..], id.as_bytes()].concat());
    let head =
        [&stored.version.as_bytes()[..], &instant(stored.ends), &instant(stored.record.expires_at), &key_id].concat();
    [head, stored.record.payload.clone()].concat()
}

fn decode(bytes: &[u8]) -> Option<Stored> {
    let (version, rest) = bytes.split_first_chunk::<16>()?;
    let (ends, rest) = rest.split_first_chunk::<8>()?;
    let (expires_at, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first()?;
    let (key_id, payload) = rest.split_at_checked(usize::from(length.saturating_sub(1)))?;
    let instant = |bytes: &[u8; 8]| {
        Some(u64::from_be_bytes(*bytes)).filter(|at| *at != u64::MAX).map(Timestamp::from_unix_seconds)
    };
    let key_id = (*length > 0).then(|| String::from_utf8(key_id.to_vec())).transpose().ok()?;
    let record = Record::new(payload).with_expires_at(instant(expires_at)).with_key_id(key_id);
    Some(Stored { record, version: Version::from_bytes(*version), ends: instant(ends) })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
