//! Removes the records past their retention.

use clap::Args;

use super::OperateError;
use crate::exit::Exit;
use crate::open::{Access, StorageArgs};
use crate::output::{OutputArgs, print_fields};
use crate::progress::Progress;

/// The number of records that are removed at a time, so that the application can use the storage in between.
const BATCH: usize = 1000;

/// The options of `oauth-dance purge`.
#[derive(Args, Debug)]
#[command(after_help = "Example: once an hour, by cron
  oauth-dance purge --storage postgres://db/app --json")]
pub struct PurgeOptions {
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(options: &PurgeOptions) -> Result<Exit, OperateError> {
    let opened = options.storage.open(Access::Write).await?;
    let mut progress = Progress::new("purged");
    loop {
        let purged = match opened.storage.purge(BATCH).await {
            Ok(purged) => purged,
            Err(error) => return Err(opened.explain(error).await),
        };
        progress.add(purged);
        if purged < BATCH as u64 {
            break;
        }
    }
    let purged = progress.done();
    drop(progress);
    print_fields(options.output, &[("purged", purged.into())])?;
    Ok(Exit::Done)
}
