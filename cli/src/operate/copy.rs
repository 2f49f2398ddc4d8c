//! Copies or moves all records to another storage.

use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use oauth_dance_core::{Copied, Copier, CopyError, Filter, Migrating, Moved, PageRequest, StorageError, TokenKey};

use super::OperateError;
use super::records::{AT_ONCE, Pages, is_about_one_record};
use crate::exit::Exit;
use crate::migrate::Table;
use crate::open::{self, Access, Opened, Place};
use crate::output::{OutputArgs, print_fields, visible};
use crate::progress::Progress;

/// The options of `oauth-dance copy`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  Copy the tokens of a stopped application, and compare every record:
  oauth-dance copy --from sqlite:tokens.db --to postgres://db/app --verify

  Move what is left in the old storage, while all processes use both (docs/operating.md, step 3):
  oauth-dance copy --move --verify --from postgres://db/app --to redis://cache.example")]
pub struct CopyOptions {
    /// The storage to read: sqlite:FILE, postgres://…, mysql://…, redis://… and so on
    #[arg(long, value_name = "URL", env = "OAUTH_DANCE_COPY_FROM", hide_env_values = true)]
    pub from: String,
    /// The table to read [default: oauth_dance_tokens]
    #[arg(long, value_name = "NAME")]
    pub from_table: Option<String>,
    /// The schema of the table to read
    #[arg(long, value_name = "NAME")]
    pub from_schema: Option<String>,
    /// The prefix to read in Redis [default: oauth-dance]
    #[arg(long, value_name = "NAME")]
    pub from_prefix: Option<String>,
    /// The storage to write
    #[arg(long, value_name = "URL", env = "OAUTH_DANCE_COPY_TO", hide_env_values = true)]
    pub to: String,
    /// The table to write [default: oauth_dance_tokens]
    #[arg(long, value_name = "NAME")]
    pub to_table: Option<String>,
    /// The schema of the table to write
    #[arg(long, value_name = "NAME")]
    pub to_schema: Option<String>,
    /// The prefix to write in Redis [default: oauth-dance]
    #[arg(long, value_name = "NAME")]
    pub to_prefix: Option<String>,
    /// Remove each record from --from once it is in --to; safe while all processes use both storages
    #[arg(long = "move", conflicts_with = "mirror")]
    pub moves: bool,
    /// Also replace what is different in --to, and remove what is not in --from; only for a --to that is not in use yet
    #[arg(long)]
    pub mirror: bool,
    /// Compare all records afterwards; exits with 1 if one differs. With --move, compare each before it is removed, and
    /// afterwards count what is left in --from
    #[arg(long)]
    pub verify: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The outcomes of all records.
#[derive(Default)]
struct Counts {
    copied: u64,
    same: u64,
    newer: u64,
    gone: u64,
    failed: u64,
    different: Option<u64>,
    left: Option<u64>,
}

/// The two storages.
struct Pair {
    from: Opened,
    to: Opened,
}

/// Exits with 1 if a record was not copied, is different, or was left behind by a move.
pub(super) async fn run(options: &CopyOptions) -> Result<Exit, OperateError> {
    let (name, schema, prefix) = (&options.from_table, &options.from_schema, &options.from_prefix);
    let table = Table { name: name.clone(), schema: schema.clone() };
    let from = Place { table, prefix: prefix.clone(), options: "from-" };
    let (name, schema, prefix) = (&options.to_table, &options.to_schema, &options.to_prefix);
    let table = Table { name: name.clone(), schema: schema.clone() };
    let to = Place { table, prefix: prefix.clone(), options: "to-" };
    let access = if options.moves { Access::Write } else { Access::Read };
    let pair = Pair {
        from: open::open(&options.from, &from, access).await?,
        to: open::open(&options.to, &to, Access::Write).await?,
    };
    pair.reject_same().await?;

    let copier = Copier::new(Arc::clone(&pair.from.storage), Arc::clone(&pair.to.storage));
    let copier = if options.mirror { copier.mirroring() } else { copier };
    let migrating = Migrating::new(Arc::clone(&pair.to.storage), Arc::clone(&pair.from.storage));
    let migrating = if options.verify { migrating.verifying() } else { migrating };
    let mut counts = Counts::default();
    let copy = async |key: &TokenKey| match options.moves {
        true => migrating.move_record(key).await.map(Outcome::from),
        false => copier.copy(key).await.map(Outcome::from),
    };
    pair.each(&pair.from, "copied", &copy, |outcome| counts.add(outcome)).await?;
    if options.mirror {
        // This finds the records that only the target has.
        pair.each(&pair.to, "compared", &copy, |outcome| {
            if matches!(outcome, Outcome::Gone | Outcome::Failed) {
                counts.add(outcome);
            }
        })
        .await?;
    }
    if options.verify && options.moves {
        counts.left = Some(pair.left().await?);
    } else if options.verify {
        let mut different = 0;
        let compare = async |key: &TokenKey| {
            copier.is_same(key).await.map(|same| if same { Outcome::Same } else { Outcome::Newer })
        };
        pair.each(&pair.from, "verified", &compare, |outcome| different += u64::from(outcome != Outcome::Same)).await?;
        counts.different = Some(different);
    }
    counts.print(options.output)?;
    let is_incomplete =
        [Some(counts.failed), counts.different, counts.left].into_iter().flatten().any(|count| count > 0);
    Ok(Exit::found(is_incomplete))
}

/// The outcome of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    Same,
    Newer,
    Gone,
    Failed,
}

