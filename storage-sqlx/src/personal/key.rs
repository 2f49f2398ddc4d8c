//! Finds the key of a folder, or generates it once.
//!
//! The file `key` is the text of a key ring. Its line is the key, or a reference to an entry of the keyring. It is written as
//! `key.new` first, which becomes `key` when the keyring has stored the key. If the process dies in between, the next one
//! finds the reference, and the key in the keyring, and generates none.

use std::path::PathBuf;
use std::time::Duration;

use oauth_dance_core::{
    Filter, KeyFileError, KeyLoadError, KeyLoader, KeyProvider as _, KeyProviderError, KeyRing, KeyringProvider,
    PageRequest, SealingKey, TokenStorage as _, WrappedKey, read_key_file,
};
use zeroize::Zeroizing;

use super::folder::Folder;
use super::{KeyPlace, PersonalError};
use crate::sqlite::SqliteStorage;

/// What another process that creates the key needs beside the keyring, and the loader beside a call.
const MARGIN: Duration = Duration::from_secs(5);

pub(super) struct KeyFinder<'a> {
    folder: &'a Folder,
    file: PathBuf,
    pending: PathBuf,
    keyring: KeyringProvider,
    loader: KeyLoader,
    permitted: Option<KeyPlace>,
    timeout: Duration,
}

impl<'a> KeyFinder<'a> {
    pub(super) fn new(application: &str, folder: &'a Folder, permitted: Option<KeyPlace>, timeout: Duration) -> Self {
        let keyring = KeyringProvider::new(application).with_timeout(timeout);
        let loader = KeyLoader::new(keyring.clone()).with_timeout(timeout + MARGIN);
        let (file, pending) = (folder.path().join("key"), folder.path().join("key.new"));
        Self { folder, file, pending, keyring, loader, permitted, timeout }
    }

    pub(super) async fn find_or_create(&self, storage: &SqliteStorage) -> Result<(KeyRing, KeyPlace), PersonalError> {
        if let Some(text) = read(&self.file)? {
            return self.load(&text).await;
        }
        // A key is checked for presence, stored and read: three calls of the keyring.
        let lock = self.folder.lock(3 * self.timeout + MARGIN).await?;
        if read(&self.file)?.is_none() {
            self.reject_sealed_records(storage).await?;
            if !self.is_pending().await? {
                self.create().await?;
            }
            self.folder.rename(&self.pending, &self.file).map_err(|source| self.unusable(source))?;
        }
        drop(lock);
        let text = read(&self.file)?.ok_or_else(|| self.unusable(std::io::ErrorKind::NotFound.into()))?;
        self.load(&text).await
    }

    /// The key ring of the file.
    async fn load(&self, text: &str) -> Result<(KeyRing, KeyPlace), PersonalError> {
        let found = place(text);
        if let Some(permitted) = self.permitted.filter(|permitted| *permitted != found) {
            return Err(PersonalError::OtherPlace { path: self.folder.path().to_owned(), found, permitted });
        }
        let loaded = self.loader.load(text).await;
        Ok((loaded.map_err(|source| PersonalError::Key { path: self.file.clone(), source })?, found))
    }

    /// Whether a process that was killed has generated a key that can be used.
    async fn is_pending(&self) -> Result<bool, PersonalError> {
        let Some(text) = read(&self.pending)? else { return Ok(false) };
        if self.permitted.is_some_and(|permitted| permitted != place(&text)) {
            return Ok(false);
        }
        match self.loader.load(&text).await {
            Ok(_) => Ok(true),
            Err(KeyLoadError::Provider { source: source @ KeyProviderError::AccessDenied { .. }, .. }) => {
                Err(PersonalError::Keyring { source })
            }
            // The process was killed before the keyring stored the key. Nothing is sealed with it.
            Err(_) => Ok(false),
        }
    }

    /// Generates a key. Its file is pending.
    async fn create(&self) -> Result<(), PersonalError> {
        let failed = |source| PersonalError::Keyring { source };
        let in_keyring = match self.permitted {
            Some(permitted) => permitted == KeyPlace::Keyring,
            None => self.keyring.is_present().await.map_err(failed)?,
        };
        let key = SealingKey::generate();
        let line = match in_keyring {
            true => Zeroizing::new(self.keyring.reference(&key).map_err(failed)?.to_string()),
            false => key.encode(),
        };
        let place = if in_keyring { "in the operating system's keyring" } else { "here: keep it secret" };
        let text = Zeroizing::new(format!("# The key that seals the tokens beside this file is {place}.\n{}\n", *line));
        self.folder.write(&self.pending, &text).map_err(|source| self.unusable(source))?;
        if in_keyring {
            self.keyring.wrap(&key).await.map_err(failed)?;
        } else {
            tracing::info!(folder = %self.folder.path().display(), "the key of the stored tokens is in a file: there is no keyring");
        }
        Ok(())
    }

    /// Fails if the database has records, which are sealed with a key that is lost, in any table.
    async fn reject_sealed_records(&self, storage: &SqliteStorage) -> Result<(), PersonalError> {
        let mut entries = Vec::new();
        for table in storage.token_tables().await? {
            let storage = storage.clone().with_table(&table)?;
            entries.extend(storage.list(&Filter::everything(), PageRequest::default()).await?.entries);
        }
        if entries.is_empty() {
            return Ok(());
        }
        let mut key_ids: Vec<_> = entries.into_iter().filter_map(|entry| entry.key_id).collect();
        key_ids.sort_unstable();
        key_ids.dedup();
        Err(PersonalError::KeyLost { path: self.file.clone(), key_ids })
    }

    fn unusable(&self, source: std::io::Error) -> PersonalError {
        PersonalError::Unusable { path: self.file.clone(), source }
    }
}

/// The text of a file. `None` if there is no such file.
fn read(path: &std::path::Path) -> Result<Option<Zeroizing<String>>, PersonalError> {
    match read_key_file(path) {
        Ok(text) => Ok(Some(text)),
        Err(KeyFileError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the key of a file is.
fn place(text: &str) -> KeyPlace {
    match text.lines().any(|line| WrappedKey::parse(line).is_some()) {
        true => KeyPlace::Keyring,
        false => KeyPlace::File,
    }
}
