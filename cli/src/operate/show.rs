//! Shows the tokens of a user without their secrets.

use std::time::Duration;

use clap::Args;
use oauth_dance_core::{
    Clock, ConnectionState, Entry, OAuth2Token, Record, StorageError, Timestamp, Token, Tokens, Versioned,
};
use serde_json::Value;

use super::OperateError;
use super::records::{Examined, FilterArgs, Pages, examine_all, who};
use crate::exit::Exit;
use crate::keys::KeyArgs;
use crate::open::{Access, Opened, StorageArgs};
use crate::output::{OutputArgs, print_fields, time};

/// The options of `oauth-dance show`.
#[derive(Args, Debug)]
#[command(after_help = "Example: why was this user logged out?
  oauth-dance show 42 --storage postgres://db/app --key-file keys")]
pub struct ShowOptions {
    /// The user, in every tenant unless --tenant is given
    pub user: String,
    /// Only this tenant; "" selects the records without a tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The keys.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Exits with 1 if nothing is stored for the user.
pub(super) async fn run(options: &ShowOptions) -> Result<Exit, OperateError> {
    let keys = options.keys.require().await?;
    let opened = options.storage.open(Access::Read).await?;
    let tokens = keys.tokens(&opened.storage);
    let (tenant, provider) = (options.tenant.clone(), options.provider.clone());
    let filter = FilterArgs { tenant, user: Some(options.user.clone()), provider }.filter();
    let mut pages = Pages::new(&opened, filter);
    let mut shown = 0;
    while let Some(page) = pages.next().await? {
        let examined = examine_all(&opened, &tokens, &page).await?;
        for (entry, examined) in page.iter().zip(&examined) {
            let Some(fields) = fields(&opened, &tokens, entry, examined).await? else { continue };
            if shown > 0 && !options.output.json {
                crate::output::blank_line()?;
            }
            print_fields(options.output, &fields)?;
            shown += 1;
        }
    }
    if shown == 0 {
        eprintln!("nothing is stored for this user");
    }
    Ok(Exit::found(shown == 0))
}

/// Everything about a record except its secrets. `None` if the record was removed.
async fn fields(
    opened: &Opened,
    tokens: &Tokens,
    entry: &Entry,
    examined: &Examined,
) -> Result<Option<Vec<(&'static str, Value)>>, OperateError> {
    let record = match tokens.storage().get(&entry.key).await {
        Ok(None) => return Ok(None),
        Ok(Some(Versioned { value, .. })) => Some(value),
        Err(StorageError::Corrupt { .. }) => None,
        Err(error) => return Err(opened.explain(error).await),
    };
    let now = Clock::system().now();
    let [tenant, user, provider, account] = who(&entry.key);
    let [state, reason] = examined.state();
    let mut fields = vec![
        ("user", user),
        ("tenant", tenant),
        ("provider", provider),
        ("account", account),
        ("state", state),
        ("reason", reason),
    ];
    fields.extend(times(examined));
    fields.push(("expires", time(entry.expires_at)));
    fields.extend(contents(examined));
    fields.extend([
        ("key_id", entry.key_id.clone().into()),
        ("size", record.as_ref().map(|record| record.payload.len()).into()),
        ("retained_until", time(record.and_then(|record| end_of_retention(&record, now)))),
    ]);
    Ok(Some(fields))
}

/// The beginning of a state, and when the refresh is retried.
fn times(examined: &Examined) -> [(&'static str, Value); 2] {
    let (mut since, mut until) = (None, None);
    if let Examined::Readable(connection) = examined {
        match connection.state {
            ConnectionState::NeedsAuthorization { since: known, .. } => since = Some(known),
            ConnectionState::BackingOff { until: retried, .. } => until = Some(retried),
            _ => {}
        }
    }
    [("since", time(since)), ("retried", time(until))]
}

/// The properties of a token, without its secrets.
fn contents(examined: &Examined) -> [(&'static str, Value); 4] {
    let token = match examined {
        Examined::Readable(connection) => Some(&connection.token),
        Examined::Gone | Examined::Unreadable(_) => None,
    };
    let oauth2: Option<&OAuth2Token> = token.and_then(Token::as_oauth2);
    let kind = token.map(|token| if token.as_oauth2().is_some() { "OAuth 2.0" } else { "OAuth 1.0a" });
    [
        ("protocol", kind.into()),
        ("issued", time(oauth2.and_then(|token| token.issued_at))),
        ("refresh_token", oauth2.map(|token| token.refresh_token.is_some()).into()),
        ("scope", token.and_then(Token::scope).map(|scope| scope.join(" ")).into()),
    ]
}

fn end_of_retention(record: &Record, now: Timestamp) -> Option<Timestamp> {
    record.retain_for.map(|left: Duration| now.saturating_add(left))
}
