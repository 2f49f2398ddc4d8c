//! Creates keys, shows which are in use, and rotates them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures_util::{StreamExt as _, stream};
use oauth_dance_core::{Filter, KeyRing, StorageError};
use serde_json::Value;

use super::OperateError;
use super::records::{AT_ONCE, Pages, is_about_one_record};
use crate::exit::Exit;
use crate::key_file::{Change, KeyFile};
use crate::keys::WrapArgs;
use crate::open::{Access, Opened, StorageArgs};
use crate::output::{OutputArgs, Rows};
use crate::progress::Progress;

/// A command about keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key file with one new key, readable by its owner only; never overwrites a file
    #[command(after_help = "Examples:
  oauth-dance key generate --key-file keys

  With a key that age has wrapped, so that the file alone opens nothing:
  oauth-dance key generate --key-file keys --age-identity identity")]
    Generate(NewKeyOptions),
    /// Show which keys have sealed the stored records, and how many records each key has sealed
    List(UsageOptions),
    /// Add a new key to the file, which opens and does not seal yet: the first step of a rotation
    #[command(after_help = "Example:\n  oauth-dance key add --key-file keys")]
    Add(NewKeyOptions),
    /// Make a key the first of the file, which seals: the second step of a rotation
    #[command(after_help = "Example:\n  oauth-dance key promote 93b1f0a2c4d5e6f7 --key-file keys")]
    Promote(PromoteOptions),
    /// Remove a key from the file, unless a stored record still needs it: the last step of a rotation
    Retire(RetireOptions),
}

/// A key file.
#[derive(Args, Debug)]
pub struct FileOptions {
    /// The file of the sealing keys
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
}

/// A key file, and what wraps a new key.
#[derive(Args, Debug)]
pub struct NewKeyOptions {
    /// The file.
    #[command(flatten)]
    pub file: FileOptions,
    /// What wraps the key.
    #[command(flatten)]
    pub wrap: WrapArgs,
}

/// A key of a file.
#[derive(Args, Debug)]
pub struct PromoteOptions {
    /// The id of the key, as `key list` and `key add` print it
    pub key_id: String,
    /// The file.
    #[command(flatten)]
    pub file: FileOptions,
}

/// The options of `oauth-dance key list`.
#[derive(Args, Debug)]
#[command(after_help = "Example: which keys are still needed?
  oauth-dance key list --storage postgres://db/app --key-file keys")]
pub struct UsageOptions {
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Also show which of the keys are in this file
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The options of `oauth-dance key retire`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  oauth-dance key retire 93b1f0a2c4d5e6f7 --storage postgres://db/app --key-file keys

Tokens in sessions and cookies are not in a storage that can be searched. Wait until they have expired.")]
pub struct RetireOptions {
    /// The id of the key, as `key list` prints it
    pub key_id: String,
    /// The file of the sealing keys; without it, only the references are checked
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Why the file of the keys was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetireError {
    /// The file has no such key.
    #[error("the key file has no key {key_id}; `oauth-dance key list` shows the keys")]
    NoSuchKey {
        /// The id of the key.
        key_id: String,
    },
    /// The key seals new tokens.
    #[error(
        "key {key_id} is the first of the key file and seals new tokens; run `oauth-dance key promote` with another key, \
        and `oauth-dance reseal`"
    )]
    Primary {
        /// The id of the key.
        key_id: String,
    },
    /// Stored records need the key.
    #[error(
        "{records} stored records are sealed with key {key_id}; run `oauth-dance reseal`, and wait half an hour for the \
        records of logins to expire"
    )]
    Referenced {
        /// The id of the key.
        key_id: String,
        /// The number of records.
        records: u64,
    },
}

pub(super) async fn run(command: &KeyCommand) -> Result<Exit, OperateError> {
    match command {
        KeyCommand::Generate(NewKeyOptions { file, wrap }) => {
            println(&KeyFile::create(&file.key_file, wrap).await?)?;
        }
        KeyCommand::Add(NewKeyOptions { file: FileOptions { key_file }, wrap }) => {
            let change = Change::begin(key_file)?;
            let mut file = KeyFile::read(key_file)?;
            let id = file.add(wrap).await?;
            change.replace(&file)?;
            println(&id)?;
        }
        KeyCommand::Promote(PromoteOptions { key_id, file: FileOptions { key_file } }) => {
            let change = Change::begin(key_file)?;
            let mut file = KeyFile::read(key_file)?;
            if !file.promote(key_id) {
                return Err(RetireError::NoSuchKey { key_id: key_id.clone() }.into());
            }
            change.replace(&file)?;
        }
        KeyCommand::List(options) => return list(options).await,
        KeyCommand::Retire(options) => return retire(options).await,
    }
    Ok(Exit::Done)
}

