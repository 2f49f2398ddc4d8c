//! Counts the tokens of each provider by their state.

use std::collections::BTreeMap;

use clap::Args;
use oauth_dance_core::{ConnectionState, Entry};
use serde_json::Value;

use super::OperateError;
use super::records::{Examined, Pages, RecordsArgs, examine_all};
use crate::exit::Exit;
use crate::open::Access;
use crate::output::Rows;
use crate::progress::Progress;

const COLUMNS: [&str; 7] =
    ["provider", "tokens", "valid", "expiring", "backing_off", "needs_authorization", "unreadable"];

/// The options of `oauth-dance stats`.
#[derive(Args, Debug)]
#[command(after_help = "Example: how many users of each provider have to log in again?
  oauth-dance stats --storage redis://cache.example --key-file keys")]
pub struct StatsOptions {
    /// Which records of which storage, and how to print.
    #[command(flatten)]
    pub records: RecordsArgs,
}

/// The number of records of one provider in each state.
#[derive(Default)]
struct Counts {
    tokens: u64,
    valid: u64,
    expiring: u64,
    backing_off: u64,
    needs_authorization: u64,
    unreadable: u64,
}

pub(super) async fn run(options: &StatsOptions) -> Result<Exit, OperateError> {
    let keys = options.records.keys.require().await?;
    let opened = options.records.storage.open(Access::Read).await?;
    let tokens = keys.tokens(&opened.storage);
    let mut providers: BTreeMap<String, Counts> = BTreeMap::new();
    let mut pages = Pages::new(&opened, options.records.filter.filter());
    let mut progress = Progress::new("counted");
    while let Some(page) = pages.next().await? {
        for (Entry { key, .. }, examined) in page.iter().zip(examine_all(&opened, &tokens, &page).await?) {
            providers.entry(key.provider().to_owned()).or_default().add(&examined);
        }
        progress.add(page.len() as u64);
    }
    drop(progress);
    let mut rows = Rows::new(options.records.output, &COLUMNS);
    rows.print(&providers.into_iter().map(|(provider, counts)| counts.row(provider)).collect::<Vec<_>>())?;
    rows.finish()?;
    Ok(Exit::Done)
}

impl Counts {
    fn add(&mut self, examined: &Examined) {
        let state = match examined {
            Examined::Gone => return,
            Examined::Unreadable(_) => &mut self.unreadable,
            Examined::Readable(connection) => match connection.state {
                ConnectionState::Valid => &mut self.valid,
                ConnectionState::BackingOff { .. } => &mut self.backing_off,
                ConnectionState::NeedsAuthorization { .. } => &mut self.needs_authorization,
                // The other states are about to be refreshed, or are being refreshed.
                _ => &mut self.expiring,
            },
        };
        *state += 1;
        self.tokens += 1;
    }

    fn row(&self, provider: String) -> Vec<Value> {
        let numbers =
            [self.tokens, self.valid, self.expiring, self.backing_off, self.needs_authorization, self.unreadable];
        std::iter::once(provider.into()).chain(numbers.map(Value::from)).collect()
    }
}
