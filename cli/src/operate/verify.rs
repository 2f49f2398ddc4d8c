//! Opens every token, and reports those that cannot be read.

use clap::Args;
use oauth_dance_core::TokensError;
use serde_json::Value;

use super::OperateError;
use super::records::{Examined, Pages, RecordsArgs, examine_all, problem, who};
use crate::exit::Exit;
use crate::open::Access;
use crate::output::Rows;
use crate::progress::Progress;

const COLUMNS: [&str; 6] = ["tenant", "user", "provider", "account", "problem", "detail"];

/// The maximum number of rows with an invalid key that are shown.
const MAX_INVALID: usize = 1000;

/// The options of `oauth-dance verify`.
#[derive(Args, Debug)]
#[command(after_help = "Example: can every token be opened with the new key alone?
  oauth-dance verify --storage postgres://db/app --key-file new-key")]
pub struct VerifyOptions {
    /// Which records of which storage, and how to print.
    #[command(flatten)]
    pub records: RecordsArgs,
}

/// Exits with 1 if a record cannot be read.
pub(super) async fn run(options: &VerifyOptions) -> Result<Exit, OperateError> {
    let keys = options.records.keys.require().await?;
    let opened = options.records.storage.open(Access::Read).await?;
    let tokens = keys.tokens(&opened.storage);
    let mut rows = Rows::new(options.records.output, &COLUMNS);
    let mut pages = Pages::new(&opened, options.records.filter.filter());
    let mut progress = Progress::new("verified");
    let mut unreadable = 0_u64;
    while let Some(page) = pages.next().await? {
        let mut found: Vec<Vec<Value>> = Vec::new();
        for (entry, examined) in page.iter().zip(examine_all(&opened, &tokens, &page).await?) {
            if let Examined::Unreadable(error) = examined {
                let mut row = Vec::from(who(&entry.key));
                row.extend([kind(&error).into(), problem(&error).into()]);
                found.push(row);
            }
        }
        progress.add(page.len() as u64);
        unreadable += found.len() as u64;
        if !found.is_empty() {
            progress.suspend(|| rows.print(&found))?;
        }
    }
    let verified = progress.done();
    drop(progress);
    // A row with an invalid key is in no list, and matches no filter.
    if options.records.filter.is_everything() {
        let invalid = opened.invalid_keys(MAX_INVALID).await?;
        unreadable += invalid.len() as u64;
        let row =
            |key: String| vec![Value::Null, Value::Null, Value::Null, Value::Null, "invalid_key".into(), key.into()];
        if !invalid.is_empty() {
            rows.print(&invalid.into_iter().map(row).collect::<Vec<_>>())?;
        }
    }
    if unreadable > 0 {
        rows.finish()?;
    }
    eprintln!("verified {verified} records, of which {unreadable} cannot be read");
    Ok(Exit::found(unreadable > 0))
}

/// The name of a problem, for programs.
fn kind(error: &TokensError) -> &'static str {
    match error {
        TokensError::KeyUnavailable { .. } | TokensError::NoKeyRing { .. } => "unknown_key",
        TokensError::Tampered { .. } => "altered_or_moved",
        TokensError::NotSealed { .. } => "not_sealed",
        TokensError::NewerFormat { .. } => "newer_format",
        TokensError::Malformed { .. } | TokensError::Storage(_) => "corrupt",
        _ => "unreadable",
    }
}
