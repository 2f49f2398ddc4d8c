//! Lists the stored tokens.

use clap::Args;
use oauth_dance_core::Entry;
use serde_json::Value;

use super::OperateError;
use super::records::{Examined, FilterArgs, Pages, examine_all, who};
use crate::exit::Exit;
use crate::keys::KeyArgs;
use crate::open::{Access, StorageArgs};
use crate::output::{OutputArgs, Rows, time};

const COLUMNS: [&str; 8] = ["tenant", "user", "provider", "account", "expires", "key_id", "state", "reason"];
/// The columns that need no key.
const WITHOUT_STATE: usize = 6;

/// The options of `oauth-dance list`.
#[derive(Args, Debug)]
#[command(after_help = "Example: the tokens of one provider whose users have to log in again
  oauth-dance list --storage postgres://db/app --provider github --state --key-file keys | grep needs_authorization")]
pub struct ListOptions {
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Open each token, and show its state
    #[arg(long)]
    pub state: bool,
    /// The keys.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(options: &ListOptions) -> Result<Exit, OperateError> {
    let keys = if options.state { Some(options.keys.require().await?) } else { None };
    let opened = options.storage.open(Access::Read).await?;
    let tokens = keys.map(|keys| keys.tokens(&opened.storage));
    let columns = if tokens.is_some() { &COLUMNS[..] } else { &COLUMNS[..WITHOUT_STATE] };
    let mut rows = Rows::new(options.output, columns);
    let mut pages = Pages::new(&opened, options.filter.filter());
    while let Some(page) = pages.next().await? {
        let printed: Vec<_> = match &tokens {
            None => page.iter().map(hints).collect(),
            Some(tokens) => {
                let examined = examine_all(&opened, tokens, &page).await?;
                let both = page.iter().zip(&examined).filter(|(_, examined)| !matches!(examined, Examined::Gone));
                both.map(|(entry, examined)| [hints(entry), examined.state().into()].concat()).collect()
            }
        };
        if !printed.is_empty() {
            rows.print(&printed)?;
        }
    }
    rows.finish()?;
    Ok(Exit::Done)
}

/// The columns that need no key.
fn hints(entry: &Entry) -> Vec<Value> {
    let mut row = Vec::from(who(&entry.key));
    row.extend([time(entry.expires_at), entry.key_id.clone().into()]);
    row
}
