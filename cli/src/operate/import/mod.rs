//! Imports the tokens that another library has stored.

mod flask_dance;
mod table;

use std::collections::HashMap;

use clap::{Args, Subcommand};
use futures_util::{StreamExt as _, stream};
use oauth_dance_core::{Clock, Precondition, StorageError, Token, TokenKey, Tokens, TokensError};

use super::OperateError;
use super::records::{AT_ONCE, is_about_one_record};
use crate::exit::Exit;
use crate::keys::KeyArgs;
use crate::open::{Access, Opened, StorageArgs};
use crate::output::{OutputArgs, print_fields, visible};
use crate::progress::Progress;

use table::Row;
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
    let keys = options.keys.require().await?;
    let opened = options.storage.open(Access::Write).await?;
    let tokens = keys.tokens(&opened.storage);
    let mut table = table::Table::open(options).await?;
    let mut import = Import { options, opened, tokens, counts: Counts::default(), progress: Progress::new("imported") };
    let mut newest = Newest::default();
    while let Some(rows) = table.next().await? {
        let mut complete = Vec::new();
        for row in rows {
            import.add(row, &mut newest, &mut complete);
        }
        import.store(complete).await?;
    }
    import.store(newest.take_all()).await?;
    let Import { counts, progress, .. } = import;
    drop(progress);
    counts.print(options.output)?;
    Ok(Exit::found(counts.failed > 0 || counts.without_user > 0))
}

/// An import that is running.
struct Import<'a> {
    options: &'a FlaskDanceOptions,
    opened: Opened,
    tokens: Tokens,
    counts: Counts,
    progress: Progress,
}

/// A row's token.
struct Found {
    row: String,
    /// The same as a number, if it is one.
    number: Option<u64>,
    token: Token,
}

/// The newest token of each key, for the users whose rows are not complete. Flask-Dance can store several tokens of a key:
/// the one that expires last is used, and of equal ones the last.
#[derive(Default)]
struct Newest {
    /// The user of the rows that are being read.
    user: Option<String>,
    of_user: HashMap<TokenKey, Found>,
    /// Of the user that rows without one get, until the last row, because that user can have other rows.
    of_others: HashMap<TokenKey, Found>,
}

impl Newest {
    fn take_all(self) -> Vec<(TokenKey, Found)> {
        self.of_user.into_iter().chain(self.of_others).collect()
    }
}

impl Import<'_> {
    /// Adds a row. The tokens of the user before are complete if it is of another user.
    fn add(&mut self, row: Row, newest: &mut Newest, complete: &mut Vec<(TokenKey, Found)>) {
        if row.user != newest.user {
            complete.extend(newest.of_user.drain());
            newest.user.clone_from(&row.user);
        }
        let others = self.options.user_of_others.as_ref();
        let Some(user) = row.user.clone().or_else(|| others.cloned()) else {
            self.counts.without_user += 1;
            self.report(&format!("row {} has no user and is skipped; set one with --user-of-others", visible(&row.id)));
            return;
        };
        let tokens = if Some(&user) == others { &mut newest.of_others } else { &mut newest.of_user };
        let key = key(self.options, &row.provider, user);
        let parsed = key.and_then(|key| Ok((key, flask_dance::token(&row.token, row.created_at)?)));
        let (key, token) = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => {
                self.counts.failed += 1;
                self.report(&format!("row {}: {problem}", visible(&row.id)));
                return;
            }
        };
        let found = Found { number: row.id.parse().ok(), row: row.id, token };
        let Some(other) = tokens.get(&key) else {
            tokens.insert(key, found);
            return;
        };
        self.counts.duplicates += 1;
        // A token without an expiry is newer than one that has expired.
        let now = Clock::system().now();
        let order = |found: &Found| {
            let expires_at = found.token.expires_at();
            (expires_at.is_none_or(|at| at > now), expires_at, found.number)
        };
        let is_newer = order(&found) >= order(other);
        let (used, dropped) = if is_newer { (&found.row, &other.row) } else { (&other.row, &found.row) };
        let (used, dropped, owner) = (visible(used), visible(dropped), visible(&key.to_string()));
        self.report(&format!("rows {dropped} and {used} both belong to {owner}; row {used} is used"));
        if is_newer {
            tokens.insert(key, found);
        }
    }

    /// Stores tokens, several at the same time. What is stored already remains.
    async fn store(&mut self, found: Vec<(TokenKey, Found)>) -> Result<(), OperateError> {
        let tokens = &self.tokens;
        let puts = found.iter().map(|(key, found)| tokens.put(key, &found.token, Precondition::Absent));
        let mut outcomes = stream::iter(puts).buffered(AT_ONCE).zip(stream::iter(&found));
        while let Some((outcome, (_, found))) = outcomes.next().await {
            match outcome {
                Ok(_) => self.counts.imported += 1,
                Err(TokensError::Storage(StorageError::Conflict)) => self.counts.stored_already += 1,
                Err(TokensError::Storage(error)) if is_about_one_record(&error) => {
                    self.counts.failed += 1;
                    self.progress.suspend(|| eprintln!("row {}: {error}", visible(&found.row)));
                }
                Err(TokensError::Storage(error)) => return Err(self.opened.explain(error).await),
                Err(other) => return Err(self.opened.explain(StorageError::unavailable(other)).await),
            }
            self.progress.add(1);
        }
        Ok(())
    }

    fn report(&self, message: &str) {
        self.progress.suspend(|| eprintln!("{message}"));
    }
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
