//! Reseals, seals or unseals all tokens.

use clap::Args;
use futures_util::{StreamExt as _, stream};
use oauth_dance_core::{KeyRing, StorageError, TokenKey, Tokens, TokensError};
use serde_json::Value;

use super::OperateError;
use super::records::{AT_ONCE, Pages, RecordsArgs, is_about_one_record, problem, who};
use crate::exit::Exit;
use crate::keys::{Keys, KeysError};
use crate::open::{Access, Opened};
use crate::output::Rows;
use crate::progress::Progress;

const COLUMNS: [&str; 5] = ["tenant", "user", "provider", "account", "problem"];

/// The options of `oauth-dance unseal`.
#[derive(Args, Debug)]
pub struct UnsealOptions {
    /// Confirm that the tokens are to be stored in plain text
    #[arg(long)]
    pub dangerously: bool,
    /// Which records of which storage, and how to print.
    #[command(flatten)]
    pub records: RecordsArgs,
}

/// What to do with each record.
#[derive(Clone, Copy)]
enum Work {
    Reseal,
    Seal,
    Unseal,
}

/// Exits with 1 if a record could not be resealed.
pub(super) async fn reseal(options: &RecordsArgs) -> Result<Exit, OperateError> {
    run(options, Work::Reseal).await
}

/// Exits with 1 if a record could not be sealed.
pub(super) async fn seal(options: &RecordsArgs) -> Result<Exit, OperateError> {
    run(options, Work::Seal).await
}

/// Exits with 1 if a record could not be unsealed.
pub(super) async fn unseal(options: &UnsealOptions) -> Result<Exit, OperateError> {
    match options.dangerously {
        true => run(&options.records, Work::Unseal).await,
        false => Err(OperateError::NotConfirmed),
    }
}

async fn run(options: &RecordsArgs, work: Work) -> Result<Exit, OperateError> {
    let Keys::Ring(ring) = options.keys.require().await? else { return Err(KeysError::Plaintext.into()) };
    let opened = options.storage.open(Access::Write).await?;
    let tokens = Tokens::sealed(std::sync::Arc::clone(&opened.storage), ring.clone());
    let mut rows = Rows::new(options.output, &COLUMNS);
    let mut pages = Pages::new(&opened, options.filter.filter());
    let mut progress = Progress::new(work.past());
    let (mut changed, mut failed) = (0_u64, 0_u64);
    while let Some(page) = pages.next().await? {
        let acts = page.iter().map(|entry| work.act(&tokens, &ring, &entry.key, entry.key_id.as_deref()));
        let outcomes: Vec<_> = stream::iter(acts).buffered(AT_ONCE).collect().await;
        let mut failures: Vec<Vec<Value>> = Vec::new();
        for (entry, outcome) in page.iter().zip(outcomes) {
            match outcome {
                Ok(done) => changed += u64::from(done),
                Err(error) => {
                    let mut row = Vec::from(who(&entry.key));
                    row.push(about_one_record(&opened, error).await?.into());
                    failures.push(row);
                }
            }
        }
        failed += failures.len() as u64;
        progress.add(page.len() as u64);
        if !failures.is_empty() {
            progress.suspend(|| rows.print(&failures))?;
        }
    }
    let unchanged = progress.done() - changed - failed;
    drop(progress);
    if failed > 0 {
        rows.finish()?;
    }
    eprintln!("{} {changed} records; {unchanged} needed no change, and {failed} failed", work.past());
    Ok(Exit::found(failed > 0))
}

impl Work {
    const fn past(self) -> &'static str {
        match self {
            Self::Reseal => "resealed",
            Self::Seal => "sealed",
            Self::Unseal => "unsealed",
        }
    }

    /// Returns whether the record was changed. A record is not read if its hint shows that nothing has to be done.
    async fn act(
        self,
        tokens: &Tokens,
        ring: &KeyRing,
        key: &TokenKey,
        key_id: Option<&str>,
    ) -> Result<bool, TokensError> {
        match self {
            Self::Reseal if key_id == Some(&ring.primary_id()) => Ok(false),
            Self::Reseal => tokens.reseal(key).await,
            Self::Seal => tokens.seal_plaintext(key).await,
            Self::Unseal => tokens.dangerously_unseal(key).await,
        }
    }
}

/// What is wrong with one record.
///
/// # Errors
/// If the storage failed, so that the other records fail as well.
async fn about_one_record(opened: &Opened, error: TokensError) -> Result<String, OperateError> {
    match error {
        TokensError::Storage(StorageError::Conflict) => {
            Ok("other writers changed it too often; run the command again".to_owned())
        }
        TokensError::Storage(error) if !is_about_one_record(&error) => Err(opened.explain(error).await),
        error => Ok(problem(&error)),
    }
}