impl From<Copied> for Outcome {
    fn from(copied: Copied) -> Self {
        match copied {
            Copied::Written => Self::Written,
            Copied::Same => Self::Same,
            Copied::Newer => Self::Newer,
            _ => Self::Gone,
        }
    }
}

impl From<Moved> for Outcome {
    fn from(moved: Moved) -> Self {
        match moved {
            Moved::Written => Self::Written,
            Moved::Newer => Self::Newer,
            _ => Self::Gone,
        }
    }
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Written => &mut self.copied,
            Outcome::Same => &mut self.same,
            Outcome::Newer => &mut self.newer,
            Outcome::Gone => &mut self.gone,
            Outcome::Failed => &mut self.failed,
        };
        *count += 1;
    }

    fn print(&self, output: OutputArgs) -> Result<(), OperateError> {
        let mut fields = vec![
            ("copied", self.copied.into()),
            ("already_there", self.same.into()),
            ("already_newer", self.newer.into()),
            ("removed_meanwhile", self.gone.into()),
            ("failed", self.failed.into()),
        ];
        if let Some(different) = self.different {
            fields.push(("different", different.into()));
        }
        if let Some(left) = self.left {
            fields.push(("left_in_source", left.into()));
        }
        Ok(print_fields(output, &fields)?)
    }
}

impl Pair {
    /// Calls `act` with the key of each record. A record that fails is reported and skipped.
    async fn each<E>(
        &self,
        listed: &Opened,
        verb: &'static str,
        act: &E,
        mut count: impl FnMut(Outcome),
    ) -> Result<(), OperateError>
    where
        E: AsyncFn(&TokenKey) -> Result<Outcome, CopyError>,
    {
        let mut progress = Progress::new(verb);
        let mut pages = Pages::of_everything(listed, Filter::everything());
        while let Some(page) = pages.next().await? {
            let acts = page.iter().map(|entry| act(&entry.key));
            let mut outcomes = stream::iter(acts).buffered(AT_ONCE);
            let mut keys = page.iter().map(|entry| &entry.key);
            while let (Some(outcome), Some(key)) = (outcomes.next().await, keys.next()) {
                match outcome {
                    Ok(outcome) => count(outcome),
                    Err(error) => {
                        let problem = self.problem(error).await?;
                        progress.suspend(|| eprintln!("{}: {problem}", visible(&key.to_string())));
                        count(Outcome::Failed);
                    }
                }
                progress.add(1);
            }
        }
        Ok(())
    }

    /// The number of records that a move has left behind.
    async fn left(&self) -> Result<u64, OperateError> {
        let mut pages = Pages::of_everything(&self.from, Filter::everything());
        let mut left = 0;
        while let Some(page) = pages.next().await? {
            left += page.len() as u64;
        }
        Ok(left)
    }

    /// What is wrong with one record.
    ///
    /// # Errors
    /// If the storage failed, so that the other records fail as well.
    async fn problem(&self, error: CopyError) -> Result<String, OperateError> {
        let (opened, error) = match error {
            CopyError::Source(error) => (&self.from, error),
            CopyError::Target(error) => (&self.to, error),
            other => return Ok(other.to_string()),
        };
        match is_about_one_record(&error) {
            true => Ok(error.to_string()),
            false => Err(opened.explain(error).await),
        }
    }

    /// Rejects two URLs of the same storage, which has the same version of a record because versions are unique.
    async fn reject_same(&self) -> Result<(), OperateError> {
        let first = PageRequest { after: None, limit: 1 };
        let page = match self.from.storage.list(&Filter::everything(), first).await {
            Ok(page) => page,
            Err(error) => return Err(self.from.explain(error).await),
        };
        for entry in page.entries {
            match self.to.storage.get(&entry.key).await {
                Ok(Some(found)) if found.version == entry.version => return Err(OperateError::SameStorage),
                Ok(_) | Err(StorageError::Corrupt { .. } | StorageError::KeyTooLong { .. }) => {}
                Err(error) => return Err(self.to.explain(error).await),
            }
        }
        Ok(())
    }
}
