//! Imports the tokens that another library has stored.

mod flask_dance;
mod table;

use std::collections::HashMap;

use clap::{Args, Subcommand};
use oauth_dance_core::{Precondition, StorageError, Token, TokenKey, TokensError};

use super::OperateError;
use crate::exit::Exit;
use crate::keys::KeyArgs;
use crate::open::{Access, StorageArgs};
use crate::output::{OutputArgs, print_fields, visible};
use crate::progress::Progress;

pub use table::SourceError;

/// What to import from.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Import the table of Flask-Dance's SQLAlchemyStorage; never overwrites a token
    FlaskDance(FlaskDanceOptions),
}

/// The options of `oauth-dance import flask-dance`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  oauth-dance import flask-dance --from postgres://db/flask --storage postgres://db/app --key-file keys

A token that is already stored remains, so the command can be run again. A refresh token that was imported must not be \
used by Flask-Dance any more: stop the old application first.")]
pub struct FlaskDanceOptions {
    /// The database of Flask-Dance: sqlite:FILE, postgres://… or mysql://…
    #[arg(long, value_name = "URL", env = "OAUTH_DANCE_IMPORT_FROM", hide_env_values = true)]
    pub from: String,
    /// The table of the model that inherits from OAuthConsumerMixin
    #[arg(long = "from-table", value_name = "NAME", default_value = "flask_dance_oauth")]
    pub from_table: String,
    /// The column with the user's id
    #[arg(long, value_name = "NAME", default_value = "user_id")]
    pub user_column: String,
    /// The user of rows that have none; without this option, such rows are skipped
    #[arg(long, value_name = "ID")]
    pub user_of_others: Option<String>,
    /// The tenant of all imported tokens
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The storage to write.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The keys.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The outcomes of all rows.
#[derive(Default)]
struct Counts {
    imported: u64,
    stored_already: u64,
    duplicates: u64,
    without_user: u64,
    failed: u64,
}

pub(super) async fn run(command: &ImportCommand) -> Result<Exit, OperateError> {
    let ImportCommand::FlaskDance(options) = command;
    let keys = options.keys.require()?;
    let opened = options.storage.open(Access::Write).await?;
    let tokens = keys.tokens(&opened.storage);
    let rows = table::read(options).await?;
    let mut counts = Counts::default();
    let newest = newest(options, rows, &mut counts);
    let mut progress = Progress::new("imported");
    for (key, found) in newest {
        match tokens.put(&key, &found.token, Precondition::Absent).await {
            Ok(_) => counts.imported += 1,
            Err(TokensError::Storage(StorageError::Conflict)) => counts.stored_already += 1,
            Err(TokensError::Storage(error)) if super::records::is_about_one_record(&error) => {
                progress.suspend(|| eprintln!("row {}: {error}", found.row));
                counts.failed += 1;
            }
            Err(TokensError::Storage(error)) => return Err(opened.explain(error).await),
            Err(other) => return Err(opened.explain(StorageError::unavailable(other)).await),
        }
        progress.add(1);
    }
    drop(progress);
    counts.print(options.output)?;
    Ok(Exit::found(counts.failed > 0 || counts.without_user > 0))
}

/// The token of a row.
struct Found {
    row: String,
    token: Token,
}

/// Selects one token for each key, because Flask-Dance may have stored several. The token that expires last is used,
/// and the last row if they expire at the same time.
fn newest(options: &FlaskDanceOptions, rows: Vec<table::Row>, counts: &mut Counts) -> HashMap<TokenKey, Found> {
    let mut newest: HashMap<TokenKey, Found> = HashMap::new();
    for row in rows {
        let Some(user) = row.user.clone().or_else(|| options.user_of_others.clone()) else {
            counts.without_user += 1;
            eprintln!("row {} has no user and is skipped; name one with --user-of-others", visible(&row.id));
            continue;
        };
        let key = key(options, &row.provider, user);
        let parsed = key.and_then(|key| Ok((key, flask_dance::token(&row.token, row.created_at)?)));
        let (key, token) = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => {
                counts.failed += 1;
                eprintln!("row {}: {problem}", visible(&row.id));
                continue;
            }
        };
        let found = Found { row: row.id, token };
        let Some(other) = newest.get(&key) else {
            newest.insert(key, found);
            continue;
        };
        counts.duplicates += 1;
        let is_newer = found.token.expires_at() >= other.token.expires_at();
        let (used, dropped) = if is_newer { (&found.row, &other.row) } else { (&other.row, &found.row) };
        eprintln!(
            "rows {} and {} are both of {}; row {} is used",
            visible(dropped),
            visible(used),
            visible(&key.to_string()),
            visible(used)
        );
        if is_newer {
            newest.insert(key, found);
        }
    }
    newest
}

fn key(options: &FlaskDanceOptions, provider: &str, user: String) -> Result<TokenKey, &'static str> {
    let key = TokenKey::new(provider, user);
    let key = match &options.tenant {
        Some(tenant) => key.and_then(|key| key.with_tenant(tenant)),
        None => key,
    };
    key.map_err(|_| "the provider or the user is empty")
}

impl Counts {
    fn print(&self, output: OutputArgs) -> Result<(), OperateError> {
        let fields = [
            ("imported", self.imported.into()),
            ("stored_already", self.stored_already.into()),
            ("duplicates", self.duplicates.into()),
            ("without_user", self.without_user.into()),
            ("failed", self.failed.into()),
        ];
        Ok(print_fields(output, &fields)?)
    }
}
