//! Removes all tokens of a user.

use clap::Args;

use super::OperateError;
use super::forget::{COLUMNS, Remover, RevocationArgs};
use super::records::{FilterArgs, Pages};
use crate::exit::Exit;
use crate::open::StorageArgs;
use crate::output::{OutputArgs, Rows};

/// The options of `oauth-dance erase-user`.
#[derive(Args, Debug)]
#[command(after_help = "Example: all that is stored of one person, revoked at each provider first
  oauth-dance erase-user 42 --storage postgres://db/app --config providers.toml --key-file keys

Disable the user's login in the application first. If the command is interrupted, run it again.")]
pub struct EraseOptions {
    /// The user, in every tenant unless --tenant is given
    pub user: String,
    /// Only this tenant; "" selects the records without a tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// How to revoke.
    #[command(flatten)]
    pub revocation: RevocationArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Removes all tokens of a user. Exits with 1 if a token could not be removed.
pub(super) async fn run(options: &EraseOptions) -> Result<Exit, OperateError> {
    let remover = Remover::new(&options.storage, &options.revocation).await?;
    let filter = FilterArgs { tenant: options.tenant.clone(), user: Some(options.user.clone()), provider: None };
    let mut pages = Pages::new(remover.opened(), filter.filter());
    let mut rows = Rows::new(options.output, &COLUMNS);
    let (mut removed, mut left) = (0_u64, 0_u64);
    while let Some(page) = pages.next().await? {
        for entry in page {
            let removal = remover.remove(&entry.key).await?;
            removed += u64::from(removal.removed);
            left += u64::from(removal.is_left);
            rows.print(&[removal.into_row()])?;
            rows.flush()?;
        }
    }
    if removed + left > 0 {
        rows.finish()?;
    }
    eprintln!("removed {removed} tokens of this user, and left {left} that could not be revoked");
    Ok(Exit::found(left > 0))
}