/// Prints the id of a key, so that a script can use it.
fn println(id: &str) -> Result<(), OperateError> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout().lock(), "{id}")?)
}

/// Exits with 1 if records need a key that is not in the file.
async fn list(options: &UsageOptions) -> Result<Exit, OperateError> {
    let ids = match &options.key_file {
        Some(path) => Some(KeyFile::read(path)?.ids()),
        None => None,
    };
    let opened = options.storage.open(Access::Read).await?;
    let mut counts = count(&opened, "counted").await?;
    for id in ids.iter().flatten() {
        counts.entry(Some(id.clone())).or_default();
    }
    let mut is_missing = false;
    let rows = counts.into_iter().map(|(id, records)| {
        let state = match (&ids, &id) {
            (_, None) => "no key: plain text, or no token".into(),
            (None, _) => Value::Null,
            (Some(ids), Some(id)) => match ids.iter().position(|known| known == id) {
                Some(0) => "seals".into(),
                Some(_) => "opens".into(),
                None => {
                    is_missing = true;
                    "not in the key file".into()
                }
            },
        };
        vec![id.into(), records.into(), state]
    });
    let page: Vec<Vec<Value>> = rows.collect();
    let mut rows = Rows::new(options.output, &["key_id", "records", "state"]);
    rows.print(&page)?;
    rows.finish()?;
    Ok(Exit::found(is_missing))
}

async fn retire(options: &RetireOptions) -> Result<Exit, OperateError> {
    let key_id = &options.key_id;
    // From here on, no other command can make this key the first one.
    let change = match &options.key_file {
        Some(path) => Some((Change::begin(path)?, KeyFile::read(path)?)),
        None => None,
    };
    if let Some((_, file)) = &change {
        match file.ids().iter().position(|id| id == key_id) {
            None => return Err(RetireError::NoSuchKey { key_id: key_id.clone() }.into()),
            Some(0) => return Err(RetireError::Primary { key_id: key_id.clone() }.into()),
            Some(_) => {}
        }
    }
    let opened = options.storage.open(Access::Read).await?;
    let records = count(&opened, "checked").await?.remove(&Some(key_id.clone())).unwrap_or_default();
    if records > 0 {
        return Err(RetireError::Referenced { key_id: key_id.clone(), records }.into());
    }
    match change {
        Some((change, mut file)) => {
            file.remove(key_id);
            change.replace(&file)?;
            eprintln!("removed key {key_id} from the file; no stored record needs it");
        }
        None => eprintln!("no stored record needs key {key_id}; remove it from the key ring"),
    }
    Ok(Exit::Done)
}

/// Counts the records that each key has sealed. The payloads are read, because a hint may be missing or wrong.
async fn count(opened: &Opened, verb: &'static str) -> Result<BTreeMap<Option<String>, u64>, OperateError> {
    let mut counts: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let mut pages = Pages::of_everything(opened, Filter::everything());
    let mut progress = Progress::new(verb);
    while let Some(page) = pages.next().await? {
        let reads = page.iter().map(|entry| opened.storage.get(&entry.key));
        let mut reads = stream::iter(reads).buffered(AT_ONCE).zip(stream::iter(&page));
        while let Some((found, entry)) = reads.next().await {
            let id = match found {
                Ok(None) => continue,
                Ok(Some(found)) => {
                    // A record that is being moved starts with a mark. A placeholder is empty.
                    let hint = found.value.key_id.filter(|_| !found.value.payload.is_empty());
                    KeyRing::key_id_of(&found.value.payload).or(hint)
                }
                Err(StorageError::Corrupt { .. }) => entry.key_id.clone(),
                Err(error) if is_about_one_record(&error) => entry.key_id.clone(),
                Err(error) => return Err(opened.explain(error).await),
            };
            *counts.entry(id).or_default() += 1;
        }
        progress.add(page.len() as u64);
    }
    Ok(counts)
}
