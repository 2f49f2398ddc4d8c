//! Lists the tokens that expire soon.

use clap::Args;
use oauth_dance::Connector;
use oauth_dance_core::{Clock, Entry, Token, TokenKey};
use serde_json::Value;

use super::OperateError;
use super::records::{Examined, FilterArgs, Pages, examine_all, who};
use crate::exit::Exit;
use crate::keys::KeyArgs;
use crate::open::{Access, StorageArgs};
use crate::output::{OutputArgs, Rows, time};

const COLUMNS: [&str; 7] = ["tenant", "user", "provider", "account", "expires", "refreshable", "state"];
/// The columns that need no key.
const WITHOUT_STATE: usize = 5;

/// The options of `oauth-dance expiring`.
#[derive(Args, Debug)]
#[command(after_help = "Example: who has to log in again within a day, because there is no refresh token?
  oauth-dance expiring --within 1day --final --storage sqlite:tokens.db --key-file keys")]
pub struct ExpiringOptions {
    /// How soon the access token expires, such as 90s, 1h or 2days; those that have expired are included
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub within: std::time::Duration,
    /// Only tokens that cannot be refreshed, whose users have to log in again; needs the keys
    #[arg(long = "final")]
    pub only_final: bool,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The keys. Without them, `refreshable` and `state` are not shown.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(options: &ExpiringOptions) -> Result<Exit, OperateError> {
    let keys = if options.only_final { Some(options.keys.require().await?) } else { options.keys.load().await? };
    let opened = options.storage.open(Access::Read).await?;
    let tokens = keys.map(|keys| keys.tokens(&opened.storage));
    let columns = if tokens.is_some() { &COLUMNS[..] } else { &COLUMNS[..WITHOUT_STATE] };
    let mut rows = Rows::new(options.output, columns);
    let filter = options.filter.filter().expiring_before(Clock::system().now().saturating_add(options.within));
    let mut pages = Pages::new(&opened, filter);
    while let Some(page) = pages.next().await? {
        let mut printed = Vec::new();
        match &tokens {
            None => printed.extend(page.iter().map(hints)),
            Some(tokens) => {
                for (entry, examined) in page.iter().zip(examine_all(&opened, tokens, &page).await?) {
                    let refreshable = is_refreshable(&entry.key, &examined);
                    let wanted = !options.only_final || refreshable == Some(false);
                    if wanted && !matches!(examined, Examined::Gone) {
                        let [state, _] = examined.state();
                        printed.push([hints(entry), vec![refreshable.into(), state]].concat());
                    }
                }
            }
        }
        if !printed.is_empty() {
            rows.print(&printed)?;
        }
    }
    rows.finish()?;
    Ok(Exit::Done)
}

/// Whether a token can be renewed without its user. `None` if the record cannot be read.
fn is_refreshable(key: &TokenKey, examined: &Examined) -> Option<bool> {
    let Examined::Readable(connection) = examined else { return None };
    if Connector::is_requested(key) {
        return Some(true);
    }
    Some(match &connection.token {
        Token::OAuth2(token) => token.refresh_token.is_some(),
        _ => false,
    })
}

/// The columns that need no key.
fn hints(entry: &Entry) -> Vec<Value> {
    let mut row = Vec::from(who(&entry.key));
    row.push(time(entry.expires_at));
    row
}
